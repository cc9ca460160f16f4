"""`MessageLog` over a backend that fails: at every commit, before or after it is done, in every way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from agent_stores.backend import (
    Change,
    Limits,
    ListedThread,
    Row,
    RowRange,
    Snapshot,
    ThreadKey,
    ThreadQuery,
    TimeToLive,
    VersionConflict,
)
from agent_stores.backends.memory import MemoryBackend
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    StoreRejectedError,
    StoreUnavailableError,
    ThreadExistsError,
)
from agent_stores.log import MessageLog, NewThread
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore

pytestmark = pytest.mark.anyio

KEY = ThreadKey("tenant", "thread")
OTHER = ThreadKey("tenant", "other")
SMALL = Limits(commit_rows=3, commit_bytes=1000)
UNLIMITED = Limits()


class FailingBackend(MemoryBackend):
    """Threads in memory; one commit fails, before or after it is done.

    Args:
        limits: limits of a commit.
    """

    def __init__(self, limits: Limits = UNLIMITED) -> None:
        super().__init__(limits)
        self.commits = 0
        self.failing: dict[int, tuple[BaseException, bool, bool]] = {}
        self.offline = False

    def fail(self, at: int, error: BaseException, *, done: bool = False, then_offline: bool = False) -> None:
        """Let a commit fail.

        Args:
            at: the number of the commit, counted from 1 for the next one.
            error: what it raises.
            done: whether it is done before.
            then_offline: whether no thread can be loaded afterwards.
        """
        self.failing[self.commits + at] = (error, done, then_offline)

    async def load(self, key: ThreadKey) -> Snapshot | None:
        if self.offline:
            raise StoreUnavailableError("memory: no connection")
        return await super().load(key)

    async def commit(self, key: ThreadKey, change: Change) -> int | None:
        self.commits += 1
        error, done, then_offline = self.failing.pop(self.commits, (None, False, False))
        self.offline = self.offline or then_offline
        if error is not None and not done:
            raise error
        rows = len(change.put) + len(change.delete)
        assert rows <= (self.limits.commit_rows or rows)
        version = await super().commit(key, change)
        if error is not None:
            raise error
        return version

    def contents(self) -> dict[ThreadKey, Any]:
        """All that is stored and does not differ from run to run."""
        return {
            key: (
                [(row.position, row.message_id, row.body) for row in stored.rows],
                (stored.thread.messages, stored.thread.pinned, stored.thread.bytes, stored.thread.tokens),
                (stored.thread.last_position, stored.thread.staged_position),
                (stored.thread.metadata, stored.thread.revision),
                (stored.thread.ttl, stored.thread.ttl_refresh, stored.thread.ttl_explicit),
                sorted(stored.ids),
            )
            for key, stored in self._threads.items()
        }


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def rows(*names: str) -> list[Row]:
    """Rows with these ids."""
    return [Row(name, f'"{name}"'.encode(), bytes=len(name) + 2, tokens=1) for name in names]


def numbered(count: int, name: str = "m") -> list[Row]:
    """Rows with numbered ids."""
    return rows(*(f"{name}{n}" for n in range(count)))


async def ids(log: MessageLog, key: ThreadKey = KEY) -> list[str]:
    """The ids of a thread's visible rows."""
    return [row.message_id for row in await log.read(key)]


