"""Sweeps: removing in bounded steps what no reader sees any more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from agent_stores.backend import ListedThread
from agent_stores.backends.tables import keys, records
from agent_stores.backends.tables.cache import ThreadCache
from agent_stores.backends.tables.index import GRACE_US, Index, Visit
from agent_stores.backends.tables.records import StoredHead, StoredRow
from agent_stores.backends.tables.table import (
    ConditionFailed,
    Item,
    Operation,
    Table,
    delete,
    put,
    query_all,
)
from agent_stores.errors import OutcomeUnknownError

_SETTLED_US = 60 * 1_000_000  # after this time, a writer that scheduled a visit has committed or given up


class TableSweeper:
    """Removes invisible items of a table.

    Args:
        table: the table.
        cache: what the process knows of threads.
        index: the table's index, which knows what to visit.
        now_us: the time.
    """

    def __init__(self, table: Table, cache: ThreadCache, index: Index, now_us: Callable[[], int]) -> None:
        self._table = table
        self._cache = cache
        self._index = index
        self._now_us = now_us

    async def expired(self, before_us: int, limit: int) -> list[ListedThread]:
        """Threads that have expired, of every tenant."""
        visits = [visit for visit in await self._index.due(before_us, limit) if visit.expires]
        heads = await self._index.heads(list(dict.fromkeys(visit.key for visit in visits)))
        return [
            ListedThread(key, stored.thread, stored.version)
            for key, stored in heads.items()
            if stored.thread.is_expired(before_us)
        ][:limit]

    async def sweep(self, limit: int) -> int:
        """See `Sweeper.sweep`."""
        removed, now_us = 0, self._now_us()
        for visit in await self._index.due(now_us, limit):
            if removed >= limit:
                break
            with contextlib.suppress(ConditionFailed, OutcomeUnknownError):  # the next sweep does it
                removed += await self._visit(visit, now_us, limit - removed)
        return removed

    async def remove_generation(self, partition: str, generation: str, limit: int) -> int:
        """Remove items of a generation that no thread has; returns how many, less than `limit` if all."""
        removed = 0
        for first, end in keys.ranges(generation):
            removed += await self._remove_range(partition, first, end, limit - removed)
        return removed

    async def _visit(self, visit: Visit, now_us: int, limit: int) -> int:
        stored = (await self._index.heads([visit.key])).get(visit.key)
        age = now_us - visit.at_us
        if stored is None or stored.head.generation != visit.generation:
            if visit.expires and age < GRACE_US:  # the thread may be about to be written
                return 0
            removed = await self.remove_generation(keys.thread_partition(visit.key), visit.generation, limit)
            if removed < limit:
                await self._index.unschedule(visit)
            return removed
        if not visit.expires:
            removed = await self._sweep_live(visit, stored, now_us, limit)
            if removed < limit and age >= _SETTLED_US:
                await self._index.unschedule(visit)
            return removed
        expires_us = stored.thread.expires_us
        if expires_us is None:
            await self._index.unschedule(visit)
        elif expires_us > now_us:
            await self._index.move(visit, expires_us)
        return 0

    async def _sweep_live(self, visit: Visit, stored: StoredHead, now_us: int, limit: int) -> int:
        """Remove what a writer that died left in a thread, and what is at or below its floor."""
        partition, head = keys.thread_partition(visit.key), stored.head
        if not head.thread.recent_request_ids:  # the first commit was never completed
            await self._table.transact([delete(partition, keys.HEAD, stored.version)])
            self._cache.drop(visit.key)
            return await self.remove_generation(partition, head.generation, limit)
        first, end = keys.ranges(head.generation)[0]
        items = await query_all(self._table, partition, first, end, bodies=False)
        rows = [records.read_row(item) for item in items]
        doomed = [each for each in rows if not head.is_visible(each.row.position)][:limit]
        if doomed:
            await self._remove_rows(partition, stored, doomed)
            self._cache.drop(visit.key)
        tags = {each.tag for each in rows if head.is_visible(each.row.position)}
        first, end = keys.ranges(head.generation)[2]
        parts = await query_all(self._table, partition, first, end, bodies=False)
        orphans = [item for item in parts if keys.part_tag(item.sort) not in tags and _is_old(item, now_us)]
        step = self._table.limits.operations
        for start in range(0, len(orphans), step):
            batch = orphans[start : start + step]
            await self._table.transact([delete(*item.key) for item in batch])
        return len(doomed) + len(orphans)

    async def _remove_rows(self, partition: str, stored: StoredHead, doomed: Sequence[StoredRow]) -> None:
        """Remove messages that are invisible; each step changes the head, so that their writer notices."""
        head, version = stored
        step = (self._table.limits.operations - 1) // 2
        for start in range(0, len(doomed), step):
            batch = doomed[start : start + step]
            if start + step >= len(doomed):
                head = replace(head, thread=replace(head.thread, staged_position=0))
            operations = [put(records.head_item(partition, head), version)]
            sorts = {keys.id_sort(head.generation, keys.digest(each.row.message_id)): each for each in batch}
            ids = await self._table.get([(partition, sort) for sort in sorts])
            for each in batch:
                row = each.row
                place = keys.message_sort(head.generation, row.position, pinned=row.pinned)
                operations.append(delete(partition, place))
            for item in ids.values():
                operations.append(_without(item, sorts[item.sort].row.position))
            version = (await self._table.transact(operations))[0]

    async def _remove_range(self, partition: str, first: str, end: str, limit: int) -> int:
        removed, failures = 0, 0
        step = self._table.limits.operations
        while removed < limit:
            page = await self._table.query(
                partition, first, end, limit=min(step, limit - removed), bodies=False
            )
            if not page.items:
                break
            try:
                await self._table.transact([delete(*item.key) for item in page.items])
            except ConditionFailed:  # another sweep removes them, too
                failures += 1
                if failures > 10:
                    raise
                continue
            removed += len(page.items)
        return removed


def _without(item: Item, position: int) -> Operation:
    """What takes a position out of an id's item."""
    places = [place for place in records.read_places(item) if place[0] != position]
    if not places:
        return delete(*item.key, item.version)
    return put(item._replace(meta=records.write_places(places)), item.version)


def _is_old(item: Item, now_us: int) -> bool:
    return item.meta.isdecimal() and int(item.meta) + GRACE_US < now_us
