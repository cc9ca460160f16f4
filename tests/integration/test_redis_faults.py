"""The Redis store on real servers that are cut off, killed, full, read-only, hung, moved or promoted."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from redis.crc import key_slot

from agent_stores import ChatMessage, RedisChatMessageStore
from agent_stores.backends.redis.layout import COMMIT, DELETE, Keys, thread_keys
from agent_stores.errors import (
    NotReplicatedError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    UnsupportedVersionError,
)
from agent_stores.log import ThreadKey
from agent_stores.redis import RedisMessageLog
from agent_stores.sync import SyncChatMessageStore
from tests.integration.leaving import leave
from tests.servers.process import wait_for
from tests.servers.proxy import FaultProxy
from tests.servers.redis import RedisCluster, RedisSentinel, RedisServer, start_sentinel

pytestmark = pytest.mark.anyio

WRITERS = 8
MakeStore = Callable[..., RedisChatMessageStore]


@pytest.fixture(params=["valkey9", "redis62"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of the test's own, which it may break."""
    with RedisServer(request.param) as started:
        yield started


@pytest.fixture
async def make_store() -> AsyncIterator[MakeStore]:
    async with AsyncExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> RedisChatMessageStore:
            store = RedisChatMessageStore(*arguments, **options)
            stack.push_async_callback(store.aclose)
            return store

        yield make


def user(text: str, **fields: Any) -> ChatMessage:
    return ChatMessage("user", text, **fields)


async def texts(store: RedisChatMessageStore) -> list[str]:
    return [item.message.text async for item in store.iter_messages()]


def keys_of(store: RedisChatMessageStore) -> Keys:
    return thread_keys("agent", ThreadKey(store.tenant, store.thread_id))


def sentinel_url(group: RedisSentinel) -> str:
    sentinels = ",".join(f"{host}:{port}" for host, port in group.sentinels)
    return f"redis+sentinel://:{group.password}@{sentinels}/{group.service_name}"


# Connections that are cut

CUTS: dict[str, Callable[[FaultProxy, bytes], None]] = {
    "before the request": lambda proxy, match: proxy.cut_before_request(match),
    "during the request": lambda proxy, match: proxy.cut_after_client_bytes(400),
    "before the reply": lambda proxy, match: proxy.cut_before_reply(match),
}


@pytest.mark.parametrize("cut", CUTS)
async def test_an_append_over_a_cut_connection(server: RedisServer, cut: str, make_store: MakeStore) -> None:
    with FaultProxy(server.port) as proxy:
        store = make_store(proxy.url(server.url), max_messages=100)
        for n in range(12):
            if n % 3 == 2:
                CUTS[cut](proxy, f"needle {n}".encode())
            await store.add_messages([user(f"needle {n}"), user(f"more {n}")])
        assert proxy.cuts == 4
        assert await texts(store) == [text for n in range(12) for text in (f"needle {n}", f"more {n}")]


@pytest.mark.parametrize("cut", CUTS)
async def test_without_retries_the_caller_tries_again(
    server: RedisServer, cut: str, make_store: MakeStore
) -> None:
    with FaultProxy(server.port) as proxy:
        store = make_store(proxy.url(server.url), retries=0)
        await store.add_messages([user("first")])
        messages = [user("needle"), user("more")]
        CUTS[cut](proxy, b"needle")
        with pytest.raises(OutcomeUnknownError, match=f"127.0.0.1:{proxy.port}"):
            await store.add_messages(messages)
        await store.add_messages(messages)
        assert await texts(store) == ["first", "needle", "more"]


