"""Full-text search, on every backend that offers it, and what is special about the database's."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agent_stores import ChatMessage, ChatMessageStore, StoreRejectedError
from agent_stores.database import DatabaseMessageLog
from agent_stores.memory import InMemoryMessageLog
from agent_stores.search import MOST_TERMS, SearchableLog, search_terms
from agent_stores.stores.database import search as database_search
from agent_stores.testing.conformance.search import TestSearch
from agent_stores.testing.conformance.search import find as find
from agent_stores.testing.conformance.target import Target, anyio_backend, make_store

__all__ = ["TestSearch", "anyio_backend", "make_store"]

pytestmark = pytest.mark.anyio

DATABASES = ["sqlite", "postgresql", "postgresql+asyncpg"]


def url(request: pytest.FixtureRequest, name: str, folder: Path) -> str:
    if name == "sqlite":
        return str(folder / "chat.db")
    address: str = request.getfixturevalue("postgres_server").create_database(f"search-{uuid.uuid4().hex}")
    return address.replace("postgresql:", f"{name}:")


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    async def advance(self, seconds: float) -> None:
        self.ahead += seconds


@pytest.fixture(params=["memory", *DATABASES])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    clock = Clock()
    if request.param == "memory":
        log = InMemoryMessageLog(clock=clock)
        yield Target("memory", open_log=lambda: log, advance=clock.advance)
        return
    address = url(request, request.param, tmp_path)
    yield Target(
        request.param,
        open_log=lambda: DatabaseMessageLog(address, clock=clock, timeout=30),
        advance=clock.advance,
    )


@pytest.fixture(params=DATABASES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url(request, request.param, tmp_path)


def store(log: DatabaseMessageLog, thread_id: str = "t", **options: Any) -> ChatMessageStore:
    return ChatMessageStore(log, thread_id=thread_id, tenant="acme", **options)


def user(words: str) -> ChatMessage:
    return ChatMessage("user", words)


async def tables(log: DatabaseMessageLog) -> set[str]:
    catalogue = {
        "sqlite": "SELECT name FROM sqlite_master",
        "postgresql": "SELECT relname FROM pg_class UNION SELECT tgname FROM pg_trigger",
    }[log._server.address.dialect]
    names = await log._server.run(lambda tx: tx.conn.execute(text(catalogue)).scalars().all())
    return {name for name in names if "search" in name}


async def rows(log: DatabaseMessageLog, table: str) -> int:
    query = text(f"SELECT count(*) FROM {table}")
    return await log._server.run(lambda tx: int(tx.conn.execute(query).scalar_one()))


async def test_a_database_that_nobody_searches_has_no_index(address: str) -> None:
    log = DatabaseMessageLog(address)
    await store(log).add_messages([user("tea")])
    assert await tables(log) == set()
    await log.search("acme", "tea")
    assert await tables(log) != set()
    await log.aclose()


async def test_what_was_there_before_is_indexed_in_batches(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_search, "BATCH", 7)
    log = DatabaseMessageLog(address)
    for name in ("a", "b", "c"):
        await store(log, name).add_messages([user(f"tea {n}") for n in range(10)])
    assert await log.build_search_index() == 30
    assert await log.build_search_index() == 0
    assert len(await log.search("acme", "tea", limit=100)) == 30
    await log.aclose()
    again = DatabaseMessageLog(address)
    assert await again.build_search_index() == 0
    await again.aclose()


async def test_a_build_that_was_broken_off_is_finished(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_search, "BATCH", 5)
    log = DatabaseMessageLog(address)
    await store(log).add_messages([user(f"tea {n}") for n in range(12)])
    fill, calls = database_search.SearchIndex._fill, 0

    def fails(self: Any, tx: Any, after: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("broken off")
        return fill(self, tx, after)

    monkeypatch.setattr(database_search.SearchIndex, "_fill", fails)
    with pytest.raises(RuntimeError):
        await log.search("acme", "tea")
    await store(log, "other").add_messages([user("tea while half built")])
    assert len(await log.search("acme", "tea", limit=100)) == 13
    await log.aclose()


async def test_several_build_at_once_while_others_write_and_delete(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_search, "BATCH", 3)
    logs = [
        DatabaseMessageLog(address, timeout=30, engine_options={"logging_name": f"c{n}"}) for n in range(4)
    ]
    old = store(logs[0], "old")
    await old.add_messages([ChatMessage("user", f"tea {n}", message_id=f"m{n}") for n in range(40)])

    async def delete() -> None:
        for n in range(0, 40, 2):
            await old.delete(f"m{n}")

    async def write() -> None:
        for n in range(20):
            await store(logs[1], "new").add_messages([user(f"tea new {n}")])

    await asyncio.gather(*(log.build_search_index() for log in logs[2:]), delete(), write())
    assert len(await logs[3].search("acme", "tea", limit=1000)) == 40
    indexed = await rows(logs[3], "agent_search")
    assert indexed == await rows(logs[3], "agent_messages")  # nothing is left of what was deleted
    for log in logs:
        await log.aclose()


async def test_the_index_costs_a_write_no_statement_and_a_search_is_one(address: str) -> None:
    engine: Engine | AsyncEngine
    if "asyncpg" in address:
        engine = create_async_engine(address)
        inner = engine.sync_engine
    else:
        engine = inner = create_engine(
            address.replace("postgresql:", "postgresql+psycopg:")
            if "://" in address
            else f"sqlite:///{address}"
        )
    log = DatabaseMessageLog(engine=engine)
    chat = store(log, max_messages=3)
    seen: list[str] = []
    event.listen(inner, "before_cursor_execute", lambda *given: seen.append(given[2]))

    async def statements(work: Any) -> int:
        seen.clear()
        await work
        return len(seen)

    for _ in range(5):
        before = await statements(chat.add_messages([user("tea")]))
    assert before > 2
    await log.build_search_index()
    assert await statements(chat.add_messages([user("tea")])) == before
    assert await statements(log.search("acme", "tea")) == 1
    await log.aclose()
    if isinstance(engine, AsyncEngine):
        await engine.dispose()
    else:
        engine.dispose()


async def test_expired_threads_leave_nothing_in_the_index(address: str) -> None:
    clock = Clock()
    log = DatabaseMessageLog(address, clock=clock)
    await store(log, ttl=1).add_messages([user("tea")])
    await log.search("acme", "tea")
    assert await rows(log, "agent_search") == 1
    await clock.advance(2)
    await log.purge_expired()
    assert await rows(log, "agent_search") == 0
    await log.aclose()


async def test_an_unreadable_body_breaks_neither_writes_nor_searches(address: str) -> None:
    log = DatabaseMessageLog(address)
    await store(log).add_messages([user("tea 1"), user("tea 2")])
    await log.build_search_index()
    spoil = text("UPDATE agent_messages SET body = '{\"role\": ' WHERE position = 1")
    await log._server.run(lambda tx: tx.conn.execute(spoil).rowcount, write=True)
    assert [hit.entry.position for hit in await log.search("acme", "tea")] == [2]
    await log.aclose()


async def test_a_writer_without_rights_on_the_index_still_writes(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    address = url(request, "postgresql", tmp_path)
    log = DatabaseMessageLog(address)
    await store(log).add_messages([user("tea 1")])
    await log.build_search_index()
    role = f"writer_{uuid.uuid4().hex[:8]}"

    def allow(tx: Any) -> None:
        tx.conn.execute(text(f"CREATE ROLE {role}"))
        tx.conn.execute(
            text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON agent_threads, agent_messages TO {role}")
        )
        tx.conn.execute(text(f"GRANT SELECT ON agent_schema TO {role}"))

    def write(tx: Any) -> None:
        tx.conn.execute(text(f"SET LOCAL ROLE {role}"))
        tx.conn.execute(text("SET LOCAL search_path TO pg_catalog"))
        tx.conn.execute(text("DELETE FROM public.agent_messages WHERE position = 1"))

    await log._server.run(allow, write=True)
    await log._server.run(write, write=True)
    assert await log.search("acme", "tea") == []
    assert await rows(log, "agent_search") == 0
    await log.aclose()


async def test_mariadb_says_that_it_offers_none(request: pytest.FixtureRequest) -> None:
    log = DatabaseMessageLog(request.getfixturevalue("mariadb_server").url)
    with pytest.raises(StoreRejectedError, match="no full-text search here; SQLite and PostgreSQL do"):
        await log.search("acme", "tea")
    await log.aclose()


def test_which_logs_can_search() -> None:
    assert isinstance(InMemoryMessageLog(), SearchableLog)
    assert not isinstance(object(), SearchableLog)


def test_the_words_of_a_query() -> None:
    assert search_terms("What is the name of the ship_yard's ship? SHIP!") == ["name", "ship", "yard"]
    assert search_terms("is it?") == ["is", "it"]
    assert search_terms("\x00 ' \" %") == []
    assert search_terms("猫 x") == ["猫"]
    assert len(search_terms(" ".join(f"word{n}" for n in range(1000)))) == MOST_TERMS
