"""The Azure Tables store on Azurite: what requests cost, limits, faults, races, and hostile names."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import subprocess
import sys
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
from agent_stores.contents import ToolCallContent, ToolResultContent
from agent_stores.errors import (
    ConflictError,
    MessageTooLargeError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    UnsupportedVersionError,
)
from agent_stores.log import Record, ThreadKey, TimeToLive
from agent_stores.stores.azure_tables import appends, calls, edits, keys, rewrites
from agent_stores.stores.azure_tables.heads import LAYOUT
from agent_stores.stores.azure_tables.rows import MAX_MESSAGE_BYTES
from agent_stores.stores.azure_tables.text import PROPERTIES, UNITS
from agent_stores.stores.azure_tables.transactions import MAX_BYTES
from agent_stores.store import ChatMessageStore
from agent_stores.memory import InMemoryMessageLog
from tests.servers.azurite import AzuriteServer
from tests.servers.http_proxy import HttpProxy

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


def record(name: str, **fields: Any) -> Record:
    return Record(name, b'{"role":"user","contents":[{"type":"text","text":"hello"}]}', 1, 3, **fields)


async def texts(store: AzureTableChatMessageStore) -> list[str]:
    return [item.message.text async for item in store.iter_messages()]


def key_of(store: AzureTableChatMessageStore) -> ThreadKey:
    return ThreadKey(store.tenant, store.thread_id)


# What it costs


async def test_what_a_turn_costs(make_log: Any, proxy: HttpProxy) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    await log.append(key, [record("first")], batch_id="first")
    # The table is missing (two requests), then the row in the list, the head, and the transaction.
    assert proxy.counts() == {"row": 1, "transaction": 3, "new table": 1}
    other = ThreadKey(None, "other")
    await log.append(other, [record("first")], batch_id="first")
    assert proxy.counts() == {"row": 1, "transaction": 2}
    for length in (1, 300):
        for n in range(0, length, 40):
            await log.append(
                key, [record(f"{length}.{m}") for m in range(n, n + 40)], batch_id=f"{length}.{n}"
            )
        proxy.counts()
        await log.append(key, [record(f"q {length}"), record(f"a {length}")], batch_id=f"turn {length}")
        turn = proxy.requests[0]
        assert (turn.rows, len(proxy.requests)) == (5, 1)
        assert turn.sent < 6_000
        assert proxy.counts() == {"transaction": 1}
        await log.append(key, [record(f"q {length}"), record(f"a {length}")], batch_id=f"turn {length}")
        assert proxy.counts() == {"row": 1}  # a retry: the head says so
        assert len((await log.read(key, last=20)).entries) == 20
        assert proxy.counts() == {"query": 1}
        stranger = make_log()
        assert len((await stranger.read(key, last=20)).entries) == 20
        assert proxy.counts() == {"query": 1}
        stranger = make_log()
        await stranger.append(key, [record(f"by another {length}")], batch_id=f"another {length}")
        assert proxy.counts() == {"row": 1, "transaction": 1}
        assert await log.stats(key)
        assert proxy.counts() == {"row": 1}
        assert await log.get(key, f"q {length}")
        assert proxy.counts() == {"row": 3}


async def test_a_trimmed_turn_is_one_transaction(make_log: Any, proxy: HttpProxy) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    for n in range(30):
        await log.append(key, [record(f"q{n}"), record(f"a{n}")], batch_id=str(n), max_messages=40)
    proxy.counts()
    for n in range(30, 70):
        await log.append(key, [record(f"q{n}"), record(f"a{n}")], batch_id=str(n), max_messages=40)
    counts = proxy.counts()
    assert counts["transaction"] == 40
    assert counts.get("query", 0) <= 40 / 7  # the oldest messages are read some at a time
    assert set(counts) <= {"transaction", "query"}
    assert len((await log.read(key)).entries) == 40


async def test_a_list_of_threads_reads_heads_only(make_log: Any, proxy: HttpProxy) -> None:
    log = make_log()
    for n in range(12):
        await log.append(ThreadKey("acme", f"t{n:02}"), [record(str(m)) for m in range(20)], batch_id="b")
    proxy.counts()
    page = await log.list_threads("acme", limit=10)
    assert [one.thread_id for one in page.threads] == [f"t{n:02}" for n in range(10)]
    assert proxy.counts() == {"query": 1, "row": 11}


async def test_reading_an_empty_place_makes_nothing(make_log: Any, proxy: HttpProxy) -> None:
    log = make_log()
    assert (await log.read(ThreadKey(None, "t"))).entries == []
    assert await log.stats(ThreadKey(None, "t")) is None
    assert (await log.list_threads(None)).threads == []
    assert await log.purge_expired() == 0
    assert "new table" not in proxy.counts()


# Limits


@pytest.mark.parametrize(("count", "transactions"), [(49, 1), (50, 2), (98, 2), (99, 2), (100, 3)])
async def test_transactions_of_a_hundred_rows(
    make_log: Any, proxy: HttpProxy, count: int, transactions: int
) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    await log.append(key, [record("first")], batch_id="first")
    proxy.counts()
    await log.append(key, [record(str(n)) for n in range(count)], batch_id="many")
    assert max(request.rows for request in proxy.requests) <= 100
    assert proxy.counts()["transaction"] == transactions
    assert len((await log.read(key)).entries) == count + 1


async def test_transactions_of_four_megabytes(make_log: Any, proxy: HttpProxy) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    await log.append(key, [record("first")], batch_id="first")
    body = b"x" * 400_000
    for count, transactions in ((10, 1), (11, 2), (40, 4)):
        proxy.counts()
        await log.append(
            key, [Record(f"{count}.{n}", body, n) for n in range(count)], batch_id=f"large {count}"
        )
        assert max(request.sent for request in proxy.requests) <= MAX_BYTES
        assert proxy.counts()["transaction"] == transactions
    assert [len(entry.body) for entry in (await log.read(key, last=61)).entries] == [400_000] * 61


@pytest.mark.parametrize("character", ["x", "é", "語", "😀", "\\"])
@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_bodies_at_the_size_of_a_property(make_log: Any, rows: Any, character: str, over: int) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    width = len(character.encode("utf-16-le")) // 2
    body = "y" * ((UNITS + over) % width) + character * ((UNITS + over) // width)
    assert len(body.encode("utf-16-le")) == 2 * (UNITS + over)
    await log.append(key, [Record("a", body.encode(), 1)], batch_id="b")
    assert (await log.read(key)).entries[0].body == body.encode()
    row = next(one for one in await rows(keys.thread_partition(key)) if one["RowKey"].startswith("m"))
    assert ("body1" in row) == (over > 0)


async def test_a_character_is_never_parted(make_log: Any) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    for shift in range(3):  # each boundary of a property falls before, into and after a pair
        body = ("z" * shift + "😀" * UNITS * 2).encode()
        await log.append(key, [Record(str(shift), body, 1)], batch_id=str(shift))
        assert (await log.read(key, last=1)).entries[0].body == body


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_bodies_at_the_size_of_a_row(make_log: Any, rows: Any, over: int) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    body = b"x" * (UNITS * PROPERTIES + over)
    await log.append(key, [Record("a", body, 1), record("b")], batch_id="b")
    assert next(entry.body for entry in (await log.read(key)).entries) == body
    assert (await log.read(key, last=1)).entries[0].position == 2
    found = [one for one in await rows(keys.thread_partition(key)) if one["RowKey"].startswith("m")]
    assert len(found) == (3 if over > 0 else 2)
    for row in found:
        size = sum(2 * len(value) for value in row.values() if isinstance(value, str))
        assert size <= 1024 * 1024


async def test_the_largest_message(make_log: Any, make_store: MakeStore) -> None:
    log, key = make_log(timeout=60), ThreadKey(None, "t")
    await log.append(key, [record("before")], batch_id="before")
    body = b"x" * MAX_MESSAGE_BYTES
    await log.append(key, [Record("a", body, 1)], batch_id="b")
    await log.append(key, [record("after")], batch_id="after")
    assert (await log.read(key, last=2)).entries[0].body == body
    entry = await log.get(key, "a")
    assert entry is not None
    assert entry.body == body
    assert await log.replace(key, Record("a", b"small", 1))
    assert [len(one.body) for one in (await log.read(key)).entries] == [59, 5, 59]
    with pytest.raises(MessageTooLargeError, match=f"up to {MAX_MESSAGE_BYTES} bytes") as caught:
        await log.append(key, [record("c"), Record("d", body + b"x", 1)], batch_id="c")
    assert (caught.value.size, caught.value.limit) == (MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES)
    assert (await log.stats(key)).messages == 3
    assert make_store().log.max_message_bytes == MAX_MESSAGE_BYTES


async def test_replacing_by_what_takes_many_rows(make_log: Any, rows: Any) -> None:
    log, key = make_log(timeout=60), ThreadKey(None, "t")
    await log.append(key, [record("a"), record("b")], batch_id="b")
    for size in (5_000_000, 2_000_000, 10, 6_000_000):
        assert await log.replace(key, Record("a", b"x" * size, 1))
        assert [len(one.body) for one in (await log.read(key)).entries] == [size, 59]
    assert await log.delete(key, ["a"]) == 1
    assert len([one for one in await rows(keys.thread_partition(key)) if one["RowKey"][0] == "m"]) == 1


async def test_names_that_are_too_long(make_store: MakeStore) -> None:
    with pytest.raises(ValueError, match="thread_id is 5001 characters long"):
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


async def test_hostile_keys_reach_nobody_else(make_store: MakeStore) -> None:
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
    store = make_store(timeout=1)
    await store.add_messages([user("1")])
    proxy.answer(503, b"needle", times=100, headers={"Retry-After": "30"})
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="nothing was written"):
        await store.add_messages([user("needle")])
    assert time.monotonic() - began < 1.5
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
async def test_a_random_story_on_a_bad_connection(
    make_store: MakeStore, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever fails on the way, each operation does once what it does in memory."""
    monkeypatch.setattr(calls, "_FIRST_PAUSE", 0.002)
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
            action = "rewrite"
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
    store = make_store(timeout=1)
    await store.add_messages([user("1")])
    messages = [user("needle")]
    proxy.lose_answer(b"needle", times=100)
    proxy.answer(503, b"GET", times=100)
    with pytest.raises(OutcomeUnknownError, match="may or may not be stored"):
        await store.add_messages(messages)
    proxy.heal()
    await store.add_messages(messages)
    assert await texts(store) == ["1", "needle"]


