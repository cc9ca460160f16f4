"""Sweeps: removing in bounded steps what no reader sees any more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from agent_stores.backend import ListedThread, ThreadKey
from agent_stores.backends.tables import keys, records
from agent_stores.backends.tables.index import GRACE_US, Index, Visit
from agent_stores.backends.tables.records import Head
from agent_stores.backends.tables.table import ConditionFailed, Item, Table, delete, query_all
from agent_stores.errors import OutcomeUnknownError

_SETTLED_US = 60 * 1_000_000  # after this time, a writer that scheduled a visit has committed or given up
_STEP = 1000  # items of a deleted thread that are removed at once


class TableSweeper:
    """Removes invisible items of a table; the index knows where they may be."""

    def __init__(self, table: Table, index: Index, now_us: Callable[[], int]) -> None:
        self._table = table
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

    async def sweep(self, *, limit: int) -> int:
        """See `agent_stores.capabilities.Sweeper`."""
        removed, now_us = 0, self._now_us()
        for visit in await self._index.due(now_us, limit):
            if removed >= limit:
                break
            with contextlib.suppress(ConditionFailed, OutcomeUnknownError):  # the next sweep does it
                removed += await self._visit(visit, now_us, limit - removed)
        return removed

    async def scrub(self, names: Sequence[ThreadKey]) -> bool:
        """See `Scrubber.scrub`: visits of the tenants' deleted threads, and what they are for; empty tenants.

        A thread that is created anew meanwhile may lose the note that removes it after its expiry.
        """
        tenants = {key.tenant for key in names}
        visits = await self._index.visits_of(tenants)
        heads = await self._index.heads(list({visit.key for visit in visits}))
        for visit in visits:
            if visit.key in heads:
                continue
            partition = keys.thread_partition(visit.key)
            while await remove_generation(self._table, partition, visit.generation, _STEP) == _STEP:
                pass
            await self._index.unschedule(visit)
        for tenant in tenants:
            await self._index.remove_tenant(tenant)
        return True

    async def _visit(self, visit: Visit, now_us: int, limit: int) -> int:
        stored = (await self._index.heads([visit.key])).get(visit.key)
        age, removed = now_us - visit.at_us, 0
        if stored is None or stored.head.generation != visit.generation:
            if visit.expires and age < GRACE_US:  # the thread may be about to be written
                return 0
            partition = keys.thread_partition(visit.key)
            removed = await remove_generation(self._table, partition, visit.generation, limit)
        elif visit.expires:
            expires_us = stored.thread.expires_us
            if expires_us is not None and expires_us <= now_us:
                return 0  # the log deletes the thread
            if expires_us is not None:
                await self._index.move(visit, expires_us)
        else:
            removed = await self._sweep_live(visit, stored.head, now_us, limit)
            if age < _SETTLED_US:
                return removed
        if removed < limit:
            await self._index.unschedule(visit)
        return removed

    async def _sweep_live(self, visit: Visit, head: Head, now_us: int, limit: int) -> int:
        """Remove messages at or below a thread's floor, and parts of bodies that no message names."""
        partition = keys.thread_partition(visit.key)
        messages, _, parts = keys.ranges(head.generation)
        items = await query_all(self._table, partition, *messages, bodies=False)
        rows = [(item, records.read_row(item)) for item in items]
        below = [each for each in rows if each[1].row.position <= head.floor][:limit]
        ids = [keys.id_sort(head.generation, keys.digest(each.row.message_id)) for _, each in below]
        noted = await self._table.get([(partition, sort) for sort in ids])
        step = self._table.limits.operations // 2
        for start in range(0, len(below), step):
            batch = list(zip(below, ids, strict=True))[start : start + step]
            operations = [delete(*item.key) for (item, _), _ in batch]
            for _, sort in batch:
                id_item = noted.get((partition, sort))
                if id_item is not None and all(
                    position <= head.floor for position, _ in records.read_places(id_item)
                ):
                    operations.append(delete(*id_item.key, id_item.version))
            await self._table.transact(operations)
        tags = {each.tag for _, each in rows}
        unused = [
            item
            for item in await query_all(self._table, partition, *parts, bodies=False)
            if keys.part_tag(item.sort) not in tags and _is_old(item, now_us)
        ]
        for start in range(0, len(unused), step):
            await self._table.transact([delete(*item.key) for item in unused[start : start + step]])
        return len(below) + len(unused)


async def remove_generation(table: Table, partition: str, generation: str, limit: int) -> int:
    """Remove items of a generation that no thread has; returns how many, less than `limit` if all."""
    removed = failures = 0
    for first, end in keys.ranges(generation):
        while removed < limit:
            size = min(table.limits.operations, limit - removed)
            page = await table.query(partition, first, end, limit=size, bodies=False)
            if not page.items:
                break
            try:
                await table.transact([delete(*item.key) for item in page.items])
                removed += len(page.items)
            except ConditionFailed:  # another sweep removes them, too
                failures += 1
                if failures > 10:
                    raise
    return removed


def _is_old(item: Item, now_us: int) -> bool:
    return item.meta.isdecimal() and int(item.meta) + GRACE_US < now_us