@pytest.mark.parametrize("retries", [0, 3])
async def test_lost_replies_change_nothing_twice(
    server: RedisServer, retries: int, make_store: MakeStore
) -> None:
    """Every operation is exactly once: its outcome is found out when the reply to it is lost."""
    with FaultProxy(server.port) as proxy:
        url = proxy.url(server.url)
        store = make_store(url, thread_id="needle", retries=retries)
        await store.add_messages([user(str(n), message_id=str(n)) for n in range(9)])
        other = make_store(url)  # the server gets to know the scripts
        await other.add_messages([user("1", message_id="1"), user("2")])
        await other.pop_last()
        await (await other.fork()).delete_thread()
        operations: list[tuple[Callable[[], Awaitable[Any]], Any]] = [
            (store.pop_last, "8"),
            (lambda: store.delete("3"), 1),
            (lambda: store.update_metadata({"title": "x"}), 1),
            (lambda: store.replace("0", user("zero")), None),
            (lambda: store.fork("branch"), "branch"),
            (lambda: store.set_ttl(1000), True),
            (store.clear, 7),
            (store.delete_thread, True),
        ]
        for number, (operation, expected) in enumerate(operations):
            await store.stats()
            proxy.cut_before_reply(COMMIT.sha.encode() if number < 7 else DELETE.sha.encode())
            outcome = await operation()
            outcome = getattr(outcome, "text", getattr(outcome, "thread_id", outcome))
            assert outcome == expected, number
            assert proxy.cuts == number + 1
        branch = make_store(url, thread_id="branch")
        assert await texts(branch) == ["zero", "1", "2", "4", "5", "6", "7"]
        assert (await branch.stats()).metadata == {"title": "x"}
        assert await texts(store) == []


async def test_a_server_that_restarted(make_store: MakeStore) -> None:
    with RedisServer(aof=True) as server:
        store = make_store(server.url)
        await store.add_messages([user("1")])
        server.restart()
        assert await texts(store) == ["1"]  # idle connections are checked; scripts are sent again
        server.restart()
        await store.add_messages([user("2")])
        server.command("SCRIPT", "FLUSH")
        await store.add_messages([user("3")])
        server.command("SCRIPT", "FLUSH")
        assert [thread.messages for thread in (await store.list_threads()).threads] == [3]
        popped = await store.pop_last()
        assert popped is not None
        assert popped.text == "3"


async def test_a_server_that_is_killed_under_load(make_store: MakeStore) -> None:
    with RedisServer(aof=True) as server:
        store = make_store(server.url, timeout=30, retries=1000)
        load = Load([make_store(server.url, thread_id=store.thread_id, timeout=30, retries=1000)] * WRITERS)
        async with load:
            for _ in range(3):
                await load.progress(80)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
            await load.progress(80)
        assert_turns(await texts(store), load.acknowledged)


# Failover and migration


async def test_a_failover_under_load(redis_sentinel: RedisSentinel, make_store: MakeStore) -> None:
    url = sentinel_url(redis_sentinel)
    store = make_store(url, timeout=60)
    load = Load([make_store(url, thread_id=store.thread_id, timeout=60) for _ in range(WRITERS)])
    try:
        for fail in (redis_sentinel.failover, redis_sentinel.kill_primary):
            async with load:
                await load.progress(200)
            before = list(load.acknowledged)
            await asyncio.to_thread(in_step, redis_sentinel)
            async with load:
                await load.progress(50)
                await asyncio.to_thread(fail)
                await asyncio.to_thread(redis_sentinel.heal)
                during = len(load.acknowledged)
                await load.progress(200)
            after = load.acknowledged[during + WRITERS :]  # what was begun on the new primary
            # What was acknowledged and not replicated yet may be lost; nothing else, and nothing twice.
            assert_turns(await texts(store), [*before, *after], all_of_them=False)
            load.acknowledged[:] = [text[:-2] for text in (await texts(store))[::2]]
    finally:
        await asyncio.to_thread(redis_sentinel.heal)


async def test_failovers_lose_nothing_that_a_replica_confirmed(make_store: MakeStore) -> None:
    acknowledged, found = await failovers(make_store, 10, wait_replicas=1)
    assert len(acknowledged) > 500
    assert_turns(found, acknowledged)


async def failovers(make_store: MakeStore, count: int, **options: Any) -> tuple[list[str], list[str]]:
    """Fail over `count` times under load; returns the turns acknowledged, and the texts that are there."""
    with start_sentinel() as group:
        url = sentinel_url(group)
        store = make_store(url, timeout=30)
        load = Load(
            [make_store(url, thread_id=store.thread_id, timeout=30, **options) for _ in range(WRITERS)]
        )
        async with load:
            for number in range(count):
                await load.progress(50)
                if number % 5 == 3:
                    await asyncio.to_thread(group.kill_primary)
                elif number % 5 == 4:
                    old = group.primary
                    old.pause()
                    await asyncio.to_thread(group.wait_failover, old)
                else:
                    await asyncio.to_thread(group.failover)
                await load.progress(0 if options else 50)
                await asyncio.to_thread(group.heal)
            await load.progress(50)
        return list(load.acknowledged), await texts(store)