async def test_an_answer_that_takes_too_long(make_store: MakeStore, proxy: HttpProxy) -> None:
    store = make_store(timeout=0.5)
    await store.add_messages([user("1")])
    messages = [user("needle")]
    proxy.hold(b"needle", 1.0)
    began = time.monotonic()
    with pytest.raises(OutcomeUnknownError):
        await store.add_messages(messages)
    assert time.monotonic() - began < 0.9
    await asyncio.sleep(1)  # the service carries it out after all
    await store.add_messages(messages)
    assert await texts(store) == ["1", "needle"]


async def test_a_late_write_does_not_come_twice(make_store: MakeStore, proxy: HttpProxy) -> None:
    """A write that hangs on its way loses against its repetition."""
    store = make_store(timeout=0.4)
    await store.add_messages([user("1")])
    messages = [user("needle")]
    proxy.hold(b"needle", 0.8)
    with pytest.raises(OutcomeUnknownError):
        await store.add_messages(messages)
    await store.add_messages(messages)
    assert await texts(store) == ["1", "needle"]
    await asyncio.sleep(0.8)
    assert await texts(store) == ["1", "needle"]
    await store.add_messages([user("2")])
    assert await texts(store) == ["1", "needle", "2"]


async def test_no_service(azurite_server: AzuriteServer, free_port: int) -> None:
    store = AzureTableChatMessageStore(azurite_server.connection_string_at(free_port), timeout=2)
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{free_port}.*nothing was written"):
        await store.add_messages([user("1")])
    await store.aclose()


