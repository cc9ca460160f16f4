"""The index: lists of a tenant's threads by id and by recency, of tenants, and of threads to be visited.

The items of the index are in other partitions than the threads. They are written before a thread's own
transaction, so that no thread is missing in them; those that name no thread are ignored, and removed later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from agent_stores.backend import ListCursor, ListedThread, ThreadKey
from agent_stores.backends.tables import keys, records
from agent_stores.backends.tables.records import Head, StoredHead
from agent_stores.backends.tables.table import (
    ConditionFailed,
    Item,
    Operation,
    Table,
    delete,
    following,
    gather,
    put,
    query_all,
)
from agent_stores.errors import StoreError

RECENT_US = 300 * 1_000_000
"""How far the time of a thread in the list by recency may be behind its last write; a listing corrects it."""

GRACE_US = 3600 * 1_000_000
"""How long an item may be there without the thread that it announces, or that is being written."""

_PAGE = 100


class Visit(NamedTuple):
    """A note to visit a thread.

    Attributes:
        item: its item.
        key: the thread.
        generation: what is to be looked at.
        expires: whether it is for the thread's expiry; otherwise for what a write left behind.
    """

    item: Item
    key: ThreadKey
    generation: str
    expires: bool

    @property
    def at_us(self) -> int:
        """When the visit is due."""
        return keys.visit_us(self.item.sort)


class Index:
    """The index of a table."""

    def __init__(self, table: Table, now_us: Callable[[], int]) -> None:
        self._table = table
        self._now_us = now_us

    async def announce(self, key: ThreadKey, old: Head | None, new: Head) -> Head:
        """Note a thread that is about to be written, as far as it is not noted yet.

        Args:
            key: the thread.
            old: its head before; None for a new one.
            new: the head that is about to be written.

        Returns:
            The head to write.
        """
        partition, now_us = keys.thread_partition(key), self._now_us()
        listed, updated = new.listed_us, new.thread.updated_us
        writes: list[list[Operation]] = []
        is_new = old is None or old.generation != new.generation
        if is_new or not listed <= updated <= listed + RECENT_US:
            new = replace(new, listed_us=updated)
            body = records.names_body(key)
            tenant = keys.index_partition(key.tenant)
            recent = keys.recent_sort(updated, new.generation, partition)
            operations = [put(Item(tenant, recent, str(now_us), body))]
            if is_new:
                meta = f"{now_us},{new.generation}"
                operations.append(put(Item(tenant, keys.listed_sort(key.thread_id), meta, body)))
            if old is None:
                tenants = records.names_body(ThreadKey(key.tenant, ""))
                writes.append([put(Item(keys.TENANTS, keys.tenant_sort(key.tenant), str(now_us), tenants))])
            writes.append(operations)
        expires = new.thread.expires_us
        was = None if is_new or old is None else old.thread.expires_us
        if expires is not None and (was is None or expires < was):
            writes.append([put(_visit_item(key, new.generation, expires, expires=True))])
        await gather(self._table.transact(operations) for operations in writes)
        return new

    async def after_write(self, key: ThreadKey, old: Head | None, new: Head) -> None:
        """Remove the previous item of the list by recency, if the write moved the thread in it."""
        if old is None or (old.listed_us, old.generation) == (new.listed_us, new.generation):
            return
        sort = keys.recent_sort(old.listed_us, old.generation, keys.thread_partition(key))
        await self._remove([delete(keys.index_partition(key.tenant), sort)])

    async def schedule(self, key: ThreadKey, generation: str, at_us: int) -> Visit:
        """Note that something of a generation may have to be removed at a time."""
        item = _visit_item(key, generation, at_us, expires=False)
        await self._table.transact([put(item)])
        return Visit(item, key, generation, expires=False)

    async def unschedule(self, visit: Visit) -> None:
        """Remove a visit that is done, unless it was noted anew."""
        await self._remove([delete(*visit.item.key, visit.item.version or None)])

    async def remove_thread(self, key: ThreadKey, head: Head, listed: Item | None) -> None:
        """Remove what names a deleted thread; `listed` is its item before the deletion."""
        tenant = keys.index_partition(key.tenant)
        sort = keys.recent_sort(head.listed_us, head.generation, keys.thread_partition(key))
        await self._remove([delete(tenant, sort)])
        if listed is not None and listed.meta.endswith(f",{head.generation}"):
            await self._remove([delete(*listed.key, listed.version)])

    async def listed_item(self, key: ThreadKey) -> Item | None:
        """A thread's item in its tenant's list by id."""
        name = keys.index_partition(key.tenant), keys.listed_sort(key.thread_id)
        return (await self._table.get([name])).get(name)

    async def by_id(
        self, tenant: str | None, prefix: str, cursor: ListCursor | None, limit: int
    ) -> list[ListedThread]:
        """A tenant's threads in the order of their ids; see `Backend.threads`."""
        partition, begin = keys.index_partition(tenant), keys.listed_prefix(prefix)
        first = begin if cursor is None else max(begin, following(keys.listed_sort(cursor.thread_id)))
        found: list[ListedThread] = []
        while len(found) < limit:
            page = await self._table.query(partition, first, f"{begin}~~", limit=limit - len(found))
            for item, key, stored in await self._threads_of(page.items, prefix):
                if stored is not None:
                    found.append(ListedThread(key, stored.thread, stored.version))
                elif self._is_old(item):
                    await self._remove([delete(*item.key, item.version)])
            if page.is_last:
                break
            first = following(page.items[-1].sort)
        return found[:limit]

    async def by_recency(
        self, tenant: str | None, prefix: str, cursor: ListCursor | None, limit: int
    ) -> list[ListedThread]:
        """A tenant's threads, the most recently written first; see `Backend.threads`.

        An item's time is at most `RECENT_US` behind that of the thread. So the threads of a page are in order
        when all items are read that are not older than the last of them by more than that.
        """
        partition = keys.index_partition(tenant)
        first = "r" if cursor is None else keys.recent_time(cursor.updated_us)
        place = None if cursor is None else (-cursor.updated_us, cursor.thread_id)
        found: list[ListedThread] = []
        while True:
            page = await self._table.query(partition, first, "s", limit=max(limit, _PAGE))
            for item, key, stored in await self._threads_of(page.items, prefix):
                noted = keys.recent_us(item.sort)
                if stored is None or stored.head.listed_us != noted:
                    if self._is_old(item):
                        await self._remove([delete(*item.key, item.version)])
                elif item.sort.startswith(stored.head.generation, 17) and (
                    place is None or (-stored.thread.updated_us, key.thread_id) > place
                ):
                    found.append(ListedThread(key, stored.thread, stored.version))
            found.sort(key=lambda each: (-each.thread.updated_us, each.key.thread_id))
            if page.is_last:
                return found[:limit]
            horizon = keys.recent_us(page.items[-1].sort) + RECENT_US
            if len(found) >= limit and found[limit - 1].thread.updated_us > horizon:
                return found[:limit]
            first = following(page.items[-1].sort)

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `agent_stores.capabilities.TenantLister`."""
        first = "0" if after is None else following(keys.tenant_sort(after))
        found: list[str | None] = []
        while len(found) < limit:
            page = await self._table.query(keys.TENANTS, first, "2", limit=limit - len(found))
            for item in page.items:
                key = records.read_names(item)
                if key is not None and await self._has_threads(key.tenant):
                    found.append(key.tenant)
                elif self._is_old(item):
                    await self._remove([delete(*item.key, item.version)])
            if page.is_last:
                break
            first = following(page.items[-1].sort)
        return found[:limit]

    async def remove_tenant(self, tenant: str | None) -> None:
        """Remove a tenant from the list, unless it has threads."""
        name = keys.TENANTS, keys.tenant_sort(tenant)
        item = (await self._table.get([name])).get(name)
        if item is not None and not await self._has_threads(tenant):
            await self._remove([delete(*item.key, item.version)])

    async def visits_of(self, tenants: Collection[str | None]) -> list[Visit]:
        """All visits of threads of tenants, due or not."""
        visits = []
        for partition in keys.VISIT_PARTITIONS:
            for item in await query_all(self._table, partition, "0", "~"):
                if (key := records.read_names(item)) is not None and key.tenant in tenants:
                    visits.append(Visit(item, key, item.meta[1:], item.meta.startswith("e")))
        return visits

    async def due(self, now_us: int, limit: int) -> list[Visit]:
        """Visits that are due, at most about `limit`."""
        end = keys.visit_time(now_us)
        pages = await gather(
            query_all(self._table, partition, "0", end, limit=limit) for partition in keys.VISIT_PARTITIONS
        )
        visits = []
        for item in sorted((item for page in pages for item in page), key=lambda each: each.sort):
            key = records.read_names(item)
            if key is not None:
                visits.append(Visit(item, key, item.meta[1:], item.meta.startswith("e")))
        return visits

    async def move(self, visit: Visit, expires_us: int) -> None:
        """Visit a thread again when it expires."""
        await self._table.transact([put(_visit_item(visit.key, visit.generation, expires_us, expires=True))])
        await self.unschedule(visit)

    async def heads(self, names: Sequence[ThreadKey]) -> dict[ThreadKey, StoredHead]:
        """The heads of threads that exist."""
        by_place = {(keys.thread_partition(key), keys.HEAD): key for key in names}
        items = await self._table.get(list(by_place))
        return {by_place[place]: records.read_head(item) for place, item in items.items()}

    async def _threads_of(
        self, items: Sequence[Item], prefix: str
    ) -> list[tuple[Item, ThreadKey, StoredHead | None]]:
        named = [(item, key) for item in items if (key := records.read_names(item)) is not None]
        named = [(item, key) for item, key in named if key.thread_id.startswith(prefix)]
        heads = await self.heads([key for _, key in named])
        return [(item, key, heads.get(key)) for item, key in named]

    async def _has_threads(self, tenant: str | None) -> bool:
        page = await self._table.query(keys.index_partition(tenant), "a", "b", limit=1, bodies=False)
        return bool(page.items)

    def _is_old(self, item: Item) -> bool:
        written_us = item.meta.partition(",")[0]
        return written_us.isdecimal() and int(written_us) + GRACE_US < self._now_us()

    async def _remove(self, operations: list[Operation]) -> None:
        """Remove unused items; a sweep or a listing does it if this fails."""
        with contextlib.suppress(ConditionFailed, StoreError):
            await self._table.transact(operations)


def _visit_item(key: ThreadKey, generation: str, at_us: int, *, expires: bool) -> Item:
    partition = keys.thread_partition(key)
    sort = keys.visit_sort(at_us, generation, partition)
    return Item(
        keys.visit_partition(partition),
        sort if expires else f"{sort}{records.new_tag()}",
        f"{'e' if expires else 'g'}{generation}",
        records.names_body(key),
    )
