"""Defects that independent tests found in the SQL backend: each of these failed before."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sqlite3
import subprocess
import sys
import traceback
import weakref
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped, unused-ignore]
import blockbuster
import pytest
from sqlalchemy import create_engine, event

from agent_stores import ChatMessage, ChatMessageStore, DatabaseChatMessageStore
from agent_stores.backends.sql.statements import LARGEST, Abort
from agent_stores.database import DatabaseMessageLog
from agent_stores.errors import (
    AgentStoresError,
    ArgumentError,
    MissingDependencyError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    UnsupportedVersionError,
)
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import FaultProxy

pytestmark = pytest.mark.anyio

SECRET = "pl4nted-s3cret"


def user(text: str) -> ChatMessage:
    return ChatMessage("user", text)


def pages_written(path: Path) -> int:
    """How many pages SQLite's log has: a header of 32 bytes, and 24 bytes with each page."""
    return (os.path.getsize(f"{path}-wal") - 32) // (4096 + 24)


async def test_a_session_of_the_openai_agents_sdk_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE agent_sessions (session_id TEXT PRIMARY KEY, created_at TIMESTAMP)")
    connection.execute(
        "CREATE TABLE agent_messages "
        "(id INTEGER PRIMARY KEY, session_id TEXT, message_data TEXT, created_at TIMESTAMP)"
    )
    connection.execute("INSERT INTO agent_messages (session_id, message_data) VALUES ('s', '{}')")
    connection.commit()
    async with DatabaseChatMessageStore(path, thread_id="t") as store:
        await store.add_messages([user("ours")])
        assert [message.text for message in await store.list_messages()] == ["ours"]
    connection.execute("INSERT INTO agent_messages (session_id, message_data) VALUES ('s', '{}')")
    assert connection.execute("SELECT count(*) FROM agent_messages").fetchone() == (2,)
    connection.close()


