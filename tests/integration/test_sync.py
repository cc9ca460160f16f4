"""The synchronous view on servers: on the callers' threads, over connections of loops that stand still."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis
from redis.asyncio.connection import Connection as RedisConnection

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.connection_pool import EventLoopPool
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.redis import RedisMessageLog
from agent_stores.sync import SyncChatMessageStore, block_on
from agent_stores.urls import open_log
from tests.servers.process import wait_for
from tests.servers.proxy import FaultProxy
from tests.servers.redis import RedisCluster, RedisServer

SERVERS = {
    "postgresql": lambda server: server.url,
    "redis": lambda server: server.url,
    "cluster": lambda server: server.url.replace("redis://", "redis+cluster://"),
    "azure": lambda server: server.connection_string,
}
FIXTURES = {
    "postgresql": "postgres_server",
    "redis": "redis62_server",
    "cluster": "redis_cluster",
    "azure": "azurite_server",
}


class LoopMessageLog(RedisMessageLog):
    """A log whose synchronous calls need event loops, as backends without a blocking client have it."""

    supports_inline = False


@pytest.fixture(autouse=True)
def loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[EventLoopPool]:
    """Loops that no other test has used."""
    fresh = EventLoopPool(4)
    monkeypatch.setattr("agent_stores.sync.loop_pool", fresh)
    monkeypatch.setattr("agent_stores.connection_pool.loop_pool", fresh)
    yield fresh
    fresh.close()


@contextmanager
def view_on(log: MessageLog) -> Iterator[SyncChatMessageStore]:
    """A view of a new thread, which is deleted at the end, and the log closed."""
    view = SyncChatMessageStore(ChatMessageStore(log, thread_id=uuid.uuid4().hex))
    yield view
    view.delete_thread()
    block_on(log.aclose(), log)


@pytest.fixture
def proxied(redis62_server: RedisServer) -> Iterator[tuple[FaultProxy, str]]:
    """A way to the server that can be cut, and its URL."""
    with FaultProxy(redis62_server.port) as proxy:
        yield proxy, proxy.url(redis62_server.url)


def user(text: str) -> ChatMessage:
    return ChatMessage("user", text)


@pytest.mark.parametrize("kind", SERVERS)
def test_on_the_callers_threads(kind: str, loops: EventLoopPool, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(FIXTURES[kind])
    before = {thread.name for thread in threading.enumerate()}
    with view_on(open_log(SERVERS[kind](server))) as view:
        for n in range(5):
            view.add_messages([user(str(n))])
        assert [message.text for message in view.list_messages(last=2)] == ["3", "4"]
        assert [item.message.text for item in view.iter_messages(page_size=2)] == list("01234")
        popped = view.pop_last()
        assert popped is not None
        assert popped.text == "4"
        used = 0 if view.store.log.supports_inline else 1
        assert len(loops._all) == len(loops._idle) == used
        started = {thread.name for thread in threading.enumerate()} - before
        assert not [name for name in started if name.startswith("agent-stores-sync")]

        # More at once than there are loops: the others share the loop that has a thread.
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda n: view.add_messages([user(f"more {n}")]), range(60)))
        assert view.count() == 64
        assert used <= len(loops._all) == len(loops._idle) <= 4 * used


def test_a_connection_that_ended_meanwhile_is_noticed_before_it_is_used(
    proxied: tuple[FaultProxy, str],
) -> None:
    """What cannot be repeated, as taking the last message, would have an unknown outcome otherwise."""
    proxy, url = proxied
    with view_on(LoopMessageLog(url)) as view:
        view.add_messages([user(str(n)) for n in range(8)])
        for n in range(7, 0, -1):
            proxy.drop_all()
            wait_for(lambda: proxy.open_connections == 0, timeout=60, what="the connection is cut")
            popped = view.pop_last()
            assert popped is not None
            assert popped.text == str(n)


def test_closing_closes_the_connections_of_all_loops(
    proxied: tuple[FaultProxy, str], loops: EventLoopPool
) -> None:
    proxy, url = proxied
    log = LoopMessageLog(url)
    together = threading.Barrier(3)

    async def meet(n: int) -> None:
        await asyncio.to_thread(together.wait, 10)
        await ChatMessageStore(log, thread_id="meeting").add_messages([user(str(n))])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: block_on(meet(n), log), range(3)))
    assert len(loops._idle) == proxy.open_connections == 3
    block_on(ChatMessageStore(log, thread_id="meeting").delete_thread(), log)
    block_on(log.aclose(), log)
    wait_for(lambda: proxy.open_connections == 0, timeout=60, what="the connections are closed")
    assert len(loops._idle) == 3
    with view_on(LoopMessageLog(url)) as again:
        again.add_messages([user("on the same loops")])


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no such signal on this system")
def test_an_interrupted_call_leaves_its_loop_usable(
    proxied: tuple[FaultProxy, str], loops: EventLoopPool
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    proxy, url = proxied
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with view_on(LoopMessageLog(url)) as view:
            view.add_messages([user("1")])
            proxy.hold()
            timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGUSR1])
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                view.add_messages([user("2")])
            timer.join()
            proxy.heal()
            view.add_messages([user("3")])
            assert view.list_messages()[-1].text == "3"
            assert len(loops._idle) == len(loops._all) == 1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_client_that_was_lent_stays_on_one_loop(redis62_server: RedisServer, loops: EventLoopPool) -> None:
    client = aioredis.Redis.from_url(redis62_server.url)
    with view_on(RedisMessageLog(redis_client=client)) as view, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: view.add_messages([user(str(n))]), range(30)))
        assert view.count() == 30
    block_on(client.aclose())
    assert not loops._all


def test_after_a_fork(redis62_server: RedisServer) -> None:
    code = f"""
