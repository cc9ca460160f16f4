"""What the SQL backend costs: round trips and statements, and what a proxy of PostgreSQL allows."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agent_stores import ChatMessage, ChatMessageStore, DatabaseChatMessageStore
from agent_stores.backend import Change, ListCursor, RowRange, ThreadKey, ThreadOrder, ThreadQuery
from agent_stores.backends.sql.names import thread_digest
from agent_stores.backends.sql.statements import LARGEST
from agent_stores.database import DatabaseMessageLog
from benchmarks.relay import Relay
from tests.servers import pgbouncer
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import PostgresServer
from tests.servers.process import wait_for

pytestmark = pytest.mark.anyio

LENGTH = 100_000
TURN = [ChatMessage("user", "question"), ChatMessage("assistant", "answer")]


def turn(n: int) -> list[ChatMessage]:
    return [ChatMessage("user", f"question {n}"), ChatMessage("assistant", f"answer {n}")]


@pytest.fixture
def relay(postgres_server: PostgresServer) -> Iterator[Relay]:
    """A way to PostgreSQL that counts round trips."""
    relay = Relay(postgres_server.url)
    yield relay
    relay.close()


def fill(url: str, thread_id: str) -> None:
    """Make the thread long, not by the store: every tenth message is no boundary."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO agent_stores_messages (id, thread, message_id, boundary, pinned, bytes, "
            f"tokens, created_us, body) SELECT t.id * {LARGEST} + n, t.id, 'filled-' || n, "
            "CASE WHEN n %% 10 = 0 THEN 0 ELSE 1 END, 0, 2, 1, 1, "
            '\'{"role": "user"}\' FROM agent_stores_threads t, generate_series(%s::bigint, %s) n '
            "WHERE t.thread_key = %s",
            (1000, LENGTH + 999, thread_digest(ThreadKey(None, thread_id))),
        )
        connection.execute(
            "UPDATE agent_stores_threads SET last_position = %s, messages = messages + %s "
            "WHERE thread_key = %s",
            (LENGTH + 999, LENGTH, thread_digest(ThreadKey(None, thread_id))),
        )


@pytest.mark.parametrize("limits", [{}, {"max_messages": LENGTH, "ttl": 3600.0}])
async def test_postgresql_takes_one_round_trip(
    relay: Relay, postgres_server: PostgresServer, limits: dict[str, Any]
) -> None:
    thread_id = f"trips-{len(limits)}"
    store = DatabaseChatMessageStore(
        f"{relay.url}?sslmode=disable", thread_id=thread_id, timeout=60, **limits
    )

    async def trips(work: Any) -> int:
        relay.reset()
        await work
        return relay.trips

    await store.list_threads()  # connects
    assert await trips(store.add_messages(turn(0))) == 1
    assert await trips(store.list_messages(last=20)) == 1
    fill(postgres_server.url, thread_id)
    for n in range(1, 4):
        assert await trips(store.add_messages(turn(n))) == 1
        assert await trips(store.list_messages(last=20)) == 1
    messages = (await store.stats()).messages
    assert messages <= LENGTH if limits else messages == LENGTH + 8
    await store.delete_thread()
    await store.aclose()


async def test_the_cost_does_not_depend_on_the_length(postgres_server: PostgresServer) -> None:
    """Plans are made while the tables are empty: they must not read them whole later."""
    url = postgres_server.create_database("lengths")
    store = DatabaseChatMessageStore(url, thread_id="long", max_messages=LENGTH, timeout=60)
    for n in range(20):
        await store.add_messages(turn(n))
        await store.list_messages(last=20)
    fill(url, "long")
    for n in range(20, 40):
        await store.add_messages(turn(n))
        assert len(await store.list_messages(last=20)) >= 19
    await store.aclose()
    assert rows_read_by_scans(url) < LENGTH


