"""Load, plan, commit: how every operation of a log takes effect exactly once over a `Backend`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace
from typing_extensions import TypeVar

from agent_stores.append_plan import in_batches
from agent_stores.backend import (
    Backend,
    Change,
    Row,
    RowRange,
    Snapshot,
    Thread,
    ThreadKey,
    Version,
    VersionConflict,
)
from agent_stores.errors import NotReplicatedError, OutcomeUnknownError, StoreError, StoreUnavailableError
from agent_stores.inline import sleep
from agent_stores.thread_updates import expiry_after, touch, with_request
from agent_stores.writer_queue import WriterQueue

T = TypeVar("T")

_PATIENCE = 30.0  # seconds of conflicts with other writers before an operation gives up
_UNKNOWN_OUTCOMES = 3  # lost connections during one operation before it gives up
_LONGEST_PAUSE = 0.05  # seconds between two attempts
_LONGEST_COMMIT = 3600.0  # seconds until an unfinished thread may be purged
_PAGE = 512  # rows read at once


class Base(NamedTuple):
    """What an operation starts from.

    Attributes:
        thread: the thread's metadata; that of a new thread when it is not visible.
        version: its version; None when the server has no such thread.
        exists: whether the thread is visible (`Thread.is_visible`).
        stored: the metadata on the server; None when it has no such thread.
    """

    thread: Thread
    version: Version | None
    exists: bool
    stored: Thread | None


Planned: TypeAlias = tuple[T, Change | None]
"""What an operation returns, and what it changes; None for nothing."""

Plan: TypeAlias = Callable[[Base, int], Awaitable[Planned[T]]]
"""Works out a change from what is there, and the time in microseconds. It may be called more than once."""


class Committer:
    """Commits changes of threads on one backend.

    Args:
        backend: the database.
        clock: returns seconds since 1970 UTC.
    """

    def __init__(self, backend: Backend, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._clock = clock
        self._queue = WriterQueue()

    def now_us(self) -> int:
        """The time in microseconds since 1970 UTC."""
        return int(self._clock() * 1_000_000)

    async def load(self, key: ThreadKey) -> Base:
        """Load a thread's metadata."""
        return self._base(await self._backend.load(key))

    async def update(self, key: ThreadKey, plan: Plan[T], *, request_id: str | None = None) -> T:
        """Commit what `plan` works out, and return its result; once, whatever else happens meanwhile.

        The thread's time of the last write, its expiry and its recent request ids are brought up to date.

        Args:
            key: the thread.
            plan: see `Plan`.
            request_id: names the operation in the thread's recent request ids; a random one by default.

        Raises:
            StoreUnavailableError: after 30 seconds of version conflicts; nothing was written.
            OutcomeUnknownError: when the connection was lost repeatedly while the commit was confirmed.
            StoreError: what the backend raises.
        """
        request_id = request_id or new_request_id()
        uncertain: list[Planned[T]] = []  # those whose commit had an unknown outcome
        deadline = time.monotonic() + _PATIENCE
        async with self._queue.turn(key):
            attempt = 0
            while True:
                try:
                    base = await self.load(key)
                except StoreError as error:
                    if uncertain:
                        raise _outcome_unknown(error) from error
                    raise
                if uncertain and _took_effect(base, uncertain[-1][1], request_id):
                    return uncertain[-1][0]
                planned: Planned[T] | None = None
                try:
                    planned = await plan(base, self.now_us())
                    result, change = planned
                    if change is not None:
                        await self._commit(key, base, change, request_id)
                    return result
                except VersionConflict:
                    if time.monotonic() > deadline:
                        raise self._too_many_conflicts(bool(uncertain)) from None
                except OutcomeUnknownError as error:
                    if planned is None:  # a read
                        raise
                    uncertain.append(planned)
                    # A write on the primary may not be on the replicas.
                    if len(uncertain) == _UNKNOWN_OUTCOMES or isinstance(error, NotReplicatedError):
                        raise
                except StoreError as error:
                    # The server may still be busy with a commit whose reply was lost.
                    if uncertain and (planned is not None or isinstance(error, StoreUnavailableError)):
                        raise _outcome_unknown(error) from error
                    raise
                await _pause(attempt)
                attempt += 1

    async def pages(
        self, key: ThreadKey, version: Version | None, wanted: RowRange
    ) -> AsyncIterator[list[Row]]:
        """Rows of a thread in pages, oldest first, all of one version; none where it is None.

        Raises:
            VersionConflict: when another client wrote to the thread meanwhile.
        """
        # Copies of a thread refer to its attachments.
        read: Callable[[ThreadKey, RowRange], Awaitable[Snapshot | None]] = getattr(
            self._backend, "stored_rows", self._backend.rows
        )
        wanted = replace(wanted, limit=_PAGE)
        while version is not None:
            snapshot = await read(key, wanted)
            check_version(snapshot, version)
            rows = snapshot.rows if snapshot else []
            if rows:
                yield rows
            if len(rows) < _PAGE:
                return
            wanted = replace(wanted, after=rows[-1].position)

    def _too_many_conflicts(self, is_uncertain: bool) -> StoreError:
        text = f"{self._backend.location}: version conflicts with other writers for {_PATIENCE:g} seconds; "
        if is_uncertain:
            return OutcomeUnknownError(f"{text}the outcome of a write is unknown")
        return StoreUnavailableError(f"{text}nothing was written")

    def fits(self, rows: int) -> bool:
        """Whether one commit may put and delete this many rows."""
        most = self._backend.limits.commit_rows
        return most is None or rows <= most

    def _base(self, snapshot: Snapshot | None) -> Base:
        if snapshot is None:
            return Base(Thread(), None, exists=False, stored=None)
        stored, version, _ = snapshot
        exists = stored.is_visible(self.now_us())
        return Base(stored if exists else Thread(), version, exists, stored)

    async def _commit(self, key: ThreadKey, base: Base, change: Change, request_id: str) -> None:
        version = change.expected
        if change.thread is None:
            await self._backend.commit(key, change)
            return
        thread = touch(with_request(change.thread, request_id), self.now_us())
        # What has expired is removed in the step that creates the thread again.
        clear = change.clear or (version is not None and not base.exists)
        if base.stored is not None and base.stored.staged_position:
            version = await self._discard_staged(key, base.stored, version)
        batches = list(in_batches(change.put, self._backend.limits, reserve=len(change.delete)))
        put = batches.pop() if batches else []
        if batches:
            staged = replace(
                base.thread, staged_position=put[-1].position, staged_clear=clear and base.exists
            )
            if not base.exists:  # so that it is purged, should this never be finished
                staged = replace(staged, expires_us=expiry_after(_LONGEST_COMMIT, self.now_us()))
            if clear and not base.exists:
                version = await self._backend.commit(key, Change(staged, version, clear=True))
                clear = False
            for batch in batches:
                version = await self._backend.commit(key, Change(staged, version, batch))
        thread = replace(thread, staged_position=0, staged_clear=False)
        await self._backend.commit(key, Change(thread, version, put, change.delete, clear))

    async def _discard_staged(
        self, key: ThreadKey, stored: Thread, version: Version | None
    ) -> Version | None:
        """Remove the rows that an unfinished commit left above the last position."""
        left = RowRange(after=stored.last_position, bodies=False, staged=True)
        rows = [row async for page in self.pages(key, version, left) for row in page]
        for batch in in_batches(rows, self._backend.limits):
            version = await self._backend.commit(key, Change(stored, version, delete=batch))
        cleaned = replace(stored, staged_position=0, staged_clear=False)
        return await self._backend.commit(key, Change(cleaned, version))


def new_request_id() -> str:
    """A random request id."""
    return os.urandom(8).hex()


def check_version(snapshot: Snapshot | None, version: Version) -> None:
    """Check that a later read is of the version that an operation started from.

    Raises:
        VersionConflict: when it is not.
    """
    if snapshot is None or snapshot.version != version:
        raise VersionConflict


def _took_effect(base: Base, change: Change | None, request_id: str) -> bool:
    if change is not None and change.thread is None:
        return not base.exists
    return request_id in base.thread.recent_request_ids


def _outcome_unknown(error: StoreError) -> OutcomeUnknownError:
    detail = str(error).removesuffix("; nothing was written")  # by the last attempt
    return OutcomeUnknownError(f"the outcome of a write is unknown, and the server cannot be asked: {detail}")


async def _pause(attempt: int) -> None:
    longest = min(_LONGEST_PAUSE, 0.001 * 2 ** min(attempt, 10))
    await sleep(random.uniform(0, longest))  # noqa: S311 - jitter