async def test_too_few_replicas(server: RedisServer, make_store: MakeStore) -> None:
    store = make_store(server.url, wait_replicas=1, wait_timeout=0.1)
    messages = [user("1")]
    operations: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.add_messages(messages),
        lambda: store.add_messages(messages),
        store.pop_last,
        lambda: store.set_ttl(60),
        store.delete_thread,
    ]
    for operation in operations:
        with pytest.raises(NotReplicatedError, match="0 of 1 replicas"):
            await operation()
    assert await make_store(server.url, thread_id=store.thread_id).count() == 0


async def test_too_few_replicas_in_a_cluster(redis_cluster: RedisCluster, make_store: MakeStore) -> None:
    url = redis_cluster.url.replace("redis://", "redis+cluster://")
    for n in range(6):  # threads on different nodes
        store = make_store(
            url, thread_id=f"replicated-{n}-{uuid.uuid4().hex}", wait_replicas=1, wait_timeout=0.1
        )
        with pytest.raises(NotReplicatedError, match="0 of 1 replicas"):
            await store.add_messages([user("1")])
        with pytest.raises(NotReplicatedError, match="0 of 1 replicas"):
            await asyncio.to_thread(SyncChatMessageStore(store).add_messages, [user("2")])
        assert await texts(store) == ["1", "2"]


async def test_a_repeated_write_waits_for_replicas_too(make_store: MakeStore) -> None:
    """The reply is lost, and another connection asks again: its WAIT must cover the first write."""
    with (
        RedisServer() as primary,
        RedisServer(password=primary.password, config=[f"replicaof 127.0.0.1 {primary.port}"]) as replica,
        FaultProxy(primary.port) as proxy,
    ):
        wait_for(lambda: replica.info("replication")["master_link_status"] == "up", timeout=30, what="a link")
        patient = make_store(proxy.url(primary.url), wait_replicas=1, wait_timeout=60, timeout=90)
        await patient.add_messages([user("1")])
        await patient.pop_last()
        store = make_store(
            proxy.url(primary.url), thread_id=patient.thread_id, wait_replicas=1, wait_timeout=0.5
        )
        for text, operation in (("add", lambda: store.add_messages([user("2")])), ("pop", store.pop_last)):
            replica.pause()
            proxy.cut_before_reply(b"WAIT")
            with pytest.raises(NotReplicatedError):
                await operation()
            assert proxy.cuts == (1 if text == "add" else 2)
            replica.resume()
        await patient.add_messages([user("3")])


async def test_a_slot_that_moves_under_load(redis_cluster: RedisCluster, make_store: MakeStore) -> None:
    url = redis_cluster.url.replace("redis://", "redis+cluster://")
    store = make_store(url, timeout=60, ttl=3600, max_messages=100_000)
    load = Load([make_store(url, thread_id=store.thread_id, timeout=60, ttl=3600) for _ in range(WRITERS)])
    keys = keys_of(store)
    slot = key_slot(keys.meta)
    home = owner = redis_cluster.owner(keys.meta.decode())
    others = [node for node in redis_cluster.nodes if node is not home]
    async with load:
        for target in [*others, *others, home]:
            await load.progress(60)
            await asyncio.to_thread(move_slot, redis_cluster, slot, owner, target)
            owner = target
        await load.progress(60)
    assert_turns(await texts(store), load.acknowledged)


