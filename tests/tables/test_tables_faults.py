"""Faults at every call of a table, for short histories: each operation takes effect once, or not at all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from agent_stores.backend import Limits, Row, ThreadKey, TimeToLive
from agent_stores.backends.memory import MemoryBackend
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.backends.tables.layout import ThreadCache
from agent_stores.backends.tables.table import ConditionFailed, TableLimits
from agent_stores.errors import OutcomeUnknownError, StoreError
from agent_stores.log import MessageLog
from tests.tables.memory_table import Fault, MemoryTable

pytestmark = pytest.mark.anyio

KEY = ThreadKey("acme", "t")
OTHER = ThreadKey("acme", "fork")
START_US = 1_700_000_000 * 1_000_000
SMALL = TableLimits(operations=12, transaction_bytes=4_000, item_bytes=1_000, body_bytes=100_000)
LARGE = SMALL._replace(operations=100, transaction_bytes=200_000)
"""Most appends are one transaction; under `SMALL`, most take the log's fallback."""
FAULTS: tuple[Fault, ...] = ("before", "after", "time out", "conflict")

Step = tuple[str, Callable[[MessageLog], Awaitable[Any]]]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_stores.committer._LONGEST_PAUSE", 0.0)


class Clock:
    def __init__(self) -> None:
        self.now = START_US / 1_000_000

    def __call__(self) -> float:
        return self.now


def row(name: str, *, pinned: bool = False, size: int = 10) -> Row:
    body = f'"{name}{"x" * size}"'.encode()
    return Row(name, body, pinned=pinned, bytes=len(body), tokens=1, created_us=START_US)


def append(names: str, **options: Any) -> Step:
    """Append messages; a capital letter is a pinned one, a digit a large one."""
    rows = [row(name, pinned=name.isupper(), size=2_500 if name.isdigit() else 10) for name in names]
    label = f"append {names} {options.get('max_messages', '')}"
    return label, lambda log: log.append(KEY, rows, request_id=f"request {names}", **options)


def step(name: str, *arguments: Any, **options: Any) -> Step:
    async def run(log: MessageLog) -> Any:
        if name == "purge":
            return await log.purge_expired()
        result = await getattr(log, name)(KEY, *arguments, **options)
        return result.message_id if isinstance(result, Row) else result

    return f"{name} {arguments}", run


HISTORIES: list[list[Step]] = [
    [append("ab"), append("c"), append("de", max_messages=3), append("f", max_messages=3)],
    [append("Aab"), append("b"), append("ac"), step("pop_last"), append("d", max_messages=1)],
    [append("abcdefgh"), append("i"), step("clear"), append("ab")],
    [append("ab"), step("replace_all", [row(name) for name in "bcdefgh"], request_id="r"), append("bz")],
    [append("a1"), step("delete", ["1"]), append("2b"), step("replace", row("2", pinned=True)), append("c")],
    [append("ab"), step("delete_thread"), append("bc"), step("delete", ["b", "x"])],
    [append("ab", ttl=TimeToLive(60.0)), step("fork", OTHER), step("set_ttl", TimeToLive(None)), append("c")],
    [append("ab"), append("cdefghij", max_messages=2), step("pop_last"), step("fork", OTHER)],
    [append("a"), step("update_metadata", {"n": 1}), step("replace_all", [], request_id="e"), append("a")],
]


async def _contents(log: MessageLog, key: ThreadKey) -> Any:
    """All that callers see of a thread."""
    stats = await log.stats(key)
    if stats is None:
        assert await log.read(key) == []
        return None
    rows = await log.read(key)
    assert stats.messages == len(rows)
    assert (stats.bytes, stats.tokens) == (sum(each.bytes for each in rows), len(rows))
    assert [each.message_id for each in await log.latest(key)] or not rows
    for each in rows:
        found = await log.get(key, each.message_id)
        assert found is not None
        assert found.position == each.position
    loose = [each for each in rows if not each.pinned]
    newest = await log.latest(key, 2)
    assert [each.body for each in newest if not each.pinned] == [each.body for each in loose[-2:]]
    return [
        stats.last_position,
        stats.metadata,
        [(each.position, each.message_id, each.body, each.pinned) for each in rows],
    ]


