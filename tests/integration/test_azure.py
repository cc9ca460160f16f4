"""The Azure Tables store on Azurite: what requests cost, limits, faults, races, and hostile names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure.data.tables.aio import TableServiceClient

from agent_stores import AzureTableChatMessageStore, ChatMessage
from agent_stores.azure import AzureTableMessageLog
from agent_stores.backend import Row, ThreadKey, TimeToLive
from agent_stores.backends.tables import index, layout, service
from agent_stores.backends.tables.azure import PROPERTY_UNITS, AzureTable
from agent_stores.backends.tables.layout import LAYOUT
from agent_stores.errors import (
    ConflictError,
    MessageTooLargeError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    UnsupportedVersionError,
)
from agent_stores.memory import InMemoryMessageLog
from agent_stores.store import ChatMessageStore
from tests.servers.azurite import AzuriteServer
from tests.servers.http_proxy import HttpProxy
from tests.servers.process import wait_for

pytestmark = pytest.mark.anyio

MakeStore = Callable[..., AzureTableChatMessageStore]
SECOND = 1_000_000


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def proxy(azurite_server: AzuriteServer) -> Iterator[HttpProxy]:
    with HttpProxy(azurite_server.port) as started:
        yield started


@pytest.fixture
def table() -> str:
    return f"t{uuid.uuid4().hex[:20]}"


@pytest.fixture
async def make_log(
    azurite_server: AzuriteServer, proxy: HttpProxy, table: str
) -> AsyncIterator[Callable[..., AzureTableMessageLog]]:
    """Logs behind the proxy, each with a client and a memory of its own."""
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> AzureTableMessageLog:
            options.setdefault("client_options", {"user_agent": uuid.uuid4().hex})
            options.setdefault("table_name", table)
            log = AzureTableMessageLog(azurite_server.connection_string_at(proxy.port), **options)
            stack.push_async_callback(log.aclose)
            return log

        yield make


@pytest.fixture
async def make_store(azurite_server: AzuriteServer, proxy: HttpProxy, table: str) -> AsyncIterator[MakeStore]:
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> AzureTableChatMessageStore:
            options.setdefault("client_options", {"user_agent": uuid.uuid4().hex})
            store = AzureTableChatMessageStore.from_connection_string(
                azurite_server.connection_string_at(proxy.port), table_name=table, **options
            )
            stack.push_async_callback(store.aclose)
            return store

        yield make


@pytest.fixture
async def rows(azurite_server: AzuriteServer, table: str) -> AsyncIterator[Callable[..., Any]]:
    """What is in the table, by a client of the service's own."""
    async with TableServiceClient.from_connection_string(azurite_server.connection_string) as service:
        client = service.get_table_client(table)

        async def read(partition: str | None = None) -> list[Any]:
            query = "" if partition is None else f"PartitionKey eq '{partition}'"
            return [row async for row in client.query_entities(query)]

        yield read


def user(text: str, **fields: Any) -> ChatMessage:
    return ChatMessage("user", text, **fields)


BODY = b'{"role":"user","contents":[{"type":"text","text":"hello"}]}'


def row(name: str, body: bytes = BODY, **fields: Any) -> Row:
    return Row(name, body, bytes=len(body), tokens=3, created_us=1, **fields)


async def texts(store: AzureTableChatMessageStore) -> list[str]:
    return [item.message.text async for item in store.iter_messages()]


def key_of(store: AzureTableChatMessageStore) -> ThreadKey:
    return ThreadKey(store.tenant, store.thread_id)


# What it costs


async def test_a_list_of_threads_reads_heads_only(make_log: Any, proxy: HttpProxy) -> None:
    log = make_log()
    for n in range(12):
        await log.append(ThreadKey("acme", f"t{n:02}"), [row(str(m)) for m in range(20)], request_id="b")
    proxy.counts()
    page = await log.list_threads("acme", limit=10)
    assert [one.thread_id for one in page.threads] == [f"t{n:02}" for n in range(10)]
    assert proxy.counts() == {"query": 1, "row": 11}


async def test_reading_an_empty_place_makes_nothing(make_log: Any, proxy: HttpProxy) -> None:
    log = make_log()
    assert (await log.read(ThreadKey(None, "t"))) == []
    assert await log.stats(ThreadKey(None, "t")) is None
    assert (await log.list_threads(None)).threads == []
    assert await log.purge_expired() == 0
    assert "new table" not in proxy.counts()


# Limits


@pytest.mark.parametrize(("count", "transactions"), [(49, 1), (50, 2), (98, 2), (99, 3)])
async def test_transactions_of_a_hundred_rows(
    make_log: Any, proxy: HttpProxy, count: int, transactions: int
) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    await log.append(key, [row("first")], request_id="first")
    proxy.counts()
    await log.append(key, [row(str(n)) for n in range(count)], request_id="many")
    assert max(request.rows for request in proxy.requests) <= 100
    assert proxy.counts()["transaction"] == transactions
    assert len(await log.read(key)) == count + 1


