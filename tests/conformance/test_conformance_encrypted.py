"""The conformance suite with encryption, on each kind of backend."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_stores import InMemoryMessageLog, KeyRing, MessageLog, open_log
from agent_stores.backend import Limits, ThreadKey
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Clock, Target
from tests.tables.memory_table import MemoryTable

RING = KeyRing({"2026-11": bytes(range(32))}, "2026-11")


def open_encrypted(url: str, **options: Any) -> MessageLog:
    return open_log(url, encryption=KeyRing({"2026-11": bytes(range(32))}, "2026-11"), **options)


def corrupter(url: str, named: dict[str, str]) -> Callable[[ThreadKey, int], Awaitable[None]]:
    """What damages a stored message, below the encryption."""

    async def corrupt(key: ThreadKey, position: int) -> None:
        log = open_log(url, **named)
        snapshot = await log.backend.rows(key, after=position - 1, before=position + 1)
        assert snapshot is not None
        damaged = [msgspec.structs.replace(row, body=b'{"role": ') for row in snapshot.rows]
        await log.backend.commit(key, snapshot.thread, expected=snapshot.version, put=damaged)
        await log.aclose()

    return corrupt


@pytest.fixture(params=["memory", "memory-limited", "tables", "sqlite", "postgresql", "mariadb", "valkey9"])
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
    # Names of their own: threads of the plain suite have the same ids.
    if name == "valkey9":
        url = request.getfixturevalue("valkey_server").url
        named = {"key_prefix": "encrypted"}
        yield Target(
            name,
            open_log=lambda: open_encrypted(url, client_options={"client_name": uuid.uuid4().hex}, **named),
            open_in_process=partial(open_encrypted, url, timeout=60, **named),
            corrupt=corrupter(url, named),
        )
        return
    named = {"table_prefix": "encrypted_"}
    if name == "sqlite":
        url = str(tmp_path / "chat.db")
    else:
        url = request.getfixturevalue("mariadb_server" if name == "mariadb" else "postgres_server").url
    yield Target(
        name,
        open_log=lambda: open_encrypted(
            url, clock=clock, engine_options={"logging_name": f"client-{uuid.uuid4().hex}"}, **named
        ),
        open_in_process=partial(open_encrypted, url, timeout=60, **named),
        corrupt=corrupter(url, named),
        advance=clock.advance,
    )
