"""Reads of a plain thread's end are one LRANGE, and notice it when another client changed the thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from agent_stores.backend import Row, ThreadKey, TimeToLive
from agent_stores.backends.redis.layout import thread_keys
from agent_stores.redis import RedisMessageLog
from tests.integration.test_redis_cost import counting, row
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.anyio

KEY = ThreadKey("acme", "plain")
MESSAGES = thread_keys("agent", KEY).messages


@pytest.fixture(scope="module", params=["valkey9", "redis62"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(request.param) as started:
        yield started


@pytest.fixture
async def reader(server: RedisServer) -> Any:
    """A client that has read the thread, which has 30 messages, and knows that it is plain."""
    server.command("FLUSHALL")
    log = RedisMessageLog(server.url)
    await log.append(KEY, [row(f"m{n}") for n in range(30)])
    await log.latest(KEY, 20)
    assert log._redis._clients.get().plain
    yield log
    await log.aclose()


@pytest.fixture
async def writer(server: RedisServer) -> Any:
    """Another client, as another process has it."""
    log = RedisMessageLog(server.url, timeout=9.0)
    yield log
    await log.aclose()


async def by_script(log: RedisMessageLog, last: int | None) -> list[Row]:
    log._redis._clients.get().plain.clear()
    return await log.latest(KEY, last)


async def test_a_plain_read_is_one_command(
    server: RedisServer, reader: RedisMessageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for last in (1, 20, 29, 30, 31, None):
        with counting(server, monkeypatch) as costs:
            part = await reader.latest(KEY, last)
        assert (costs.commands, costs.trips) == (["LRANGE"], 1)
        assert part == await by_script(reader, last)
        assert len(part) == (30 if last is None else min(last, 30))
        await reader.latest(KEY, 1)


Change = Callable[[RedisMessageLog], Awaitable[Any]]
CHANGES: dict[str, Change] = {
    "append": lambda log: log.append(KEY, [row("new")]),
    "append and trim": lambda log: log.append(KEY, [row("new")], max_messages=5),
    "append a pinned one": lambda log: log.append(KEY, [row("new", pinned=True)]),
    "append a pinned one before others": lambda log: log.append(KEY, [row("new", pinned=True), row("newer")]),
    "append a group": lambda log: log.append(KEY, [row("new"), *(row(c, boundary=False) for c in "abcde")]),
    "pin": lambda log: log.replace(KEY, row("m3", pinned=True)),
    "pin the newest": lambda log: log.replace(KEY, row("m29", pinned=True)),
    "replace the newest": lambda log: log.replace(KEY, row("m29", boundary=False)),
    "delete in the middle": lambda log: log.delete(KEY, ["m15", "m28"]),
    "delete the newest": lambda log: log.delete(KEY, ["m29", "m28"]),
    "pop": lambda log: log.pop_last(KEY),
    "renew when read": lambda log: log.set_ttl(KEY, TimeToLive(1000.0, "read")),
    "expire": lambda log: log.set_ttl(KEY, TimeToLive(1000.0, "never")),
    "clear": lambda log: log.clear(KEY),
    "delete": lambda log: log.delete_thread(KEY),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_another_clients_change_is_seen(
    reader: RedisMessageLog, writer: RedisMessageLog, change: str
) -> None:
    await CHANGES[change](writer)
    for again in (False, True):  # and after more was added
        for last in (0, 1, 3, 20, None):
            reader._redis._clients.get().plain[MESSAGES] = True
            part = await reader.latest(KEY, last)
            assert part == await by_script(reader, last), (again, last)
        await writer.append(KEY, [row(f"more {n}") for n in range(3)])


async def test_positions_after_a_deletion(reader: RedisMessageLog, writer: RedisMessageLog) -> None:
    await writer.delete(KEY, ["m15"])
    await reader.latest(KEY, 20)
    expected = await by_script(reader, 20)
    assert await reader.latest(KEY, 20) == expected
    assert [one.position for one in expected] == [*range(10, 16), *range(17, 31)]


async def test_a_read_renews_where_another_client_asked_for_it(
    server: RedisServer, reader: RedisMessageLog, writer: RedisMessageLog
) -> None:
    """A renewal that moves the end by less than a thousandth is left out."""
    await writer.set_ttl(KEY, TimeToLive(100.0, "read"))
    await asyncio.sleep(0.3)
    with contextlib.closing(server.client()) as client:
        assert client.pttl(MESSAGES) <= 99_700
        await reader.latest(KEY, 20)
        assert client.pttl(MESSAGES) > 99_800


async def test_a_branch_of_a_pinned_thread(reader: RedisMessageLog) -> None:
    await reader.append(KEY, [row("m30")])
    await reader.replace(KEY, row("m3", pinned=True))
    branch = ThreadKey("acme", "branch")
    await reader.fork(KEY, branch, at=30)
    first = await reader.latest(branch, 5)
    assert [one.pinned for one in first] == [True, *[False] * 5]
    assert await reader.latest(branch, 5) == first