# Rights


async def test_without_the_right_to_make_tables(make_store: MakeStore, proxy: HttpProxy) -> None:
    proxy.answer(403, b"POST /devstoreaccount1/Tables", times=100, code="AuthorizationPermissionMismatch")
    store = make_store()
    with pytest.raises(StoreRejectedError, match="nothing was written"):
        await store.add_messages([user("1")])
    proxy.heal()
    await make_store().add_messages([user("1")])  # by somebody who may
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
    first = [record("a"), record("b")]
    await log.append(key, first, batch_id="first", expected_position=0)
    for n in range(20):  # more than the batches that a thread remembers
        await log.append(key, [record(str(n))], batch_id=str(n))
    for one in (log, make_log()):
        assert await one.append(key, first, batch_id="first", expected_position=0) == 22
        with pytest.raises(ConflictError) as caught:
            await one.append(key, [*first, record("c")], batch_id="other", expected_position=0)
        assert (caught.value.expected, caught.value.actual) == (0, 22)


async def test_ranges_behind_gaps(make_log: Any, proxy: HttpProxy) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    for n in range(5):
        await log.append(key, [record(f"{n}.{m}") for m in range(100)], batch_id=str(n))
    await log.delete(key, [f"{n}.{m}" for n in (1, 2) for m in range(100)])
    await log.append(key, [record("last")], batch_id="last", max_messages=250)
    proxy.counts()
    entries = (await log.read(key, after=10, first=60)).entries
    assert [entry.position for entry in entries] == [*range(52, 101), *range(301, 312)]
    entries = (await log.read(key, before=305, last=20)).entries
    assert [entry.position for entry in entries] == [*range(85, 101), *range(301, 305)]
    part = await log.read(key, before=150, last=5)
    assert [entry.position for entry in part.entries] == [96, 97, 98, 99, 100]
    assert part.has_older
    assert part.ends_at_cut
    assert (await log.read(key, before=3, last=5)).entries == []
    assert proxy.counts()["query"] <= 20


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