import os, sys
from agent_stores import ChatMessage, RedisChatMessageStore
from agent_stores.sync import SyncChatMessageStore
store = SyncChatMessageStore(RedisChatMessageStore({redis62_server.url!r}, thread_id={uuid.uuid4().hex!r}))
store.add_messages([ChatMessage("user", "parent")])
for name in ("child", "another child"):
    child = os.fork()
    if child == 0:
        store.add_messages([ChatMessage("user", name)])
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
store.add_messages([ChatMessage("user", "parent again")])
print([message.text for message in store.list_messages()])
store.delete_thread()
"""
    done = subprocess.run(
        [sys.executable, "-Wdefault", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "['parent', 'child', 'another child', 'parent again']", done.stderr
    assert not done.stderr  # nothing is left open at the end, either


def test_servers_that_were_let_go_close_their_connections_on_their_loops(redis62_server: RedisServer) -> None:
    """A socket that is closed behind its loop's back leaves its number there, which the next one gets."""

    async def use_and_drop() -> None:
        for number in range(60):
            log = RedisMessageLog(redis62_server.url, max_connections=number + 1)  # a pool of its own
            await log.stats(ThreadKey(None, "t"))
            del log
            await asyncio.sleep(0.01)
            _, writer = await asyncio.open_connection("127.0.0.1", redis62_server.port)
            writer.close()

    asyncio.run(use_and_drop())
    with view_on(RedisMessageLog(redis62_server.url)) as view:
        view.add_messages([user("after")])