async def test_reads_and_listing_while_a_slot_moves(
    redis_cluster: RedisCluster, make_store: MakeStore
) -> None:
    url = redis_cluster.url.replace("redis://", "redis+cluster://")
    tenant = uuid.uuid4().hex
    store = make_store(url, tenant=tenant)
    await store.add_messages([user(str(n)) for n in range(10)])
    keys = keys_of(store)
    slot = key_slot(keys.meta)
    home = redis_cluster.owner(keys.meta.decode())
    target = next(node for node in redis_cluster.nodes if node is not home)
    for source, to in ((home, target), (target, home)):
        begin_move(slot, source, to)
        await make_store(url, tenant=tenant, thread_id=store.thread_id, timeout=30).stats()
        moving = asyncio.create_task(asyncio.to_thread(finish_move, redis_cluster, slot, source, to))
        for _ in range(5):
            assert len(await store.list_messages()) == 10
            page = await store.list_threads()
            assert [thread.thread_id for thread in page.threads] == [store.thread_id]
        await moving
        popped = await store.pop_last()
        assert popped is not None
        await store.add_messages([popped])


class Load:
    """Writers that add turns until told otherwise, and what was acknowledged."""

    def __init__(self, stores: list[RedisChatMessageStore]) -> None:
        self.stores = stores
        self.acknowledged: list[str] = []
        self._counts = [0] * len(stores)
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False

    async def __aenter__(self) -> Load:
        self._over = False
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(len(self.stores))]
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._over = True
        results = await asyncio.gather(*self._tasks, return_exceptions=True)  # none goes on after the test
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def progress(self, turns: int) -> None:
        """Wait until `turns` more turns were acknowledged."""
        wanted = len(self.acknowledged) + turns
        while len(self.acknowledged) < wanted:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    async def _write(self, number: int) -> None:
        while not self._over:
            name = f"{number}.{self._counts[number]}"
            self._counts[number] += 1
            try:
                await self.stores[number].add_messages([user(f"{name}.a"), user(f"{name}.b")])
            except OutcomeUnknownError:
                continue  # it may be there or not, once
            self.acknowledged.append(name)


def assert_turns(found: list[str], acknowledged: list[str], *, all_of_them: bool = True) -> None:
    """The turns acknowledged are there, each once and whole; each writer's are in order."""
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert all((one[-1], two[-1]) == ("a", "b") and one[:-1] == two[:-1] for one, two in pairs)
    turns = [one[:-2] for one, _ in pairs]
    assert len(set(turns)) == len(turns), "a turn is there twice"
    assert not set(acknowledged) - set(turns), "an acknowledged turn is lost"
    for writer in range(WRITERS):
        own = [int(turn.partition(".")[2]) for turn in turns if turn.startswith(f"{writer}.")]
        assert own == sorted(own)
    if all_of_them:
        order = [turn for turn in turns if turn in set(acknowledged)]
        assert len(order) == len(acknowledged)


def in_step(group: RedisSentinel) -> None:
    """Wait until the replica has all that the primary has."""
    primary, replica = group.primary, group.replica

    def equal() -> bool:
        offset = primary.info("replication")["master_repl_offset"]
        return replica.info("replication")["master_repl_offset"] == offset

    wait_for(equal, timeout=30, what="the replica is in step")


def begin_move(slot: int, source: RedisServer, target: RedisServer) -> None:
    ids = {node: str(node.command("CLUSTER", "MYID")) for node in (source, target)}
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])


def finish_move(cluster: RedisCluster, slot: int, source: RedisServer, target: RedisServer) -> None:
    while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 1):
        assert isinstance(keys, list)
        migrate = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", cluster.password, "KEYS", *keys)
        source.command(*migrate)
    target_id = str(target.command("CLUSTER", "MYID"))
    for node in (target, source, *cluster.nodes):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)


def move_slot(cluster: RedisCluster, slot: int, source: RedisServer, target: RedisServer) -> None:
    begin_move(slot, source, target)
    finish_move(cluster, slot, source, target)


# Servers that refuse or do not answer


