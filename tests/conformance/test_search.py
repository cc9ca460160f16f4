"""Full-text search, on every backend that offers it, and what is special about the database's."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from agent_stores import ChatMessage, ChatMessageStore, StoreRejectedError
from agent_stores.backends.sql import search as database_search
from agent_stores.capabilities import SearchableBackend
from agent_stores.database import DatabaseMessageLog
from agent_stores.memory import InMemoryMessageLog
from agent_stores.search import MAX_TERMS, search_terms
from agent_stores.testing.conformance.search import TestSearch
from agent_stores.testing.conformance.search import find as find
from agent_stores.testing.conformance.target import Clock, Target, anyio_backend, make_store
from tests.conformance.targets import Setup, database, memory

__all__ = ["TestSearch", "anyio_backend", "make_store"]

pytestmark = pytest.mark.anyio

DATABASES = ["sqlite", "postgresql", "postgresql+asyncpg"]


def url(request: pytest.FixtureRequest, name: str, folder: Path) -> str:
    if name == "sqlite":
        return str(folder / "chat.db")
    address: str = request.getfixturevalue("postgres_server").create_database(f"search-{uuid.uuid4().hex}")
    return address.replace("postgresql:", f"{name}:")


@pytest.fixture(params=["memory", *DATABASES])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    setup = Setup(request.getfixturevalue, tmp_path)
    if request.param == "memory":
        return memory(setup)
    return database(request.param, setup, url(request, request.param, tmp_path))


@pytest.fixture(params=DATABASES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url(request, request.param, tmp_path)


def store(log: DatabaseMessageLog, thread_id: str = "t", **options: Any) -> ChatMessageStore:
    return ChatMessageStore(log, thread_id=thread_id, tenant="acme", **options)


def user(words: str) -> ChatMessage:
    return ChatMessage("user", words)


async def run(log: DatabaseMessageLog, text: str, *, write: bool = False) -> Any:
    return await log.backend.database.run(log.backend.database.sql(text), write=write)


async def tables(log: DatabaseMessageLog) -> set[str]:
    catalogue = {
        "sqlite": "SELECT name FROM sqlite_master",
        "postgresql": "SELECT relname::text FROM pg_class UNION SELECT tgname::text FROM pg_trigger",
    }[log.backend.database.dialect]
    return {name for (name,) in await run(log, catalogue) if "search" in name}


async def rows(log: DatabaseMessageLog, table: str) -> int:
    [(count,)] = await run(log, f"SELECT count(*) FROM {{{table}}}")
    return int(count)


async def test_a_database_that_is_not_searched_has_no_index(address: str) -> None:
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
    database: Any = log.backend.database
    run, batches = database.run, 0

    def fails(work: Any, **options: Any) -> Any:
        nonlocal batches
        batches += not callable(work) and "SET body = body" in work[0]
        if batches == 2:
            batches += 1
            raise StoreRejectedError("broken off")
        return run(work, **options)

    monkeypatch.setattr(database, "run", fails)
    with pytest.raises(StoreRejectedError):
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
    indexed = await rows(logs[3], "search")
    assert indexed == await rows(logs[3], "messages")  # nothing is left of what was deleted
    for log in logs:
        await log.aclose()


async def test_the_index_costs_a_write_no_statement_and_a_search_is_one(address: str) -> None:
    log = DatabaseMessageLog(address)
    database: Any = log.backend.database
    attempt, seen = database.attempt, 0

    async def count(call: Any, deadline: float) -> Any:
        nonlocal seen
        if callable(call.work):
            steps, call.work = call.work, lambda: counted(steps())
        else:
            seen += 1
        return await attempt(call, deadline)

    def counted(steps: Any) -> Any:
        nonlocal seen
        result = None
        try:
            while True:
                step = steps.send(result)
                seen += 1
                result = yield step
        except StopIteration as end:
            return end.value

    async def statements(work: Any) -> int:
        nonlocal seen
        seen = 0
        await work
        return seen

    chat = store(log, max_messages=3)
    await chat.add_messages([user("tea")])
    database.attempt = count
    before = 0
    for _ in range(5):
        before = await statements(chat.add_messages([user("tea")]))
    assert before == (4 if address.endswith(".db") else 1)
    await log.build_search_index()
    assert await statements(chat.add_messages([user("tea")])) == before
    assert await statements(log.search("acme", "tea")) == 1
    del database.attempt
    await log.aclose()


async def test_expired_threads_leave_nothing_in_the_index(address: str) -> None:
    clock = Clock()
    log = DatabaseMessageLog(address, clock=clock)
    await store(log, ttl=1).add_messages([user("tea")])
    await log.search("acme", "tea")
    assert await rows(log, "search") == 1
    await clock.advance(2)
    await log.purge_expired()
    assert await rows(log, "search") == 0
    await log.aclose()


async def test_an_unreadable_body_breaks_neither_writes_nor_searches(address: str) -> None:
    log = DatabaseMessageLog(address)
    await store(log).add_messages([user("tea 1"), user("tea 2")])
    await log.build_search_index()
    await run(log, "UPDATE {messages} SET body = '{\"role\": ' WHERE id % 268435456 = 1", write=True)
    assert [hit.row.position for hit in await log.search("acme", "tea")] == [2]
    await log.aclose()


async def test_a_writer_without_rights_on_the_index_still_writes(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    address = url(request, "postgresql", tmp_path)
    log = DatabaseMessageLog(address)
    await store(log).add_messages([user("tea 1")])
    await log.build_search_index()
    role = f"writer_{uuid.uuid4().hex[:8]}"

    def allow() -> Any:
        yield f"CREATE ROLE {role}", ()
        tables = "agent_stores_threads, agent_stores_messages"
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}", ()
        yield f"GRANT SELECT ON agent_stores_schema TO {role}", ()

    def write() -> Any:
        yield f"SET LOCAL ROLE {role}", ()
        yield "SET LOCAL search_path TO pg_catalog", ()
        yield "DELETE FROM public.agent_stores_messages WHERE id % 268435456 = 1", ()

    await log.backend.database.run(allow)
    await log.backend.database.run(write)
    assert await log.search("acme", "tea") == []
    assert await rows(log, "search") == 0
    await log.aclose()


async def test_mariadb_says_that_it_offers_none(request: pytest.FixtureRequest) -> None:
    log = DatabaseMessageLog(request.getfixturevalue("mariadb_server").url)
    with pytest.raises(StoreRejectedError, match="has no search"):
        await log.search("acme", "tea")
    await log.aclose()


def test_which_logs_can_search() -> None:
    assert isinstance(InMemoryMessageLog().backend, SearchableBackend)
    assert not isinstance(object(), SearchableBackend)


def test_the_words_of_a_query() -> None:
    assert search_terms("What is the name of the ship_yard's ship? SHIP!") == ["name", "ship", "yard"]
    assert search_terms("is it?") == ["is", "it"]
    assert search_terms("\x00 ' \" %") == []
    assert search_terms("猫 x") == ["猫"]
    assert len(search_terms(" ".join(f"word{n}" for n in range(1000)))) == MAX_TERMS