async def test_long_calls_beside_short_ones(make_log: Any) -> None:
    key = ThreadKey(None, "t")
    logs = [make_log(timeout=60) for _ in range(3)]

    async def write(n: int, count: int, times: int) -> None:
        for turn in range(times):
            await logs[n].append(
                key, [record(f"{n}.{turn}.{m}") for m in range(count)], batch_id=f"{n}.{turn}"
            )
            await asyncio.sleep(0.05)

    await asyncio.gather(write(0, 150, 2), write(1, 1, 8), write(2, 120, 2))
    entries = (await logs[0].read(key)).entries
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
            seen.add(len((await reader.read(key)).entries))

    watching = asyncio.ensure_future(watch())
    for turn in range(3):
        await log.append(key, [record(f"{turn}.{m}") for m in range(130)], batch_id=str(turn))
    await log.delete(key, [f"0.{m}" for m in range(130)])
    await log.clear(key)
    done.set()
    await watching
    assert seen <= {0, 130, 260, 390}


# What a writer that died leaves behind


async def _die_while_writing(log: Any, key: ThreadKey, proxy: HttpProxy, count: int) -> None:
    """Write so many messages, and lose the service before the last transaction."""
    before = len(proxy.requests)
    proxy.answer(403, f"{count - 1}-last".encode(), times=100, code="AuthorizationFailure")
    body = json.dumps({"role": "user", "text": "last"}).encode()
    records = [Record(f"d{n}", body.replace(b"last", f"{n}-last".encode()), n) for n in range(count)]
    with pytest.raises(StoreRejectedError):
        await log.append(key, records, batch_id="dying")
    assert len(proxy.requests) > before + 1
    proxy.heal()


@pytest.mark.parametrize("length", [0, 3])
async def test_after_a_writer_died(make_log: Any, proxy: HttpProxy, rows: Any, length: int) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    if length:
        await log.append(key, [record(f"old {n}") for n in range(length)], batch_id="old")
    await _die_while_writing(log, key, proxy, 120)
    other = make_log()
    assert len((await other.read(key)).entries) == length
    stats = await other.stats(key)
    assert (0 if stats is None else stats.messages) == length
    assert len((await other.list_threads(None)).threads) == (1 if length else 0)
    assert await other.get(key, "d0") is None
    await other.append(key, [record("d5"), record("new"), record("d0")], batch_id="next")
    entries = (await other.read(key)).entries
    assert [entry.position for entry in entries] == list(range(1, length + 4))
    assert (await other.get(key, "d5")).position == length + 1
    # The same call once more adds what is missing, once.
    records = [record(f"d{n}") for n in range(120)]
    await log.append(key, records, batch_id="dying again")
    await log.append(key, records, batch_id="and again")
    assert (await log.stats(key)).messages == length + 121
    partition = await rows(keys.thread_partition(key))
    assert len([row for row in partition if row["RowKey"][0] == "m"]) == length + 121