async def test_a_server_that_is_full(server: RedisServer, make_store: MakeStore) -> None:
    store = make_store(server.url, max_messages=50, ttl=3600)
    await store.add_messages([user(str(n), message_id=str(n)) for n in range(50)])
    before = await store.stats()
    server.command("CONFIG", "SET", "maxmemory", 1)
    for messages in ([user("one more")], [user("x" * 100_000) for _ in range(3)]):
        with pytest.raises(StoreRejectedError, match="memory is full"):
            await store.add_messages(messages)
    with pytest.raises(StoreRejectedError):
        await make_store(server.url).add_messages([user("a new thread")])
    assert len(await store.list_messages(last=50)) == 50
    after = await store.stats()
    assert (after.messages, after.last_position, after.bytes) == (50, 50, before.bytes)
    assert await store.delete([str(n) for n in range(10)]) == 10  # makes room
    server.command("CONFIG", "SET", "maxmemory", 0)
    await store.add_messages([user("again")])
    assert await texts(store) == [*map(str, range(10, 50)), "again"]


async def test_a_replica_is_read_and_not_written(
    redis_sentinel: RedisSentinel, make_store: MakeStore
) -> None:
    store = make_store(sentinel_url(redis_sentinel), ttl=3600)
    await store.add_messages([user("1", message_id="a")])
    await asyncio.to_thread(in_step, redis_sentinel)
    replica = make_store(redis_sentinel.replica.url, thread_id=store.thread_id)
    assert await texts(replica) == ["1"]
    assert await replica.get("a") is not None
    assert (await replica.stats()).messages == 1
    assert store.thread_id in [t.thread_id for t in (await replica.list_threads(limit=10_000)).threads]
    for work in (replica.add_messages([user("2")]), replica.pop_last(), replica.delete("a")):
        with pytest.raises(StoreRejectedError, match="read-only replica"):
            await work
    assert await texts(store) == ["1"]


async def test_a_server_that_hangs(server: RedisServer, make_store: MakeStore) -> None:
    store = make_store(server.url)
    await store.add_messages([user("1")])
    shared: Any = store.log
    shared._redis._attempts.timeout = 0.6  # of what follows: a busy machine is slow to connect
    server.pause()
    try:
        messages = [user("2")]
        with pytest.raises(OutcomeUnknownError, match=r"did not answer within 0\.6 seconds"):
            await store.add_messages(messages)
        with pytest.raises(StoreUnavailableError, match=r"did not answer within 0\.6 seconds"):
            await store.list_messages()
        with pytest.raises(StoreUnavailableError):
            await make_store(server.url, timeout=0.6, client_options={"client_name": "x"}).list_messages()
    finally:
        server.resume()
        shared._redis._attempts.timeout = 10.0
    await store.add_messages(messages)
    assert await texts(store) == ["1", "2"]


async def test_no_server_is_there(make_store: MakeStore) -> None:
    with RedisServer() as server:
        url, port = server.url, server.port
        store = make_store(url)
        server.kill()
        for work in (store.add_messages([user("1")]), store.list_messages(), store.pop_last()):
            with pytest.raises(
                StoreUnavailableError, match=f"127.0.0.1:{port}.*nothing was written"
            ) as caught:
                await work
            assert server.password not in str(caught.value)


async def test_a_login_that_is_refused(server: RedisServer, make_store: MakeStore) -> None:
    server.command(
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">planted-reader",
        "~agent:*",
        "+@read",
        "+evalsha",
        "+eval",
        "+@connection",
        "+time",
    )
    wrong = server.url.replace(server.password, "planted-wrong")
    without = f"redis://127.0.0.1:{server.port}"
    for url in (wrong, without):
        with pytest.raises(StoreRejectedError) as caught:
            await make_store(url).list_messages()
        assert "planted" not in str(caught.value)
    store = make_store(server.url)
    await store.add_messages([user("1")])
    reader = make_store(f"redis://reader:planted-reader@127.0.0.1:{server.port}", thread_id=store.thread_id)
    assert await texts(reader) == ["1"]
    with pytest.raises(StoreRejectedError, match="does not have the permission"):
        await reader.add_messages([user("2")])
    assert await texts(store) == ["1"]


