"""Reading a thread: its head, ranges of its messages as of one moment, and ids."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from agent_stores.backend import Row, Snapshot, ThreadKey
from agent_stores.backends.tables import keys, records
from agent_stores.backends.tables.cache import Known, ThreadCache
from agent_stores.backends.tables.records import Head, StoredHead, StoredRow
from agent_stores.backends.tables.table import (
    ConditionFailed,
    Item,
    ItemKey,
    Table,
    following,
    gather,
    put,
    query_all,
)
from agent_stores.errors import OutcomeUnknownError, StoreUnavailableError
from agent_stores.thread_updates import expiry_after

_ATTEMPTS = 50  # of reading a thread as of one moment
_RENEWALS = 5  # attempts to renew a time-to-live
_SLACK = 4  # items read beyond those that are needed
_SCAN = 50  # from this many messages per id on, ids are looked up one by one


class Reader:
    """Reads threads of a table."""

    def __init__(self, table: Table, cache: ThreadCache) -> None:
        self._table = table
        self._cache = cache

    async def head(self, key: ThreadKey) -> StoredHead | None:
        """A thread's head, as it is now."""
        partition = keys.thread_partition(key)
        item = (await self._table.get([(partition, keys.HEAD)])).get((partition, keys.HEAD))
        return self._remember(key, item)

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        stored = await self.head(key)
        return None if stored is None else Snapshot(stored.thread, stored.version)

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
        if after == 0 and before is None and (newest or limit is None) and bodies and not staged:
            latest = await self._newest(key, limit)
            return None if latest is None else Snapshot(latest[0].thread, latest[0].version, latest[1])
        for _ in range(_ATTEMPTS):
            stored = await self.head(key)
            if stored is None:
                return None
            head = stored.head
            high = head.thread.staged_position if staged else head.thread.last_position
            low, high = max(after, head.floor) + 1, high if before is None else min(before - 1, high)
            found = await self._pinned(key, head, low, high, bodies=bodies, staged=staged)
            if newest or limit is None:
                found += (await self._range(key, head, low, high, limit=limit, bodies=bodies))[:limit]
            else:
                found += await self.oldest(key, head, low, high, limit, bodies=bodies)
                found = sorted(found, key=_position)[:limit]
            rows = await self._bodies(key, head, found) if bodies else [each.row for each in found]
            if await self._is_current(key, stored):
                return Snapshot(head.thread, stored.version, sorted(rows, key=_row_position))
        raise self._too_busy()

    async def latest(self, key: ThreadKey, limit: int | None, *, now_us: int, ids: bool = False) -> list[Row]:
        """See `agent_stores.capabilities.LatestReader`; the rows always have their ids."""
        found = await self._newest(key, limit)
        if found is None or found[0].thread.is_expired(now_us):
            return []
        stored: StoredHead | None = found[0]
        for _ in range(_RENEWALS):
            if stored is None or stored.thread.ttl is None or stored.thread.ttl_refresh != "read":
                break
            expires_us = expiry_after(stored.thread.ttl, now_us) or 0
            if expires_us <= (stored.thread.expires_us or 0):
                break
            head = replace(stored.head, thread=replace(stored.thread, expires_us=expires_us))
            item = records.head_item(keys.thread_partition(key), head)
            try:
                (version,) = await self._table.transact([put(item, stored.version)])
            except (ConditionFailed, OutcomeUnknownError):  # a write renews it, too
                stored = await self.head(key)
                continue
            self._cache.renew(key, stored.version, StoredHead(head, version))
            break
        return found[1]

    async def _newest(self, key: ThreadKey, limit: int | None) -> tuple[StoredHead, list[Row]] | None:
        """The newest messages, as of one moment: in one query where they fit into a page of it."""
        partition = keys.thread_partition(key)
        for _ in range(_ATTEMPTS):
            known = self._cache.get(key)
            end = keys.END_OF_ROWS if known is None else keys.end_of(known.stored.head.generation)
            pinned = 0 if known is None else known.stored.thread.pinned
            wanted = None if limit is None else 1 + limit + pinned + _SLACK
            page = await self._table.query(partition, keys.HEAD, end, limit=wanted)
            is_head = bool(page.items) and page.items[0].sort == keys.HEAD
            stored = self._remember(key, page.items[0] if is_head else None)
            if stored is None:
                return None
            head = stored.head
            found = [row for item in page.items[1:] if (row := _visible(item, head)) is not None]
            is_certain = self._table.limits.snapshot_pages or _has_no_gap(found, head, limit)
            is_whole = page.is_last or page.items[-1].sort >= keys.end_of(head.generation)
            if not is_whole and not _suffices(found, head, limit):
                is_certain = False
                start = following(page.items[-1].sort)
                found += await self._rest(partition, head, start, limit, found)
            loose = [each for each in found if not each.row.pinned]
            found = [each for each in found if each.row.pinned] + loose[:limit]
            rows = await self._bodies(key, head, found)
            is_certain = is_certain and not any(each.tag for each in found)
            if is_certain or await self._is_current(key, stored):
                return stored, sorted(rows, key=_row_position)
        raise self._too_busy()

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        stored = await self.head(key)
        if stored is None:
            return {}
        head, wanted = stored.head, dict.fromkeys(message_ids)
        if len(wanted) > 4 and head.thread.messages <= _SCAN * len(wanted):
            low, high = head.floor + 1, head.thread.last_position
            found = await self._pinned(key, head, low, high, bodies=False)
            found += await self._range(key, head, low, high, bodies=False)
            return {each.row.message_id: each.row for each in found if each.row.message_id in wanted}
        partition = keys.thread_partition(key)
        sorts = [keys.id_sort(head.generation, keys.digest(each)) for each in wanted]
        noted = await self._table.get([(partition, sort) for sort in sorts])
        places = [
            (partition, keys.message_sort(head.generation, position, pinned=pinned))
            for item in noted.values()
            for position, pinned in records.read_places(item)
            if head.is_visible(position)
        ]
        items = await self._table.get(places, bodies=False)
        found = [records.read_row(item) for item in items.values()]
        return {each.row.message_id: each.row for each in found if each.row.message_id in wanted}

    async def at_places(self, key: ThreadKey, head: Head, positions: Sequence[int]) -> list[StoredRow]:
        """The messages at these positions, pinned or not, without bodies."""
        if not positions:
            return []
        partition = keys.thread_partition(key)
        places: list[ItemKey] = [
            (partition, keys.message_sort(head.generation, position, pinned=pinned))
            for position in positions
            for pinned in (False, True)
        ]
        return [records.read_row(item) for item in (await self._table.get(places, bodies=False)).values()]

    async def oldest(
        self, key: ThreadKey, head: Head, low: int, high: int, limit: int, *, bodies: bool
    ) -> list[StoredRow]:
        """The oldest messages of a range that are not pinned.

        Tables are read from the newest on: windows of positions are read, the oldest first, and each is twice
        as large as the previous one.
        """
        found: list[StoredRow] = []
        low, size = max(low, head.low + 1), limit + _SLACK
        while low <= high and len(found) < limit:
            window = await self._range(key, head, low, min(high, low + size - 1), bodies=bodies)
            found += reversed(window)
            low, size = low + size, 2 * size if not window else size
        return found[:limit]

    async def _range(
        self, key: ThreadKey, head: Head, low: int, high: int, *, limit: int | None = None, bodies: bool
    ) -> list[StoredRow]:
        """Messages that are not pinned, the newest first."""
        if low > high or limit == 0:
            return []
        first = keys.message_sort(head.generation, high, pinned=False)
        end = following(keys.message_sort(head.generation, low, pinned=False))
        partition = keys.thread_partition(key)
        items = await query_all(self._table, partition, first, end, limit=limit, bodies=bodies)
        return [records.read_row(item) for item in items]

    async def _pinned(
        self, key: ThreadKey, head: Head, low: int, high: int, *, bodies: bool, staged: bool = False
    ) -> list[StoredRow]:
        if (not head.thread.pinned and not staged) or low > high:
            return []
        first = keys.message_sort(head.generation, high, pinned=True)
        end = following(keys.message_sort(head.generation, low, pinned=True))
        items = await query_all(self._table, keys.thread_partition(key), first, end, bodies=bodies)
        return [records.read_row(item) for item in items]

    async def _rest(
        self, partition: str, head: Head, start: str, limit: int | None, found: Sequence[StoredRow]
    ) -> list[StoredRow]:
        """The newest messages that a first page did not hold."""
        items: list[Item] = []
        middle, end = keys.end_of(head.generation, pinned=True), keys.end_of(head.generation)
        if start < middle:
            items += await query_all(self._table, partition, start, middle)
        top = keys.message_sort(head.generation, head.thread.last_position, pinned=False)
        left = None if limit is None else limit - sum(not each.row.pinned for each in found)
        items += await query_all(self._table, partition, max(start, top), end, limit=left)
        return [row for item in items if (row := _visible(item, head)) is not None]

    async def _bodies(self, key: ThreadKey, head: Head, found: Sequence[StoredRow]) -> list[Row]:
        """The messages with their bodies; one whose parts are missing has none."""
        partition = keys.thread_partition(key)

        async def whole(each: StoredRow) -> Row:
            first = keys.part_sort(head.generation, each.tag, 0)
            end = following(keys.part_sort(head.generation, each.tag, each.parts - 1))
            items = await query_all(self._table, partition, first, end)
            body = "".join(item.body for item in items) if len(items) == each.parts else ""
            return replace(each.row, body=body.encode())

        large = [each for each in found if each.tag]
        if not large:
            return [each.row for each in found]
        bodies = await gather(whole(each) for each in large)
        return [each.row for each in found if not each.tag] + bodies

    def _remember(self, key: ThreadKey, item: Item | None) -> StoredHead | None:
        if item is None:
            self._cache.drop(key)
            return None
        stored = records.read_head(item)
        self._cache.put(key, Known(stored))
        return stored

    async def _is_current(self, key: ThreadKey, stored: StoredHead) -> bool:
        again = await self.head(key)
        return again is not None and again.version == stored.version

    def _too_busy(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._table.location}: a thread changed {_ATTEMPTS} times while it was read"
        )


def _visible(item: Item, head: Head) -> StoredRow | None:
    if item.sort[0] != "r" or not item.sort.startswith(head.generation, 1):
        return None
    return records.read_row(item) if head.is_visible(keys.message_place(item.sort)[2]) else None


def _suffices(found: Sequence[StoredRow], head: Head, limit: int | None) -> bool:
    """Whether a page that ends among the messages holds the newest ones and all pinned ones."""
    pinned = sum(each.row.pinned for each in found)
    wanted = head.thread.unpinned if limit is None else min(limit, head.thread.unpinned)
    return pinned == head.thread.pinned and len(found) - pinned >= wanted


def _has_no_gap(found: Sequence[StoredRow], head: Head, limit: int | None) -> bool:
    """Whether positions go down from the last one without a gap, so that a read was of one moment."""
    pinned = {each.row.position for each in found if each.row.pinned}
    expected = head.thread.last_position
    for each in found:
        if not each.row.pinned:
            while expected in pinned:
                expected -= 1
            if each.row.position != expected:
                return False
            expected -= 1
    return _suffices(found, head, limit)


def _position(each: StoredRow) -> int:
    return each.row.position


def _row_position(row: Row) -> int:
    return row.position
