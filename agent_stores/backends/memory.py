"""Threads in a dictionary of this process, on the contract alone: for tests, samples and small tools."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from msgspec.structs import replace

from agent_stores._locks import make_lock
from agent_stores.backend import (
    Change,
    Limits,
    ListedThread,
    Row,
    RowRange,
    Snapshot,
    Thread,
    ThreadKey,
    ThreadQuery,
    VersionConflict,
)
from agent_stores.capabilities import SearchHit, SearchQuery, tenants_after
from agent_stores.search import rank_rows

_lock = make_lock()


class _Stored:
    """A thread: its metadata, its version, its rows by position, and the positions of its ids."""

    __slots__ = ("ids", "rows", "thread", "version")

    def __init__(self) -> None:
        self.thread = Thread()
        self.version = 0
        self.rows: list[Row] = []
        self.ids: dict[str, list[int]] = {}  # a staged row may have the id of a visible one

    def index(self, position: int) -> int:
        return bisect.bisect_left(self.rows, position, key=lambda row: row.position)

    def remove(self, rows: Sequence[Row]) -> None:
        positions = {row.position for row in rows}
        for row in rows:
            self.ids[row.message_id].remove(row.position)
            if not self.ids[row.message_id]:
                del self.ids[row.message_id]
        if positions:
            self.rows = [row for row in self.rows if row.position not in positions]

    def put(self, row: Row) -> None:
        index = self.index(row.position)
        if index < len(self.rows) and self.rows[index].position == row.position:
            self.rows[index] = row
        else:
            self.rows.insert(index, row)
            self.ids.setdefault(row.message_id, []).append(row.position)


class MemoryBackend:
    """A `Backend` whose data lives as long as this object; for any thread and event loop.

    Args:
        limits: limits of a commit, for tests of how large commits are staged.
    """

    location = "memory"
    supports_inline = True

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._threads: dict[ThreadKey, _Stored] = {}
        self._versions = 0

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        with _lock:
            stored = self._threads.get(key)
            return None if stored is None else Snapshot(stored.thread, stored.version)

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """See `Backend.rows`."""
        with _lock:
            stored = self._threads.get(key)
            if stored is None:
                return None
            end = len(stored.rows) if wanted.staged else stored.index(stored.thread.last_position + 1)
            end = end if wanted.before is None else min(end, stored.index(wanted.before))
            rows = stored.rows[stored.index(wanted.after + 1) : end]
            thread, version = stored.thread, stored.version
        if wanted.newest and wanted.limit is not None:
            positions = [row.position for row in rows if not row.pinned]
            dropped = set(positions[: max(0, len(positions) - wanted.limit)])
            rows = [row for row in rows if row.position not in dropped]
        elif not wanted.newest:
            rows = rows[: wanted.limit]
        return Snapshot(thread, version, rows)

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        with _lock:
            stored = self._threads.get(key)
            if stored is None:
                return {}
            positions = {name: min(stored.ids[name]) for name in message_ids if name in stored.ids}
            rows = {name: stored.rows[stored.index(position)] for name, position in positions.items()}
            last = stored.thread.last_position
            return {name: replace(row, body=b"") for name, row in rows.items() if row.position <= last}

    async def commit(self, key: ThreadKey, change: Change) -> int | None:
        """See `Backend.commit`."""
        with _lock:
            stored = self._threads.get(key)
            if change.expected != (None if stored is None else stored.version):
                raise VersionConflict
            if change.thread is None:
                self._threads.pop(key, None)
                return None
            stored = self._threads.setdefault(key, _Stored())
            if change.clear:
                stored.remove(stored.rows[: stored.index(stored.thread.last_position + 1)])
            stored.remove(change.delete)
            for row in change.put:
                stored.put(row)
            self._versions += 1
            stored.thread, stored.version = change.thread, self._versions
            return stored.version

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        """See `Backend.threads`."""
        with _lock:
            listed = [ListedThread(key, each.thread, each.version) for key, each in self._threads.items()]
        if query.expired_before is not None:
            return [item for item in listed if item.thread.is_expired(query.expired_before)][: query.limit]
        sign = -1 if query.order == "recent" else 0
        places = {
            (sign * item.thread.updated_us, item.key.thread_id): item
            for item in listed
            if item.key.tenant == query.tenant and item.key.thread_id.startswith(query.prefix)
        }
        after = query.after and (sign * query.after.updated_us, query.after.thread_id)
        ordered = sorted(place for place in places if after is None or place > after)
        return [places[place] for place in ordered[: query.limit]]

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `TenantLister.tenants`."""
        with _lock:
            tenants = {key.tenant for key in self._threads}
        return tenants_after(tenants, after)[:limit]

    async def search(self, query: SearchQuery) -> list[SearchHit]:
        """See `SearchableBackend.search`; reads every message of the tenant."""
        with _lock:
            rows = [
                (key.thread_id, row)
                for key, stored in self._threads.items()
                if key.tenant == query.tenant and query.thread_id in (None, key.thread_id)
                if stored.thread.is_visible(query.now_us)
                for row in stored.rows[: stored.index(stored.thread.last_position + 1)]
                if query.before is None or key.thread_id != query.before[0] or row.position < query.before[1]
            ]
        return rank_rows(rows, query.text)[: query.limit]

    async def aclose(self) -> None:
        """Forget all threads."""
        with _lock:
            self._threads.clear()