@pytest.mark.parametrize("length", [0, 3])
async def test_a_dead_writers_messages_never_show(make_log: Any, proxy: HttpProxy, length: int) -> None:
    """Also where rows of another kind, pinned ones, take their places."""
    log, key = make_log(), ThreadKey(None, "t")
    held = [f"old {n}" for n in range(length)]
    if held:
        await log.append(key, [record(name) for name in held], batch_id="old")
    await _die_while_writing(log, key, proxy, 120)
    other = make_log()
    few = [record("rules", pinned=True), record("d1"), record("new"), record("d119", pinned=True)]
    await other.append(key, few, batch_id="other")
    held += ["rules", "d1", "new", "d119"]
    for one in (log, other, make_log()):
        assert [entry.position for entry in (await one.read(key)).entries] == list(range(1, len(held) + 1))
        for name in [*held, "d0", "d2", "d3", "d49", "d118"]:
            assert (await one.get(key, name) is not None) == (name in held)
    again = [record(f"d{n}") for n in range(120)]
    await log.append(key, again, batch_id="again")
    await other.append(key, again, batch_id="and again")
    total = len({*held, *(f"d{n}" for n in range(120))})
    assert (await other.stats(key)).messages == total
    assert len((await other.read(key)).entries) == total


async def test_what_a_dead_writer_leaves_is_purged(make_log: Any, proxy: HttpProxy, rows: Any) -> None:
    clock = Clock()
    log, key = make_log(clock=clock), ThreadKey("acme", "t")
    await _die_while_writing(log, key, proxy, 120)
    assert len(await rows(keys.thread_partition(key))) > 90
    clock.ahead = 7200
    assert await log.purge_expired() == 0  # there never was a thread
    assert await rows() == []


# Time-to-live and cleaning up


async def test_purging_leaves_nothing(make_log: Any, rows: Any) -> None:
    clock = Clock()
    log = make_log(clock=clock)
    ttl = TimeToLive(60.0)
    for n, count in enumerate((1, 40, 130)):
        key = ThreadKey("acme" if n else None, f"t{n}")
        await log.append(key, [record(str(m), pinned=m == 2) for m in range(count)], batch_id="b", ttl=ttl)
    stays = ThreadKey("acme", "stays")
    await log.append(stays, [record("1")], batch_id="b")
    assert await log.purge_expired() == 0
    clock.ahead = 100
    assert await log.purge_expired(limit=2) == 2
    assert await log.purge_expired(limit=2) == 1
    assert await log.purge_expired() == 0
    clock.ahead = 7200  # what the writer of a long call notes is over, too
    assert await log.purge_expired() == 0
    left = {row["PartitionKey"] for row in await rows()}
    assert left == {keys.thread_partition(stays), keys.index_partition("acme")}
    assert (await log.stats(stays)).messages == 1


async def test_purging_in_several_places_at_once(make_log: Any, rows: Any) -> None:
    clock = Clock()
    log = make_log(clock=clock)
    for n in range(12):
        await log.append(
            ThreadKey(None, f"t{n}"),
            [record(str(m)) for m in range(8 if n else 120)],
            batch_id="b",
            ttl=TimeToLive(10.0),
        )
    clock.ahead = 60
    alive = ThreadKey(None, "t3")
    logs = [make_log(clock=clock) for _ in range(3)]
    counts, *_ = await asyncio.gather(
        asyncio.gather(*(one.purge_expired() for one in logs)),
        make_log(clock=clock).append(
            alive, [record("anew"), record("0")], batch_id="c", ttl=TimeToLive(900.0)
        ),
    )
    for one in logs:
        assert await one.purge_expired() == 0
    assert sum(counts) >= 11
    assert [entry.position for entry in (await log.read(alive)).entries] == [1, 2]
    assert [one.thread_id for one in (await log.list_threads(None)).threads] == ["t3"]
    assert {row["PartitionKey"][:2] for row in await rows()} == {"t.", "i.", "x."}
    messages = [row for row in await rows(keys.thread_partition(alive)) if row["RowKey"][0] == "m"]
    assert len(messages) == 2