Operation = Callable[[MessageLog], Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "append": lambda log: log.append(KEY, numbered(2, "new"), request_id="request"),
    "append-many": lambda log: log.append(KEY, numbered(10, "new"), request_id="request"),
    "append-and-trim": lambda log: log.append(KEY, numbered(2, "new"), request_id="request", max_messages=9),
    "append-to-a-new-thread": lambda log: log.append(
        OTHER,
        numbered(7, "new"),
        request_id="request",
        ttl=TimeToLive(60),
        new_thread=NewThread(numbered(3, "first"), {"title": "x"}),
    ),
    "create": lambda log: log.create(OTHER, NewThread(numbered(5), {"title": "x"}), max_messages=4),
    "replace": lambda log: log.replace(KEY, Row("m3", b'"other"', bytes=7, tokens=2)),
    "delete": lambda log: log.delete(KEY, ["m1", "m2", "missing"]),
    "pop_last": lambda log: log.pop_last(KEY),
    "clear": lambda log: log.clear(KEY),
    "replace_all": lambda log: log.replace_all(KEY, numbered(2, "new"), request_id="request"),
    "replace_all-many": lambda log: log.replace_all(KEY, numbered(9, "m"), request_id="request"),
    "replace_all-nothing": lambda log: log.replace_all(KEY, [], request_id="request"),
    "update_metadata": lambda log: log.update_metadata(KEY, {"a": 2, "b": None, "c": 3}),
    "set_ttl": lambda log: log.set_ttl(KEY, TimeToLive(60, "read")),
    "fork": lambda log: log.fork(KEY, OTHER, at=6),
    "delete_thread": lambda log: log.delete_thread(KEY),
}
IN_STEPS: dict[str, Operation] = {
    "append-and-trim-many": lambda log: log.append(
        KEY, numbered(10, "new"), request_id="request", max_messages=6
    ),
    "delete-many": lambda log: log.delete(KEY, [f"m{n}" for n in range(7)]),
}
"""Operations that take several visible steps on a server that limits commits."""


async def prepared(limits: Limits) -> tuple[FailingBackend, MessageLog]:
    """A backend with a thread of eight rows, and a log on it."""
    backend = FailingBackend(limits)
    log = MessageLog(backend, clock=Clock())
    await log.append(KEY, numbered(8))
    await log.update_metadata(KEY, {"a": 1, "b": 1})
    backend.commits = 0
    return backend, log


def stored_once(backend: FailingBackend) -> None:
    """Nothing is stored but what is visible, and counters are right."""
    for stored in backend._threads.values():
        thread = stored.thread
        assert thread.staged_position == 0
        assert [row for row in stored.rows if row.position > thread.last_position] == []
        assert len({row.message_id for row in stored.rows}) == len(stored.rows) == thread.messages
        assert sum(row.bytes for row in stored.rows) == thread.bytes


async def count_commits(operation: Operation, limits: Limits) -> int:
    """How many commits an operation makes when nothing fails."""
    backend, log = await prepared(limits)
    await operation(log)
    return backend.commits


