"""Reading a thread as of one moment, and what a process remembers of threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

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


class Known(NamedTuple):
    """A thread as it was read or written last; another process may have changed it since.

    Attributes:
        head: its head; None when it is not known.
        oldest: its oldest messages that are not pinned, for trimming, without bodies.
    """

    head: Head | None
    oldest: Sequence[Row] = ()


class ThreadCache:
    """What is known of the threads of one table, and turns for their writers. For any thread and loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[ThreadKey, Known] = OrderedDict()
        self._lock = threading.Lock()
        self.queue = WriterQueue()

    def get(self, key: ThreadKey) -> Known:
        """What is known of a thread."""
        return self._known.get(key, Known(None))

    def put(self, key: ThreadKey, head: Head | None, oldest: Sequence[Row] = ()) -> None:
        """Remember a thread as it was read or written; None forgets it."""
        with self._lock:
            old = self._known.pop(key, Known(None))
            if head is not None:
                is_known = old.head is not None and old.head.version == head.version and not oldest
                self._known[key] = old if is_known else Known(head, oldest)
            if len(self._known) > _THREADS:
                self._known.popitem(last=False)


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
                oldest = None if newest else limit
                found = await self.select(
                    key, head, after + 1, high, oldest=oldest, limit=limit, bodies=bodies, staged=staged
                )
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
        self,
        key: ThreadKey,
        head: Head,
        low: int,
        high: int,
        *,
        oldest: int | None = None,
        limit: int | None = None,
        bodies: bool = False,
        staged: bool = False,
    ) -> list[tuple[Row, str]]:
        """Messages between two positions, with the names of those bodies that are in parts.

        The oldest ones, pinned or not; or else the newest `limit` that are not pinned, and all pinned ones.
        """
        generation = head.next if staged and head.next else head.generation
        partition = layout.thread_partition(key)

        async def read(
            low: int, high: int, limit: int | None = None, pinned: bool = False
        ) -> list[tuple[Row, str]]:
            if low > high or limit == 0:
                return []
            first = layout.message_sort(generation, high, pinned=pinned)
            end = following(layout.message_sort(generation, low, pinned=pinned))
            items = await query_all(self._table, partition, first, end, limit=limit, bodies=bodies)
            return list(map(layout.read_row, items))

        found = await read(low, high, pinned=True) if head.thread.pinned or staged else []
        if oldest is None:
            return found + await read(low, high, limit)
        # Tables are read from the newest on: windows of positions are read, the oldest first.
        count, low, size = len(found) + oldest, max(low, head.low + 1), oldest + _SLACK
        while low <= high and len(found) < count:
            window = await read(low, min(high, low + size - 1))
            found += reversed(window)
            low, size = low + size, size if window else 2 * size
        return sorted(found, key=lambda each: each[0].position)[:oldest]

    async def _first_page(
        self, key: ThreadKey, limit: int | None
    ) -> tuple[Head | None, list[tuple[Row, str]] | None, bool]:
        """The head and the newest messages by one query.

        Returns:
            The head; the messages, None if the page does not hold all; whether the page is of one moment.
        """
        known = self._cache.get(key).head
        end = layout.END_OF_ROWS if known is None else f"r{known.generation}n"
        pinned = 0 if known is None else known.thread.pinned
        wanted = None if limit is None else 1 + limit + pinned + _SLACK
        page = await self._table.query(layout.thread_partition(key), layout.HEAD, end, limit=wanted)
        has_head = bool(page.items) and page.items[0].sort == layout.HEAD
        head = self._remember(key, page.items[0] if has_head else None)
        if head is None:
            return None, None, True
        last, begin = head.thread.last_position, f"r{head.generation}"
        found = [layout.read_row(item) for item in page.items[1:] if item.sort.startswith(begin)]
        found = [each for each in found if each[0].position <= last]
        loose = [each for each in found if not each[0].pinned][:limit]
        found = [each for each in found if each[0].pinned]
        unpinned = head.thread.unpinned if limit is None else min(limit, head.thread.unpinned)
        if (len(found), len(loose)) != (head.thread.pinned, unpinned):
            return head, None, False
        found += loose
        # Where a page may change while it is read, positions without a gap show that it did not.
        low = loose[-1][0].position if loose else last + 1
        is_certain = sum(row.position >= low for row, _ in found) == last + 1 - low
        return head, found, is_certain or self._table.limits.snapshot_pages

    async def _with_bodies(self, key: ThreadKey, found: Sequence[tuple[Row, str]]) -> list[Row]:
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
