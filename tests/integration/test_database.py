"""The database store on real servers: what it costs, what it refuses, and what it does when things break."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import re
import sqlite3
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from agent_stores import ChatMessage, ChatMessageStore, DatabaseChatMessageStore
from agent_stores.backends.sql.schema import LIST_COLUMNS
from agent_stores.database import DatabaseMessageLog
from agent_stores.errors import (
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    MessageTooLargeError,
    MissingDependencyError,
    OutcomeUnknownError,
    StateError,
    StoreRejectedError,
    StoreUnavailableError,
    UnsupportedVersionError,
)
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import FaultProxy

pytestmark = pytest.mark.anyio

DIALECTS = ["sqlite", "postgresql", "mariadb"]
SECRET = "pl4nted-s3cret"


@pytest.fixture(params=DIALECTS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'chat.db'}"
    server = request.getfixturevalue("mariadb_server" if request.param == "mariadb" else "postgres_server")
    return str(server.url)


def database(store: ChatMessageStore[Any]) -> Any:
    """The database of a store."""
    log: Any = store.log
    return log.backend.database


async def run(store: ChatMessageStore[Any], text: str, *, write: bool = False) -> Any:
    """Run a statement, with the names of the tables for {threads} and the like."""
    return await database(store).run(database(store).sql(text), write=write)


def user(words: str, **fields: Any) -> ChatMessage:
    return ChatMessage("user", words, **fields)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(
        url.replace("postgresql:", "postgresql+psycopg:").replace("mariadb:", "mariadb+pymysql:")
    )
    yield engine
    engine.dispose()


class TestConnections:
    async def test_stores_share_connections(self, url: str) -> None:
        stores = [DatabaseChatMessageStore(url, thread_id=f"shared-{n}") for n in range(200)]
        assert len({id(database(store)) for store in stores}) == 1
        await asyncio.gather(*(store.add_messages([user("x")]) for store in stores))
        await asyncio.gather(*(store.delete_thread() for store in stores))
        for store in stores[1:]:
            await store.aclose()
        assert await stores[0].count() == 0  # still open
        await stores[0].aclose()

    async def test_a_borrowed_engine_is_not_disposed_of(self, engine: Engine) -> None:
        async with DatabaseChatMessageStore(engine=engine, thread_id="borrowed") as store:
            await store.add_messages([user("x")])
            await store.delete_thread()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1

    async def test_a_borrowed_async_engine(self, url: str) -> None:
        names = {
            "sqlite": "sqlite+aiosqlite",
            "postgresql": "postgresql+asyncpg",
            "mariadb": "mariadb+asyncmy",
        }
        scheme, rest = url.split(":", 1)
        engine = create_async_engine(f"{names[scheme]}:{rest}")
        async with DatabaseChatMessageStore(engine=engine, thread_id="borrowed-async") as store:
            await store.add_messages([user("1"), user("2")])
            await asyncio.gather(*(store.add_messages([user(str(n))]) for n in range(20)))
            assert len(await store.list_messages()) == 22
            await store.delete_thread()
        await engine.dispose()

    async def test_a_file_name_is_that_of_the_folder_then(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stores = []
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            monkeypatch.chdir(tmp_path / folder)
            stores.append(DatabaseChatMessageStore("chat.db", thread_id="t"))
        monkeypatch.chdir(tmp_path)
        await stores[0].add_messages([user("in a")])
        assert await stores[1].list_messages() == []
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]
        assert "chat.db" in os.listdir(tmp_path / "b")
        for store in stores:
            await store.aclose()

    async def test_stores_that_are_never_closed(self, tmp_path: Path) -> None:
        for n in range(30):
            await DatabaseChatMessageStore(tmp_path / f"{n}.db", thread_id="t").add_messages([user("x")])
        gc.collect()
        async with DatabaseChatMessageStore(tmp_path / "last.db", thread_id="t") as store:
            await store.count()
            from agent_stores.backends.sql.backend import registry

            assert sum(server.users == 0 for server in registry._servers.values()) <= 8

    async def test_a_bare_file_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("chat.db", Path("other.db"), "sqlite:///third.db"):
            async with DatabaseChatMessageStore(name, thread_id="t") as store:
                await store.add_messages([user("x")])
        files = {name for name in os.listdir(tmp_path) if name.endswith(".db")}
        assert files == {
            "chat.db",
            "other.db",
            "third.db",
        }
        connection = sqlite3.connect("chat.db")
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()

    @pytest.mark.parametrize("name", [":memory:", "file::memory:", "file:x?mode=memory"])
    async def test_a_database_in_memory(self, name: str) -> None:
        async with DatabaseChatMessageStore(name, thread_id="t") as store:
            await asyncio.gather(*(store.add_messages([user(str(n))]) for n in range(20)))
            assert await store.count() == 20
            await asyncio.gather(*(store.list_messages() for _ in range(20)))
            assert len(database(store)._idle) == 1  # another one would be another database

    async def test_tables_of_another_prefix(self, url: str) -> None:
        one = DatabaseChatMessageStore(url, thread_id="t", table_prefix="one_")
        two = DatabaseChatMessageStore(url, thread_id="t", table_prefix="two_")
        await one.add_messages([user("x")])
        assert await two.list_messages() == []
        for store in (one, two):
            await store.delete_thread()
            await store.aclose()

    async def test_many_clients_begin_at_once(self, url: str) -> None:
        """Several processes may be the first ones to use a database."""
        prefix = f"first{abs(hash(url)) % 10_000}_"
        logs = [
            DatabaseMessageLog(url, table_prefix=prefix, engine_options={"logging_name": f"{prefix}{n}"})
            for n in range(8)
        ]
        stores = [ChatMessageStore(log, thread_id=f"t{n}") for n, log in enumerate(logs)]
        await asyncio.gather(*(store.add_messages([user("x")]) for store in stores))
        assert len((await stores[0].list_threads()).threads) == 8
        for log in logs:
            await log.aclose()

    async def test_connections_of_a_file_stay_open(self, tmp_path: Path) -> None:
        store = DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t")
        await store.add_messages([user("x")])
        files = database(store)
        await store.list_messages()
        [connection] = files._idle  # one is enough for calls one after another
        for _ in range(20):
            await store.add_messages([user("x")])
            await store.list_messages(last=2)
        assert files._idle == [connection]
        await asyncio.gather(*(store.list_messages() for _ in range(20)))
        assert len(files._idle) <= 5
        made = list(files._idle)
        await store.aclose()
        for connection in made:
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                connection.execute("SELECT 1")

    @pytest.mark.parametrize("options", [{"max_connections": 1}, {"engine_options": {"pool_size": 1}}])
    async def test_one_connection_for_a_file(self, tmp_path: Path, options: dict[str, Any]) -> None:
        async with DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t", **options) as store:
            await asyncio.gather(
                *(store.add_messages([user(str(n))]) for n in range(20)),
                *(store.list_messages() for _ in range(20)),
            )
            assert await store.count() == 20

    async def test_statements_on_a_file_of_our_own(self, tmp_path: Path) -> None:
        """They go to SQLite without SQLAlchemy, and are as many."""
        seen: list[str] = []
        store = DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t", max_messages=10)
        await store.add_messages([user(str(n)) for n in range(10)])
        await store.list_messages()
        for connection in database(store)._idle:
            connection.set_trace_callback(seen.append)
        await store.add_messages([user("a"), user("b")])
        words = [statement.split(None, 1)[0] for statement in seen]
        assert words == ["BEGIN", "SELECT", "INSERT", "DELETE", "UPDATE", "COMMIT"]
        seen.clear()
        await store.list_messages(last=5)
        await store.stats()
        await store.get("x")
        assert [statement.split(None, 1)[0] for statement in seen] == ["SELECT"] * 3
        await store.aclose()

    async def test_a_broken_connection_is_replaced(self, tmp_path: Path) -> None:
        async with DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t") as store:
            await store.add_messages([user("before")])
            await store.list_messages()
            database(store)._idle[-1].close()
            with pytest.raises(AgentStoresError):
                await store.add_messages([user("lost")])
            await store.list_messages()
            database(store)._idle[-1].close()
            with pytest.raises(AgentStoresError):
                await store.list_messages()
            await store.add_messages([user("after")])
            assert [message.text for message in await store.list_messages()] == ["before", "after"]

    async def test_a_file_that_becomes_full(self, tmp_path: Path) -> None:
        async with DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t") as store:
            await store.add_messages([user("kept")])
            await run(store, "PRAGMA max_page_count = 40", write=True)
            with pytest.raises(StoreRejectedError, match="full"):
                await store.add_messages([user("small"), user("x" * 1_000_000)])
            assert [message.text for message in await store.list_messages()] == ["kept"]
            await store.add_messages([user("small")])
            assert await store.count() == 2

    async def test_cancelling_leaves_the_connection_usable(self, tmp_path: Path) -> None:
        async with DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t") as store:
            await store.add_messages([user("first")])
            chance = random.Random(3)
            for n in range(100):
                task = asyncio.ensure_future(store.add_messages([user(f"{n}.a"), user(f"{n}.b")]))
                await asyncio.sleep(chance.uniform(0, 0.0005))
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await store.add_messages([user("last")])
            texts = [message.text for message in await store.list_messages()]
            assert (texts[0], texts[-1]) == ("first", "last")
            turns = [words.split(".") for words in texts[1:-1]]
            assert [end for _, end in turns] == ["a", "b"] * (len(turns) // 2)
            assert [turn for turn, _ in turns[::2]] == [turn for turn, _ in turns[1::2]]


class TestRefusals:
    def test_what_may_be_another_kind_of_connection_string(self) -> None:
        for bad in (
            f"host=db user=u password={SECRET} dbname=chat",
            f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}==",
            f"u:{SECRET}@host/db",
            f"postgresql:/u:{SECRET}@h/db",
            "sqlite:chat.db",
            "a\0b",
        ):
            with pytest.raises(ArgumentError, match="no plain file name") as caught:
                DatabaseChatMessageStore(bad)
            assert SECRET not in str(caught.value)

    def test_bad_connection_strings(self) -> None:
        for bad in (
            "",
            "  ",
            "oracle://u:p@h/d",
            f"postgresql://u:{SECRET}@h:p@rt/d",
            f"mongodb://u:{SECRET}@h",
        ):
            with pytest.raises(ArgumentError, match="connection_string") as caught:
                DatabaseChatMessageStore(bad)
            assert SECRET not in str(caught.value)
        with pytest.raises(ArgumentTypeError, match=r"connection_string must be .* got int"):
            DatabaseChatMessageStore(7)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="either connection_string or engine"):
            DatabaseChatMessageStore()
        with pytest.raises(
            ArgumentError, match="timeout must be a positive number of seconds, a timedelta or None, got 0"
        ):
            DatabaseChatMessageStore("x.db", timeout=0)
        with pytest.raises(ArgumentError, match="table_prefix"):
            DatabaseChatMessageStore("x.db", table_prefix="a; DROP TABLE x; --")

    @pytest.mark.parametrize(
        ("url", "extra"),
        [
            ("postgresql://u@h/d", "'agent-stores[postgresql]'"),
            ("postgresql+psycopg://u@h/d", "'agent-stores[postgresql]'"),
            ("postgresql+asyncpg://u@h/d", "'agent-stores[database]' asyncpg"),
            ("mariadb://u@h/d", "'agent-stores[mariadb]'"),
            ("mysql+mysqlclient://u@h/d", "'agent-stores[database]' mysqlclient"),
        ],
    )
    def test_no_driver(self, url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("agent_stores.backends.sql.config.find_spec", lambda name: None)
        with pytest.raises(MissingDependencyError, match=re.escape(f"pip install {extra}")) as caught:
            DatabaseChatMessageStore(url)
        assert isinstance(caught.value, ImportError)
        assert isinstance(caught.value, AgentStoresError)

    def test_no_sqlalchemy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith("agent_stores.backends.sql.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "sqlalchemy.ext.asyncio", None)
        with pytest.raises(MissingDependencyError, match=r"agent-stores\[database\]"):
            DatabaseChatMessageStore("x.db")

    @pytest.mark.parametrize("scheme", ["postgresql", "postgresql+asyncpg", "mariadb"])
    async def test_an_unreachable_database(self, scheme: str, free_port: int) -> None:
        store = DatabaseChatMessageStore(f"{scheme}://me:{SECRET}@127.0.0.1:{free_port}/chat", timeout=2)
        message = user("x", message_id="a")
        for work in (store.add_messages([message]), store.list_messages()):
            with pytest.raises(StoreUnavailableError, match=rf"127\.0\.0\.1:{free_port}") as caught:
                await work
            assert SECRET not in "".join(traceback.format_exception(caught.value))
        await store.aclose()

    async def test_a_wrong_password(self, postgres_server: PostgresServer) -> None:
        wrong = postgres_server.url.replace(postgres_server.password, SECRET)
        store = DatabaseChatMessageStore(wrong)
        with pytest.raises(StoreRejectedError) as caught:
            await store.add_messages([user("x")])
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        await store.aclose()

    async def test_newer_tables(self, url: str) -> None:
        store = DatabaseChatMessageStore(url, table_prefix="newer_")
        await store.list_threads()
        await run(store, "UPDATE {schema} SET version = 99", write=True)
        await store.aclose()
        store = DatabaseChatMessageStore(url, table_prefix="newer_")
        with pytest.raises(UnsupportedVersionError, match="schema version 99"):
            await store.list_messages()
        database(store).ready = True
        for table in ("messages", "threads", "schema"):
            await run(store, f"DROP TABLE {{{table}}}", write=True)
        await store.aclose()

    async def test_tables_of_another_application(self, url: str) -> None:
        store = DatabaseChatMessageStore(url, table_prefix="other_")
        database(store).ready = True
        await run(store, "CREATE TABLE {messages} (id INTEGER, message_data INTEGER)", write=True)
        again = DatabaseChatMessageStore(url, table_prefix="other_", timeout=11)
        with pytest.raises(StoreRejectedError, match=r"other_messages .* other columns"):
            await again.add_messages([user("x")])
        await again.aclose()
        names = await run(store, LIST_COLUMNS[database(store).dialect])
        assert {name for name, _ in names} == {"other_messages"}  # nothing was created
        await run(store, "DROP TABLE {messages}", write=True)
        await store.aclose()

    async def test_a_read_only_file(self, tmp_path: Path) -> None:
        path = tmp_path / "chat.db"
        async with DatabaseChatMessageStore(path, thread_id="t") as store:
            await store.add_messages([user("kept")])
        reading = DatabaseChatMessageStore(f"file:{path}?mode=ro", thread_id="t")
        assert [message.text for message in await reading.list_messages()] == ["kept"]
        with pytest.raises(StoreRejectedError, match="readonly"):
            await reading.add_messages([user("lost")])
        assert [message.text for message in await reading.list_messages()] == ["kept"]
        await reading.aclose()

    async def test_a_full_disk(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path / 'chat.db'}")
        store = DatabaseChatMessageStore(engine=engine, thread_id="t")
        await store.add_messages([user("kept")])
        event.listen(
            engine,
            "checkout",
            lambda connection, *_: connection.execute("PRAGMA max_page_count = 40").close(),
        )
        with pytest.raises(StoreRejectedError, match="full"):
            await store.add_messages([user("small"), user("x" * 1_000_000)])
        assert [message.text for message in await store.list_messages()] == ["kept"]
        await store.add_messages([user("small")])
        assert await store.count() == 2
        await store.aclose()
        engine.dispose()

    async def test_not_a_database(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("these are not the tables you are looking for" * 100)
        store = DatabaseChatMessageStore(path)
        with pytest.raises(StoreRejectedError, match="not a database"):
            await store.add_messages([user("x")])
        await store.aclose()
        missing = DatabaseChatMessageStore(tmp_path / "no" / "such" / "folder" / "chat.db")
        with pytest.raises(StoreUnavailableError, match="unable to open"):
            await missing.add_messages([user("x")])
        await missing.aclose()

    async def test_a_message_over_mariadbs_packet(self, mariadb_server: MariaDBServer) -> None:
        store = DatabaseChatMessageStore(mariadb_server.url, thread_id="packets")
        with pytest.raises(MessageTooLargeError, match="at most 8323072 bytes"):
            await store.add_messages([user("small"), user("x" * 9_000_000)])
        worst = '"' * 4_000_000  # each is escaped in JSON and again on the way to the server
        await store.add_messages([user(worst)])
        assert [message.text for message in await store.list_messages()] == [worst]
        await store.delete_thread()
        await store.aclose()

    async def test_a_state_of_other_tables(self, tmp_path: Path) -> None:
        one = DatabaseChatMessageStore(tmp_path / "chat.db", table_prefix="one_")
        two = DatabaseChatMessageStore(tmp_path / "chat.db", table_prefix="two_")
        with pytest.raises(StateError, match="tables=two_"):
            await two.update_from_state(await one.serialize())
        for store in (one, two):
            await store.aclose()

    async def test_a_state_of_another_store(self, tmp_path: Path) -> None:
        store = DatabaseChatMessageStore(tmp_path / "chat.db", tenant="acme")
        state = await store.serialize()
        with pytest.raises(StateError, match=r"other\.db'"):
            await DatabaseChatMessageStore.deserialize(
                state, connection_string=tmp_path / "other.db", tenant="acme"
            )
        with pytest.raises(StateError, match="tenant"):
            await DatabaseChatMessageStore.deserialize(state, connection_string=tmp_path / "chat.db")
        again = await DatabaseChatMessageStore.deserialize(
            state, connection_string=tmp_path / "chat.db", tenant="acme"
        )
        assert again.thread_id == store.thread_id
        for each in (store, again):
            await each.aclose()


class TestSecrets:
    async def test_a_password_shows_nowhere(
        self, postgres_server: PostgresServer, free_port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        seen: list[str] = []
        good, password = postgres_server.url, postgres_server.password
        for url in (
            good,
            good.replace("postgresql:", "postgresql+asyncpg:"),
            good.replace(f":{password}@", "@") + f"?password={password}",
            f"postgresql://me:{password}@127.0.0.1:{free_port}/chat",
            f"mariadb://me:{password}@127.0.0.1:{free_port}/chat",
        ):
            store = DatabaseChatMessageStore(url, thread_id="secrets", timeout=3)
            seen += [repr(store), repr(store.log), str(store.log), store.location]
            seen.append(json.dumps(await store.serialize()))
            try:
                await store.add_messages([user("x")])
                await store.delete_thread()
            except StoreUnavailableError as error:
                seen += traceback.format_exception(error)
                seen.append(repr(error))
            with pytest.raises(StateError) as caught:
                await store.update_from_state({**await store.serialize(), "location": "elsewhere"})
            seen += traceback.format_exception(caught.value)
            await store.aclose()
        assert len(seen) > 25
        assert password not in "\n".join(seen)
        assert password not in caplog.text


class TestFaults:
    @pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg"])
    async def test_the_reply_to_a_commit_is_lost(self, postgres_server: PostgresServer, driver: str) -> None:
        with FaultProxy(postgres_server.port) as proxy:
            url = postgres_server.url.replace(str(postgres_server.port), str(proxy.port))
            store = DatabaseChatMessageStore(
                url.replace("postgresql:", f"{driver}:") + _no_tls(driver), thread_id=f"cut-{driver}"
            )
            await store.add_messages([user("before")])
            for n in range(3):
                proxy.cut_before_reply(b"append_v5")
                await store.add_messages([user(f"once {n}")])
            assert proxy.cuts == 3
            assert [m.text for m in await store.list_messages()] == ["before", "once 0", "once 1", "once 2"]
            proxy.cut_before_reply(b"COMMIT")
            popped = await store.pop_last()  # once, too: the log finds out what became of it
            assert popped is not None
            assert popped.text == "once 2"
            assert proxy.cuts == 4
            assert [m.text for m in await store.list_messages()] == ["before", "once 0", "once 1"]
            await store.delete_thread()
            await store.aclose()

    async def test_the_connection_breaks_before_the_commit(self, postgres_server: PostgresServer) -> None:
        with FaultProxy(postgres_server.port) as proxy:
            url = postgres_server.url.replace(str(postgres_server.port), str(proxy.port))
            store = DatabaseChatMessageStore(url + _no_tls("postgresql"), thread_id="broken")
            await store.add_messages([user("before")])
            for n in range(3):
                proxy.cut_before_request(b"append_v5")
                await store.add_messages([user(f"once {n}")])
            assert proxy.cuts == 3
            proxy.drop_all()
            assert await store.count() == 4
            await store.delete_thread()
            await store.aclose()

    @pytest.mark.parametrize("name", ["postgresql", "postgresql+asyncpg", "mariadb"])
    async def test_a_server_that_hangs(self, name: str, request: pytest.FixtureRequest) -> None:
        server = request.getfixturevalue("mariadb_server" if name == "mariadb" else "postgres_server")
        with FaultProxy(server.port) as proxy:
            url = server.url.replace(str(server.port), str(proxy.port)).replace("postgresql:", f"{name}:")
            async with DatabaseChatMessageStore(server.url, thread_id="hung") as patient:
                await patient.add_messages([user("before")])  # it makes the tables, which may take its time
            store = DatabaseChatMessageStore(url + _no_tls(name), thread_id="hung", timeout=1)
            await store.count()
            proxy.hold()
            for work in (store.list_messages(), store.add_messages([user("lost")])):
                with pytest.raises(StoreUnavailableError, match=str(proxy.port)):
                    await asyncio.wait_for(work, 10)
            proxy.heal()
            assert [message.text for message in await store.list_messages()] == ["before"]
            await store.delete_thread()
            await store.aclose()

    async def test_deleting_races_with_adding(self, postgres_server: PostgresServer) -> None:
        store = DatabaseChatMessageStore(postgres_server.url, thread_id="race")

        async def add(n: int) -> None:
            for turn in range(15):
                await store.add_messages([user(f"{n}.{turn}")])

        async def delete() -> None:
            for _ in range(60):
                await store.delete_thread()

        await asyncio.gather(*(add(n) for n in range(8)), delete())
        await store.delete_thread()
        await store.aclose()

    async def test_options_of_the_driver_are_added_to_ours(self, postgres_server: PostgresServer) -> None:
        options = {"connect_args": {"application_name": "mine"}}
        store = DatabaseChatMessageStore(postgres_server.url, engine_options=options, timeout=7)
        await store.count()
        [connection] = database(store).get()._idle
        info = connection._connection.info.get_parameters()
        assert (info["application_name"], info["connect_timeout"]) == ("mine", "7")
        await store.aclose()

    async def test_a_server_that_restarts(self) -> None:
        with PostgresServer() as server:
            store = DatabaseChatMessageStore(server.url, thread_id="t")
            await store.add_messages([user("before")])
            server.kill()
            with pytest.raises(OutcomeUnknownError):  # it was sent before the connection was known to be lost
                await store.add_messages([user("lost")])
            with pytest.raises(StoreUnavailableError):
                await store.add_messages([user("refused")])
            server.restart()
            await store.add_messages([user("after")])
            assert [message.text for message in await store.list_messages()] == ["before", "after"]
            await store.aclose()

    async def test_writers_wait_for_a_lock_on_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "chat.db"
        store = DatabaseChatMessageStore(path, thread_id="t", timeout=3)
        await store.add_messages([user("before")])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await store.add_messages([user("lost")])
        assert len(await store.list_messages()) == 1  # readers do not wait
        waiting = asyncio.ensure_future(store.add_messages([user("after")]))
        await asyncio.sleep(0.1)
        other.execute("COMMIT")
        await waiting
        other.close()
        assert [message.text for message in await store.list_messages()] == ["before", "after"]
        await store.aclose()


def _no_tls(driver: str) -> str:
    """The proxy looks for words in what passes through it."""
    if driver == "mariadb":
        return ""
    return "?ssl=disable" if driver.endswith("asyncpg") else "?sslmode=disable"