class TestUnknownOutcomes:
    @pytest.mark.parametrize("limits", [UNLIMITED, SMALL], ids=["unlimited", "limited"])
    @pytest.mark.parametrize("name", sorted({**OPERATIONS, **IN_STEPS}))
    async def test_every_operation_takes_effect_once(self, name: str, limits: Limits) -> None:
        """A reply is lost at each commit of an operation, or at two, of which each is done or not."""
        operation = {**OPERATIONS, **IN_STEPS}[name]
        expected_backend, log = await prepared(limits)
        expected = await operation(log)
        commits = expected_backend.commits
        assert commits >= 1
        lost = OutcomeUnknownError("the reply was lost")
        for at in range(1, commits + 1):
            for first, second in [(True, None), (False, None), (True, True), (False, True), (False, False)]:
                backend, log = await prepared(limits)
                backend.fail(at, lost, done=first)
                if second is not None:
                    backend.fail(at + 1, lost, done=second)
                assert await operation(log) == expected, (at, first, second)
                assert backend.contents() == expected_backend.contents(), (at, first, second)
                stored_once(backend)

    async def test_it_gives_up_after_three(self) -> None:
        backend, log = await prepared(UNLIMITED)
        for at in (1, 2, 3):
            backend.fail(at, OutcomeUnknownError("lost"))
        with pytest.raises(OutcomeUnknownError):
            await log.append(KEY, rows("new"), request_id="request")
        await log.append(KEY, rows("new"), request_id="request")
        assert (await ids(log))[-2:] == ["m7", "new"]

    async def test_a_server_that_cannot_be_asked(self) -> None:
        """After a lost reply, no error says that nothing was written."""
        for done in (True, False):
            backend, log = await prepared(UNLIMITED)
            backend.fail(1, OutcomeUnknownError("lost"), done=done, then_offline=done)
            backend.fail(2, StoreUnavailableError("memory: no connection"))
            with pytest.raises(OutcomeUnknownError):
                await log.append(KEY, rows("new"), request_id="request")
            backend.offline = False
            await log.append(KEY, rows("new"), request_id="request")
            assert (await ids(log)).count("new") == 1

    async def test_conflicts_after_a_lost_reply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("agent_stores.committer._PATIENCE", 0.05)
        backend, log = await prepared(UNLIMITED)
        for at in range(2, 1000):
            backend.fail(at, VersionConflict())
        backend.fail(1, OutcomeUnknownError("lost"))
        with pytest.raises(OutcomeUnknownError, match="version conflicts with other writers"):
            await log.clear(KEY)
        with pytest.raises(StoreUnavailableError, match="nothing was written"):
            await log.clear(KEY)

    async def test_what_another_client_did_is_not_our_success(self) -> None:
        """A lost commit that was not done, and another client's that was: both are done in the end."""
        backend, log = await prepared(UNLIMITED)
        other = MessageLog(backend)
        backend.fail(1, OutcomeUnknownError("lost"))
        original = backend.load
        loads = 0

        async def load(key: ThreadKey) -> Snapshot | None:
            nonlocal loads
            loads += 1
            if loads == 2:
                backend.load = original  # type: ignore[method-assign]
                await other.append(KEY, rows("theirs"))
            return await original(key)

        backend.load = load  # type: ignore[method-assign]
        await log.append(KEY, rows("ours"))
        assert (await ids(log))[-2:] == ["theirs", "ours"]