async def test_the_documented_permissions_suffice(server: RedisServer, make_store: MakeStore) -> None:
    page = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
    found = re.search(r"`(~agent:\* \+[^`]*)`", page)
    assert found is not None
    server.command("ACL", "SETUSER", "app", "on", ">planted-app", *found[1].split())
    store = make_store(f"redis://app:planted-app@127.0.0.1:{server.port}", ttl=60, max_messages=3)
    await store.add_messages([user("0"), ChatMessage("system", "rule", pinned=True)])
    for n in range(1, 6):
        await store.add_messages([user(str(n), message_id=str(n))])
    assert await store.get("4") is not None
    await store.replace("4", user("four"))
    await store.replace((await store.list_messages())[0].message_id or "", user("no rule", pinned=False))
    assert await store.delete("4") == 1
    branch = await store.fork()
    popped = await branch.pop_last()
    assert popped is not None
    await branch.set_ttl(None)
    await branch.set_ttl(0.01, refresh="read")
    await asyncio.sleep(0.05)
    server.command("SCRIPT", "FLUSH")
    assert [thread.thread_id for thread in (await store.list_threads()).threads] == [store.thread_id]
    await store.clear()
    await store.delete_thread()
    await branch.aclose()


# What is on the server


@pytest.mark.parametrize("layout", ["3", "5"])
async def test_another_layout_is_rejected(server: RedisServer, layout: str, make_store: MakeStore) -> None:
    store = make_store(server.url)
    await store.add_messages([user("1", message_id="a")])
    key, field, value = keys_of(store).meta.decode(), "state", f"{layout},whatever it will be"
    server.command("HSET", key, field, value)
    operations = [
        store.add_messages([user("2")]),
        store.list_messages(),
        store.stats(),
        store.delete("a"),
        store.clear(),
        store.fork(),
        store.set_ttl(60),
        store.list_threads(),
    ]
    for work in operations:
        with pytest.raises(UnsupportedVersionError, match=f"version {layout}"):
            await work
    assert server.command("HGET", key, field) == value


@pytest.mark.parametrize("lost", ["meta", "messages", "pinned"])
async def test_a_thread_that_lost_a_key(server: RedisServer, lost: str, make_store: MakeStore) -> None:
    store = make_store(server.url)
    await store.add_messages([user("1", message_id="a"), ChatMessage("system", "rule", pinned=True)])
    keys = keys_of(store)
    server.command("DEL", getattr(keys, lost).decode())
    remaining = {key.decode() for key in keys[:3]} & set(keys_with(server, "*"))
    assert len(remaining) == 2
    for client in (store, make_store(server.url, thread_id=store.thread_id, timeout=9)):
        for work in (
            client.add_messages([user("2")]),
            client.list_messages(),
            client.list_messages(last=1),
            client.get("a"),
            client.delete("a"),
            client.pop_last(),
            client.clear(),
        ):
            with pytest.raises(StoreError, match="damaged"):
                await work
    assert {key.decode() for key in keys[:3]} & set(keys_with(server, "*")) == remaining
    assert await store.delete_thread()
    assert keys_with(server, "*") == []
    await store.add_messages([user("3")])
    assert await texts(store) == ["3"]


async def test_nothing_outlives_the_time_to_live(server: RedisServer, make_store: MakeStore) -> None:
    for refresh in ("write", "read", "never"):
        for n in range(3):
            store = make_store(
                server.url, tenant=f"{refresh}{n}", ttl=60, ttl_refresh=refresh, max_messages=2
            )
            await store.add_messages([user("1"), ChatMessage("system", "rule", pinned=True)])
            await store.clear()
            await store.add_messages([user("2"), user("3")])
            await store.list_messages()
            await store.replace((await store.list_messages())[0].message_id or "", user("two"))
            await store.pop_last()
            await (await store.fork()).add_messages([user("4")])
            await store.set_ttl(60, refresh=refresh)
    left = [int(str(server.command("PTTL", key))) for key in keys_with(server, "*")]
    assert left
    # Lists of threads last an eighth longer: few writes of a thread then write there.
    assert all(0 < milliseconds <= 67_600 for milliseconds in left), left


