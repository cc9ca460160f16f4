"""The conformance suite, on every backend."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from agent_stores.backend import Limits, ThreadKey
from agent_stores.backends.sql.names import thread_digest
from agent_stores.database import DatabaseMessageLog
from agent_stores.memory import InMemoryMessageLog
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Clock, Target

SQL = ["sqlite", "postgresql", "postgresql+asyncpg", "mariadb"]


@pytest.fixture(params=["memory", "memory-limited", *SQL])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    clock = Clock()
    name: str = request.param
    if name.startswith("memory"):
        # The limits make large commits staged, as on table services.
        limits = Limits(commit_rows=4, commit_bytes=3_000_000) if name == "memory-limited" else None
        log = InMemoryMessageLog(clock=clock, limits=limits)
        yield Target(name, open_log=lambda: log, advance=clock.advance)
        return
    if name == "sqlite":
        url = str(tmp_path / "chat.db")
    else:
        server = request.getfixturevalue("mariadb_server" if name == "mariadb" else "postgres_server")
        url = server.url.replace("postgresql:", f"{name}:")
    # Each opening is a client of its own, as on another host; options that differ keep connections apart.
    yield Target(
        name,
        open_log=lambda: DatabaseMessageLog(url, clock=clock, engine_options=_apart()),
        open_in_process=partial(DatabaseMessageLog, url, timeout=60),
        corrupt=_corrupter(url),
        advance=clock.advance,
    )


def _apart() -> dict[str, str]:
    return {"logging_name": f"client-{uuid.uuid4().hex}"}


def _corrupter(url: str) -> Callable[[ThreadKey, int], Awaitable[None]]:
    async def corrupt(key: ThreadKey, position: int) -> None:
        log = DatabaseMessageLog(url)
        statement = (
            "UPDATE agent_stores_messages SET body = '{\"role\": ' WHERE position = :position "
            "AND thread = (SELECT id FROM agent_stores_threads WHERE thread_key = :key)"
        )
        step = log.backend.database.statements.make(statement)(key=thread_digest(key), position=position)
        await log.backend.database.run(step, write=True)
        await log.aclose()

    return corrupt