async def test_transactions_of_four_megabytes(make_log: Any, proxy: HttpProxy) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    await log.append(key, [row("first")], request_id="first")
    for character, count in (("x", 4), ("x", 20), ('"', 10), ("é", 7), ("😀", 3)):
        body = (character * 200_000).encode()
        rows = [row(f"{character}.{count}.{n}", body) for n in range(count)]
        await log.append(key, rows, request_id=f"{character}.{count}")
        assert max(request.sent for request in proxy.requests) <= 4 * 1024 * 1024
        assert [each.body for each in await log.latest(key, count)] == [body] * count


@pytest.mark.parametrize("character", ["x", "é", "語", "😀", "\\"])
@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_bodies_at_the_size_of_a_property(make_log: Any, rows: Any, character: str, over: int) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    width = len(character.encode("utf-16-le")) // 2
    body = "y" * ((PROPERTY_UNITS + over) % width) + character * ((PROPERTY_UNITS + over) // width)
    assert len(body.encode("utf-16-le")) == 2 * (PROPERTY_UNITS + over)
    await log.append(key, [row("a", body.encode())], request_id="b")
    assert (await log.read(key))[0].body == body.encode()
    stored = next(one for one in await rows(layout.thread_partition(key)) if one["RowKey"][0] == "r")
    assert ("body1" in stored) == (over > 0)


async def test_a_character_is_never_parted(make_log: Any) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    for shift in range(3):  # each boundary of a property falls before, into and after a pair
        body = ("z" * shift + "😀" * PROPERTY_UNITS * 2).encode()
        await log.append(key, [row(str(shift), body)], request_id=str(shift))
        assert (await log.latest(key, 1))[0].body == body


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_bodies_at_the_size_of_a_row(make_log: Any, rows: Any, over: int) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    body = b"x" * (AzureTable.limits.item_bytes + over)
    await log.append(key, [row("a", body), row("b")], request_id="b")
    assert [each.body for each in await log.read(key)] == [body, BODY]
    assert [each.position for each in await log.latest(key, 1)] == [2]
    found = await rows(layout.thread_partition(key))
    assert len([one for one in found if one["RowKey"][0] == "x"]) == (2 if over > 0 else 0)
    for one in found:
        assert sum(2 * len(value) for value in one.values() if isinstance(value, str)) <= 1024 * 1024


async def test_the_largest_message(make_log: Any, rows: Any) -> None:
    log, key = make_log(timeout=60), ThreadKey(None, "t")
    await log.append(key, [row("before")], request_id="before")
    body = b"x" * AzureTable.limits.body_bytes
    await log.append(key, [row("a", body)], request_id="b")
    await log.append(key, [row("after")], request_id="after")
    assert (await log.latest(key, 2))[0].body == body
    found = await log.get(key, "a")
    assert found is not None
    assert found.body == body
    assert await log.replace(key, row("a", b"small"))
    assert [len(each.body) for each in await log.read(key)] == [59, 5, 59]
    assert not [
        one for one in await rows() if one["RowKey"][0] == "x" and "body" in one and len(one["body"]) > 99
    ]
    assert log.max_message_bytes == len(body)
    store = ChatMessageStore(log, thread_id="t")
    with pytest.raises(MessageTooLargeError) as caught:
        await store.add_messages([user("c"), user("x" * len(body))])
    assert caught.value.limit == len(body)
    assert (await log.stats(key)).messages == 3


async def test_replacing_by_what_takes_many_rows(make_log: Any, rows: Any) -> None:
    log, key = make_log(timeout=60), ThreadKey(None, "t")
    await log.append(key, [row("a"), row("b")], request_id="b")
    for size in (5_000_000, 2_000_000, 10, 6_000_000):
        assert await log.replace(key, row("a", b"x" * size))
        assert [len(each.body) for each in await log.read(key)] == [size, 59]
    assert await log.delete(key, ["a"]) == 1
    kinds = [one["RowKey"][0] for one in await rows(layout.thread_partition(key))]
    assert sorted(kinds) == ["h", "r", "u"]


async def test_names_that_are_too_long(make_store: MakeStore) -> None:
    with pytest.raises(ValueError, match="id must have at most 5000 characters, got 5001"):
        await make_store(thread_id="x" * 5001).add_messages([user("x")])
    store = make_store(thread_id="\U0010ffff" * 5000, tenant="\x00" * 5000, ttl=60)
    await store.add_messages([user("1")])
    assert await texts(store) == ["1"]
    assert [one.thread_id for one in (await store.list_threads()).threads] == [store.thread_id]


# Values stay what they are


async def test_what_looks_like_a_number_is_text(make_store: MakeStore) -> None:
    store = make_store(thread_id="123", tenant="0")
    message = user("123", message_id="7", additional_properties={"n": "1", "when": "2026-01-01T00:00:00Z"})
    await store.add_messages([message])
    found = await store.get("7")
    assert found is not None
    assert found.replace(created_at=None) == message
    page = await store.list_threads()
    assert [(one.tenant, one.thread_id) for one in page.threads] == [("0", "123")]


HOSTILE = [
    "x' or PartitionKey ne '",
    "x' or 'a' eq 'a",
    "' or RowKey ge '0' or PartitionKey eq '",
    "x'; drop table",
    "a/b\\c#d?e%f+g&h",
    "x' and RowKey lt 'zzz",
    "victim",
    "Victim",
    "@partition",
    "(PartitionKey='t.~.victim',RowKey='head')",
]


async def test_hostile_keys_reach_no_other_thread(make_store: MakeStore) -> None:
    for name in HOSTILE:
        await make_store(thread_id=name, tenant=name).add_messages([user(f"of {name}", message_id=name)])
    for name in HOSTILE:
        store = make_store(thread_id=name, tenant=name)
        assert await texts(store) == [f"of {name}"]
        assert [message.text for message in await store.list_messages(last=5)] == [f"of {name}"]
        assert [one.thread_id for one in (await store.list_threads(prefix=name)).threads] == [name]
        for other in HOSTILE:
            found = await store.get(other)
            assert (found is not None) == (other == name)
            assert await store.delete_thread(other) is False if other != name else True
    for name in HOSTILE:
        store = make_store(thread_id=name, tenant=name)
        assert await store.delete(HOSTILE) == 1
        assert await store.delete_thread()


# Faults


@pytest.mark.parametrize(("status", "code"), [(503, "ServerBusy"), (429, "TooManyRequests")])
async def test_a_busy_service_is_asked_again_when_it_says(
    make_store: MakeStore, proxy: HttpProxy, status: int, code: str
) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    at = proxy.answer(status, b"needle", times=2, headers={"Retry-After": "1"}, code=code)
    began = time.monotonic()
    await store.add_messages([user("needle")])
    assert len(at) == 2
    assert at[1] - at[0] >= 1.0
    assert time.monotonic() - began >= 2.0
    proxy.answer(status, b"GET", headers={"Retry-After": "1"}, code=code)
    began = time.monotonic()
    assert [message.text for message in await store.list_messages()] == ["1", "needle"]
    assert time.monotonic() - began >= 1.0


async def test_a_service_that_stays_busy(make_store: MakeStore, proxy: HttpProxy) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    proxy.answer(503, b"needle", times=100, headers={"Retry-After": "30"})
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="nothing was written"):
        await store.add_messages([user("needle")])
    assert time.monotonic() - began < 20  # it does not wait for longer than it may
    proxy.heal()
    assert await texts(store) == ["1"]


