"""The conformance suite on tables: in memory, on Azurite, and on moto's DynamoDB."""

from __future__ import annotations

import time
from functools import partial

import pytest

from agent_stores.backend import ThreadKey
from agent_stores.backends.tables import keys
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.backends.tables.table import TableLimits
from agent_stores.log import MessageLog
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Target
from tests.tables.memory_table import LIMITS, MemoryTable

SMALL = TableLimits(
    operations=12,
    transaction_bytes=200_000,
    item_bytes=60_000,
    body_bytes=16 * 1024 * 1024,
    snapshot_pages=False,
)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    async def advance(self, seconds: float) -> None:
        self.ahead += seconds


@pytest.fixture(params=["memory", "memory-small"])
async def target(request: pytest.FixtureRequest) -> Target:
    clock = Clock()
    table = MemoryTable(LIMITS) if request.param == "memory" else MemoryTable(SMALL, page=7)

    async def corrupt(key: ThreadKey, position: int) -> None:
        items = table.partitions[keys.thread_partition(key)]
        for sort, item in items.items():
            if sort[0] == "r" and keys.message_place(sort)[2] == position:
                items[sort] = item._replace(body='{"role": ')

    # Each opening is a client with a memory of its own, as on another host.
    return Target(
        request.param,
        open_log=lambda: MessageLog(TablesBackend(table, clock=clock), clock=clock),
        corrupt=corrupt,
        advance=clock.advance,
    )
