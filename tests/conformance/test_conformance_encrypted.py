"""The conformance suite with encryption, on each kind of backend."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent_stores import InMemoryMessageLog, KeyRing, MessageLog, open_log
from agent_stores.backend import Limits
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Clock, Target
from tests.tables.memory_table import MemoryTable

RING = KeyRing({"2026-11": bytes(range(32))}, "2026-11")


def open_encrypted(url: str, **options: Any) -> MessageLog:
    return open_log(url, encryption=KeyRing({"2026-11": bytes(range(32))}, "2026-11"), **options)


@pytest.fixture(params=["memory", "memory-limited", "tables", "sqlite", "postgresql", "valkey9"])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    clock = Clock()
    name: str = request.param
    if name.startswith("memory"):
        limits = Limits(commit_rows=4, commit_bytes=3_000_000) if name == "memory-limited" else None
        log = InMemoryMessageLog(clock=clock, limits=limits, encryption=RING)
        yield Target(name, open_log=lambda: log, advance=clock.advance)
        return
    if name == "tables":
        table = MemoryTable()
        yield Target(
            name,
            open_log=lambda: MessageLog(TablesBackend(table, clock=clock), clock=clock, encryption=RING),
            advance=clock.advance,
        )
        return
    if name == "valkey9":
        url = request.getfixturevalue("valkey_server").url
        yield Target(
            name,
            open_log=lambda: open_encrypted(url, client_options={"client_name": uuid.uuid4().hex}),
            open_in_process=partial(open_encrypted, url, timeout=60),
        )
        return
    if name == "sqlite":
        url = str(tmp_path / "chat.db")
    else:
        url = request.getfixturevalue("mariadb_server" if name == "mariadb" else "postgres_server").url
    yield Target(
        name,
        open_log=lambda: open_encrypted(
            url, clock=clock, engine_options={"logging_name": f"client-{uuid.uuid4().hex}"}
        ),
        open_in_process=partial(open_encrypted, url, timeout=60),
        advance=clock.advance,
    )
