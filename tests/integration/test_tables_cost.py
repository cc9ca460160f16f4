"""What turns cost in requests, rows and bytes on the services of the tables backend."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest

import agent_stores.backends.tables.dynamodb  # noqa: F401 - the SDK reads files with its import
from agent_stores import ChatMessage
from agent_stores.azure import AzureTableMessageLog
from agent_stores.backend import Row, ThreadKey, TimeToLive
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.table import delete
from agent_stores.dynamodb import DynamoDBMessageLog
from agent_stores.log import MessageLog
from agent_stores.store import ChatMessageStore
from tests.servers.dynamodb import DynamoDBServer
from tests.servers.http_proxy import HttpProxy

pytestmark = pytest.mark.anyio

KEY = ThreadKey(None, "t")
BODY = b'{"role":"user","contents":[{"type":"text","text":"hello"}]}'


class Service(NamedTuple):
    """A service whose requests are counted.

    Attributes:
        proxy: counts them.
        kinds: the names of a transaction, a query, and a read of a row.
        new_thread: the requests of a thread's first append: the head; the lists; and the messages.
        logs: logs of one table, each with a client and a memory of its own.
    """

    proxy: HttpProxy
    kinds: tuple[str, str, str]
    new_thread: dict[str, int]
    logs: list[MessageLog]


@pytest.fixture(params=["azure", "dynamodb"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    server: Any = request.getfixturevalue(f"{'azurite' if request.param == 'azure' else 'dynamodb'}_server")
    name, numbers = f"t{uuid.uuid4().hex[:20]}", itertools.count(1)

    def make() -> MessageLog:
        timeout = 10 + next(numbers) / 1000  # tells connections apart
        if request.param == "azure":
            text = server.connection_string_at(proxy.port)
            return AzureTableMessageLog(text, table_name=name, timeout=timeout)
        url = f"http://127.0.0.1:{proxy.port}"
        return DynamoDBMessageLog(name, region_name=DynamoDBServer.region, endpoint_url=url, timeout=timeout)

    async with AsyncExitStack() as stack:
        proxy = stack.enter_context(HttpProxy(server.port))
        logs = [make() for _ in range(3)]
        for log in logs:
            stack.push_async_callback(log.aclose)
        if request.param == "azure":
            yield Service(proxy, ("transaction", "query", "row"), {"row": 1, "transaction": 3}, logs)
        else:
            kinds = ("TransactWriteItems", "Query", "BatchGetItem")
            new_thread = {"BatchGetItem": 1, "TransactWriteItems": 2, "PutItem": 1}
            yield Service(proxy, kinds, new_thread, logs)


def row(name: str) -> Row:
    return Row(name, BODY, bytes=len(BODY), tokens=3, created_us=1)


async def test_one_request_for_an_append_and_for_a_read(service: Service) -> None:
    proxy, (transaction, query, read), new_thread, (log, stranger, third) = service
    await log.append(KEY, [row("first")], request_id="first")  # creates the table
    proxy.counts()
    await log.append(ThreadKey(None, "other"), [row("first")], request_id="first")
    assert proxy.counts() == new_thread
    for n in range(60):
        turn = [row(f"q{n}"), row(f"a{n}")]
        await log.append(KEY, turn, request_id=str(n), max_messages=40, ttl=TimeToLive(900.0))
        request = proxy.requests[-1]
        # The head, a row for each message and for its id; and from the 41st message on those of the trimmed.
        assert request.rows == (9 if n > 19 else 7 if n == 19 else 5)
        if n > 0:  # the first one notes the time-to-live
            assert request.sent < 10_000
            assert proxy.counts() == {transaction: 1}
        proxy.counts()
    await log.append(KEY, turn, request_id="59")
    assert proxy.counts() == {read: 1}  # a retry: the head says so
    assert len(await log.latest(KEY, 20)) == 20
    assert proxy.counts() == {query: 1}
    assert len(await stranger.latest(KEY, 20)) == 20
    assert proxy.counts() == {query: 1}
    for n in range(60, 65):  # another process reads the head and the oldest messages, once
        turn = [row(f"q{n}"), row(f"a{n}")]
        await third.append(KEY, turn, request_id=str(n), max_messages=40)
    assert proxy.counts() == {read: 1, query: 1, transaction: 5}
    assert await log.stats(KEY)
    assert proxy.counts() == {read: 1}
    assert len(await log.read(KEY)) == 40


async def test_an_append_costs_the_same_in_a_long_thread(service: Service) -> None:
    proxy, (transaction, _, read), _, (log, stranger, _) = service
    for n in range(0, 300, 40):
        await log.append(KEY, [row(f"{m}") for m in range(n, n + 40)], request_id=f"{n}")
    proxy.counts()
    await log.append(KEY, [row("q"), row("a")], request_id="turn")
    (request,) = proxy.requests
    assert (request.rows, proxy.counts()) == (5, {transaction: 1})
    assert request.sent < 6_500
    await stranger.append(KEY, [row("by another")], request_id="another")
    assert proxy.counts() == {read: 1, transaction: 1}


async def test_a_turn_and_its_context_at_the_limit(service: Service) -> None:
    proxy, (transaction, query, _), _, (log, *_) = service
    store = ChatMessageStore(log, thread_id="t", max_messages=40, ttl=900)
    for n in range(30):
        await store.add_messages([ChatMessage("user", f"q{n}"), ChatMessage("assistant", f"a{n}")])
        if n < 25:
            proxy.counts()
            continue
        assert proxy.counts() == {transaction: 1}
        assert len(await store.list_messages()) == 40
        assert proxy.counts() == {query: 1}
        assert len(await store.list_messages(last=20)) == 20
        assert proxy.counts() == {query: 1}


async def test_rows_that_other_tools_removed_do_not_block_a_thread(service: Service) -> None:
    log, *_ = service.logs
    await log.append(KEY, [row(name) for name in "abc"])
    table: Any = log.backend.table  # type: ignore[attr-defined]
    ids = await table.query(layout.thread_partition(KEY), "u", "v")
    await table.transact([delete(*item.key) for item in ids])
    await table.transact([delete(*item.key) for item in ids])  # they are gone, which is no error
    await log.append(KEY, [row("d")], max_messages=2)
    assert [each.message_id for each in await log.read(KEY)] == ["c", "d"]
    assert await log.pop_last(KEY) is not None
    assert await log.append(KEY, [row("c")]) == 5