async def test_sqlalchemys_recipe_for_transactions_of_sqlite(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'chat.db'}")

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    store = DatabaseChatMessageStore(engine=engine, thread_id="t", max_messages=3)
    await asyncio.gather(*(store.add_messages([user(str(n))]) for n in range(10)))
    assert len(await store.list_messages()) == 3
    await store.pop_last()
    assert await store.count() == 2
    await store.aclose()
    engine.dispose()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_eight_processes_begin_at_once(postgres_server: PostgresServer, isolation: str) -> None:
    url = postgres_server.create_database(f"first-{isolation[:3]}")
    url += f"?options=-c%20default_transaction_isolation%3D{isolation.replace(' ', '%5C%20')}"
    code = f"""
import asyncio, os, sys
from agent_stores import ChatMessage, DatabaseChatMessageStore
import agent_stores.backends.sql.backend, psycopg, sqlalchemy.dialects.postgresql.psycopg

async def main(number):
    async with DatabaseChatMessageStore({url!r}, thread_id="t", timeout=60) as store:
        for n in range(4):
            await store.add_messages([ChatMessage("user", f"{{number}}.{{n}}")])

children = []
for number in range(8):  # forked after the imports, so that all of them begin at once
    pid = os.fork()
    if pid == 0:
        asyncio.run(main(number))
        sys.exit()
    children.append(pid)
sys.exit(any([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=150
    )
    assert (done.returncode, done.stderr) == (0, "")

    async def count() -> int:
        async with DatabaseChatMessageStore(url, thread_id="t") as store:
            return await store.count()

    assert asyncio.run(count()) == 32


async def test_writers_of_one_thread_under_serializable(postgres_server: PostgresServer) -> None:
    url = postgres_server.url + "?options=-c%20default_transaction_isolation%3Dserializable"
    store = DatabaseChatMessageStore(url, thread_id="serial", max_messages=20, timeout=30)

    async def write(n: int) -> None:
        for m in range(10):
            await store.add_messages([user(f"{n}.{m}")])

    await asyncio.gather(*map(write, range(8)))
    assert (await store.stats()).last_position == 80
    assert len(await store.list_messages()) == 20
    await store.delete_thread()
    await store.aclose()


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@h/d?no_such_option=1", "postgresql+asyncpg://u:p@h/d?no_such_option=1"]
)
def test_an_option_that_the_driver_does_not_know(url: str) -> None:
    with pytest.raises(ArgumentError, match="no_such_option"):
        DatabaseChatMessageStore(url)


async def test_an_option_that_psycopg_knows(postgres_server: PostgresServer) -> None:
    async with DatabaseChatMessageStore(
        f"{postgres_server.url}?prepare_threshold=0", thread_id="option"
    ) as store:
        await store.add_messages([user("x")])
        await store.delete_thread()


def test_options_of_sqlalchemy_that_it_does_not_know() -> None:
    with pytest.raises(ArgumentError, match="no_such_option") as caught:
        DatabaseChatMessageStore(f"mariadb://u:{SECRET}@h/d", engine_options={"no_such_option": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_a_password_outside_latin_1(mariadb_server: MariaDBServer) -> None:
    password = f"{SECRET}-пароль"
    for option in ("", f"?password={password}"):
        login = f"agent:{password}" if not option else "agent"
        store = DatabaseChatMessageStore(
            f"mariadb://{login}@127.0.0.1:{mariadb_server.port}/agent_stores{option}"
        )
        with pytest.raises(StoreError) as caught:
            await store.add_messages([user("x")])
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert SECRET not in shown
        assert "пароль" not in shown
        await store.aclose()


def test_a_connection_string_of_azure_shows_nothing() -> None:
    for given in (
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}==;EndpointSuffix=core.windows.net",
        f"AccountKey={SECRET}://x",
        f"{SECRET}://x",
    ):
        with pytest.raises(ArgumentError) as caught:
            DatabaseChatMessageStore(given)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_the_install_hint_names_an_async_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_stores.backends.sql.config.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="asyncpg") as caught:
        DatabaseChatMessageStore("postgresql+asyncpg://u@h/d")
    assert "asyncpg" in str(caught.value).partition("pip install")[2]


async def test_locations_keep_their_folders(tmp_path: Path) -> None:
    stores = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stores.append(DatabaseChatMessageStore(tmp_path / name / "chat.db", thread_id="t"))
    assert stores[0].location != stores[1].location
    assert stores[0].location.endswith("/a/chat.db")
    for store in stores:
        await store.aclose()


async def test_failed_reads_do_not_speak_of_writes(postgres_server: PostgresServer, free_port: int) -> None:
    store = DatabaseChatMessageStore(f"postgresql://u:p@127.0.0.1:{free_port}/d", timeout=2)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.list_messages()
    assert "written" not in str(caught.value)
    with pytest.raises(StoreUnavailableError, match="nothing was written"):
        await store.add_messages([user("x")])
    await store.aclose()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg"])
async def test_the_server_dies_while_a_client_connects(postgres_server: PostgresServer, driver: str) -> None:
    with FaultProxy(postgres_server.port) as proxy:
        option = "ssl=disable" if driver.endswith("asyncpg") else "sslmode=disable"
        url = proxy.url(postgres_server.url).replace("postgresql:", f"{driver}:")
        for count in (3, 60, 120, 200):
            store = DatabaseChatMessageStore(f"{url}?{option}", thread_id="t", timeout=5)
            proxy.cut_after_client_bytes(count, times=None)
            with pytest.raises((StoreUnavailableError, StoreRejectedError)):
                await store.list_messages()
            proxy.heal()
            await store.aclose()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg", "mariadb"])
async def test_lost_connections_make_no_noise(
    driver: str,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    server = request.getfixturevalue("mariadb_server" if driver == "mariadb" else "postgres_server")
    with FaultProxy(server.port) as proxy:
        url = proxy.url(server.url).replace("postgresql:", f"{driver}:")
        async with DatabaseChatMessageStore(url, thread_id=f"noise-{driver}", timeout=5) as store:
            await asyncio.gather(*(store.add_messages([user(str(n))]) for n in range(10)))
            for n in range(5):
                proxy.drop_all()
                await asyncio.sleep(0.05)
                await store.add_messages([user(f"again {n}")])
            assert await store.count() == 15
            await store.delete_thread()
    assert capfd.readouterr().err == ""
    assert not caplog.records


async def test_errors_are_of_the_library(tmp_path: Path) -> None:
    async with DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t") as store:
        await store.add_messages([user("x")])
        connection = sqlite3.connect(tmp_path / "chat.db")
        connection.execute("DROP TABLE agent_stores_messages")
        connection.close()
        for work in (store.add_messages([user("y")]), store.list_messages()):
            with pytest.raises(AgentStoresError, match="no such table"):
                await work


async def test_a_connection_that_dies_before_its_first_statement(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = asyncpg.connect

    async def connect_and_die(*args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        connection.terminate()
        return connection

    url = postgres_server.url.replace("postgresql:", "postgresql+asyncpg:")
    store = DatabaseChatMessageStore(url, thread_id="dies", timeout=5)
    monkeypatch.setattr(asyncpg, "connect", connect_and_die)
    for work in (store.list_messages(), store.add_messages([user("x")])):
        with pytest.raises(StoreUnavailableError):
            await work
    monkeypatch.setattr(asyncpg, "connect", connect)
    await store.add_messages([user("x")])
    await store.delete_thread()
    await store.aclose()


async def test_a_statement_of_mariadb_that_is_killed(mariadb_server: MariaDBServer) -> None:
    store = DatabaseChatMessageStore(mariadb_server.url, thread_id="killed")
    await store.add_messages([user("before")])
    find = (
        "SELECT id FROM information_schema.processlist "
        "WHERE time_ms > 50 AND command = 'Query' AND info LIKE '%agent_stores_threads%' "
        "AND id <> connection_id()"
    )
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT id FROM agent_stores_threads FOR UPDATE")
        adding = asyncio.ensure_future(store.add_messages([user("after")]))
        with mariadb_server.connect() as other, other.cursor() as killer:
            for _ in range(500):
                await asyncio.sleep(0.02)
                if killer.execute(find):
                    break
            for (number,) in killer.fetchall():
                killer.execute(f"KILL QUERY {int(number)}")
        await asyncio.sleep(0.05)
        cursor.execute("ROLLBACK")
    await adding
    assert [message.text for message in await store.list_messages()] == ["before", "after"]
    await store.delete_thread()
    await store.aclose()


async def test_a_store_of_a_file_blocks_no_event_loop(
    tmp_path: Path, no_blocking_calls: blockbuster.BlockBuster
) -> None:
    """The guard of all tests; here so that it is named among the defects."""
    async with DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t") as store:
        await store.add_messages([user("x")])
        assert len(await store.list_messages()) == 1


async def test_a_closed_database_is_let_go_of(tmp_path: Path) -> None:
    store = DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t")
    await store.add_messages([user("x")])
    assert len(await store.list_messages(after=0, before=10)) == 1
    assert await store.get("none") is None
    await store.list_threads()
    log: Any = store.log
    statements = weakref.ref(log.backend.database.sql)
    await store.aclose()
    del store, log
    for _ in range(100):  # a worker thread lets go of its last call when it ends
        gc.collect()
        if statements() is None:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the statements of a closed database were kept for 5 seconds")


async def test_tables_of_an_older_version_are_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "chat.db")
    connection.execute("CREATE TABLE agent_stores_schema (name VARCHAR(64) PRIMARY KEY, version INTEGER)")
    connection.execute("INSERT INTO agent_stores_schema VALUES ('agent_stores', 2)")
    connection.execute("CREATE TABLE agent_stores_threads (id INTEGER PRIMARY KEY, thread_key BLOB)")
    connection.commit()
    async with DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t") as store:
        with pytest.raises(UnsupportedVersionError, match="schema version 2"):
            await store.add_messages([user("x")])
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"agent_stores_schema", "agent_stores_threads"}
    connection.close()


async def test_an_append_of_sqlite_changes_few_pages(tmp_path: Path) -> None:
    """The messages, their index by id, and the thread; a page more where one is full."""
    clock = 1_800_000_000.0
    log = DatabaseMessageLog(tmp_path / "chat.db", clock=lambda: clock)
    store = ChatMessageStore(log, thread_id="t", ttl=3600)
    await store.add_messages([user("first")])
    connection = sqlite3.connect(tmp_path / "chat.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for n in range(20):
        await store.add_messages([user(f"short {n}")])
    assert pages_written(tmp_path / "chat.db") / 20 < 4
    connection.close()
    await log.aclose()


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "SERIALIZABLE"])
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql", "sqlite"])
async def test_transactions_with_an_engine_of_the_caller(
    driver: str, isolation: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Where the driver begins no transactions, we do: nothing of one that fails stays."""
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    if driver != "sqlite":
        server = request.getfixturevalue("mariadb_server" if "mariadb" in driver else "postgres_server")
        url = f"{driver}:{server.url.partition(':')[2]}"
    engine = create_engine(url, isolation_level=isolation)
    store = DatabaseChatMessageStore(engine=engine, thread_id=f"{driver}-{isolation}", table_prefix="lent_")
    await store.add_messages([user("x")])
    log: Any = store.log
    database = log.backend.database

    def steps() -> Any:
        yield database.sql("UPDATE {threads} SET messages = 7")
        raise Abort

    with pytest.raises(Abort):
        await database.run(steps)
    assert (await store.stats()).messages == 1
    await store.pop_last()
    assert await store.count() == 0
    await store.delete_thread()
    await store.aclose()
    engine.dispose()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg"])