async def test_expired_threads_leave_the_index(server: RedisServer, make_store: MakeStore) -> None:
    """Also where a thread without end in the same bucket keeps the index alive."""
    short = [make_store(server.url, thread_id=f"t{n}", ttl=0.3) for n in range(300)]
    for store in short:
        await store.add_messages([user("1")])
    for n in range(300, 400):
        await make_store(server.url, thread_id=f"t{n}").add_messages([user("1")])
    await asyncio.sleep(0.5)
    page = await short[0].list_threads(limit=1000)
    assert [thread.thread_id for thread in page.threads] == [f"t{n}" for n in range(300, 400)]
    for name in ("index", "recent"):
        members = sum(int(str(server.command("ZCARD", key))) for key in keys_with(server, f"*:{name}"))
        assert members == 100
    assert keys_with(server, "*:expiry") == []


def keys_with(server: RedisServer, pattern: str) -> list[str]:
    found = server.command("KEYS", pattern)
    assert isinstance(found, list)
    return found


# Clients of the caller's


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"single_connection_client": True}])
async def test_a_borrowed_client(server: RedisServer, options: dict[str, Any], make_store: MakeStore) -> None:
    client = aioredis.Redis.from_url(server.url, **options)
    store = make_store(redis_client=client, thread_id="\ud83d odd")
    assert store.location == f"redis://127.0.0.1:{server.port}/0#agent"
    await store.add_messages([user("\x00\udc80 é😀", message_id="\udfff"), user("2")])
    assert await texts(store) == ["\x00\udc80 é😀", "2"]
    assert [thread.thread_id for thread in (await store.list_threads()).threads] == ["\ud83d odd"]
    await store.aclose()
    assert await client.ping()  # type: ignore[misc, unused-ignore]
    await client.aclose()


async def test_a_borrowed_cluster(redis_cluster: RedisCluster, make_store: MakeStore) -> None:
    client = aioredis.RedisCluster.from_url(redis_cluster.url, decode_responses=True)
    store = make_store(redis_client=client)
    assert store.location.startswith("redis+cluster://127.0.0.1:")
    await store.add_messages([user("é")])
    branch = await store.fork()
    assert await texts(store) == await texts(branch) == ["é"]
    await branch.aclose()
    await store.aclose()
    assert await client.ping()  # type: ignore[misc, unused-ignore]
    await client.aclose()


# The end of loops and processes

MAKE = """
from agent_stores import RedisChatMessageStore

store = RedisChatMessageStore(sys.argv[1], thread_id="leaving")
"""


async def test_a_demoted_primary_of_redis_6_is_left(make_store: MakeStore) -> None:
    """There a script's error says that the server only reads, which redis-py does not notice."""
    with start_sentinel(flavour="redis62") as group:
        store = make_store(sentinel_url(group))
        await asyncio.gather(*(store.add_messages([user(f"before {n}")]) for n in range(4)))
        await asyncio.to_thread(group.failover)
        await asyncio.gather(*(store.add_messages([user(f"after {n}")]) for n in range(4)))
        assert await store.count() == 8


@pytest.mark.parametrize("kind", ["single", "sentinel", "cluster"])
def test_nothing_is_left_behind_or_said(kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "single":
        url = request.getfixturevalue("valkey_server").url
    elif kind == "sentinel":
        url = sentinel_url(request.getfixturevalue("redis_sentinel"))
    else:
        url = request.getfixturevalue("redis_cluster").url.replace("redis://", "redis+cluster://")
    assert leave(MAKE, url)[2:] == [*"123456"]


async def test_ten_thousand_stores_use_one_pool(server: RedisServer) -> None:
    stores = [RedisChatMessageStore(server.url, thread_id=f"t{n}") for n in range(10_000)]
    await asyncio.gather(*(store.add_messages([user("1")]) for store in stores[:500]))
    assert int(server.info("clients")["connected_clients"]) <= 60
    for store in stores:
        await store.aclose()
    wait_for(lambda: server.info("clients")["connected_clients"] == "1", timeout=60, what="all are closed")


async def test_logs_share_and_close(server: RedisServer) -> None:
    one, two = RedisMessageLog(server.url), RedisMessageLog(server.url)
    assert one._redis._clients is two._redis._clients
    await one.stats(ThreadKey(None, "x"))
    await one.aclose()
    await two.stats(ThreadKey(None, "x"))
    await two.aclose()
    wait_for(lambda: server.info("clients")["connected_clients"] == "1", timeout=60, what="all are closed")