async def test_a_thread_that_expired_begins_anew(make_log: Any, rows: Any) -> None:
    clock = Clock()
    log, key = make_log(clock=clock), ThreadKey(None, "t")
    await log.append(
        key, [record(str(n), pinned=n == 0) for n in range(60)], batch_id="b", ttl=TimeToLive(10.0)
    )
    clock.ahead = 20
    assert (await log.read(key)).entries == []
    assert await log.append(key, [record("59"), record("0")], batch_id="b", expected_position=0) == 2
    assert [entry.position for entry in (await make_log(clock=clock).read(key)).entries] == [1, 2]
    kinds = [row["RowKey"][0] for row in await rows(keys.thread_partition(key))]
    assert sorted(kinds) == ["h", "m", "m", "u", "u"]  # nothing of the old one is left


async def test_deleting_and_clearing_long_threads(make_log: Any, rows: Any) -> None:
    clock = Clock()
    log, key = make_log(clock=clock), ThreadKey(None, "t")
    for n in range(4):
        records = [record(f"{n}.{m}", pinned=m == 1) for m in range(80)]
        await log.append(key, records, batch_id=str(n))
    assert await log.delete(key, [f"1.{m}" for m in range(80)]) == 80
    kinds = [row["RowKey"][0] for row in await rows(keys.thread_partition(key))]
    assert (kinds.count("m"), kinds.count("k"), kinds.count("u")) == (237, 3, 240)
    assert await log.clear(key) == 240
    assert [row["RowKey"] for row in await rows(keys.thread_partition(key))] == ["head"]
    assert await log.append(key, [record(f"0.{m}") for m in range(150)], batch_id="again") == 470
    assert await log.delete_thread(key)
    assert {row["PartitionKey"][:2] for row in await rows()} <= {"x."}
    clock.ahead = 7200
    assert await log.purge_expired() == 0
    assert await rows() == []


async def test_a_long_thread_trimmed_to_a_short_one(make_log: Any, rows: Any) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    for n in range(3):
        await log.append(key, [record(f"{n}.{m}") for m in range(100)], batch_id=str(n))
    await log.append(key, [record("new")], batch_id="new", max_messages=5)
    assert [entry.position for entry in (await log.read(key)).entries] == [297, 298, 299, 300, 301]
    kinds = [row["RowKey"][0] for row in await rows(keys.thread_partition(key))]
    assert (kinds.count("m"), kinds.count("u")) == (5, 5)
    await log.append(key, [record("0.1")], batch_id="a trimmed one again", max_messages=5)
    assert (await log.stats(key)).last_position == 302


async def test_results_that_come_late(make_log: Any) -> None:
    """Where cuts may fall follows from the head and the rows together, also for many late results."""
    log, key = make_log(), ThreadKey(None, "t")
    for n in range(40):
        await log.append(key, [record(f"call {n}", calls=(f"c{n}",))], batch_id=f"call {n}")
        await log.append(key, [record(f"between {n}")], batch_id=f"between {n}")
        await log.append(key, [record(f"result {n}", results=(f"c{n}",))], batch_id=f"result {n}")
    cuts = [entry.cut for entry in (await log.read(key)).entries]
    assert cuts == [True, False, False] * 40
    assert (await log.read(key, last=4)).entries[0].position == 118
    await log.delete(key, ["call 39"])
    assert [entry.cut for entry in (await log.read(key, last=2)).entries] == [True, True]


async def test_a_group_across_very_many_messages(make_log: Any) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    await log.append(key, [record("q"), record("call", calls=("c",))], batch_id="call")
    await log.append(key, [record(f"m{n}") for n in range(200)], batch_id="many")
    await log.append(key, [record("result", results=("c",)), record("next")], batch_id="result")
    entries = (await log.read(key)).entries
    assert [entry.position for entry in entries if entry.cut] == [1, 2, 204]
    assert len((await log.read(key, last=2)).entries) == 1
    assert await log.delete(key, ["result"]) == 1  # 201 marks are written
    entries = (await make_log().read(key)).entries
    assert all(entry.cut for entry in entries)
    assert len(entries) == 203


# Rewriting


