"""The lists of a tenant's threads and of tenants, and the visits by which a sweep finds what to remove.

These items are in other partitions than the threads. They are written before a thread's own transaction, so
that no thread is missing in them; those that name no thread are ignored, and removed later.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from msgspec.structs import replace

from agent_stores._concurrency import gather_or_cancel
from agent_stores.backend import ListCursor, ListedThread, ThreadKey, ThreadOrder
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.layout import Head
from agent_stores.backends.tables.table import ConditionFailed, Item, Operation, Table, delete, following, put
from agent_stores.errors import OutcomeUnknownError, StoreError

RECENT_US = 300 * 1_000_000
"""How far the time of a thread in the list by recency may be behind its last write; a listing corrects it."""

GRACE_US = 3600 * 1_000_000
"""After this time, a write that an item announces is over: it was carried out, or its process ended."""

_PAGE = 100
_EAGER = 2000  # rows that a write removes itself after it cleared or deleted a thread


class Index:
    """The lists and visits of a table."""

    def __init__(self, table: Table, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock

    def now_us(self) -> int:
        """The time in microseconds since 1970 UTC."""
        return int(self._clock() * 1_000_000)

    async def announce(self, key: ThreadKey, old: Head | None, new: Head) -> Head:
        """List a thread that is about to be written, as far as it is not listed yet; returns its new head."""
        writes, updated = list[list[Item]](), new.thread.updated_us
        if old is None or not 0 <= updated - layout.recent_us(old.listed) <= RECENT_US:
            new = replace(new, listed=layout.recent_sort(updated, secrets.token_hex(4)))
            partition = layout.index_partition(key.tenant)
            entry = (str(self.now_us()), layout.names_body(key))
            writes.append([Item(partition, new.listed, *entry)])
            if old is None:
                writes[0].append(Item(partition, layout.listed_sort(key.thread_id), *entry))
                writes.append([Item(layout.TENANTS, layout.listed_sort(key.tenant), *entry)])
        expires = new.thread.expires_us
        was = None if old is None or old.generation != new.generation else old.thread.expires_us
        if expires is not None and (was is None or expires < was):
            writes.append([layout.visit_item(key, expires, new.generation)])
        await gather_or_cancel(self._table.transact(list(map(put, items))) for items in writes)
        return new

    async def listed(self, key: ThreadKey) -> list[Operation]:
        """What removes a thread from the list by id, unless it is created anew meanwhile."""
        name = (layout.index_partition(key.tenant), layout.listed_sort(key.thread_id))
        return [delete(*name, item.version) for item in (await self._table.get([name])).values()]

    async def schedule(self, key: ThreadKey, names: Iterable[str]) -> list[Item]:
        """Note generations and bodies that a write is about to replace, or begin, for `clean` or a sweep."""
        visits = [layout.visit_item(key, self.now_us(), name, secrets.token_hex(4)) for name in names]
        if visits:
            await self._table.transact(list(map(put, visits)))
        return visits

    async def clean(
        self,
        key: ThreadKey,
        old: Head | None,
        new: Head | None,
        visits: Sequence[Item],
        unlisted: Sequence[Operation] = (),
    ) -> None:
        """After a write, remove what it made invisible, up to a limit; listings and sweeps remove the rest.

        `visits` and `unlisted` are what `schedule` and `listed` returned before the write.
        """
        for operation in unlisted:
            await self._remove(operation)
        if old is not None and (new is None or new.listed != old.listed):
            await self._remove(delete(layout.index_partition(key.tenant), old.listed))
        left = _EAGER
        with contextlib.suppress(StoreError, ConditionFailed):
            for visit in visits:
                left -= await self._visit(visit, key, new, left)

    async def threads(
        self,
        tenant: str | None,
        *,
        prefix: str = "",
        after: ListCursor | None = None,
        limit: int = 100,
        order: ThreadOrder = "id",
        expired_before: int | None = None,
    ) -> list[ListedThread]:
        """See `Backend.threads`.

        The time of an item in the list by recency is at most `RECENT_US` behind that of the thread. So the
        threads of a page are in order when all items are read that are not older than the last of them by
        more than that.
        """
        if expired_before is not None:
            return await self._expired(expired_before, limit)
        partition, place = layout.index_partition(tenant), None
        if order == "id":
            first, size = layout.listed_prefix(prefix), limit
            end = f"{first}~~"
            if after is not None:
                first = max(first, following(layout.listed_sort(after.thread_id)))
        else:
            first, end, size = "r", "s", max(limit, _PAGE)
            if after is not None:
                first, place = layout.recent_sort(after.updated_us), (-after.updated_us, after.thread_id)
        found: list[ListedThread] = []
        async for page in self._pages(partition, first, end, size):
            for item, key, head in page:
                if head is None or (order == "recent" and item.sort != head.listed):
                    await self._remove_old(item)
                elif key.thread_id.startswith(prefix) and (
                    place is None or (-head.thread.updated_us, key.thread_id) > place
                ):
                    found.append(ListedThread(key, head.thread, head.version))
            horizon = 0
            if order == "recent":
                found.sort(key=lambda each: (-each.thread.updated_us, each.key.thread_id))
                horizon = layout.recent_us(page[-1][0].sort) + RECENT_US
            if len(found) >= limit and found[limit - 1].thread.updated_us > horizon:
                break
        return found[:limit]

    async def _expired(self, before_us: int, limit: int) -> list[ListedThread]:
        found: dict[ThreadKey, ListedThread] = {}
        async for page in self._pages(layout.VISITS, "0", f"{before_us:016d}", _PAGE):
            for _, key, head in page:
                if head is not None and head.thread.is_expired(before_us):
                    found[key] = ListedThread(key, head.thread, head.version)
            if len(found) >= limit:
                break
        return list(found.values())[:limit]

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `agent_stores.capabilities.TenantLister`."""
        first = "0" if after is None else following(layout.listed_sort(after))
        found: list[str | None] = []
        async for page in self._pages(layout.TENANTS, first, "b", limit):
            for item, key, head in page:
                if head is not None or await self._has_threads(key.tenant):
                    found.append(key.tenant)
                else:
                    await self._remove_old(item)
            if len(found) >= limit:
                break
        return found[:limit]

    async def sweep(self, *, limit: int) -> int:
        """See `agent_stores.capabilities.Sweeper`."""
        visited = removed = 0
        end = f"{self.now_us() - GRACE_US:016d}"
        async for page in self._pages(layout.VISITS, "0", end, limit):
            for visit in page:
                if max(visited, removed) >= limit:
                    return removed
                visited += 1
                with contextlib.suppress(ConditionFailed, OutcomeUnknownError):  # the next sweep does it
                    removed += await self._visit(*visit, limit - removed)
        return removed

    async def scrub(self, keys: Sequence[ThreadKey]) -> bool:
        """See `Scrubber.scrub`: visits of the tenants' deleted threads, and what they are for; empty tenants.

        A thread that is created anew meanwhile may lose the note that removes it after its expiry.
        """
        tenants = {key.tenant for key in keys}
        async for page in self._pages(layout.VISITS, "0", "~", _PAGE):
            for item, key, head in page:
                if head is None and key.tenant in tenants:
                    while await self._visit(item, key, head, _EAGER) >= _EAGER:
                        pass
        for tenant in tenants:
            found = await self._table.get([(layout.TENANTS, layout.listed_sort(tenant))])
            for item in found.values():
                if not await self._has_threads(tenant):
                    await self._remove(delete(*item.key, item.version))
                elif layout.read_names(item) in keys:  # it names the thread that it was written with
                    unnamed = item._replace(body=layout.names_body(ThreadKey(tenant, "")))
                    await self._remove(put(unnamed, item.version))
        return True

    async def _has_threads(self, tenant: str | None) -> bool:
        partition = layout.index_partition(tenant)
        return bool((await self._table.query(partition, "a", "b", limit=1, bodies=False)).items)

    async def _visit(self, visit: Item, key: ThreadKey, head: Head | None, limit: int) -> int:
        """Remove the rows that a visit is for, if no reader sees them; returns how many, `limit` at most."""
        name, removed = visit.meta, 0
        generation, expires = name[: layout.GENERATION], None
        if head is None or generation not in (head.generation, head.next):
            removed = await self._remove_rows(key, generation, limit)
        elif name != generation:
            partition = layout.thread_partition(key)
            rows = await self._table.get([(partition, sort) for sort in layout.owners(name)], bodies=False)
            if all(layout.read_row(row)[1] != name for row in rows.values()):
                removed = await self._remove_rows(key, name, limit)
        elif (expires := head.thread.expires_us) is not None:
            if expires <= self.now_us():
                return 0  # the log deletes the thread
            await self._table.transact([put(layout.visit_item(key, expires, generation))])
        if removed < limit:
            await self._remove(delete(*visit.key))
        return removed

    async def _remove_rows(self, key: ThreadKey, name: str, limit: int) -> int:
        """Remove rows of a generation, or parts of a body; returns how many, less than `limit` if all."""
        partition, removed = layout.thread_partition(key), 0
        for first, end in layout.ranges(name):
            is_last = False
            while not is_last and removed < limit:
                size = min(self._table.limits.operations, limit - removed)
                items, is_last = await self._table.query(partition, first, end, limit=size, bodies=False)
                if items:
                    await self._table.transact([delete(*item.key) for item in items])
                removed += len(items)
        return removed

    async def _pages(
        self, partition: str, first: str, end: str, size: int
    ) -> AsyncIterator[list[tuple[Item, ThreadKey, Head | None]]]:
        """The items of a list in pages, with the threads that they name and their heads, if those exist."""
        is_last = False
        while not is_last:
            items, is_last = await self._table.query(partition, first, end, limit=size)
            first = following(items[-1].sort) if items else end
            named = [(item, key) for item in items if (key := layout.read_names(item)) is not None]
            names = {key: (layout.thread_partition(key), layout.HEAD) for _, key in named}
            found = await self._table.get(list(names.values())) if names else {}
            heads = {name: layout.read_head(item) for name, item in found.items()}
            if named:
                yield [(item, key, heads.get(names[key])) for item, key in named]

    async def _remove_old(self, item: Item) -> None:
        """Remove an item that names no thread, unless its thread may be about to be written."""
        if item.meta.isdecimal() and int(item.meta) + GRACE_US < self.now_us():
            await self._remove(delete(*item.key, item.version))

    async def _remove(self, operation: Operation) -> None:
        """Change an item of a list, if it is as it was read."""
        with contextlib.suppress(ConditionFailed, StoreError):
            await self._table.transact([operation])
