"""The tables backend on a table in memory: requests, races, what it remembers, and what a sweep removes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from agent_stores.backend import Row, ThreadKey, TimeToLive
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.azure import PROPERTY_UNITS, pieces
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.backends.tables.index import RECENT_US
from agent_stores.backends.tables.layout import ThreadCache
from agent_stores.backends.tables.table import Operation
from agent_stores.capabilities import Appender, Sweeper, TenantLister
from agent_stores.errors import (
    ArgumentError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
)
from agent_stores.log import MessageLog
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance.isolation import HOSTILE_NAMES
from tests.tables.memory_table import MemoryTable

pytestmark = pytest.mark.anyio

KEY = ThreadKey("acme", "t")


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return 1_700_000_000 + self.ahead


def row(name: str, **fields: Any) -> Row:
    return Row(name, b'{"n":1}', bytes=7, tokens=1, created_us=1, **fields)


def make_log(table: MemoryTable, clock: Any = time.time, cache: ThreadCache | None = None) -> MessageLog:
    return MessageLog(TablesBackend(table, cache, clock=clock), clock=clock)


def test_the_capabilities() -> None:
    backend = TablesBackend(MemoryTable())
    for capability in (Appender, Sweeper, TenantLister):
        assert isinstance(backend, capability)


# Requests


async def test_one_request_for_an_append_and_for_a_read() -> None:
    table = MemoryTable()
    log = make_log(table)
    await log.append(KEY, [row("first")])
    for n in range(100):
        table.count()
        await log.append(KEY, [row(f"q{n}"), row(f"a{n}")], max_messages=40)
        assert table.calls == ["transact"]
        table.count()
        assert len(await log.latest(KEY, 20)) == min(20, 2 * n + 3)
        assert table.calls == ["query"]
    table.count()
    stranger = make_log(table)
    assert len(await stranger.latest(KEY, 20)) == 20
    assert table.calls == ["query"]


async def test_reads_that_may_not_be_of_one_moment_are_verified() -> None:
    table = MemoryTable()
    log = make_log(table)
    for n in range(30):
        await log.append(KEY, [row(f"q{n}", pinned=n == 3), row(f"a{n}")])
    table.count()
    assert len(await log.latest(KEY, 20)) == 21
    assert table.calls == ["query"]  # the positions have no gap
    await log.delete(KEY, ["q25"])
    table.count()
    assert len(await log.latest(KEY, 20)) == 21
    assert table.calls == ["query", "get"]
    table.count()
    assert len(await log.latest(KEY)) == 59
    assert table.calls == ["query"]  # as many as the head counts


async def test_a_time_to_live_costs_nothing_on_a_turn() -> None:
    table, clock = MemoryTable(), Clock()
    log = make_log(table, clock)
    await log.append(KEY, [row("first")], ttl=TimeToLive(1000.0))
    for n in range(20):
        clock.ahead += 10
        table.count()
        await log.append(KEY, [row(f"q{n}")], ttl=TimeToLive(1000.0))
        assert table.calls == ["transact"]
    clock.ahead += 900
    assert await log.purge_expired() == 0
    assert await log.stats(KEY) is not None
    clock.ahead += 200
    assert await log.stats(KEY) is None
    assert await log.purge_expired() == 1
    clock.ahead += 7200
    await log.purge_expired()
    assert {item.partition for item in table.items()} <= {layout.TENANTS}


# Several writers


def test_sixteen_event_loops_take_turns() -> None:
    table, cache, errors = MemoryTable(), ThreadCache(), []
    conflicts = 0
    lock = threading.Lock()
    apply = table._apply

    def apply_alone(operations: Any) -> Any:
        nonlocal conflicts
        with lock:
            try:
                return apply(operations)
            except Exception:
                conflicts += 1
                raise

    table._apply = apply_alone  # type: ignore[method-assign]

    def work(number: int) -> None:
        async def write() -> None:
            log = make_log(table, cache=cache)
            for n in range(40):
                await log.append(KEY, [row(f"{number}.{n}")])

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
    assert conflicts <= 5  # a queue gives turns; a read may replace what is remembered by something older
    found = asyncio.run(make_log(table).read(KEY))
    assert [each.position for each in found] == list(range(1, 641))
    for number in range(16):
        mine = [each.message_id for each in found if each.message_id.startswith(f"{number}.")]
        assert mine == [f"{number}.{n}" for n in range(40)]


# Listing


async def test_recency_is_exact_though_its_items_are_behind() -> None:
    table, clock = MemoryTable(), Clock()
    log = make_log(table, clock)
    names = [f"t{n}" for n in range(12)]
    for name in names:
        clock.ahead += 1
        await log.append(ThreadKey("acme", name), [row("first")])
    for name in ("t3", "t0", "t11", "t3"):
        clock.ahead += 1
        table.count()
        await log.append(ThreadKey("acme", name), [row(f"at {clock.ahead}")])
        assert table.calls == ["transact"]
    expected = ["t3", "t11", "t0", *(name for name in reversed(names) if name not in ("t3", "t11", "t0"))]
    found, cursor = [], None
    while True:
        page = await log.list_threads("acme", order="recent", limit=5, cursor=cursor)
        found += [each.thread_id for each in page.threads]
        if (cursor := page.cursor) is None:
            break
    assert found == expected
    clock.ahead += RECENT_US / 1_000_000 + 1
    table.count()
    await log.append(ThreadKey("acme", "t5"), [row("late")])
    assert table.calls == ["transact"] * 3  # its item is moved: before the turn, and removed after it
    page = await log.list_threads("acme", order="recent", limit=2)
    assert [each.thread_id for each in page.threads] == ["t5", "t3"]


async def test_tenants() -> None:
    log = make_log(MemoryTable())
    for tenant in ("b", None, "a", "\U0001f600", "\ud83d\ude00"):
        await log.append(ThreadKey(tenant, "t"), [row("1")])
    await log.append(ThreadKey("gone", "t"), [row("1")])
    await log.delete_thread(ThreadKey("gone", "t"))
    expected: list[str | None] = [None, "a", "b", "\ud83d\ude00", "\U0001f600"]
    assert await log.list_tenants() == expected
    found: list[str | None] = []
    while page := await log.list_tenants(after=found[-1] if found else None, limit=2):
        found += page
    assert found == expected


async def test_two_surrogates_are_not_the_character_that_they_make() -> None:
    log = make_log(MemoryTable())
    names = ["\U0001f600", "\ud83d\ude00"]
    for name in names:
        await log.append(ThreadKey(name, name), [row(name), row(names[0]), row(names[1])])
    for name in names:
        assert [each.thread_id for each in (await log.list_threads(name)).threads] == [name]
        assert [each.message_id for each in await log.read(ThreadKey(name, name))] == [
            name,
            *(other for other in names if other != name),
        ]
        found = await log.get(ThreadKey(name, name), name)
        assert found is not None
        assert found.message_id == name
        assert await log.delete_thread(ThreadKey(name, name))


# Keys and texts


def test_partitions_are_valid_readable_and_unambiguous() -> None:
    assert layout.thread_partition(ThreadKey("acme", "user_123")) == "t.acme~.user_123"
    assert layout.thread_partition(ThreadKey(None, "a/b")) == "t.~.a~2Fb"
    names = [None, *HOSTILE_NAMES, "~", "~.", "a~.b", "~41", "~d", "A~41", "x" * 240, "x" * 241]
    threads = [
        ThreadKey(tenant, thread or "missing")
        for tenant in names
        for thread in ("b", "~.b", "b~.", ".", *names[1:3])
    ]
    made = [layout.thread_partition(key) for key in dict.fromkeys(threads)]
    assert len(set(made)) == len(made)
    more = [layout.thread_partition(ThreadKey(None, name or "missing")) for name in names]
    assert len(set(more)) == len(more)
    indexes = [layout.index_partition(name) for name in names]
    assert len(set(indexes)) == len(indexes)
    for key in (*made, *more, *indexes):
        assert len(key) <= 512
        assert not set(key) & set("/\\#?%+'\" \t\n\x00")
        assert key.isascii()
        assert key.isprintable()


def test_the_list_sorts_as_the_ids_do() -> None:
    more = ["a!", "ab", "a~", "aZ", "\ue000", "\uffff", *(chr(code) for code in range(0x250))]
    names = list(dict.fromkeys([*HOSTILE_NAMES, *more]))
    short = [name for name in names if len(layout.listed_prefix(name)) < 480]
    assert sorted(short, key=layout.listed_sort) == sorted(short)
    rows = [layout.listed_sort(name) for name in names]
    assert len(set(rows)) == len(rows)
    for name, sort in zip(names, rows, strict=True):
        assert len(sort) <= 512
        assert sort.isascii()
        assert not set(sort) & set("/\\#?%+'\" ")
        for length in range(min(len(name), 200)):
            begin = layout.listed_prefix(name[:length])
            assert begin <= sort < f"{begin}~~"
    for prefix in ("a", "é", "\x00", "~"):
        begin = layout.listed_prefix(prefix)
        for name in short:
            inside = begin <= layout.listed_sort(name) < f"{begin}~~"
            assert inside == name.startswith(prefix), (prefix, name)


def test_messages_sort_the_newest_first() -> None:
    positions = [1, 2, 9, 10, 11, 99, 100, 10**6, 10**12]
    older = layout.new_generation(1_700_000_000_000_000)
    newer = layout.new_generation(1_700_000_000_000_000, older)
    sorts = [layout.message_sort(newer, position, pinned=False) for position in positions]
    assert sorted(sorts, reverse=True) == sorts
    assert [layout.position_at(sort) for sort in sorts] == positions
    pinned = layout.message_sort(newer, 1, pinned=True)
    assert layout.HEAD < pinned < sorts[-1] < sorts[0] < f"r{newer}n"
    assert f"r{newer}n" < layout.message_sort(older, 1, pinned=True) < "rn"


@pytest.mark.parametrize(
    "name", [*HOSTILE_NAMES, "~", "~AAAA", "é" * 5000, "\ud83d" * 5000, "\U0010ffff" * 5000]
)
def test_names_are_kept(name: str) -> None:
    for item in layout.message_items("p", layout.new_generation(1), row(name, position=3)):
        assert layout.read_row(item)[0].message_id == name
        assert item.meta.isascii()
        assert len(item.meta) <= 30_000


@pytest.mark.parametrize("character", ["x", "é", "語", "😀"])
def test_text_in_properties_and_parts(character: str) -> None:
    width = len(character.encode("utf-16-le")) // 2
    for size in (0, 1, PROPERTY_UNITS - 1, PROPERTY_UNITS, PROPERTY_UNITS + 1, 3 * PROPERTY_UNITS + 1):
        text = "y" * (size % width) + character * (size // width)
        found = list(pieces(text))
        assert "".join(found) == text
        assert all(len(piece.encode("utf-16-le")) <= 2 * PROPERTY_UNITS for piece in found)
        assert len(found) <= max(1, -(-size // (PROPERTY_UNITS - 1)))
        parts = list(layout.split_body(text.encode(), 1000))
        assert "".join(parts) == text
        assert all(len(part.encode()) <= 1000 for part in parts)


def test_a_store_rejects_two_surrogates() -> None:
    log = make_log(MemoryTable())
    for name in ("thread_id", "tenant"):
        with pytest.raises(ArgumentError, match=f"{name} must have one character instead of two surrogates"):
            ChatMessageStore(log, **{"thread_id": "t", name: "\ud83d\ude00"})  # type: ignore[arg-type]
        ChatMessageStore(log, **{"thread_id": "t", name: "\U0001f600\ud83d"})  # type: ignore[arg-type]


async def test_rows_that_other_tools_removed_do_not_block_a_thread() -> None:
    table = MemoryTable()
    log = make_log(table)
    await log.append(KEY, [row("a"), row("b"), row("c")])
    items = table.partitions[layout.thread_partition(KEY)]
    for sort in [sort for sort in items if sort[0] == "u"]:
        del items[sort]
    await log.append(KEY, [row("d")], max_messages=2)
    assert [each.message_id for each in await log.read(KEY)] == ["c", "d"]
    assert (await log.pop_last(KEY)) is not None
    assert [each.message_id for each in await log.read(KEY)] == ["c"]


async def test_visits_of_purged_threads_do_not_keep_others_waiting() -> None:
    table, clock = MemoryTable(), Clock()
    log = make_log(table, clock)
    for n in range(30):
        await log.append(ThreadKey("acme", f"t{n}"), [row("first")], ttl=TimeToLive(10.0))
    clock.ahead = 20
    assert [await log.purge_expired(limit=10) for _ in range(4)] == [10, 10, 10, 0]


@pytest.mark.parametrize("is_id_damaged", [False, True])
async def test_a_damaged_row_is_read_from_that_of_its_id(is_id_damaged: bool) -> None:
    table = MemoryTable()
    log = make_log(table)
    await log.append(KEY, [row("a"), row("b", boundary=False), row("c"), row("d")])
    stats = await log.stats(KEY)
    items = table.partitions[layout.thread_partition(KEY)]
    (sort,) = [sort for sort in items if sort[0] == "r" and layout.position_at(sort) == 2]
    items[sort] = items[sort]._replace(meta="{")
    if is_id_damaged:
        (sort,) = [sort for sort in items if sort[0] == "u" and layout.read_row(items[sort])[0].position == 2]
        items[sort] = items[sort]._replace(meta="{")
    log = make_log(table)
    expected = ["a", "" if is_id_damaged else "b", "c", "d"]
    for found in (await log.read(KEY), await log.latest(KEY), await log.read(KEY, after=0, limit=9)):
        assert [each.message_id for each in found] == expected
        assert [each.body for each in found] == [b'{"n":1}'] * 4
        assert found[1].boundary is is_id_damaged
    assert (await log.get(KEY, "b") is None) == is_id_damaged
    await log.append(KEY, [row("e")], max_messages=3)
    kinds = [sort[0] for sort in items]
    assert (kinds.count("r"), kinds.count("u")) == (3, 3 + is_id_damaged)
    assert await log.append(KEY, [row("b")]) == 6
    assert [each.message_id for each in await log.read(KEY)] == ["c", "d", "e", "b"]
    after = await log.stats(KEY)
    assert stats is not None
    assert after is not None
    assert after.messages == stats.messages
    if not is_id_damaged:
        assert (after.bytes, after.tokens) == (stats.bytes, stats.tokens)


# Lost replies


@pytest.mark.parametrize("kind", [StoreUnavailableError, StoreRejectedError])
@pytest.mark.parametrize(("work", "size"), [("append", 1), ("append", 60), ("clear", 0)])
async def test_after_a_lost_reply_no_error_says_that_nothing_was_written(
    work: str, size: int, kind: type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a later attempt is sure to have had no effect: the first may yet arrive."""
    table = MemoryTable()
    log = make_log(table)
    await log.append(KEY, [row("first"), row("known")])
    transact, attempts = table.transact, list[Sequence[Operation]]()

    async def fail(operations: Sequence[Operation]) -> str:
        if operations[0].item.sort != layout.HEAD:
            return await transact(operations)
        attempts.append(operations)
        raise OutcomeUnknownError("timed out") if len(attempts) == 1 else kind("no; nothing was written")

    async def run() -> None:
        if work == "append":
            await log.append(KEY, [row(f"{n}") for n in range(size)], request_id="r")
        else:
            await log.clear(KEY)

    monkeypatch.setattr(table, "transact", fail)
    with pytest.raises(OutcomeUnknownError) as caught:
        await run()
    assert "nothing was written" not in str(caught.value)
    monkeypatch.undo()
    await table.transact(attempts[0])  # it arrives
    await run()
    names = ["first", "known", *(f"{n}" for n in range(size))] if work == "append" else []
    assert [each.message_id for each in await log.read(KEY)] == names