def test_a_reset_connection_is_not_used_again(redis62_server: RedisServer, loops: EventLoopPool) -> None:
    """A reset ends the stream one turn of the loop later than it closes the transport."""
    listener = socket.create_server(("127.0.0.1", 0))
    links: list[socket.socket] = []
    stop = threading.Event()

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                if not (data := source.recv(65536)):
                    return
                target.sendall(data)

    def accept() -> list[threading.Thread]:
        links[:] = [listener.accept()[0], socket.create_connection(("127.0.0.1", redis62_server.port))]
        for link in links:
            link.settimeout(0.02)
        threads = [threading.Thread(target=pass_on, args=pair) for pair in (links, links[::-1])]
        for thread in threads:
            thread.start()
        return threads

    url = redis62_server.url.replace(str(redis62_server.port), str(listener.getsockname()[1]))
    log = LoopMessageLog(url)
    view = SyncChatMessageStore(ChatMessageStore(log, thread_id=uuid.uuid4().hex))
    with listener, ThreadPoolExecutor(1) as pool:
        for work in (lambda: view.add_messages([user("1")]), view.pop_last):
            stop.clear()
            threads = pool.submit(accept)
            work()
            stop.set()
            for thread in threads.result(10):
                thread.join()
            links[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for link in links:
                link.close()
    block_on(log.aclose(), log)


def test_closing_on_several_threads_at_once_does_not_wait_for_each_other(redis62_server: RedisServer) -> None:
    logs = [LoopMessageLog(redis62_server.url, timeout=20 + n) for n in range(3)]
    together = threading.Barrier(3)

    async def meet(log: MessageLog) -> None:
        await log.stats(ThreadKey(None, "t"))
        await asyncio.to_thread(together.wait, 10)

    def close(log: MessageLog) -> None:
        together.wait(10)
        block_on(log.aclose(), log)

    with ThreadPoolExecutor(3) as pool:
        for log in logs:
            list(pool.map(lambda _, log=log: block_on(meet(log), log), range(3)))
        began = time.monotonic()
        list(pool.map(close, logs))
    assert time.monotonic() - began < 5


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no such signal on this system")
@pytest.mark.parametrize("turn", range(1, 6))
def test_an_interruption_between_taking_up_work_and_doing_it(
    redis62_server: RedisServer, loops: EventLoopPool, turn: int
) -> None:
    """The loop has lost what it took up: a task that waits for that never ends."""
    turns = 0

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def trace(frame: FrameType, event: str, _: Any) -> None:
        nonlocal turns
        if event == "call" and frame.f_code is asyncio.Handle._run.__code__:
            turns += 1
            if turns == turn:
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)

    before, tracing = signal.signal(signal.SIGUSR1, interrupt), sys.gettrace()
    try:
        with view_on(LoopMessageLog(redis62_server.url)) as view:
            view.add_messages([user(str(n)) for n in range(3)])
            read = view.iter_messages(page_size=1)
            assert next(read).position == 1
            sys.settrace(trace)
            with pytest.raises(KeyboardInterrupt):
                view.count()
            sys.settrace(tracing)
            assert view.count() == 3
            assert [item.position for item in read] == [2, 3]
            assert len(loops._all) == len(loops._idle) == 1
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("make_log", [RedisMessageLog, LoopMessageLog])
def test_no_call_reads_what_an_interrupted_one_asked_for(
    proxied: tuple[FaultProxy, str], monkeypatch: pytest.MonkeyPatch, make_log: type[RedisMessageLog]
) -> None:
    """Ctrl-C may strike between any two lines, also after the command has gone out."""
    proxy, url = proxied
    strike: list[bool] = []

    async def send_and_be_interrupted(self: Any, data: Any, **_: Any) -> None:
        await send(self, data)
        if strike:
            strike.clear()
            raise KeyboardInterrupt

    def send_and_be_interrupted_blocking(self: Any, data: Any, **_: Any) -> None:
        send_blocking(self, data)
        if strike:
            strike.clear()
            raise KeyboardInterrupt

    blocking: Any = redis.Connection
    send, send_blocking = RedisConnection.send_packed_command, blocking.send_packed_command
    monkeypatch.setattr(RedisConnection, "send_packed_command", send_and_be_interrupted)
    monkeypatch.setattr(redis.Connection, "send_packed_command", send_and_be_interrupted_blocking)
    with view_on(make_log(url)) as one, view_on(make_log(url)) as other:
        one.add_messages([user("one's")])
        other.add_messages([user("the other's")])
        proxy.hold()
        strike.append(True)
        with pytest.raises(KeyboardInterrupt):
            one.list_messages()
        threading.Timer(0.3, proxy.heal).start()
        assert [message.text for message in other.list_messages()] == ["the other's"]


def test_a_synchronous_client_is_used_as_it_is(
    redis62_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And asynchronous calls use its options."""
    client = redis.Redis.from_url(redis62_server.url, decode_responses=True)
    log = RedisMessageLog(redis_client=client)
    assert log.location == f"redis://127.0.0.1:{redis62_server.port}/0#agent"
    sent: list[str] = []
    execute: Any = client.execute_command

    def spy(*arguments: Any, **options: Any) -> Any:
        sent.append(arguments[0])
        return execute(*arguments, **options)

    monkeypatch.setattr(client, "execute_command", spy)
    with view_on(log) as view:
        view.add_messages([user("blocking")])
        assert sent
        sent.clear()
        asyncio.run(view.store.add_messages([user("asynchronous")]))
        assert not sent
        assert [message.text for message in view.list_messages()] == ["blocking", "asynchronous"]
        assert view.thread_id in [thread.thread_id for thread in view.list_threads(limit=1000).threads]
    assert client.ping()
    client.close()


def test_a_synchronous_cluster_client(redis_cluster: RedisCluster) -> None:
    client = redis.RedisCluster.from_url(redis_cluster.url)
    with view_on(RedisMessageLog(redis_client=client)) as view:
        view.add_messages([user("blocking")])
        asyncio.run(view.store.add_messages([user("asynchronous")]))
        assert [message.text for message in view.list_messages()] == ["blocking", "asynchronous"]
    assert client.ping()
    client.close()


@pytest.mark.parametrize("kind", ["redis", "postgresql"])
def test_closing_when_the_process_ends(kind: str, request: pytest.FixtureRequest) -> None:
    url = SERVERS[kind](request.getfixturevalue(FIXTURES[kind]))
    code = f"""
import atexit, threading
from concurrent.futures import ThreadPoolExecutor
from agent_stores.log import ThreadKey
from agent_stores.sync import block_on
from agent_stores.urls import open_log
log, together = open_log({url!r}), threading.Barrier(2)
async def meet(_):
    await log.stats(ThreadKey(None, "t"))
    together.wait(10)
with ThreadPoolExecutor(2) as pool:
    list(pool.map(lambda n: block_on(meet(n), log), range(2)))
atexit.register(lambda: (block_on(log.aclose(), log), print("closed")))
"""
    done = subprocess.run(
        [sys.executable, "-Wdefault", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("closed", "")
