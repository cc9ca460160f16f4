"""Reading a thread as of one moment, and what a process remembers of threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from agent_stores.backend import Row, Snapshot, ThreadKey
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.layout import Head
from agent_stores.backends.tables.table import Item, Table, following, gather, query_all
from agent_stores.errors import StoreUnavailableError
from agent_stores.writer_queue import WriterQueue

_THREADS = 1024  # that are remembered
_ATTEMPTS = 50  # of reading a thread as of one moment
_SLACK = 4  # items read beyond those that are needed


StoredRow: TypeAlias = tuple[Row, str]
"""A message, and the name of its body if that is in parts, which are not read yet."""


class ThreadCache:
    """A table's heads, as they were read or written last, and turns for writers. For any thread and loop."""

    def __init__(self) -> None:
        self._heads: OrderedDict[ThreadKey, Head] = OrderedDict()
        self._lock = threading.Lock()
        self.get = self._heads.get
        self.queue = WriterQueue()

    def put(self, key: ThreadKey, head: Head | None) -> None:
        """Remember a thread as it was read or written; None forgets it."""
        with self._lock:
            old = self._heads.pop(key, None)
            if head is not None:
                is_known = old is not None and old.version == head.version and not head.oldest
                self._heads[key] = old if old is not None and is_known else head
            if len(self._heads) > _THREADS:
                self._heads.popitem(last=False)


class Reader:
    """Reads threads of a table."""

    def __init__(self, table: Table, cache: ThreadCache) -> None:
        self._table = table
        self._cache = cache

    async def head(self, key: ThreadKey) -> Head | None:
        """A thread's head, as it is now."""
        name = (layout.thread_partition(key), layout.HEAD)
        return self._remember(key, (await self._table.get([name])).get(name))

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        head = await self.head(key)
        return None if head is None else Snapshot(head.thread, head.version)

    async def rows(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        bodies: bool = True,
        staged: bool = False,
    ) -> Snapshot | None:
        """See `Backend.rows`."""
        is_end = not after and before is None and (newest or limit is None) and bodies and not staged
        head, found, is_certain = (
            await self._first_page(key, limit) if is_end else (await self.head(key), None, False)
        )
        for _ in range(_ATTEMPTS):
            if head is None:
                return None
            if found is None:
                high = head.thread.staged_position if staged else head.thread.last_position
                high = high if before is None else min(before - 1, high)
                view = replace(head, generation=head.next or head.generation) if staged else head
                found = await self.select(key, view, after + 1, high, limit, newest, bodies)
            rows = await self._with_bodies(key, found) if bodies else [row for row, _ in found]
            again = head if is_certain and not any(name for _, name in found) else await self.head(key)
            if again is not None and again.version == head.version:
                return Snapshot(head.thread, head.version, sorted(rows, key=_position))
            head, found = again, None
        raise StoreUnavailableError(
            f"{self._table.location}: a thread changed {_ATTEMPTS} times while it was read"
        )

    async def find(self, key: ThreadKey, message_ids: Iterable[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        head, wanted, partition = await self.head(key), set(message_ids), layout.thread_partition(key)
        while head is not None:
            names = [(partition, layout.id_sort(head.generation, each)) for each in wanted]
            rows = [layout.read_row(item)[0] for item in (await self._table.get(names)).values()]
            found = {row.message_id: row for row in rows if row.position <= head.thread.last_position}
            generation = head.generation
            head = head if len(found) == len(wanted) else await self.head(key)
            if head is not None and head.generation == generation:  # else messages may have moved
                return found
        return {}

    async def select(
        self, key: ThreadKey, head: Head, low: int, high: int, limit: int | None, newest: bool, bodies: bool
    ) -> list[StoredRow]:
        """Messages between two positions, by `Backend.rows`."""
        partition = layout.thread_partition(key)

        async def read(low: int, high: int, most: int | None = None, pinned: bool = False) -> list[StoredRow]:
            if low > high or most == 0:
                return []
            first = layout.message_sort(head.generation, high, pinned=pinned)
            end = following(layout.message_sort(head.generation, low, pinned=pinned))
            items = await query_all(self._table, partition, first, end, limit=most, bodies=bodies)
            return list(map(layout.read_row, items))

        is_staged = high > head.thread.last_position
        found = await read(low, high, pinned=True) if head.thread.pinned or is_staged else []
        if newest or limit is None:
            return found + await read(low, high, limit)
        # Tables are read from the newest on: windows of positions are read, the oldest first.
        count, low, size = len(found) + limit, max(low, head.low + 1), limit + _SLACK
        while low <= high and len(found) < count:
            window = await read(low, min(high, low + size - 1))
            found += reversed(window)
            low, size = low + size, size if window else 2 * size
        return sorted(found, key=lambda each: each[0].position)[:limit]

    async def _first_page(
        self, key: ThreadKey, limit: int | None
    ) -> tuple[Head | None, list[StoredRow] | None, bool]:
        """By one query: the head; the newest messages, if all are there; whether this is of one moment."""
        known = self._cache.get(key)
        end = layout.END_OF_ROWS if known is None else f"r{known.generation}n"
        pinned = 0 if known is None else known.thread.pinned
        size = None if limit is None else 1 + limit + pinned + _SLACK
        items, _ = await self._table.query(layout.thread_partition(key), layout.HEAD, end, limit=size)
        head = self._remember(key, items[0] if items and items[0].sort == layout.HEAD else None)
        if head is None:
            return None, None, True
        last, begin = head.thread.last_position, f"r{head.generation}"
        found = [layout.read_row(item) for item in items[1:] if item.sort.startswith(begin)]
        found = [each for each in found if each[0].position <= last]
        loose = [each for each in found if not each[0].pinned][:limit]
        found = [each for each in found if each[0].pinned]
        unpinned = head.thread.unpinned if limit is None else min(limit, head.thread.unpinned)
        if (len(found), len(loose)) != (head.thread.pinned, unpinned):
            return head, None, False
        found += loose
        # Where a page may change while it is read, positions without a gap show that it did not.
        low = loose[-1][0].position if loose else last + 1
        has_no_gap = sum(row.position >= low for row, _ in found) == last + 1 - low
        return head, found, has_no_gap or self._table.limits.snapshot_pages

    async def _with_bodies(self, key: ThreadKey, found: Sequence[StoredRow]) -> list[Row]:
        """The messages with bodies that are in parts."""

        async def whole(row: Row, name: str) -> Row:
            (parts,) = layout.ranges(name)
            items = await query_all(self._table, layout.thread_partition(key), *parts)
            return replace(row, body="".join(item.body for item in items).encode())

        large = await gather(whole(row, name) for row, name in found if name)
        return [row for row, name in found if not name] + large

    def _remember(self, key: ThreadKey, item: Item | None) -> Head | None:
        head = None if item is None else layout.read_head(item)
        self._cache.put(key, head)
        return head


def _position(row: Row) -> int:
    return row.position