@pytest.mark.parametrize("status", [500, 503, 408, 504])
async def test_errors_of_the_service_pass(make_store: MakeStore, proxy: HttpProxy, status: int) -> None:
    store = make_store()
    for n in range(4):
        proxy.answer(status, f"needle {n}".encode(), code="InternalError")
        await store.add_messages([user(f"needle {n}"), user("more")])
    assert len(await texts(store)) == 8


async def test_a_lost_answer_is_made_out(make_store: MakeStore, proxy: HttpProxy) -> None:
    store = make_store(max_messages=100)
    for n in range(6):
        if n != 1:
            proxy.lose_answer(f"needle {n}".encode())
        await store.add_messages([user(f"needle {n}"), user(f"more {n}")])
    assert await texts(store) == [text for n in range(6) for text in (f"needle {n}", f"more {n}")]
    last = (await store.list_messages())[-1]
    proxy.lose_answer(b"$batch")
    popped = await store.pop_last()
    assert popped is not None
    assert popped.message_id == last.message_id
    proxy.lose_answer(b"$batch")
    first = (await store.list_messages())[0].message_id or ""
    assert await store.delete(first) == 1
    proxy.lose_answer(b"$batch")
    await store.replace((await store.list_messages())[0].message_id or "", user("other"))
    assert (await texts(store))[0] == "other"
    proxy.lose_answer(b"$batch")
    assert await store.set_ttl(60)
    proxy.lose_answer(b"$batch")
    branch = await store.fork()
    assert await texts(branch) == await texts(store)
    proxy.lose_answer(b"$batch")
    assert await branch.clear() == 10
    proxy.lose_answer(b"DELETE", times=1)
    assert await store.delete_thread()
    assert await texts(store) == []
    await branch.aclose()