async def _state(log: MessageLog) -> Any:
    listed = [each.thread_id for each in (await log.list_threads("acme")).threads]
    recent = [each.thread_id for each in (await log.list_threads("acme", order="recent")).threads]
    assert sorted(recent) == listed
    contents = [await _contents(log, key) for key in (KEY, OTHER)]
    assert [each is not None for each in contents] == ["t" in listed, "fork" in listed]
    return contents


def _log(table: MemoryTable, clock: Clock, cache: ThreadCache | None = None) -> MessageLog:
    return MessageLog(TablesBackend(table, cache, clock=clock), clock=clock)


def _at(at: int, fault: Fault, number: int, name: str) -> Fault | None:
    return fault if number == at else None


async def _expected(history: Sequence[Step], clock: Clock) -> list[tuple[Any, Any]]:
    """The results and the states of a history without faults, on the reference."""
    log = MessageLog(MemoryBackend(Limits()), clock=clock)
    return [(await run(log), await _state(log)) for _, run in history]


@pytest.mark.parametrize(
    "limits",
    [
        SMALL,
        SMALL._replace(operations=100),
        LARGE,
    ],
)
@pytest.mark.parametrize("number", range(len(HISTORIES)))
async def test_one_fault_at_every_call(number: int, limits: TableLimits) -> None:
    """A fault at each call in turn; a caller repeats what failed, as its error permits."""
    history, clock = HISTORIES[number], Clock()
    expected = await _expected(history, clock)
    for at in itertools.count():
        reached = False
        for fault in FAULTS:
            table = MemoryTable(limits, page=5)
            table.fault = partial(_at, at, fault)
            log = _log(table, clock)
            for (label, run), (result, state) in zip(history, expected, strict=True):
                where = (number, at, fault, label)
                before = len(table.calls)
                try:
                    found = await run(log)
                except OutcomeUnknownError:
                    raise AssertionError(where) from None
                except StoreError:
                    assert before <= at < len(table.calls), where
                    found = await run(log)
                except ConditionFailed:
                    raise AssertionError(where) from None
                reached = reached or at < len(table.calls)
                table.quiet = True
                assert found == result, where
                table.arrive()  # what was late has no effect
                assert await _state(_log(table, clock)) == state, where
                assert await _state(log) == state, where
                table.quiet = False
            await _check_nothing_is_left(table, clock)
        if not reached:
            break


async def _check_nothing_is_left(table: MemoryTable, clock: Clock) -> None:
    """Two days later, sweeps leave nothing that no reader sees."""
    table.quiet = True
    later = Clock()
    later.now = clock.now + 48 * 3600
    log = _log(table, later)
    state = [await _contents(log, key) for key in (KEY, OTHER)]
    for _ in range(4):
        await log.purge_expired()
    assert [await _contents(log, key) for key in (KEY, OTHER)] == state
    for key, contents in zip((KEY, OTHER), state, strict=True):
        sorts = list(table.partitions.get(layout.thread_partition(key), ()))
        messages = 0 if contents is None else len(contents[2])
        kinds = [sort[0] for sort in sorts]
        assert kinds.count("r") == messages, sorts
        assert kinds.count("h") == (contents is not None)
        assert kinds.count("u") >= messages
    assert len(table.items("x.")) <= sum(contents is not None for contents in state)


PREPARE = [append("ab"), append("C1")]
WRITES: list[Step] = [
    append("de", max_messages=3),
    append("bf"),
    append("ghijklm"),
    step("pop_last"),
    step("clear"),
    step("delete", ["a", "1"]),
    step("replace", row("b", size=2_000)),
    step("replace_all", [row(name) for name in "bnopqrs"], request_id="all"),
    step("delete_thread"),
    step("update_metadata", {"n": 1}),
    step("fork", OTHER),
    step("purge"),
]


async def _outcome(log: MessageLog, run: Callable[[MessageLog], Awaitable[Any]]) -> Any:
    try:
        return await run(log)
    except StoreError as error:
        return type(error).__name__