async def test_errors_do_not_quote_arguments(postgres_server: PostgresServer, driver: str) -> None:
    store = DatabaseChatMessageStore(postgres_server.url.replace("postgresql:", f"{driver}:"), thread_id="t")
    log: Any = store.log
    database = log.backend.database
    with pytest.raises(StoreError, match="an argument cannot be encoded") as caught:
        await database.run(database.sql("SELECT CAST(:number AS bigint)", {"number": "x" * 30}))
    assert "x" * 30 not in "".join(traceback.format_exception(caught.value))
    await store.aclose()


@pytest.mark.parametrize("driver", ["postgresql", "mariadb", "sqlite"])
async def test_positions_end_before_those_of_the_next_thread(
    driver: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    if driver != "sqlite":
        url = request.getfixturevalue("mariadb_server" if driver == "mariadb" else "postgres_server").url
    store = DatabaseChatMessageStore(url, thread_id="t", table_prefix="last_")
    await store.add_messages([user("first")])
    log: Any = store.log
    database = log.backend.database
    move = database.sql("UPDATE {threads} SET last_position = :last", {"last": LARGEST - 3})
    await database.run(move, write=True)
    await store.add_messages([user("one"), user("two")])
    with pytest.raises(StoreRejectedError, match=f"positions must be below {LARGEST}, got {LARGEST}"):
        await store.add_messages([user("three")])
    assert [message.text for message in await store.list_messages()] == ["first", "one", "two"]
    await store.delete_thread()
    await store.aclose()
