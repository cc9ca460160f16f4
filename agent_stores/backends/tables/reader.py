"""Reading a thread: its head, ranges of its messages as of one moment, and ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from msgspec.structs import replace

from agent_stores.backend import Row, Snapshot, ThreadKey
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.cache import ThreadCache
from agent_stores.backends.tables.layout import Head, StoredRow
from agent_stores.backends.tables.table import Item, Table, following, gather, query_all
from agent_stores.errors import StoreUnavailableError

_ATTEMPTS = 50  # of reading a thread as of one moment
_SLACK = 4  # items read beyond those that are needed


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
        found: list[StoredRow] | None = None
        is_certain = False
        if not after and before is None and (newest or limit is None) and bodies and not staged:
            head, found, is_certain = await self._first_page(key, limit)
        else:
            head = await self.head(key)
        for _ in range(_ATTEMPTS):
            if head is None:
                return None
            if found is None:
                high = head.thread.staged_position if staged else head.thread.last_position
                high = high if before is None else min(before - 1, high)
                found = await self.select(
                    key, head, after + 1, high, limit=limit, newest=newest, bodies=bodies, staged=staged
                )
            rows = await self._with_bodies(key, head, found) if bodies else [each.row for each in found]
            is_certain = is_certain and not any(each.tag for each in found)
            again = head if is_certain else await self.head(key)
            if again is not None and again.version == head.version:
                return Snapshot(head.thread, head.version, sorted(rows, key=lambda row: row.position))
            head, found = again, None
        raise StoreUnavailableError(
            f"{self._table.location}: a thread changed {_ATTEMPTS} times while it was read"
        )

    async def find(self, key: ThreadKey, message_ids: Iterable[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        head, wanted = await self.head(key), dict.fromkeys(message_ids)
        while head is not None:
            generation, last, partition = (
                head.generation,
                head.thread.last_position,
                layout.thread_partition(key),
            )
            items = await self._table.get([(partition, layout.id_sort(generation, each)) for each in wanted])
            rows = [layout.read_row(item).row for item in items.values()]
            found = {row.message_id: row for row in rows if row.position <= last}
            if len(found) == len(wanted):
                return found
            head = await self.head(key)  # a message that is missing may have moved to another generation
            if head is not None and head.generation == generation:
                return found
        return {}

    async def select(
        self,
        key: ThreadKey,
        head: Head,
        low: int,
        high: int,
        *,
        limit: int | None = None,
        newest: bool = False,
        bodies: bool = False,
        staged: bool = False,
    ) -> list[StoredRow]:
        """Messages between two positions, by `Backend.rows`; bodies in parts are missing."""
        generation = head.next if staged and head.next else head.generation
        read = partial(self._range, key, generation, bodies=bodies)
        found = await read(low, high, pinned=True) if head.thread.pinned or staged else []
        if newest or limit is None:
            return found + await read(low, high, limit=limit)
        # Tables are read from the newest on: windows of positions are read, the oldest first.
        count, low, size = len(found) + limit, max(low, head.low + 1), limit + _SLACK
        while low <= high and len(found) < count:
            window = await read(low, min(high, low + size - 1))
            found += reversed(window)
            low, size = low + size, size if window else 2 * size
        return sorted(found, key=lambda each: each.row.position)[:limit]

    async def _range(
        self,
        key: ThreadKey,
        generation: str,
        low: int,
        high: int,
        *,
        pinned: bool = False,
        limit: int | None = None,
        bodies: bool,
    ) -> list[StoredRow]:
        """The pinned or the other messages between two positions, the newest first."""
        if low > high or limit == 0:
            return []
        first = layout.message_sort(generation, high, pinned=pinned)
        end = following(layout.message_sort(generation, low, pinned=pinned))
        partition = layout.thread_partition(key)
        items = await query_all(self._table, partition, first, end, limit=limit, bodies=bodies)
        return [layout.read_row(item) for item in items]

    async def _first_page(
        self, key: ThreadKey, limit: int | None
    ) -> tuple[Head | None, list[StoredRow] | None, bool]:
        """The head and the newest messages by one query.

        Returns:
            The head; the messages, None if the page does not hold all; whether the page is of one moment.
        """
        known = self._cache.get(key).head
        end = layout.END_OF_ROWS if known is None else layout.end_of(known.generation)
        pinned = 0 if known is None else known.thread.pinned
        wanted = None if limit is None else 1 + limit + pinned + _SLACK
        page = await self._table.query(layout.thread_partition(key), layout.HEAD, end, limit=wanted)
        has_head = bool(page.items) and page.items[0].sort == layout.HEAD
        head = self._remember(key, page.items[0] if has_head else None)
        if head is None:
            return None, None, True
        last, begin = head.thread.last_position, f"r{head.generation}"
        found = [layout.read_row(item) for item in page.items[1:] if item.sort.startswith(begin)]
        visible = [each for each in found if each.row.position <= last]
        found = [each for each in visible if each.row.pinned]
        loose = [each for each in visible if not each.row.pinned][:limit]
        unpinned = head.thread.unpinned if limit is None else min(limit, head.thread.unpinned)
        if (len(found), len(loose)) != (head.thread.pinned, unpinned):
            return head, None, False
        found += loose
        # Where a page may change while it is read, positions without a gap show that it did not.
        low = loose[-1].row.position if loose else last + 1
        is_certain = sum(each.row.position >= low for each in found) == last + 1 - low
        return head, found, is_certain or self._table.limits.snapshot_pages

    async def _with_bodies(self, key: ThreadKey, head: Head, found: Sequence[StoredRow]) -> list[Row]:
        """The messages with bodies that are in parts."""
        partition = layout.thread_partition(key)

        async def whole(row: Row, tag: str) -> Row:
            name = layout.body_name(head.generation_at(row.position), row.position, tag)
            parts = await query_all(self._table, partition, *layout.ranges(name)[0])
            return replace(row, body="".join(part.body for part in parts).encode())

        rows = [each.row for each in found if not each.tag]
        return rows + await gather(whole(*each) for each in found if each.tag)

    def _remember(self, key: ThreadKey, item: Item | None) -> Head | None:
        head = None if item is None else layout.read_head(item)
        self._cache.put(key, head)
        return head
