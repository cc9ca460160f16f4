"""What each operation of `MessageLog` changes: plans for `Committer.update`.

Arguments are those of the log's methods, which describe them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from agent_stores import append_plan
from agent_stores._encrypted import check_keys, check_plain
from agent_stores.backend import (
    Backend,
    Change,
    Row,
    RowRange,
    Snapshot,
    Thread,
    ThreadKey,
    ThreadQuery,
    TimeToLive,
    VersionConflict,
)
from agent_stores.capabilities import Append, Sweeper
from agent_stores.committer import Base, Committer, Planned, check_version
from agent_stores.errors import ConflictError, OutcomeUnknownError, StoreError
from agent_stores.sealing import check_thread, seal_rows
from agent_stores.thread_updates import check_position, expiry_after, with_metadata, with_rows, with_ttl


class NewThread(NamedTuple):
    """What a thread begins with, when the first operation on it writes.

    Attributes:
        rows: its first rows, in order.
        metadata: its metadata.
    """

    rows: Sequence[Row] = ()
    metadata: Mapping[str, Any] = {}


class Operations:
    """The operations of a log over the contract's six methods.

    Args:
        backend: the database.
        committer: commits the changes.
    """

    def __init__(self, backend: Backend, committer: Committer) -> None:
        self._backend = backend
        self._committer = committer

    async def append(self, key: ThreadKey, call: Append, new_thread: NewThread | None) -> int:
        """See `MessageLog.append`."""
        new_thread = await self._seal_new(key, new_thread)
        left: list[Row] = []  # rows that are trimmed afterwards, when it takes more than one commit

        async def plan(base: Base, now_us: int) -> Planned[int]:
            left.clear()
            thread = base.thread
            if call.request_id in thread.recent_request_ids:
                return thread.last_position, None
            present = await self._find(key, base, [row.message_id for row in call.rows])
            trimmed = await self._find_trimmed(key, base, call.rows, present) if present else ()
            added = append_plan.new_rows(call.rows, {*present, *trimmed})
            if not added:
                found = max(row.position for row in present.values())  # may be newer than the thread
                return max(thread.last_position, found), None
            check_position(thread, call.expected_position)
            if new_thread is not None and thread.last_position == 0:
                added = append_plan.new_rows([*new_thread.rows, *added], ())
                if not base.exists:
                    thread = with_metadata(thread, new_thread.metadata)
            version = base.version if base.exists else None
            pages = self._committer.pages(key, version, RowRange(bodies=False))
            thread, put, delete = await append_plan.add_rows(thread, added, call.max_messages, pages)
            if delete and not self._committer.fits(len(put) + len(delete)):
                left.extend(delete)
                thread, delete = with_rows(thread, delete), []
            change = Change(with_ttl(thread, call.ttl, now_us), base.version, put, delete)
            return thread.last_position, change

        position = await self._committer.update(key, plan, request_id=call.request_id)
        if left:
            with contextlib.suppress(StoreError):  # the rows are added; the next append trims the rest
                await self._delete_in_steps(key, {row.message_id: row.position for row in left})
        return position

    async def replace(self, key: ThreadKey, row: Row) -> bool:
        """See `MessageLog.replace`."""
        (row,) = await seal_rows(self._backend, key, [row])

        async def plan(base: Base, now_us: int) -> Planned[bool]:
            check_keys(base.thread.metadata)
            old = (await self._find(key, base, [row.message_id])).get(row.message_id)
            if old is None:
                return False, None
            new = replace(row, position=old.position, boundary=old.boundary)
            thread = with_rows(with_rows(base.thread, [old], -1), [new])
            return True, Change(thread, base.version, [new])

        return await self._committer.update(key, plan)

    async def delete(self, key: ThreadKey, message_ids: Sequence[str]) -> int:
        """See `MessageLog.delete`."""
        await check_thread(self._backend, key)
        return await self._delete_in_steps(key, dict.fromkeys(message_ids))

    async def _delete_in_steps(self, key: ThreadKey, positions: Mapping[str, int | None]) -> int:
        """Delete rows by id, those with a position only there, in commits that the server's limits allow."""
        ids = list(positions)
        step = self._backend.limits.commit_rows or max(1, len(ids))

        async def plan(base: Base, now_us: int) -> Planned[int]:
            check_keys(base.thread.metadata)
            found = await self._find(key, base, batch)
            rows = [row for name, row in found.items() if positions[name] in (None, row.position)]
            if not rows:
                return 0, None
            return len(rows), Change(with_rows(base.thread, rows, -1), base.version, delete=rows)

        deleted = 0
        for start in range(0, len(ids), step):
            batch = ids[start : start + step]
            deleted += await self._committer.update(key, plan)
        return deleted

    async def pop_last(self, key: ThreadKey) -> Row | None:
        """See `MessageLog.pop_last`."""

        async def plan(base: Base, now_us: int) -> Planned[Row | None]:
            if base.thread.unpinned == 0:
                return None, None
            snapshot = await self._backend.rows(key, RowRange(limit=1, newest=True))
            check_version(snapshot, base.version)
            newest = [row for row in snapshot.rows if not row.pinned][-1] if snapshot else None
            if newest is None:
                return None, None
            check_plain(newest.body)  # what cannot be read is not removed
            return newest, Change(with_rows(base.thread, [newest], -1), base.version, delete=[newest])

        return await self._committer.update(key, plan)

    async def clear(self, key: ThreadKey) -> int:
        """See `MessageLog.clear`."""
        await check_thread(self._backend, key)

        async def plan(base: Base, now_us: int) -> Planned[int]:
            check_keys(base.thread.metadata)
            if not base.thread.messages:
                return 0, None
            return base.thread.messages, Change(_emptied(base.thread), base.version, clear=True)

        return await self._committer.update(key, plan)

    async def replace_all(self, key: ThreadKey, call: Append) -> int:
        """See `MessageLog.replace_all`."""

        async def plan(base: Base, now_us: int) -> Planned[int]:
            thread = base.thread
            check_keys(thread.metadata)
            if call.request_id in thread.recent_request_ids:
                return thread.last_position, None
            check_position(thread, call.expected_position)
            if not call.rows and not thread.messages:
                return thread.last_position, None
            thread = _emptied(thread)
            put: list[Row] = []
            if call.rows:
                thread, put, _ = await append_plan.add_rows(thread, append_plan.new_rows(call.rows, ()))
            return thread.last_position, Change(
                with_ttl(thread, call.ttl, now_us), base.version, put, clear=True
            )

        return await self._committer.update(key, plan, request_id=call.request_id)

    async def create(
        self, key: ThreadKey, new_thread: NewThread, max_messages: int | None, ttl: TimeToLive | None
    ) -> None:
        """See `MessageLog.create`."""
        new_thread = new_thread._replace(rows=await seal_rows(self._backend, key, new_thread.rows))

        async def plan(base: Base, now_us: int) -> Planned[None]:
            if base.thread.last_position or (base.exists and not new_thread.rows):
                return None, None
            thread, put = await self._begin(key, base, new_thread, max_messages)
            return None, Change(with_ttl(thread, ttl, now_us), base.version, put)

        await self._committer.update(key, plan)

    async def update_metadata(
        self,
        key: ThreadKey,
        changes: Mapping[str, Any],
        expected_revision: int | None,
        max_messages: int | None,
        ttl: TimeToLive | None,
        new_thread: NewThread | None,
    ) -> int:
        """See `MessageLog.update_metadata`."""
        new_thread = await self._seal_new(key, new_thread)

        async def plan(base: Base, now_us: int) -> Planned[int]:
            thread, put = base.thread, list[Row]()
            if new_thread is not None and not base.exists:
                thread, put = await self._begin(key, base, new_thread, max_messages)
            if expected_revision is not None and expected_revision != thread.revision:
                raise ConflictError(
                    f"expected_revision is {expected_revision}, but the metadata's revision is "
                    f"{thread.revision}: another client changed it; nothing was written",
                    expected=expected_revision,
                    actual=thread.revision,
                )
            changed = with_metadata(thread, changes)
            if changed is base.thread:
                return thread.revision, None
            return changed.revision, Change(with_ttl(changed, ttl, now_us), base.version, put)

        return await self._committer.update(key, plan)

    async def set_ttl(self, key: ThreadKey, ttl: TimeToLive) -> bool:
        """See `MessageLog.set_ttl`."""

        async def plan(base: Base, now_us: int) -> Planned[bool]:
            if not base.exists:
                return False, None
            thread = replace(
                base.thread,
                ttl=ttl.seconds,
                ttl_refresh=ttl.refresh,
                ttl_explicit=True,
                expires_us=expiry_after(ttl.seconds, now_us),
            )
            return True, Change(thread, base.version)

        return await self._committer.update(key, plan)

    async def delete_thread(self, key: ThreadKey) -> bool:
        """See `MessageLog.delete_thread`."""

        async def plan(base: Base, now_us: int) -> Planned[bool]:
            return base.exists, None if base.version is None else Change(None, base.version)

        return await self._committer.update(key, plan)

    async def renew(self, key: ThreadKey, snapshot: Snapshot) -> None:
        """Renew the time-to-live of a thread that was read."""
        thread = snapshot.thread
        renewed = replace(thread, expires_us=expiry_after(thread.ttl, self._committer.now_us()))
        with contextlib.suppress(VersionConflict, OutcomeUnknownError):  # the next read renews it
            await self._backend.commit(key, Change(renewed, snapshot.version))

    async def purge_expired(self, limit: int) -> int:
        """See `MessageLog.purge_expired`."""
        purged = 0
        query = ThreadQuery(None, limit=limit, expired_before=self._committer.now_us())
        for thread in await self._backend.threads(query):
            with contextlib.suppress(VersionConflict):  # another client wrote to it, or purged it
                await self._backend.commit(thread.key, Change(None, thread.version))
                purged += 1
        if isinstance(self._backend, Sweeper):
            await self._backend.sweep(limit=limit)
        if (sweep := getattr(self._backend, "sweep_attachments", None)) is not None:
            await sweep(limit=limit)
        return purged

    async def _begin(
        self, key: ThreadKey, base: Base, new_thread: NewThread, max_messages: int | None
    ) -> tuple[Thread, list[Row]]:
        """A thread with what it begins with, and the rows to put."""
        thread = base.thread if base.exists else with_metadata(base.thread, new_thread.metadata)
        if not new_thread.rows:
            return thread, []
        rows = append_plan.new_rows(new_thread.rows, ())
        thread, put, _ = await append_plan.add_rows(thread, rows, max_messages)
        return thread, put

    async def _seal_new(self, key: ThreadKey, new_thread: NewThread | None) -> NewThread | None:
        if new_thread is None:
            return None
        return new_thread._replace(rows=await seal_rows(self._backend, key, new_thread.rows))

    async def _find(self, key: ThreadKey, base: Base, message_ids: Sequence[str]) -> dict[str, Row]:
        return await self._backend.find(key, message_ids) if base.exists else {}

    async def _find_trimmed(
        self, key: ThreadKey, base: Base, rows: Sequence[Row], present: Mapping[str, Row]
    ) -> set[str]:
        """The ids of rows that an earlier call with the same rows stored, and that were removed since.

        They come directly before a row that is in the thread, and nothing is at the positions before it.
        """
        trimmed: set[str] = set()
        missing: list[str] = []
        for row in rows:
            stored = present.get(row.message_id)
            if stored is None:
                if row.message_id not in missing:
                    missing.append(row.message_id)
                continue
            first = stored.position - len(missing)
            if missing and first > 0:
                before = RowRange(after=first - 1, before=stored.position, limit=1, bodies=False)
                snapshot = await self._backend.rows(key, before)
                check_version(snapshot, base.version)
                if snapshot and not snapshot.rows:
                    trimmed.update(missing)
            missing = []
        return trimmed


def _emptied(thread: Thread) -> Thread:
    return replace(thread, messages=0, pinned=0, bytes=0, tokens=0)