def rows_read_by_scans(url: str) -> int:
    """How many rows of messages were read without an index, once the other connections are closed."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'agent_stores_messages'"
    with psycopg.connect(url, autocommit=True) as connection:

        def ask(query: str) -> int:
            found = connection.execute(query).fetchone()
            assert found is not None
            return int(found[0])

        wait_for(lambda: ask(others) == 0, timeout=60, what="the store's connections have reported and ended")
        return ask(read)


async def test_statements_of_mariadb(mariadb_server: MariaDBServer) -> None:
    store = DatabaseChatMessageStore(mariadb_server.url, thread_id="statements", max_messages=10, ttl=3600)
    other = DatabaseChatMessageStore(mariadb_server.url, thread_id="statements", timeout=11)
    for n in range(10):
        await store.add_messages(turn(n))

    def asked() -> int:
        with mariadb_server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
            return int(cursor.fetchone()[1])  # type: ignore[index]

    idle = -asked() + asked()
    counts = []
    for work in (store.add_messages(turn(10)), store.list_messages(last=5), other.add_messages(turn(11))):
        before = asked()
        await work
        counts.append(asked() - before - idle)
    # A compound statement of MariaDB, which is a transaction; a SELECT.
    assert counts[:2] == [1, 1]
    assert len(await store.list_messages()) <= 12
    await store.delete_thread()
    for each in (store, other):
        await each.aclose()


async def test_indexes_serve_the_statements(tmp_path: Path) -> None:
    log = DatabaseMessageLog(tmp_path / "chat.db", table_prefix="p_")
    backend, key, seen = log.backend, ThreadKey(None, "t"), list[str]()
    await ChatMessageStore(log, thread_id="t", max_messages=20, ttl=60).add_messages([*TURN * 3])
    for connection in backend.database._idle:  # type: ignore[attr-defined]
        connection.set_trace_callback(seen.append)
    await ChatMessageStore(log, thread_id="t", max_messages=4).add_messages(TURN)
    snapshot = await backend.load(key)
    assert snapshot is not None
    found = await backend.latest(key, 3, now_us=1, ids=True)
    await backend.latest(key, 3, now_us=1)
    await backend.find(key, ["a", "b", "c"])
    for newest in (True, False):
        await backend.rows(key, RowRange(after=1, limit=2, newest=newest))
    await backend.threads(ThreadQuery(None, expired_before=1))
    orders: tuple[ThreadOrder, ...] = ("recent", "id")
    for order in orders:
        for prefix in ("", "t") if order == "id" else ("",):
            for after in (None, ListCursor(1, "a")):
                await backend.threads(ThreadQuery(None, prefix, after, order=order))
    version = await backend.commit(key, Change(snapshot.thread, snapshot.version, delete=found[:2]))
    await backend.commit(key, Change(None, version))
    await log.aclose()
    words = [text.split(None, 1)[0] for text in seen]
    assert {word: words.count(word) for word in ("SELECT", "DELETE", "UPDATE")} == {
        "SELECT": 14,
        "DELETE": 4,
        "UPDATE": 2,
    }
    connection = sqlite3.connect(tmp_path / "chat.db")
    for text, word in zip(seen, words, strict=True):
        if word in ("SELECT", "DELETE", "UPDATE"):
            steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
            assert not [step for step in steps if step.startswith("SCAN") and "p_" in step], (text, steps)
            assert not [step for step in steps if "ORDER BY" in step and "RIGHT PART" not in step], steps
    connection.close()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg"])
async def test_behind_a_transaction_pooling_proxy(postgres_server: PostgresServer, driver: str) -> None:
    if reason := pgbouncer.available():
        pytest.skip(reason)
    with pgbouncer.PgBouncer(postgres_server) as proxy:
        url = proxy.url.replace("postgresql:", f"{driver}:")
        stores = [
            DatabaseChatMessageStore(url, thread_id=f"pooled-{driver}-{n}", max_messages=20, ttl=60)
            for n in range(8)
        ]

        async def talk(store: DatabaseChatMessageStore) -> None:
            for n in range(15):
                await store.add_messages(turn(n))
                assert len(await store.list_messages(last=4)) == 4 if n else 2
                await store.update_metadata({"title": f"turn {n}"})
            assert (await store.pop_last()) is not None
            assert len(await store.list_messages()) == 19
            await store.delete_thread()

        await asyncio.gather(*map(talk, stores))
        for store in stores:
            await store.aclose()