class Interruption:
    """Another process that writes before the call of a number."""

    def __init__(
        self, table: MemoryTable, at: int, log: MessageLog, run: Callable[[MessageLog], Awaitable[Any]]
    ) -> None:
        self.outcome: Any = None
        self.has_written = False
        self._table, self._at, self._log, self._run = table, at, log, run

    async def __call__(self, number: int, name: str) -> None:
        if number == self._at and not self.has_written:
            self.has_written = True
            self._table.quiet = True
            self.outcome = await _outcome(self._log, self._run)
            self._table.quiet = False


@pytest.mark.parametrize("limits", [SMALL, LARGE])
@pytest.mark.parametrize("first", range(len(WRITES)))
async def test_another_writer_at_every_call(first: int, limits: TableLimits) -> None:
    """Another process writes between any two calls of an operation: as if one came after the other."""
    clock = Clock()
    one = WRITES[first][1]
    for label, other in WRITES[:first] + WRITES[first + 1 :]:
        outcomes = []
        for is_swapped in (False, True):
            log = MessageLog(MemoryBackend(), clock=clock)
            for _, run in PREPARE:
                await run(log)
            results = [await _outcome(log, run) for run in ((other, one) if is_swapped else (one, other))]
            outcomes.append((results[::-1] if is_swapped else results, await _state(log)))
        for at in itertools.count():
            table = MemoryTable(limits, page=5)
            log = _log(table, clock)
            for _, run in PREPARE:
                await run(log)
            table.count()
            writer = Interruption(table, at, _log(table, clock), other)
            table.between = writer
            mine = await _outcome(log, one)
            table.between = None
            if not writer.has_written:
                break
            found = ([mine, writer.outcome], await _state(_log(table, clock)))
            assert found in outcomes, (label, at)
            await _check_nothing_is_left(table, clock)


def _random_step(story: random.Random, number: int, ids: list[str], max_messages: int | None) -> Step:
    """An operation whose repetition has the same effect."""
    kind = story.choice(["append"] * 6 + ["delete", "clear", "replace_all", "delete_thread", "replace"])
    if kind == "append":
        names = [f"{number}.{n}" for n in range(story.choice([1, 2, 2, 3, 9]))]
        names += story.sample(ids, min(len(ids), 1)) if story.random() < 0.3 else []
        ids += names
        rows = [
            row(name, pinned=story.random() < 0.15, size=story.choice([10, 10, 10, 2_500])) for name in names
        ]
        options = {"request_id": f"r{number}", "max_messages": max_messages}
        return "append", lambda log: log.append(KEY, rows, **options)
    if kind == "replace_all":
        names = story.sample(ids, min(len(ids), 3)) + [
            f"{number}.{n}" for n in range(story.choice([0, 1, 8]))
        ]
        ids += names
        rows = [row(name) for name in dict.fromkeys(names)]
        return kind, lambda log: log.replace_all(KEY, rows, request_id=f"r{number}")
    if kind == "delete":
        return step("delete", story.sample(ids, min(len(ids), 2)))
    if kind == "replace":
        name = story.choice(ids or ["none"])
        return step("replace", row(name, pinned=story.random() < 0.2, size=story.choice([10, 2_500])))
    return step(kind)


@pytest.mark.parametrize("seed", range(40))
async def test_random_faults(seed: int) -> None:
    """Two processes, any fault at any call, late transactions: a repeated operation takes effect once."""
    story, clock = random.Random(seed), Clock()
    operations = story.choice([12, 60])
    max_messages = story.choice([None, 4]) if operations == 60 else None
    limits = story.choice([SMALL, LARGE])._replace(operations=operations)
    table = MemoryTable(limits, page=story.choice([3, 5, 1000]))
    logs = [_log(table, clock) for _ in range(2)]
    reference = MessageLog(MemoryBackend(Limits()), clock=clock)
    table.fault = lambda number, name: story.choice(FAULTS) if story.random() < 0.12 else None
    ids: list[str] = []
    for number in range(20):
        label, run = _random_step(story, number, ids, max_messages)
        await run(reference)
        log = story.choice(logs)
        while True:
            try:
                await run(log)
                break
            except StoreError:
                if story.random() < 0.3:
                    table.arrive()
        table.quiet = True
        table.arrive()
        assert await _state(_log(table, clock)) == await _state(reference), (number, label)
        table.quiet = False
        clock.now += story.choice([0, 1, 400])
    await _check_nothing_is_left(table, clock)
