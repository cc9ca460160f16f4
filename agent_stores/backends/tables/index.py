"""The lists of a tenant's threads and of tenants, and the visits by which a sweep finds what to remove.

These items are in other partitions than the threads. They are written before a thread's own transaction, so
that no thread is missing in them; those that name no thread are ignored, and removed later.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from msgspec.structs import replace

from agent_stores._concurrency import gather_or_cancel
from agent_stores.backend import ListedThread, ThreadKey, ThreadQuery
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.layout import NO_HEAD, Head
from agent_stores.backends.tables.table import ConditionFailed, Item, Operation, Table, delete, following
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
        self.table = table
        self._clock = clock

    def now_us(self) -> int:
        """The time in microseconds since 1970 UTC."""
        return int(self._clock() * 1_000_000)

    @contextlib.asynccontextmanager
    async def listed(
        self, key: ThreadKey, old: Head, new: Head, unused: Iterable[str]
    ) -> AsyncIterator[Head]:
        """Around a write: list a thread, as far as it is not listed yet, and note what to remove.

        Yields the next head. What the write made invisible is removed then, up to a limit, or by sweeps.
        `new` is `NO_HEAD` for a deletion; `unused` are generations and bodies that the write ends, or begins.
        """
        partition, now_us = layout.index_partition(key.tenant), self.now_us()
        visits = [layout.visit_item(key, now_us, name) for name in unused]
        items, removals, updated, expires = [*visits], [], new.thread.updated_us, new.thread.expires_us
        if new is NO_HEAD:  # by its version, as it may be created anew meanwhile
            found = await self.table.get([(partition, layout.listed_sort(key.thread_id))])
            removals = [delete(*name, item.version) for name, item in found.items()]
        elif not old.listed or not 0 <= updated - layout.recent_us(old.listed) <= RECENT_US:
            new = replace(new, listed=layout.recent_sort(updated, secrets.token_hex(4)))
            names = [new.listed] if old.listed else [new.listed, layout.listed_sort(key.thread_id)]
            items += (Item(partition, name, str(now_us), layout.names_body(*key)) for name in names)
            if not old.listed:
                name = layout.listed_sort(key.tenant)
                items.append(Item(layout.TENANTS, name, str(now_us), layout.names_body(key.tenant)))
        if old.listed not in ("", new.listed):
            removals.append(delete(partition, old.listed))
        known = old.thread.expires_us if old.generation == new.generation else None
        if expires is not None and (known is None or expires < known):
            items.append(layout.visit_item(key, expires, new.generation))
        partitions = {item.partition for item in items}
        writes = ([Operation(item) for item in items if item.partition == name] for name in partitions)
        await gather_or_cancel(map(self.table.transact, writes))
        yield new
        for operation in removals:
            await self._change(operation)
        left = _EAGER
        with contextlib.suppress(StoreError):
            for visit in visits:
                left -= await self._visit(visit, key, new, left)

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        """See `Backend.threads`.

        The time of an item in the list by recency is at most `RECENT_US` behind that of the thread. So the
        threads of a page are in order when all items are read that are not older than the last of them by
        more than that.
        """
        after, limit, prefix = query.after, query.limit, query.prefix
        if query.expired_before is not None:
            return await self._expired(query.expired_before, limit)
        is_recent, place = query.order == "recent", (-math.inf, "")
        first, size = ("r", max(limit, _PAGE)) if is_recent else (layout.listed_prefix(prefix), limit)
        end = f"{first}~~"
        if after is not None and is_recent:
            first, place = layout.recent_sort(after.updated_us), (-after.updated_us, after.thread_id)
        elif after is not None:
            first = max(first, following(layout.listed_sort(after.thread_id)))
        found: list[ListedThread] = []

        def order(each: ListedThread) -> tuple[int, str]:
            return (-each.thread.updated_us, each.key.thread_id) if is_recent else (0, "")

        async for item, key, head in self._entries(layout.index_partition(query.tenant), first, end, size):
            if head is NO_HEAD or (is_recent and item.sort != head.listed):
                await self._remove_old(item)
            elif key.thread_id.startswith(prefix) and (-head.thread.updated_us, key.thread_id) > place:
                bisect.insort(found, ListedThread(key, head.thread, head.version), key=order)
            horizon = layout.recent_us(item.sort) + RECENT_US if is_recent else 0
            if len(found) >= limit and found[limit - 1].thread.updated_us > horizon:
                break
        return found[:limit]

    async def _expired(self, before_us: int, limit: int) -> list[ListedThread]:
        found: dict[ThreadKey, ListedThread] = {}
        async for _, key, head in self._entries(layout.VISITS, "0", f"{before_us:016d}", _PAGE):
            if head.thread.is_expired(before_us):
                found[key] = ListedThread(key, head.thread, head.version)
            if len(found) >= limit:
                break
        return list(found.values())

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `agent_stores.capabilities.TenantLister`."""
        first = "0" if after is None else following(layout.listed_sort(after))
        found: list[str | None] = []
        async for item, key, _ in self._entries(layout.TENANTS, first, "b", limit):
            if await self._has_threads(key.tenant):
                found.append(key.tenant)
            else:
                await self._remove_old(item)
            if len(found) >= limit:
                break
        return found

    async def sweep(self, *, limit: int) -> int:
        """See `agent_stores.capabilities.Sweeper`."""
        removed = 0
        async for visit in self._entries(layout.VISITS, "0", f"{self.now_us() - GRACE_US:016d}", limit):
            with contextlib.suppress(OutcomeUnknownError):  # the next sweep does it
                removed += await self._visit(*visit, limit - removed)
            if removed >= limit:
                break
        return removed

    async def scrub(self, keys: Sequence[ThreadKey]) -> bool:
        """See `Scrubber.scrub`: visits of the tenants' deleted threads, and what they are for; empty tenants.

        A thread that is created anew meanwhile may lose the note that removes it after its expiry.
        """
        tenants = {key.tenant for key in keys}
        async for visit in self._entries(layout.VISITS, "0", "~", _PAGE):
            if visit[2] is NO_HEAD and visit[1].tenant in tenants:
                while await self._visit(*visit, _EAGER) >= _EAGER:
                    pass
        for tenant in tenants:
            found = await self.table.get([(layout.TENANTS, layout.listed_sort(tenant))])
            if found and not await self._has_threads(tenant):
                await self._change(*(delete(*name, item.version) for name, item in found.items()))
        return True

    async def _has_threads(self, tenant: str | None) -> bool:
        partition = layout.index_partition(tenant)
        return bool(await self.table.query(partition, "a", "b", limit=1, bodies=False))

    async def _visit(self, visit: Item, key: ThreadKey, head: Head, limit: int) -> int:
        """Remove the rows that a visit is for, if no reader sees them; returns how many, `limit` at most."""
        name, removed, partition = visit.meta, 0, layout.thread_partition(key)
        generation, expires = name[: layout.GENERATION], head.thread.expires_us
        is_used = generation in (head.generation, head.next)
        if is_used and name != generation:  # a body in parts
            owners = [(partition, f"r{generation}{kind}{name[layout.GENERATION : -8]}") for kind in "km"]
            found = await self.table.get(owners, bodies=False)
            rows = list(map(layout.read_row, found.values()))
            is_used = any(parts == name or not row.message_id for row, parts in rows)  # or maybe, if damaged
            expires = None
        if not is_used:
            for first, end in layout.ranges(name):
                size, most = limit - removed, self.table.limits.operations
                items = await self.table.query(partition, first, end, limit=size, bodies=False)
                removed += len(items)
                for start in range(0, len(items), most):
                    await self.table.transact([delete(*item.key) for item in items[start : start + most]])
        elif expires is not None:
            if expires <= self.now_us():
                return 0  # the log deletes the thread
            await self.table.transact([Operation(layout.visit_item(key, expires, generation))])
        if removed < limit:
            await self._change(delete(*visit.key))
        return removed

    async def _entries(
        self, partition: str, first: str, end: str, size: int
    ) -> AsyncIterator[tuple[Item, ThreadKey, Head]]:
        """The items of a list, read in pages of a size, with the threads that they name and their heads."""
        while items := await self.table.query(partition, first, end, limit=size):
            named = [(item, key) for item in items if (key := layout.read_names(item)) is not None]
            names = {key: (layout.thread_partition(key), layout.HEAD) for _, key in named if key.thread_id}
            found = await self.table.get(list(names.values())) if names else {}
            heads = {key: layout.read_head(found[name]) for key, name in names.items() if name in found}
            for item, key in named:
                yield item, key, heads.get(key, NO_HEAD)
            if len(items) < size:
                break
            first = following(items[-1].sort)

    async def _remove_old(self, item: Item) -> None:
        """Remove an item that names no thread, unless its thread may be about to be written."""
        if item.meta.isdecimal() and int(item.meta) + GRACE_US < self.now_us():
            await self._change(delete(*item.key, item.version))

    async def _change(self, *operations: Operation) -> None:
        """Change an item of a list, if it is as it was read."""
        with contextlib.suppress(ConditionFailed, StoreError):
            await self.table.transact(operations)
