"""Live tail where the server notifies of changes: without polls, over lost connections and failovers."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
import redis

from agent_stores import ChatMessage, ChatMessageStore, watching
from agent_stores.capabilities import ChangeNotifier
from agent_stores.database import DatabaseMessageLog
from agent_stores.errors import ArgumentError
from agent_stores.log import MessageLog
from agent_stores.redis import RedisMessageLog
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import FaultProxy
from tests.servers.redis import RedisCluster, RedisSentinel, RedisServer

pytestmark = pytest.mark.anyio

SERVERS = ["valkey_server", "redis62_server", "redis_cluster", "redis_sentinel"]


def url_of(server: RedisServer | RedisCluster | RedisSentinel) -> str:
    if isinstance(server, RedisSentinel):
        return f"redis+sentinel://:{server.password}@127.0.0.1:{server.sentinels[0][1]}/{server.service_name}"
    return (
        server.url.replace("redis://", "redis+cluster://") if isinstance(server, RedisCluster) else server.url
    )


def url_with(driver: str, server: PostgresServer) -> str:
    return server.url.replace("postgresql://", f"postgresql+{driver}://")


def query(server: PostgresServer, text: str) -> Any:
    with psycopg.connect(server.url, autocommit=True) as connection:
        return connection.execute(text).fetchall()


@pytest.fixture(params=[*SERVERS, "psycopg", "asyncpg"])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[MessageLog]:
    """A log whose server notifies."""
    if request.param in SERVERS:
        opened: MessageLog = RedisMessageLog(url_of(request.getfixturevalue(request.param)))
    else:
        server = request.getfixturevalue("postgres_server")
        opened = DatabaseMessageLog(url_with(request.param, server), notify=True, table_prefix="watched_")
    yield opened
    await opened.aclose()


@pytest.fixture
def only_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher looks at its thread when it is notified, and otherwise not before the test has failed."""
    monkeypatch.setattr(watching, "_UNNOTIFIED", 600.0)


