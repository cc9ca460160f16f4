"""Load, plan, commit: how every operation of a log takes effect exactly once over a `Backend`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, NamedTuple

from msgspec.structs import replace
from typing_extensions import TypeVar

from agent_stores.backend import (
    Backend,
    Row,
    Snapshot,
    Thread,
    ThreadKey,
    Version,
    VersionConflict,
    in_batches,
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


class Change(NamedTuple, Generic[T]):
    """What an operation commits; nothing, without a thread and `delete_thread`.

    Attributes:
        result: what the operation returns.
        thread: the thread's new metadata.
        put: rows to write.
        delete: rows to remove; put and delete fit into one commit, unless only `put` is large.
        clear: whether all rows are removed that were visible before.
        delete_thread: whether the thread is deleted.
    """

    result: T
    thread: Thread | None = None
    put: Sequence[Row] = ()
    delete: Sequence[Row] = ()
    clear: bool = False
    delete_thread: bool = False


Plan = Callable[[Base, int], Awaitable[Change[T]]]
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
        uncertain: list[Change[T]] = []  # changes whose commit had an unknown outcome
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
                if uncertain and _took_effect(base, uncertain[-1], request_id):
                    return uncertain[-1].result
                change: Change[T] | None = None
                try:
                    change = await plan(base, self.now_us())
                    await self._commit(key, base, change, request_id)
                    return change.result
                except VersionConflict:
                    if time.monotonic() > deadline:
                        raise self._too_many_conflicts(bool(uncertain)) from None
                except OutcomeUnknownError as error:
                    if change is None:  # a read
                        raise
                    uncertain.append(change)
                    # A write on the primary may not be on the replicas.
                    if len(uncertain) == _UNKNOWN_OUTCOMES or isinstance(error, NotReplicatedError):
                        raise
                except StoreError as error:
                    # The server may still be busy with a commit whose reply was lost.
                    if uncertain and (change is not None or isinstance(error, StoreUnavailableError)):
                        raise _outcome_unknown(error) from error
                    raise
                await _pause(attempt)
                attempt += 1

    async def pages(
        self,
        key: ThreadKey,
        version: Version | None,
        *,
        before: int | None = None,
        bodies: bool = True,
        staged: bool = False,
        after: int = 0,
    ) -> AsyncIterator[list[Row]]:
        """The rows of a thread in pages, oldest first, all of one version.

        Raises:
            VersionConflict: when another client wrote to the thread meanwhile.
        """
        # Copies of a thread refer to its attachments.
        read: Callable[..., Awaitable[Snapshot | None]] = getattr(
            self._backend, "stored_rows", self._backend.rows
        )
        while version is not None:
            snapshot = await read(key, after=after, before=before, limit=_PAGE, bodies=bodies, staged=staged)
            check_version(snapshot, version)
            rows = snapshot.rows if snapshot else []
            if rows:
                yield rows
            if len(rows) < _PAGE:
                return
            after = rows[-1].position

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

    async def _commit(self, key: ThreadKey, base: Base, change: Change[T], request_id: str) -> None:
        version = base.version
        if change.delete_thread:
            await self._backend.commit(key, None, expected=version)
            return
        if change.thread is None:
            return
        thread = touch(with_request(change.thread, request_id), self.now_us())
        # What has expired is removed in the step that creates the thread again.
        clear = change.clear or (version is not None and not base.exists)
        if base.stored is not None and base.stored.staged_position:
            version = await self._discard_staged(key, base.stored, version)
        put = list(change.put)
        batches = list(in_batches(put, self._backend.limits, reserve=len(change.delete)))
        if len(batches) > 1:
            staged = replace(
                base.thread, staged_position=put[-1].position, staged_clear=clear and base.exists
            )
            if not base.exists:  # so that it is purged, should this never be finished
                staged = replace(staged, expires_us=expiry_after(_LONGEST_COMMIT, self.now_us()))
            if clear and not base.exists:
                version = await self._backend.commit(key, staged, expected=version, clear=True)
                clear = False
            for batch in batches[:-1]:
                version = await self._backend.commit(key, staged, expected=version, put=batch)
            put = batches[-1]
        await self._backend.commit(
            key,
            replace(thread, staged_position=0, staged_clear=False),
            expected=version,
            put=put,
            delete=change.delete,
            clear=clear,
        )

    async def _discard_staged(
        self, key: ThreadKey, stored: Thread, version: Version | None
    ) -> Version | None:
        """Remove the rows that an unfinished commit left above the last position."""
        pages = self.pages(key, version, after=stored.last_position, bodies=False, staged=True)
        rows = [row async for page in pages for row in page]
        for batch in in_batches(rows, self._backend.limits):
            version = await self._backend.commit(key, stored, expected=version, delete=batch)
        cleaned = replace(stored, staged_position=0, staged_clear=False)
        return await self._backend.commit(key, cleaned, expected=version)


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


def _took_effect(base: Base, change: Change[T], request_id: str) -> bool:
    if change.delete_thread:
        return not base.exists
    return request_id in base.thread.recent_request_ids


def _outcome_unknown(error: StoreError) -> OutcomeUnknownError:
    detail = str(error).removesuffix("; nothing was written")  # by the last attempt
    return OutcomeUnknownError(f"the outcome of a write is unknown, and the server cannot be asked: {detail}")


async def _pause(attempt: int) -> None:
    longest = min(_LONGEST_PAUSE, 0.001 * 2 ** min(attempt, 10))
    await sleep(random.uniform(0, longest))  # noqa: S311 - jitter