async def test_what_rewriting_costs(make_log: Any, proxy: HttpProxy, rows: Any) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    await log.append(key, [record(str(n)) for n in range(20)], batch_id="b")
    proxy.counts()
    assert await log.replace_all(key, [record("5"), record("summary")], batch_id="r") == 22
    counts = proxy.counts()
    assert counts["transaction"] == 2  # the step itself, and the removal of the old rows
    assert counts["row"] + counts["query"] <= 12
    kinds = [row["RowKey"][0] for row in await rows(keys.thread_partition(key))]
    assert sorted(kinds) == ["h", "m", "m", "u", "u"]
    assert (await log.get(key, "5")).position == 21
    assert await log.get(key, "6") is None


@pytest.mark.parametrize("is_cleaned", [True, False])
async def test_rewriting_a_long_thread_with_the_same_ids(
    make_log: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, is_cleaned: bool
) -> None:
    """Also where the process ends before the rows of the ids name the new messages."""
    log, other, key = make_log(), make_log(), ThreadKey(None, "t")
    old = [record(f"{n}", pinned=n == 3) for n in range(150)]
    await log.append(key, old, batch_id="b")
    seen: set[tuple[int, int]] = set()

    async def watch() -> None:
        while True:
            entries = (await other.read(key)).entries
            seen.add((len(entries), entries[0].position))

    async def nothing(*arguments: Any) -> None:
        """As a process that ends."""

    watching = asyncio.ensure_future(watch())
    if not is_cleaned:
        monkeypatch.setattr(rewrites, "sweep", nothing)
        monkeypatch.setattr(appends, "sweep", nothing)
        monkeypatch.setattr(edits, "sweep", nothing)
    new = [record(f"{n}", pinned=n == 3) for n in range(130)] + [record(f"new {n}") for n in range(30)]
    assert await log.replace_all(key, new, batch_id="r") == 310
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert seen <= {(150, 1), (160, 151)}
    log = make_log()
    assert await log.append(key, [record("7"), record("new 3"), record("140")], batch_id="c") == 311
    assert [entry.position for entry in (await log.read(key)).entries] == list(range(151, 312))
    assert (await log.get(key, "7")).position == 158
    assert (await log.get(key, "140")).position == 311
    assert await log.get(key, "141") is None
    assert await log.delete(key, ["7", "8", "9", "10", "11", "149"]) == 5
    assert await log.delete(key, ["12"]) == 1
    assert await log.replace(key, record("13"))
    assert await log.append(key, [record("7"), record("13")], batch_id="d") == 312
    monkeypatch.undo()
    await make_log().append(key, [record("end")], batch_id="e")
    kinds = [row["RowKey"][0] for row in await rows(keys.thread_partition(key))]
    assert (kinds.count("m") + kinds.count("k"), kinds.count("u")) == (157, 157)
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
        head = await client.get_entity(keys.thread_partition(key_of(store)), keys.HEAD)
        await client.upsert_entity({**head, "version": LAYOUT + 1})
        for work in (
            make_store(thread_id="t").list_messages(),
            store.stats(),
            store.add_messages([user("2")]),
        ):
            with pytest.raises(UnsupportedVersionError, match="version 2 of the layout"):
                await work
        await client.upsert_entity({**head, "version": LAYOUT, "head": "{"})
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
    assert len({id(store.log._server) for store in stores}) == 1  # type: ignore[attr-defined]
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
    assert (status, "hello there" in output) == (0, True)
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


async def test_eight_processes_with_the_same_messages(azurite_server: AzuriteServer, table: str) -> None:
    """Each message is added by one of them only."""
    context = multiprocessing.get_context("spawn")
    work = partial(_append, azurite_server.connection_string, table)
    processes = [context.Process(target=work, args=(number,)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 60)
    assert [process.exitcode for process in processes] == [0] * 8
    store = AzureTableChatMessageStore(azurite_server.connection_string, table_name=table, thread_id="t")
    assert sorted(text.partition(".")[2] for text in await texts(store)) == list("01234")
    await store.aclose()


async def test_tool_calls_are_kept_together(make_store: MakeStore) -> None:
    store = make_store(max_messages=3)
    await store.add_messages([user("q")])
    await store.add_messages([ChatMessage("assistant", contents=[ToolCallContent("c", "f", "{}")])])
    await store.add_messages([user("hurry")])
    await store.add_messages([ChatMessage("tool", contents=[ToolResultContent("c", "1")])])
    assert (await store.stats()).messages == 3
    await store.add_messages([user("next")])
    assert await texts(store) == ["next"]