class Watcher:
    """What a watcher has seen, and how often it looked."""

    def __init__(self, log: MessageLog, thread_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = ChatMessageStore(log, thread_id=thread_id)
        self.texts: list[str] = []
        self.looks = 0
        stats = self.store.stats

        async def counted() -> object:
            self.looks += 1
            return await stats()

        monkeypatch.setattr(self.store, "stats", counted)

    async def follow(self, after: int | None = 0) -> None:
        async for item in self.store.watch(after=after):
            self.texts.append(item.message.text)

    async def until(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.texts) < count:
            assert time.monotonic() < deadline, f"{len(self.texts)} of {count} messages came"
            await asyncio.sleep(0.01)


async def until_listening(admin: redis.Redis, count: int = 1) -> None:
    await until(lambda: len(admin.client_list(_type="pubsub")) == count, f"{count} watchers have subscribed")


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def following(watcher: Watcher, after: int | None = 0) -> AsyncIterator[None]:
    task = asyncio.create_task(watcher.follow(after))
    await asyncio.sleep(0)
    yield
    assert not task.done(), task.exception()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("only_notified")
async def test_a_change_wakes_a_watcher(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(log.backend, ChangeNotifier)
    thread_id = f"t-{uuid.uuid4().hex}"
    watcher = Watcher(log, thread_id, monkeypatch)
    writer = ChatMessageStore(log, thread_id=thread_id)
    async with following(watcher):
        await until(lambda: watcher.looks > 0, "a first look")
        await asyncio.sleep(1)
        assert watcher.looks == 1  # it waits, and does not poll
        for number in range(5):
            await writer.add_messages([ChatMessage("user", f"{number}")])
            await watcher.until(number + 1)
        looks = 0
        while looks != watcher.looks:  # a notification may come while it reads what that is about
            looks = watcher.looks
            await asyncio.sleep(0.5)
        await ChatMessageStore(log, thread_id=f"x{thread_id}").add_messages([ChatMessage("user", "other")])
        await asyncio.sleep(0.5)
        assert watcher.looks == looks
        await writer.delete_thread()
        await writer.add_messages([ChatMessage("user", "again")])
        await watcher.until(6)
    assert watcher.texts == ["0", "1", "2", "3", "4", "again"]


@pytest.mark.usefixtures("only_notified")
async def test_connections_are_lost(valkey_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RedisMessageLog(valkey_server.url)
    thread_id = f"t-{uuid.uuid4().hex}"
    watcher = Watcher(log, thread_id, monkeypatch)
    writer = ChatMessageStore(log, thread_id=thread_id)
    with valkey_server.client() as admin:
        async with following(watcher):
            for number in range(20):
                if number % 4 == 2:
                    await until_listening(admin)
                    assert await asyncio.to_thread(admin.client_kill_filter, _type="pubsub") >= 1
                await writer.add_messages([ChatMessage("user", f"{number}")])
                if number % 4 == 3:
                    await watcher.until(number + 1)
    assert watcher.texts == [f"{number}" for number in range(20)]
    await log.aclose()


async def test_a_failover(redis_sentinel: RedisSentinel, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RedisMessageLog(url_of(redis_sentinel))
    thread_id = f"t-{uuid.uuid4().hex}"
    watcher = Watcher(log, thread_id, monkeypatch)
    writer = ChatMessageStore(log, thread_id=thread_id)
    async with following(watcher):
        await writer.add_messages([ChatMessage("user", "before")])
        await watcher.until(1)
        await asyncio.to_thread(redis_sentinel.failover)
        await writer.add_messages([ChatMessage("user", "after")])
        await watcher.until(2)
        await writer.add_messages([ChatMessage("user", "later")])
        await watcher.until(3)
    assert watcher.texts == ["before", "after", "later"]
    await log.aclose()


async def test_a_user_without_the_permission_polls(
    valkey_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with valkey_server.client() as admin:
        rules = ["on", ">s3cret", "~*", "resetchannels", "+@all", "-client|tracking"]
        admin.execute_command("ACL", "SETUSER", "plain", "reset", *rules)
        log = RedisMessageLog(
            valkey_server.url.replace("://:", "://plain:").replace(valkey_server.password, "s3cret")
        )
        thread_id = f"t-{uuid.uuid4().hex}"
        watcher = Watcher(log, thread_id, monkeypatch)
        async with following(watcher):
            await ChatMessageStore(log, thread_id=thread_id).add_messages([ChatMessage("user", "1")])
            await watcher.until(1)
            await until(lambda: watcher.looks > 3, "four looks")
        await log.aclose()
        admin.execute_command("ACL", "DELUSER", "plain")


async def test_no_connection_is_left(valkey_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RedisMessageLog(valkey_server.url)
    watcher = Watcher(log, f"t-{uuid.uuid4().hex}", monkeypatch)
    with valkey_server.client() as admin:
        async with following(watcher):
            await until_listening(admin)
        await until_listening(admin, 0)
    await log.aclose()


@pytest.mark.usefixtures("only_notified")
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_listener_is_disconnected(
    driver: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = DatabaseMessageLog(url_with(driver, postgres_server), notify=True, table_prefix="watched_")
    thread_id = f"t-{uuid.uuid4().hex}"
    watcher = Watcher(log, thread_id, monkeypatch)
    writer = ChatMessageStore(log, thread_id=thread_id)
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    async with following(watcher):
        for number in range(6):
            if number % 2:
                ended = 0
                for _ in range(500):
                    [(ended,)] = await asyncio.to_thread(query, postgres_server, kill)
                    if ended:
                        break
                    await asyncio.sleep(0.02)
                assert ended
            await writer.add_messages([ChatMessage("user", f"{number}")])
            await watcher.until(number + 1)
    assert watcher.texts == [f"{number}" for number in range(6)]
    await log.aclose()


@pytest.mark.usefixtures("only_notified")
async def test_the_trigger_joins_tables_that_exist(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"w{uuid.uuid4().hex[:8]}_"
    plain = DatabaseMessageLog(postgres_server.url, table_prefix=prefix)
    writer = ChatMessageStore(plain, thread_id="t")
    await writer.add_messages([ChatMessage("user", "0")])
    assert not isinstance(plain.backend, ChangeNotifier)
    logs = [
        DatabaseMessageLog(postgres_server.url, table_prefix=prefix, notify=True, timeout=10 + n)
        for n in range(4)
    ]
    await asyncio.gather(*(ChatMessageStore(log, thread_id="t").stats() for log in logs))
    watcher = Watcher(logs[0], "t", monkeypatch)
    async with following(watcher):
        await watcher.until(1)
        await writer.add_messages([ChatMessage("user", "1")])  # by a log that knows nothing of it
        await watcher.until(2)
    for log in (plain, *logs):
        await log.aclose()
    with pytest.raises(ArgumentError, match="notify must be False except for a connection string of"):
        DatabaseMessageLog("sqlite:///chat.db", notify=True)


@pytest.mark.parametrize(
    "kind", ["psycopg", "asyncpg", "psycopg polled", "asyncpg polled", "mariadb", "redis"]
)
async def test_a_watcher_that_is_cut_off_misses_and_repeats_nothing(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections break, and new ones are refused for a while, as messages go on coming."""
    driver, _, polled = kind.partition(" ")
    name = {"mariadb": "mariadb_server", "redis": "valkey_server"}.get(kind, "postgres_server")
    server = request.getfixturevalue(name)

    def opened(url: str) -> MessageLog:
        if kind == "redis":
            return RedisMessageLog(url)
        url = url.replace("postgresql://", f"postgresql+{driver}://")
        notify = kind in ("psycopg", "asyncpg")
        return DatabaseMessageLog(url, notify=notify, table_prefix="cut_off_", timeout=2)

    thread_id = f"t-{uuid.uuid4().hex}"
    with FaultProxy(server.port) as proxy:
        log, direct = opened(proxy.url(server.url)), opened(server.url)
        assert isinstance(log.backend, ChangeNotifier) == (kind not in ("mariadb",) and not polled)
        writer = ChatMessageStore(direct, thread_id=thread_id)
        watcher = Watcher(log, thread_id, monkeypatch)
        async with following(watcher):
            for number in range(40):
                if number % 10 == 3:
                    await asyncio.to_thread(proxy.drop_all)
                elif number % 10 == 6:
                    await asyncio.to_thread(proxy.drop_all, refuse=True)
                elif number % 10 == 9:
                    proxy.heal()
                    await watcher.until(number)
                await writer.add_messages([ChatMessage("user", f"{number}")])
                await asyncio.sleep(0.02)
            await watcher.until(40)
            await asyncio.sleep(0.3)
        assert watcher.texts == [f"{number}" for number in range(40)]
        await asyncio.gather(log.aclose(), direct.aclose())