class TestUnfinishedCommits:
    @pytest.mark.parametrize("limits", [UNLIMITED, SMALL], ids=["unlimited", "limited"])
    @pytest.mark.parametrize("name", sorted(OPERATIONS))
    @pytest.mark.parametrize(
        "error",
        [StoreUnavailableError("gone"), asyncio.CancelledError(), RuntimeError("what is this?")],
        ids=["unavailable", "cancelled", "unknown"],
    )
    async def test_all_or_nothing(self, name: str, limits: Limits, error: BaseException) -> None:
        """An operation dies at each of its commits: another client sees all of it or nothing."""
        operation = OPERATIONS[name]
        before, _ = await prepared(limits)
        after, after_log = await prepared(limits)
        await operation(after_log)
        for at in range(1, after.commits + 1):
            for done in (False, True):
                backend, log = await prepared(limits)
                backend.fail(at, error, done=done)
                with pytest.raises(type(error)):
                    await operation(log)
                other = MessageLog(backend, clock=Clock())
                took_effect = done and at == after.commits
                for key in (KEY, OTHER):
                    expected = MessageLog(after if took_effect else before, clock=Clock())
                    assert await ids(other, key) == await ids(expected, key), (at, done)
                    assert await other.stats(key) == await expected.stats(key), (at, done)
                listed = [t.thread_id for t in (await other.list_threads("tenant")).threads]
                expected_ids = [t.thread_id for t in (await expected.list_threads("tenant")).threads]
                assert listed == expected_ids
                # The next writer removes what was left, and continues after what is visible.
                for key in (KEY, OTHER):
                    visible = await ids(other, key)
                    stats = await other.stats(key)
                    position = await other.append(key, rows("next"))
                    assert position == (stats.last_position if stats else 0) + 1
                    assert await ids(other, key) == [*visible, "next"]
                stored_once(backend)

    @pytest.mark.parametrize("name", ["append-many", "append-to-a-new-thread", "replace_all-many"])
    async def test_a_repeated_call_doubles_nothing(self, name: str) -> None:
        operation = OPERATIONS[name]
        expected, log = await prepared(SMALL)
        await operation(log)
        for at in range(1, expected.commits + 1):
            for done in (False, True):
                backend, log = await prepared(SMALL)
                backend.fail(at, asyncio.CancelledError(), done=done)
                with pytest.raises(asyncio.CancelledError):
                    await operation(log)
                await operation(MessageLog(backend, clock=Clock()))
                assert backend.contents() == expected.contents()

    @pytest.mark.parametrize("name", sorted(IN_STEPS))
    async def test_steps_that_are_repeated(self, name: str) -> None:
        operation = IN_STEPS[name]
        expected, log = await prepared(SMALL)
        await operation(log)
        for at in range(1, expected.commits + 1):
            backend, log = await prepared(SMALL)
            backend.fail(at, asyncio.CancelledError())
            with pytest.raises(asyncio.CancelledError):
                await operation(log)
            await operation(log)
            if name == "append-and-trim-many":  # the next call trims what this one left
                await log.append(KEY, rows("next"), max_messages=6)
                assert await ids(log) == ["new5", "new6", "new7", "new8", "new9", "next"]
            else:
                assert backend.contents() == expected.contents()
            stored_once(backend)

    async def test_a_trim_that_fails_does_not_fail_the_append(self) -> None:
        """The error would say that nothing was written, and the caller would add the messages again."""
        operation = IN_STEPS["append-and-trim-many"]
        expected, log = await prepared(SMALL)
        position = await operation(log)
        appended = expected.commits - 3  # the last ones trim eight rows in steps of three
        for at in range(appended + 1, expected.commits + 1):
            for error in (StoreUnavailableError("gone"), StoreRejectedError("no")):
                backend, log = await prepared(SMALL)
                backend.fail(at, error)
                assert await operation(log) == position
                assert (await ids(log))[-6:] == [f"new{n}" for n in range(4, 10)]
                stored_once(backend)
                await log.append(KEY, rows("next"), max_messages=6)
                assert await ids(log) == [*(f"new{n}" for n in range(5, 10)), "next"]

    async def test_an_expired_thread_with_staged_rows(self) -> None:
        """What a large append left on a thread that expired later never becomes visible."""
        backend, clock = FailingBackend(SMALL), Clock()
        log = MessageLog(backend, clock=clock)
        await log.append(KEY, numbered(2, "old"), ttl=TimeToLive(60))
        backend.fail(3, asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            await log.append(KEY, numbered(10, "lost"))
        clock.now += 61
        assert await ids(log) == []
        for name in ("a", "b"):
            await log.append(KEY, numbered(4, name))
        assert await ids(log) == [row.message_id for row in [*numbered(4, "a"), *numbered(4, "b")]]
        stored_once(backend)

    async def test_a_thread_that_was_never_finished(self) -> None:
        backend, clock = FailingBackend(SMALL), Clock()
        log = MessageLog(backend, clock=clock)
        backend.fail(3, asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            await log.append(KEY, numbered(10))
        assert backend._threads
        assert await log.stats(KEY) is None
        assert await log.update_metadata(OTHER, {"a": 1}) == 1
        assert [t.thread_id for t in (await log.list_threads("tenant")).threads] == ["other"]
        assert not await log.set_ttl(KEY, TimeToLive(60))
        with pytest.raises(NotFoundError):
            await log.fork(KEY, ThreadKey("tenant", "third"))
        assert await log.fork(OTHER, KEY) == 0
        with pytest.raises(ThreadExistsError):
            await log.fork(OTHER, KEY)
        await log.delete_thread(KEY)
        backend.fail(3, asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            await log.append(KEY, numbered(10))
        assert await log.purge_expired() == 0
        clock.now += 7200
        assert await log.purge_expired() == 1
        assert list(backend._threads) == [OTHER]

    async def test_the_first_call_of_an_unfinished_thread(self) -> None:
        """Initial rows and metadata are there, although an earlier first call died."""
        backend = FailingBackend(SMALL)
        log = MessageLog(backend)
        new_thread = NewThread(numbered(3, "first"), {"title": "x"})
        backend.fail(2, asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            await log.append(KEY, numbered(5), new_thread=new_thread)
        await log.append(KEY, rows("1"), new_thread=new_thread, expected_position=0)
        assert await ids(log) == ["first0", "first1", "first2", "1"]
        stats = await log.stats(KEY)
        assert stats is not None
        assert stats.metadata == {"title": "x"}

    async def test_an_error_that_the_contract_does_not_know(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It reaches the caller as it is, and the next writer has its turn at once."""
        monkeypatch.setattr("agent_stores.writer_queue._LONGEST_WAIT", 60.0)
        backend, log = await prepared(UNLIMITED)
        backend.fail(1, ZeroDivisionError("a bug of the backend"))
        waiting = [asyncio.ensure_future(log.append(KEY, rows(name))) for name in "abc"]
        start = time.monotonic()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert time.monotonic() - start < 25
        assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, int, int]
        assert (await ids(log))[-2:] == ["b", "c"]

    async def test_a_store_repeats_a_call_with_an_unknown_error(self) -> None:
        """Such a call may have been done: repeating it adds its messages once."""
        for done in (False, True):
            backend, log = await prepared(UNLIMITED)
            store = ChatMessageStore(log, thread_id="thread", tenant="new")
            message = ChatMessage("user", "hello")
            backend.fail(1, ZeroDivisionError(), done=done)
            with pytest.raises(ZeroDivisionError):
                await store.add_messages([message])
            await store.add_messages([message])
            assert await store.count() == 1


class SlowBackend(MemoryBackend):
    """Lets other tasks run before and after each method, so that writers meet."""

    async def load(self, key: ThreadKey) -> Snapshot | None:
        await asyncio.sleep(0)
        return await super().load(key)

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        await asyncio.sleep(0)
        return await super().rows(key, wanted)

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        await asyncio.sleep(0)
        return await super().find(key, message_ids)

    async def commit(self, key: ThreadKey, change: Change) -> int | None:
        await asyncio.sleep(0)
        return await super().commit(key, change)


class TestWriters:
    @pytest.mark.parametrize("limits", [UNLIMITED, SMALL], ids=["unlimited", "limited"])
    async def test_several_hosts(self, limits: Limits) -> None:
        backend = SlowBackend(limits)
        logs = [MessageLog(backend) for _ in range(4)]

        async def write(number: int) -> None:
            for step in range(5):
                await logs[number].append(KEY, numbered(1 + step % 2 * 4, f"{number}.{step}."))
                await logs[number].update_metadata(KEY, {f"{number}.{step}": 1})

        await asyncio.gather(*map(write, range(4)))
        found = await ids(logs[0])
        for number in range(4):
            own = [name for name in found if name.startswith(f"{number}.")]
            sizes = [(step, n) for step in range(5) for n in range(1 + step % 2 * 4)]
            assert own == [f"{number}.{step}.{n}" for step, n in sizes]
            starts = [found.index(f"{number}.{step}.0") for step in (1, 3)]
            for step, start in zip((1, 3), starts, strict=True):  # the rows of a call are next to each other
                assert found[start : start + 5] == [f"{number}.{step}.{n}" for n in range(5)]
        stats = await logs[0].stats(KEY)
        assert stats is not None
        assert (stats.messages, stats.revision) == (len(found), 20)

    async def test_a_trim_that_another_client_overtakes(self) -> None:
        """The rows of a thread that was created again are not those that a trim wanted to remove."""
        backend = FailingBackend(SMALL)
        log, other = MessageLog(backend), MessageLog(backend)
        await log.append(KEY, numbered(6))
        original = backend.commit
        commits = 0

        async def commit(key: ThreadKey, change: Change) -> int | None:
            nonlocal commits
            version = await original(key, change)
            commits += 1
            if commits == 1:  # between the append and its trim
                backend.commit = original  # type: ignore[method-assign]
                await other.delete_thread(KEY)
                await other.append(KEY, numbered(3, "theirs"))
            return version

        backend.commit = commit  # type: ignore[method-assign]
        await log.append(KEY, numbered(3, "new"), max_messages=4)
        assert await ids(log) == ["theirs0", "theirs1", "theirs2"]

    async def test_get_after_the_thread_was_created_again(self) -> None:
        backend = FailingBackend()
        log, other = MessageLog(backend), MessageLog(backend)
        await log.append(KEY, rows("a"))
        original = backend.find

        async def find(key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
            found = await original(key, message_ids)
            await other.delete_thread(KEY)
            await other.append(KEY, rows("b"))
            return found

        backend.find = find  # type: ignore[method-assign]
        assert await log.get(KEY, "a") is None

    async def test_a_fork_of_a_thread_that_changes(self) -> None:
        backend = SlowBackend()
        log, other = MessageLog(backend), MessageLog(backend)
        await log.append(KEY, numbered(5))

        async def write() -> None:
            for n in range(10):
                await other.append(KEY, rows(f"new{n}"))

        await asyncio.gather(write(), log.fork(KEY, OTHER))
        copied = await ids(log, OTHER)
        assert copied == (await ids(log))[: len(copied)]
        stats = await log.stats(OTHER)
        assert stats is not None
        assert stats.last_position == stats.messages == len(copied)

    async def test_a_conflict_writes_nothing(self) -> None:
        backend, log = await prepared(UNLIMITED)
        before = backend.contents()
        with pytest.raises(ConflictError):
            await log.append(KEY, rows("new"), expected_position=3)
        with pytest.raises(ConflictError):
            await log.replace_all(KEY, rows("new"), expected_position=3)
        with pytest.raises(ConflictError):
            await log.update_metadata(KEY, {"a": 9}, expected_revision=3)
        assert backend.contents() == before
        assert backend.commits == 0


class CountingBackend(MemoryBackend):
    """Counts how often threads are listed."""

    listings = 0

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        self.listings += 1
        return await super().threads(query)


async def test_many_expired_threads_are_passed_over_in_large_steps() -> None:
    backend, clock = CountingBackend(), Clock()
    log = MessageLog(backend, clock=clock)
    for n in range(2000):
        await log.append(ThreadKey(None, f"a{n:04}"), rows("1"), ttl=TimeToLive(60))
    await log.append(ThreadKey(None, "b"), rows("1"))
    clock.now += 61
    page = await log.list_threads(None, limit=1)
    assert [t.thread_id for t in page.threads] == ["b"]
    assert backend.listings < 15


async def test_a_store_needs_a_log() -> None:
    wrong: Any = "sqlite:///chat.db"
    with pytest.raises(ArgumentTypeError, match="log must be a MessageLog, got str"):
        ChatMessageStore(wrong)


async def test_a_listing_of_tenants_checks_its_arguments() -> None:
    log = MessageLog(MemoryBackend())
    with pytest.raises(ArgumentError, match="limit must be a non-negative int, got -1"):
        await log.list_tenants(limit=-1)
    wrong: Any = 3
    with pytest.raises(ArgumentTypeError, match="after must be a str, got int"):
        await log.list_tenants(after=wrong)


async def test_errors_shorten_what_was_given() -> None:
    wrong: Any = "x" * 1_000_000
    with pytest.raises(ArgumentError, match="order must be one of 'id', 'recent', got 'xxx") as caught:
        await ChatMessageStore(MessageLog(MemoryBackend())).list_threads(order=wrong)
    assert len(str(caught.value)) < 100
    with pytest.raises(ArgumentError, match="role must be one of") as caught:
        ChatMessage(wrong)
    assert len(str(caught.value)) < 150
