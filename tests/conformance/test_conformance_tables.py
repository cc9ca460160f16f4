"""The conformance suite on tables: in memory, on Azurite, and on moto's DynamoDB."""

from __future__ import annotations

import itertools
import uuid
from functools import partial
from typing import Any, cast

import pytest
from azure.data.tables.aio import TableServiceClient

from agent_stores.azure import AzureTableMessageLog
from agent_stores.backend import ThreadKey
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.backends.tables.dynamodb import DynamoDBTable
from agent_stores.backends.tables.table import TableLimits, put, query_all
from agent_stores.dynamodb import DynamoDBMessageLog
from agent_stores.log import MessageLog
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Clock, Target
from tests.servers.azurite import AzuriteServer
from tests.servers.dynamodb import DynamoDBServer
from tests.tables.memory_table import LIMITS, MemoryTable

SMALL = TableLimits(
    operations=12,
    transaction_bytes=400_000,
    item_bytes=120_000,
    body_bytes=16 * 1024 * 1024,
    snapshot_pages=False,
)


def _azurite(server: AzuriteServer) -> Target:
    clock = Clock()
    text = server.connection_string
    name = f"conformance{uuid.uuid4().hex[:12]}"  # Azurite looks through a whole table for each query

    async def corrupt(key: ThreadKey, position: int) -> None:
        async with TableServiceClient.from_connection_string(text) as service:
            table = service.get_table_client(name)
            query = f"PartitionKey eq '{layout.thread_partition(key)}'"
            async for entity in table.query_entities(query):
                sort = entity["RowKey"]
                if sort[0] == "r" and layout.message_place(sort)[2] == position:
                    await table.upsert_entity({**entity, "body": '{"role": '})

    # Each opening is a client of its own, as on another host; options that differ keep connections apart.
    return Target(
        "azurite",
        open_log=lambda: AzureTableMessageLog(
            text, table_name=name, clock=clock, client_options={"user_agent": uuid.uuid4().hex}
        ),
        open_in_process=partial(AzureTableMessageLog, text, table_name=name, timeout=60),
        corrupt=corrupt,
        advance=clock.advance,
    )


def _dynamodb(server: DynamoDBServer) -> Target:
    clock = Clock()
    options: dict[str, Any] = {"region_name": server.region, "endpoint_url": server.endpoint}
    name = f"conformance-{uuid.uuid4().hex[:12]}"
    openings = itertools.count(1)

    async def corrupt(key: ThreadKey, position: int) -> None:
        log = DynamoDBMessageLog(name, **options)
        table = cast("DynamoDBTable", cast("TablesBackend", log.backend).table)
        for item in await query_all(table, layout.thread_partition(key), "r", "s"):
            if layout.message_place(item.sort)[2] == position:
                await table.transact([put(item._replace(body='{"role": '))])
        await log.aclose()

    # Each opening is a client of its own, as on another host; options that differ keep connections apart.
    return Target(
        "dynamodb",
        open_log=lambda: DynamoDBMessageLog(name, clock=clock, timeout=10 + next(openings) / 1000, **options),
        open_in_process=partial(DynamoDBMessageLog, name, timeout=60, **options),
        corrupt=corrupt,
        advance=clock.advance,
    )


@pytest.fixture(params=["memory", "memory-small", "azurite", "dynamodb"])
async def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "azurite":
        return _azurite(request.getfixturevalue("azurite_server"))
    if request.param == "dynamodb":
        return _dynamodb(request.getfixturevalue("dynamodb_server"))
    clock = Clock()
    table = MemoryTable(LIMITS) if request.param == "memory" else MemoryTable(SMALL, page=7)

    async def corrupt(key: ThreadKey, position: int) -> None:
        items = table.partitions[layout.thread_partition(key)]
        for sort, item in items.items():
            if sort[0] == "r" and layout.message_place(sort)[2] == position:
                items[sort] = item._replace(body='{"role": ')

    # Each opening is a client with a memory of its own, as on another host.
    return Target(
        request.param,
        open_log=lambda: MessageLog(TablesBackend(table, clock=clock), clock=clock),
        corrupt=corrupt,
        advance=clock.advance,
    )