@pytest.mark.parametrize("seed", range(4))
async def test_random_operation_sequence_on_a_bad_connection(
    make_store: MakeStore, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever fails on the way, each operation does once what it does in memory."""
    monkeypatch.setattr(service, "_FIRST_PAUSE", 0.002)
    story = random.Random(seed)
    limit = story.choice([None, 3, 8])
    stores = [make_store(thread_id="t", max_messages=limit, timeout=30) for _ in range(2)]
    expected = ChatMessageStore(InMemoryMessageLog(), thread_id="t", max_messages=limit)
    ids: list[str] = []
    for step in range(30):
        for _ in range(story.randint(0, 2)):
            match = story.choice([b"$batch", b"$batch", b"GET"])
            if story.random() < 0.6:
                proxy.lose_answer(match)
            else:
                proxy.answer(story.choice([503, 500, 429]), match)
        store = story.choice(stores)
        chance = story.random()
        if chance < 0.6 or not ids:
            names = [f"{step}.{n}" for n in range(story.randint(1, 4))]
            names += story.sample(ids, min(len(ids), story.randint(0, 1)))
            ids += names
            action = "add_messages"
            arguments: Any = [user(name, message_id=name) for name in names]
        elif chance < 0.75:
            action, arguments = "delete", story.sample(ids, min(len(ids), 3))
        elif chance < 0.8:
            action, arguments = "clear", None
        elif chance < 0.88:
            action = "replace_all"
            arguments = [user(name, message_id=name) for name in dict.fromkeys([*ids[-3:], f"{step}.r"])]
        else:
            action, arguments = "pop_last", None
        given = () if arguments is None else (arguments,)
        outcomes = [await getattr(one, action)(*given) for one in (store, expected)]
        if action == "pop_last":
            outcomes = [outcome and outcome.message_id for outcome in outcomes]
        assert outcomes[0] == outcomes[1], (step, action)
        proxy.heal()
        held = [(item.position, item.message.text) async for item in store.iter_messages()]
        assert held == [(item.position, item.message.text) async for item in expected.iter_messages()], step


async def test_an_answer_that_stays_lost(make_store: MakeStore, proxy: HttpProxy) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    messages = [user("needle")]
    proxy.lose_answer(b"needle", times=100)
    proxy.answer(503, b"GET", times=100)
    with impatient(store), pytest.raises(OutcomeUnknownError, match="may or may not be stored"):
        await store.add_messages(messages)
    proxy.heal()
    await store.add_messages(messages)
    assert await texts(store) == ["1", "needle"]


@contextlib.contextmanager
def impatient(store: AzureTableChatMessageStore) -> Iterator[None]:
    """Let requests of a store take half a second; what comes before has the usual time."""
    log: Any = store.log
    table = log.backend.table
    usual, table.attempts.timeout = table.attempts.timeout, 0.5
    yield
    table.attempts.timeout = usual


async def all_passed(proxy: HttpProxy) -> None:
    await asyncio.to_thread(wait_for, lambda: proxy.held == 0, timeout=60, what="all requests are answered")


async def test_an_answer_that_takes_too_long(make_store: MakeStore, proxy: HttpProxy) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    messages = [user("needle")]
    proxy.hold(b"needle", times=10)
    with impatient(store), pytest.raises(OutcomeUnknownError):
        await store.add_messages(messages)
    assert proxy.held > 0
    proxy.heal()
    await all_passed(proxy)  # the service carries it out after all
    await store.add_messages(messages)
    assert await texts(store) == ["1", "needle"]


async def test_a_late_write_does_not_come_twice(make_store: MakeStore, proxy: HttpProxy) -> None:
    """A write that hangs on its way loses against its repetition."""
    store = make_store()
    await store.add_messages([user("1")])
    proxy.hold(b"needle")
    with impatient(store):
        await store.add_messages([user("needle")])
    assert await texts(store) == ["1", "needle"]
    assert proxy.held == 1
    proxy.heal()
    await all_passed(proxy)
    assert await texts(store) == ["1", "needle"]
    await store.add_messages([user("2")])
    assert await texts(store) == ["1", "needle", "2"]


async def test_no_service(azurite_server: AzuriteServer, free_port: int) -> None:
    store = AzureTableChatMessageStore(azurite_server.connection_string_at(free_port), timeout=2)
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{free_port}"):
        await store.add_messages([user("1")])
    await store.aclose()


# Rights


async def test_without_the_right_to_make_tables(make_store: MakeStore, proxy: HttpProxy) -> None:
    proxy.answer(403, b"POST /devstoreaccount1/Tables", times=100, code="AuthorizationPermissionMismatch")
    store = make_store()
    with pytest.raises(StoreRejectedError, match="nothing was written"):
        await store.add_messages([user("1")])
    proxy.heal()
    await make_store().add_messages([user("1")])  # by a client that may
    proxy.counts()
    proxy.answer(403, b"POST /devstoreaccount1/Tables", times=100, code="AuthorizationPermissionMismatch")
    await store.add_messages([user("2")])
    assert await texts(store) == ["2"]
    assert "new table" not in proxy.counts()


async def test_refusals(make_store: MakeStore, proxy: HttpProxy, azurite_server: AzuriteServer) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    proxy.answer(403, b"$batch", code="AuthorizationFailure")
    with pytest.raises(StoreRejectedError, match=r"AuthorizationFailure.*nothing was written"):
        await store.add_messages([user("2")])
    assert await texts(store) == ["1"]
    wrong = AzureTableChatMessageStore.from_account_and_key(
        azurite_server.account, "cGxhbnRlZC13cm9uZw==", azurite_server.endpoint
    )
    with pytest.raises(StoreRejectedError) as caught:
        await wrong.add_messages([user("x")])
    assert "cGxhbnRlZC13cm9uZw" not in str(caught.value)
    await wrong.aclose()


async def test_a_retry_is_no_conflict_however_late(make_log: Any) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    first = [row("a"), row("b")]
    await log.append(key, first, request_id="first", expected_position=0)
    for n in range(20):  # more than the batches that a thread remembers
        await log.append(key, [row(str(n))], request_id=str(n))
    for one in (log, make_log()):
        assert await one.append(key, first, request_id="first", expected_position=0) == 22
        with pytest.raises(ConflictError) as caught:
            await one.append(key, [*first, row("c")], request_id="other", expected_position=0)
        assert (caught.value.expected, caught.value.actual) == (0, 22)


async def test_ranges_after_gaps(make_log: Any, proxy: HttpProxy) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    for n in range(5):
        await log.append(key, [row(f"{n}.{m}") for m in range(100)], request_id=str(n))
    await log.delete(key, [f"{n}.{m}" for n in (1, 2) for m in range(100)])
    await log.append(key, [row("last")], request_id="last", max_messages=250)
    proxy.counts()
    found = await log.read(key, after=10, limit=60)
    assert [each.position for each in found] == [*range(52, 101), *range(301, 312)]
    found = await log.read(key, before=305, limit=1000)
    assert [each.position for each in found] == [*range(52, 101), *range(301, 305)]
    assert await log.read(key, before=3, limit=5) == []
    assert proxy.counts()["query"] <= 12


async def test_two_make_the_table_at_once(make_store: MakeStore) -> None:
    stores = [make_store(thread_id=str(n)) for n in range(6)]
    await asyncio.gather(*(store.add_messages([user("1")]) for store in stores))
    assert [await texts(store) for store in stores] == [["1"]] * 6


# Races


async def test_eight_writers_on_one_head(make_store: MakeStore) -> None:
    stores = [make_store(thread_id="t", max_messages=1000, timeout=60) for _ in range(8)]

    async def write(n: int) -> None:
        for turn in range(10):
            await stores[n].add_messages([user(f"{n}.{turn}.{half}") for half in "ab"])

    await asyncio.gather(*(write(n) for n in range(8)))
    found = await texts(stores[0])
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert all(a[:-1] == b[:-1] for a, b in pairs)
    for n in range(8):
        assert [a for a, _ in pairs if a.startswith(f"{n}.")] == [f"{n}.{turn}.a" for turn in range(10)]
    assert (await stores[0].stats()).messages == 160


def test_sixteen_event_loops_take_turns(azurite_server: AzuriteServer, table: str) -> None:
    """Stores of one process write to one thread, each on an event loop of its own."""
    text, errors = azurite_server.connection_string, []

    def work(number: int) -> None:
        async def write() -> None:
            async with AzureTableChatMessageStore(text, table_name=table, thread_id="t") as store:
                for n in range(10):
                    await store.add_messages([user(f"{number}.{n}")])

        try:
            asyncio.run(write())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []

    async def read() -> list[str]:
        async with AzureTableChatMessageStore(text, table_name=table, thread_id="t") as store:
            return await texts(store)

    found = asyncio.run(read())
    assert len(found) == 160
    for number in range(16):
        mine = [text for text in found if text.startswith(f"{number}.")]
        assert mine == [f"{number}.{n}" for n in range(10)]


async def test_long_calls_beside_short_ones(make_log: Any) -> None:
    key = ThreadKey(None, "t")
    logs = [make_log(timeout=60) for _ in range(3)]

    async def write(n: int, count: int, times: int) -> None:
        for turn in range(times):
            await logs[n].append(
                key, [row(f"{n}.{turn}.{m}") for m in range(count)], request_id=f"{n}.{turn}"
            )
            await asyncio.sleep(0.05)

    await asyncio.gather(write(0, 150, 2), write(1, 1, 8), write(2, 120, 2))
    entries = await logs[0].read(key)
    assert [entry.position for entry in entries] == list(range(1, 549))
    assert (await logs[0].stats(key)).messages == 548
    for n, count, times in ((0, 150, 2), (1, 1, 8), (2, 120, 2)):
        for turn in range(times):
            found = [await logs[n].get(key, f"{n}.{turn}.{m}") for m in (0, count - 1)]
            assert found[0] is not None and found[1] is not None  # noqa: PT018
            assert found[1].position - found[0].position == count - 1


async def test_a_reader_never_sees_half_a_call(make_log: Any) -> None:
    log, reader, key = make_log(timeout=60), make_log(), ThreadKey(None, "t")
    seen: set[int] = set()
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            seen.add(len(await reader.read(key)))

    watching = asyncio.ensure_future(watch())
    for turn in range(3):
        await log.append(key, [row(f"{turn}.{m}") for m in range(130)], request_id=str(turn))
    await log.delete(key, [f"0.{m}" for m in range(40)])
    await log.clear(key)
    done.set()
    await watching
    assert seen <= {0, 130, 260, 390, 350}


# What a writer that died leaves behind


async def _die_while_writing(log: Any, key: ThreadKey, proxy: HttpProxy, count: int) -> None:
    """Write messages, and lose the service before the last transaction."""
    before = len(proxy.requests)
    proxy.answer(403, f"{count - 1}-last".encode(), times=100, code="AuthorizationFailure")
    rows = [row(f"d{n}", f'"{n}-last"'.encode()) for n in range(count)]
    with pytest.raises(StoreRejectedError):
        await log.append(key, rows, request_id="dying")
    assert len(proxy.requests) > before + 1
    proxy.heal()


@pytest.mark.parametrize("length", [0, 3])
async def test_after_a_writer_died(make_log: Any, proxy: HttpProxy, rows: Any, length: int) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    if length:
        await log.append(key, [row(f"old {n}") for n in range(length)], request_id="old")
    await _die_while_writing(log, key, proxy, 120)
    other = make_log()
    assert len(await other.read(key)) == length
    stats = await other.stats(key)
    assert (0 if stats is None else stats.messages) == length
    assert len((await other.list_threads(None)).threads) == (1 if length else 0)
    assert await other.get(key, "d0") is None
    await other.append(key, [row("d5"), row("new"), row("d0")], request_id="next")
    entries = await other.read(key)
    assert [entry.position for entry in entries] == list(range(1, length + 4))
    assert (await other.get(key, "d5")).position == length + 1
    # The same call once more adds what is missing, once.
    again = [row(f"d{n}") for n in range(120)]
    await log.append(key, again, request_id="dying again")
    await log.append(key, again, request_id="and again")
    assert (await log.stats(key)).messages == length + 121
    partition = await rows(layout.thread_partition(key))
    assert len([one for one in partition if one["RowKey"][0] == "r"]) == length + 121


@pytest.mark.parametrize("length", [0, 3])
async def test_a_dead_writers_messages_never_show(make_log: Any, proxy: HttpProxy, length: int) -> None:
    """Also where rows of another kind, pinned ones, take their places."""
    log, key = make_log(), ThreadKey(None, "t")
    held = [f"old {n}" for n in range(length)]
    if held:
        await log.append(key, [row(name) for name in held], request_id="old")
    await _die_while_writing(log, key, proxy, 120)
    other = make_log()
    few = [row("rules", pinned=True), row("d1"), row("new"), row("d119", pinned=True)]
    await other.append(key, few, request_id="other")
    held += ["rules", "d1", "new", "d119"]
    for one in (log, other, make_log()):
        assert [entry.position for entry in (await one.read(key))] == list(range(1, len(held) + 1))
        for name in [*held, "d0", "d2", "d3", "d49", "d118"]:
            assert (await one.get(key, name) is not None) == (name in held)
    again = [row(f"d{n}") for n in range(120)]
    await log.append(key, again, request_id="again")
    await other.append(key, again, request_id="and again")
    total = len({*held, *(f"d{n}" for n in range(120))})
    assert (await other.stats(key)).messages == total
    assert len(await other.read(key)) == total


async def test_what_a_dead_writer_leaves_is_purged(make_log: Any, proxy: HttpProxy, rows: Any) -> None:
    clock = Clock()
    log, key = make_log(clock=clock), ThreadKey("acme", "t")
    await _die_while_writing(log, key, proxy, 120)
    assert len(await rows(layout.thread_partition(key))) > 90
    clock.ahead = 7200
    for _ in range(3):
        await log.purge_expired()
    assert (await log.list_threads("acme", order="recent")).threads == []
    assert {one["PartitionKey"] for one in await rows()} <= {layout.TENANTS}


# Time-to-live and cleaning up


async def test_purging_leaves_nothing(make_log: Any, rows: Any) -> None:
    clock = Clock()
    log = make_log(clock=clock)
    ttl = TimeToLive(60.0)
    for n, count in enumerate((1, 40, 130)):
        key = ThreadKey("acme" if n else None, f"t{n}")
        await log.append(key, [row(str(m), pinned=m == 2) for m in range(count)], request_id="b", ttl=ttl)
    stays = ThreadKey("acme", "stays")
    await log.append(stays, [row("1")], request_id="b")
    assert await log.purge_expired() == 0
    clock.ahead = 100
    assert await log.purge_expired(limit=2) == 2
    assert await log.purge_expired(limit=2) == 1
    assert await log.purge_expired() == 0
    clock.ahead = 7200  # what the writer of a long call notes is over, too
    assert await log.purge_expired() == 0
    left = {one["PartitionKey"] for one in await rows()} - {layout.TENANTS}
    assert left == {layout.thread_partition(stays), layout.index_partition("acme")}
    assert (await log.stats(stays)).messages == 1


async def test_purging_in_several_places_at_once(make_log: Any, rows: Any) -> None:
    clock = Clock()
    log = make_log(clock=clock)
    for n in range(12):
        await log.append(
            ThreadKey(None, f"t{n}"),
            [row(str(m)) for m in range(8 if n else 120)],
            request_id="b",
            ttl=TimeToLive(10.0),
        )
    clock.ahead = 60
    alive = ThreadKey(None, "t3")
    logs = [make_log(clock=clock) for _ in range(3)]
    counts, *_ = await asyncio.gather(
        asyncio.gather(*(one.purge_expired() for one in logs)),
        make_log(clock=clock).append(alive, [row("anew"), row("0")], request_id="c", ttl=TimeToLive(900.0)),
    )
    for one in logs:
        assert await one.purge_expired() == 0
    assert sum(counts) >= 11
    assert [entry.position for entry in await log.read(alive)] == [1, 2]
    assert [one.thread_id for one in (await log.list_threads(None)).threads] == ["t3"]
    assert {one["PartitionKey"][:2] for one in await rows()} == {"t.", "i.", "x.", "n"}
    messages = [one for one in await rows(layout.thread_partition(alive)) if one["RowKey"][0] == "r"]
    assert len(messages) == 2


async def test_a_thread_that_expired_begins_anew(make_log: Any, rows: Any) -> None:
    clock = Clock()
    log, key = make_log(clock=clock), ThreadKey(None, "t")
    await log.append(
        key, [row(str(n), pinned=n == 0) for n in range(60)], request_id="b", ttl=TimeToLive(10.0)
    )
    clock.ahead = 20
    assert (await log.read(key)) == []
    assert await log.append(key, [row("59"), row("0")], request_id="b", expected_position=0) == 2
    assert [entry.position for entry in await make_log(clock=clock).read(key)] == [1, 2]
    kinds = [one["RowKey"][0] for one in await rows(layout.thread_partition(key))]
    assert sorted(kinds) == ["h", "r", "r", "u", "u"]  # nothing of the old one is left


async def test_deleting_and_clearing_long_threads(make_log: Any, rows: Any) -> None:
    clock = Clock()
    log, key = make_log(clock=clock), ThreadKey(None, "t")
    for n in range(4):
        many = [row(f"{n}.{m}", pinned=m == 1) for m in range(80)]
        await log.append(key, many, request_id=str(n))
    assert await log.delete(key, [f"1.{m}" for m in range(80)]) == 80
    kinds = [one["RowKey"][0] for one in await rows(layout.thread_partition(key))]
    assert (kinds.count("r"), kinds.count("u")) == (240, 240)
    assert await log.clear(key) == 240
    assert [one["RowKey"] for one in await rows(layout.thread_partition(key))] == ["head"]
    assert await log.append(key, [row(f"0.{m}") for m in range(150)], request_id="again") == 470
    assert await log.delete_thread(key)
    assert {one["PartitionKey"][:2] for one in await rows()} <= {"x.", "n"}
    clock.ahead = 7200
    assert await log.purge_expired() == 0
    assert {one["PartitionKey"][:2] for one in await rows()} <= {"n"}


async def test_a_long_thread_trimmed_to_a_short_one(make_log: Any, rows: Any) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    for n in range(3):
        await log.append(key, [row(f"{n}.{m}") for m in range(100)], request_id=str(n))
    await log.append(key, [row("new")], request_id="new", max_messages=5)
    assert [each.position for each in await log.read(key)] == [297, 298, 299, 300, 301]
    kinds = [one["RowKey"][0] for one in await rows(layout.thread_partition(key))]
    assert (kinds.count("r"), kinds.count("u")) == (5, 5)
    await log.append(key, [row("0.1")], request_id="a trimmed one again", max_messages=5)
    assert (await log.stats(key)).last_position == 302


# Replacing all


@pytest.mark.parametrize("is_cleaned", [True, False])
async def test_replacing_a_long_thread_with_the_same_ids(
    make_log: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, is_cleaned: bool
) -> None:
    """Also where the process ends before the old rows are removed."""
    clock = Clock()
    log, other, key = make_log(clock=clock), make_log(clock=clock), ThreadKey(None, "t")
    old = [row(f"{n}", pinned=n == 3) for n in range(150)]
    await log.append(key, old, request_id="b")
    seen: set[tuple[int, int]] = set()

    async def watch() -> None:
        while True:
            found = await other.read(key)
            seen.add((len(found), found[0].position))

    async def nothing(*arguments: Any) -> int:
        """As a process that ends."""
        return 0

    watching = asyncio.ensure_future(watch())
    if not is_cleaned:
        monkeypatch.setattr(index.Index, "_visit", nothing)
    new = [row(f"{n}", pinned=n == 3) for n in range(130)] + [row(f"new {n}") for n in range(30)]
    assert await log.replace_all(key, new, request_id="r") == 310
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert seen <= {(150, 1), (160, 151)}
    log = make_log(clock=clock)
    some = [row("7"), row("new 3"), row("140")]
    assert await log.append(key, some, request_id="c") == 311
    assert [each.position for each in await log.read(key)] == list(range(151, 312))
    assert (await log.get(key, "7")).position == 158
    assert (await log.get(key, "140")).position == 311
    assert await log.get(key, "141") is None
    assert await log.delete(key, ["7", "8", "9", "10", "11", "149"]) == 5
    assert await log.replace(key, row("13"))
    assert await log.append(key, [row("7"), row("13")], request_id="d") == 312
    monkeypatch.undo()
    clock.ahead = 7200
    for _ in range(3):
        await log.purge_expired()
    kinds = [one["RowKey"][0] for one in await rows(layout.thread_partition(key))]
    assert (kinds.count("r"), kinds.count("u")) == (157, 157)
    for message in ("7", "14", "3", "new 29", "140"):
        assert await log.get(key, message)


# Versions


async def test_a_newer_layout_is_refused(
    make_store: MakeStore, azurite_server: AzuriteServer, table: str
) -> None:
    store = make_store(thread_id="t")
    await store.add_messages([user("1")])
    async with TableServiceClient.from_connection_string(azurite_server.connection_string) as service:
        client = service.get_table_client(table)
        head = await client.get_entity(layout.thread_partition(key_of(store)), layout.HEAD)
        await client.upsert_entity({**head, "meta": str(LAYOUT + 1)})
        for work in (
            make_store(thread_id="t").list_messages(),
            store.stats(),
            store.add_messages([user("2")]),
        ):
            with pytest.raises(UnsupportedVersionError, match="version 2 of the table layout"):
                await work
        await client.upsert_entity({**head, "body": "{"})
        with pytest.raises(StoreError, match="damaged"):
            await store.stats()


# Ways of connecting


async def test_ways_of_connecting(azurite_server: AzuriteServer, table: str) -> None:
    from datetime import datetime, timedelta, timezone

    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.data.tables import AccountSasPermissions, ResourceTypes, generate_account_sas

    key = AzureNamedKeyCredential(azurite_server.account, azurite_server.key)
    sas = generate_account_sas(
        key,
        resource_types=ResourceTypes(service=True, object=True, container=True),
        permission=AccountSasPermissions(
            read=True, write=True, delete=True, list=True, add=True, create=True, update=True
        ),
        expiry=datetime.now(timezone.utc) + timedelta(hours=1),
    )
    endpoint = azurite_server.endpoint
    client = TableServiceClient(endpoint, credential=key)
    options: dict[str, Any] = {"table_name": table, "thread_id": "t"}
    kind = AzureTableChatMessageStore
    stores = [
        kind.from_connection_string(azurite_server.connection_string, **options),
        kind.from_connection_string(f"TableEndpoint={endpoint};SharedAccessSignature={sas}", **options),
        kind.from_account_and_key(azurite_server.account, azurite_server.key, endpoint, **options),
        kind.from_sas_token(endpoint, f"?{sas}", **options),
        kind.from_endpoint(endpoint, key, **options),
        kind.from_endpoint(f"{endpoint}/", AzureSasCredential(sas), **options),
        kind(table_service_client=client, **options),
    ]
    signature = sas.partition("sig=")[2].partition("&")[0]
    for n, store in enumerate(stores):
        await store.add_messages([user(str(n))])
        assert await texts(store) == [str(m) for m in range(n + 1)]
        state = json.dumps(await store.serialize())
        assert json.loads(state)["location"] == f"{endpoint}/{table}"
        shown = state + repr(store) + repr(store.log) + repr(vars(store.log))
        assert azurite_server.key not in shown
        assert signature not in shown
        await store.aclose()
    assert [row async for row in client.list_tables()]  # the borrowed client is open still
    await client.close()


async def test_stores_share_a_client(azurite_server: AzuriteServer, table: str) -> None:
    stores = [
        AzureTableChatMessageStore(azurite_server.connection_string, table_name=table) for _ in range(500)
    ]
    assert len({id(store.log.backend.table._server) for store in stores}) == 1  # type: ignore[attr-defined]
    await stores[0].add_messages([user("1")])
    for store in stores:
        await store.aclose()


async def test_the_command_line(azurite_server: AzuriteServer, tmp_path: Path) -> None:
    text = azurite_server.connection_string

    async def run(*arguments: str, store: str = text, **variables: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent_stores.cli", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "AGENT_STORES_URL": store, "COLUMNS": "200", **variables},
        )
        output, _ = await process.communicate()
        assert azurite_server.key not in output.decode()
        return process.returncode or 0, output.decode()

    async with AzureTableChatMessageStore(text, thread_id=f"cli-{uuid.uuid4().hex}") as store:
        await store.add_messages([user("hello there")])
        thread_id = store.thread_id
    status, output = await run("threads", "--prefix", thread_id)
    assert (status, thread_id in output) == (0, True)
    status, output = await run(
        "show", thread_id, store="azure-tables:///agentstores", AZURE_STORAGE_CONNECTION_STRING=text
    )
    assert (status, "hello there" in output) == (0, True), output
    assert await run("purge", "--json") == (0, '{"threads": 0}\n')
    status, output = await run("export", thread_id)
    (tmp_path / "export.jsonl").write_text(output)
    assert (await run("import", str(tmp_path / "export.jsonl"), "--tenant", "acme"))[0] == 0
    assert "hello there" in (await run("show", thread_id, "--tenant", "acme"))[1]
    for tenant in ((), ("--tenant", "acme")):
        assert (await run("delete", thread_id, "--yes", *tenant))[0] == 0
    wrong = text.replace(azurite_server.key, "cGxhbnRlZA==")
    status, output = await run("threads", store=wrong)
    assert status == 1
    assert "does not permit" in output
    assert "cGxhbnRlZA" not in output
    status, output = await run("threads", store=f"{text}AccountKey=!{azurite_server.key}")
    assert status == 2


def _append(connection_string: str, table: str, number: int) -> None:
    async def write() -> None:
        store = AzureTableChatMessageStore(connection_string, table_name=table, thread_id="t", timeout=60)
        for turn in range(5):
            await store.add_messages([user(f"{number}.{turn}", message_id=f"{turn}")])
        await store.aclose()

    asyncio.run(write())


async def test_four_processes_with_the_same_messages(azurite_server: AzuriteServer, table: str) -> None:
    """Each message is added by one of them only."""
    context = multiprocessing.get_context("spawn")
    work = partial(_append, azurite_server.connection_string, table)
    processes = [context.Process(target=work, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 60)
    assert [process.exitcode for process in processes] == [0] * 4
    store = AzureTableChatMessageStore(azurite_server.connection_string, table_name=table, thread_id="t")
    assert sorted(text.partition(".")[2] for text in await texts(store)) == list("01234")
    await store.aclose()
