"""The conformance suite on Azure Tables, as Azurite has them."""

from __future__ import annotations

import time
import uuid
from functools import partial

import pytest

from agent_stores.azure import AzureTableMessageLog
from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Target
from tests.servers.azurite import AzuriteServer


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    async def advance(self, seconds: float) -> None:
        self.ahead += seconds


@pytest.fixture
async def target(azurite_server: AzuriteServer) -> Target:
    clock = Clock()
    text = azurite_server.connection_string
    table = f"conformance{uuid.uuid4().hex[:12]}"  # Azurite looks through a whole table for each query

    async def corrupt(key: ThreadKey, position: int) -> None:
        log = AzureTableMessageLog(text, table_name=table)

        async def spoil(call: Call) -> None:
            entity = await call.get(keys.thread_partition(key), keys.message_row(position))
            assert entity is not None
            entity["body"] = '{"role": '
            await call.upsert(entity)

        await log._server.run(spoil, write=True)
        await log.aclose()

    # Each opening is a client of its own, as on another host; options that differ keep connections apart.
    return Target(
        "azurite",
        open_log=lambda: AzureTableMessageLog(
            text, table_name=table, clock=clock, client_options={"user_agent": uuid.uuid4().hex}
        ),
        open_in_process=partial(AzureTableMessageLog, text, table_name=table, timeout=60),
        corrupt=corrupt,
        advance=clock.advance,
    )
