"""What operations cost on a real server: commands and round trips, at any length of the thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis

from agent_stores.backend import Row, ThreadKey, ThreadOrder, TimeToLive
from agent_stores.redis import RedisMessageLog
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.anyio

LENGTHS = (0, 100, 100_000)


@pytest.fixture(scope="module", params=["valkey9", "redis62"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as started:
        yield started


def row(name: str, **fields: Any) -> Row:
    body = b'{"role":"user","contents":[{"type":"text","text":"hello"}]}'
    return Row(name, body, bytes=len(body), tokens=3, created_us=1_767_225_600_000_000, **fields)


class Costs:
    """What a server was asked.

    Attributes:
        commands: those that clients sent.
        inner: those that scripts ran.
        trips: how often a client sent something and waited.
    """

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.inner: list[str] = []
        self.trips = 0


@contextmanager
def counting(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Costs]:
    """Count until the block ends; connections that exist are used."""
    costs = Costs()
    real = aioredis.Connection.send_packed_command

    async def send(self: Any, *arguments: Any, **options: Any) -> None:
        costs.trips += 1
        await real(self, *arguments, **options)

    over = "the-end-of-the-count"
    with (
        redis.Redis.from_url(server.url) as client,
        client.monitor() as monitor,
        monkeypatch.context() as patch,
    ):
        patch.setattr(aioredis.Connection, "send_packed_command", send)

        def listen() -> None:
            for heard in monitor.listen():
                if over in heard["command"]:
                    return
                word = re.split(r"\s", heard["command"], maxsplit=1)[0].upper()
                (costs.inner if heard["client_type"] == "lua" else costs.commands).append(word)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield costs
        finally:
            server.command("ECHO", over)
            listener.join(30)
    costs.commands = [word for word in costs.commands if word not in ("HELLO", "AUTH", "CLIENT", "SELECT")]


async def fill(log: RedisMessageLog, key: ThreadKey, length: int) -> None:
    for first in range(0, length, 1000):
        await log.append(key, [row(f"old {n}") for n in range(first, min(first + 1000, length))])


Operation = Callable[[RedisMessageLog, ThreadKey, str, int], Awaitable[Any]]
ONE_COMMAND: dict[str, Operation] = {
    "append": lambda log, key, name, length: log.append(key, [row(name)]),
    "append a turn to a trimmed thread": lambda log, key, name, length: log.append(
        key,
        [row(f"{name} q"), row(f"{name} call"), row(f"{name} result", boundary=False)],
        max_messages=length + 25,
        ttl=TimeToLive(3600.0),
    ),
    "append again": lambda log, key, name, length: log.append(key, [row("new 0")]),
    "append where expected": lambda log, key, name, length: log.append(
        key, [row("new 0")], expected_position=7
    ),
    "read the last 20": lambda log, key, name, length: log.latest(key, 20),
    "read a page from the front": lambda log, key, name, length: log.read(key, limit=20),
    "stats": lambda log, key, name, length: log.stats(key),
}
COMMANDS = {"get": 2, "replace": 3, "delete": 3, "pop_last": 3, "set_ttl": 2, "update_metadata": 2}
EDITS: dict[str, Operation] = {
    "get": lambda log, key, name, length: log.get(key, "new 23"),
    "replace": lambda log, key, name, length: log.replace(key, row("new 23")),
    "delete": lambda log, key, name, length: log.delete(key, ["new 25"]),
    "pop_last": lambda log, key, name, length: log.pop_last(key),
    "set_ttl": lambda log, key, name, length: log.set_ttl(key, TimeToLive(1000.0)),
    "update_metadata": lambda log, key, name, length: log.update_metadata(key, {"title": name}),
}


async def test_what_operations_cost(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends and reads are one command; the others load, look and commit. No cost depends on the length."""
    log = RedisMessageLog(server.url)
    operations = ONE_COMMAND | EDITS
    inner: dict[str, list[int]] = {name: [] for name in operations}
    await log.update_metadata(ThreadKey(None, "other"), {"title": "warm"})
    for length in LENGTHS:
        key = ThreadKey(None, f"long {length}")
        await fill(log, key, length)
        await log.append(key, [row(f"new {n}") for n in range(30)])
        for name, operation in operations.items():
            await operation(log, ThreadKey(None, "other"), "warm", length)  # the server knows the scripts
            with counting(server, monkeypatch) as costs:
                await operation(log, key, name, length)
            assert costs.trips == len(costs.commands) == COMMANDS.get(name, 1), (name, costs.commands)
            if name != "read the last 20":
                assert set(costs.commands) == {"EVALSHA"}, name
            inner[name].append(len(costs.inner))
        assert len(await log.latest(key, 20)) == 20
    for name, counts in inner.items():
        assert abs(counts[2] - counts[1]) <= 2, (name, counts)
    await log.aclose()


async def test_reads_of_the_end_are_one_lrange(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RedisMessageLog(server.url)
    key = ThreadKey(None, "end")
    await log.append(key, [row(f"new {n}") for n in range(30)])
    await log.latest(ThreadKey(None, "other"), 20)  # the server knows the script
    for expected in ("EVALSHA", "LRANGE", "LRANGE"):
        with counting(server, monkeypatch) as costs:
            assert len(await log.latest(key, 20)) == 20
        assert (costs.commands, costs.trips) == ([expected], 1)
    await log.aclose()


@pytest.mark.parametrize("length", [1, 20_000])
async def test_what_does_away_with_a_thread_does_not_depend_on_its_length(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    log = RedisMessageLog(server.url)
    for operation in (log.clear, log.delete_thread):
        key = ThreadKey(None, f"short-lived {length}")
        await log.append(ThreadKey(None, "other"), [row("new")])
        await operation(ThreadKey(None, "other"))  # the server knows the scripts
        await fill(log, key, length)
        with counting(server, monkeypatch) as costs:
            assert await operation(key)
        assert costs.commands == ["EVALSHA"] * 2
        assert costs.trips == 2
        assert len(costs.inner) <= 20
    await log.aclose()


async def test_a_list_of_threads_is_two_round_trips(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RedisMessageLog(server.url)
    for n in range(200):
        await log.append(ThreadKey("tenant", f"t{n}"), [row("a")])
    orders: tuple[tuple[ThreadOrder, str], ...] = (("id", "ZRANGEBYLEX"), ("recent", "ZREVRANGEBYSCORE"))
    for order, command in orders:
        await log.list_threads("tenant", order=order)
        with counting(server, monkeypatch) as costs:
            page = await log.list_threads("tenant", limit=50, order=order)
        assert len(page.threads) == 50
        assert costs.trips == 2
        assert costs.commands == [command] * 64 + ["HMGET", "PTTL"] * 51
    await log.aclose()
