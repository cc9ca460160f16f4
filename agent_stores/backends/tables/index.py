"""The lists of a tenant's threads and of tenants, and the visits by which a sweep finds what to remove.

These items are in other partitions than the threads. They are written before a thread's own transaction, so
that no thread is missing in them; those that name no thread are ignored, and removed later.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from agent_stores.backend import ListCursor, ListedThread, ThreadKey, ThreadOrder
from agent_stores.backends.tables import layout
from agent_stores.backends.tables import table as tables
from agent_stores.backends.tables.layout import Head
from agent_stores.backends.tables.table import ConditionFailed, Item, Operation, Table, delete, following
from agent_stores.errors import OutcomeUnknownError, StoreError

RECENT_US = 300 * 1_000_000
"""How far the time of a thread in the list by recency may be behind its last write; a listing corrects it."""

GRACE_US = 3600 * 1_000_000
"""After this time, a write that an item announces is over: it was carried out, or its process ended."""

_PAGE = 100
_EAGER = 2000  # rows that a write removes itself after it cleared or deleted a thread


_Named: TypeAlias = tuple[Item, ThreadKey, "Head | None"]
"""An item, and the thread that it names, whose head is None when it does not exist."""


class Index:
    """The lists and visits of a table."""

    def __init__(self, table: Table, clock: Callable[[], float]) -> None:
        self._table = table
        self._clock = clock

    def now_us(self) -> int:
        """The time in microseconds since 1970 UTC."""
        return int(self._clock() * 1_000_000)

    async def announce(self, key: ThreadKey, old: Head | None, new: Head) -> tuple[Head, list[Operation]]:
        """Note a thread that is about to be written, as far as it is not noted yet.

        Returns:
            The head to write, and what is to be removed after that.
        """
        tenant, unused = layout.index_partition(key.tenant), list[Operation]()
        writes, body, now_us = list[list[Item]](), layout.names_body(key), self.now_us()
        listed, updated = 0 if old is None else layout.recent_us(old.listed), new.thread.updated_us
        if old is None or not listed <= updated <= listed + RECENT_US:
            new = replace(new, listed=layout.recent_sort(updated, secrets.token_hex(4)))
            writes.append([Item(tenant, new.listed, str(now_us), body)])
            if old is None:
                writes[0].append(Item(tenant, layout.listed_sort(key.thread_id), str(now_us), body))
                writes.append([Item(layout.TENANTS, _tenant_sort(key.tenant), str(now_us), body)])
            else:
                unused.append(delete(tenant, old.listed))
        expires = new.thread.expires_us
        was = None if old is None or old.generation != new.generation else old.thread.expires_us
        if expires is not None and (was is None or expires < was):
            writes.append([layout.visit_item(key, expires, new.generation)])
        await tables.gather(self._table.transact([tables.put(item) for item in items]) for items in writes)
        return new, unused

    async def listed(self, key: ThreadKey, head: Head) -> list[Operation]:
        """What removes a thread from the lists, unless it is created anew meanwhile."""
        tenant = layout.index_partition(key.tenant)
        items = await self._table.get([(tenant, layout.listed_sort(key.thread_id))])
        return [delete(tenant, head.listed), *(delete(*item.key, item.version) for item in items.values())]

    async def schedule(self, key: ThreadKey, names: Sequence[str]) -> list[Operation]:
        """Note generations and bodies that a write is about to replace, or begin; returns what undoes it."""
        items = [layout.visit_item(key, self.now_us(), name, secrets.token_hex(4)) for name in names]
        if items:
            await self._table.transact([tables.put(item) for item in items])
        return [delete(*item.key) for item in items]

    async def clean(
        self, key: ThreadKey, unused: Sequence[Operation], names: Sequence[str], visits: Sequence[Operation]
    ) -> None:
        """Remove what a write does without, up to a limit; listings and sweeps do what this does not."""
        for operation in unused:
            await self._remove(operation)
        with contextlib.suppress(StoreError, ConditionFailed):
            left = _EAGER
            for name in names:
                left -= await self._remove_rows(key, name, left)
            if visits and left > 0:
                await self._table.transact(visits)

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

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `agent_stores.capabilities.TenantLister`."""
        first = "0" if after is None else following(_tenant_sort(after))
        found: list[str | None] = []
        async for page in self._pages(layout.TENANTS, first, "b", limit):
            for item, key, head in page:
                tenant = layout.index_partition(key.tenant)
                if (
                    head is not None
                    or (await self._table.query(tenant, "a", "b", limit=1, bodies=False)).items
                ):
                    found.append(key.tenant)
                else:
                    await self._remove_old(item)
            if len(found) >= limit:
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
                    removed += await self._visit(visit, limit - removed)
        return removed

    async def _visit(self, visit: _Named, limit: int) -> int:
        item, key, head = visit
        name, removed = item.meta, 0
        generation, place = name[: layout.GENERATION], name[layout.GENERATION : -8]
        if head is None or generation not in (head.generation, head.next):
            removed = await self._remove_rows(key, generation, limit)
        elif place:
            partition = layout.thread_partition(key)
            names = [(partition, f"r{generation}{kind}{place}") for kind in "km"]
            rows = await self._table.get(names, bodies=False)
            if all(layout.read_row(row)[1] != name for row in rows.values()):
                removed = await self._remove_rows(key, name, limit)
        elif head.thread.expires_us is not None:
            if head.thread.expires_us <= self.now_us():
                return 0  # the log deletes the thread
            await self._table.transact(
                [tables.put(layout.visit_item(key, head.thread.expires_us, generation))]
            )
        if removed < limit:
            await self._remove(delete(*item.key, item.version))
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

    async def _pages(self, partition: str, first: str, end: str, size: int) -> AsyncIterator[list[_Named]]:
        """The items of a list in pages, with the heads of their threads."""
        is_last = False
        while not is_last:
            items, is_last = await self._table.query(partition, first, end, limit=size)
            first = following(items[-1].sort) if items else end
            named = [(item, key) for item in items if (key := layout.read_names(item)) is not None]
            names = {key: (layout.thread_partition(key), layout.HEAD) for _, key in named}
            heads = await self._table.get(list(names.values())) if names else {}
            read = {name: layout.read_head(head) for name, head in heads.items()}
            if named:
                yield [(item, key, read.get(names[key])) for item, key in named]

    async def _remove_old(self, item: Item) -> None:
        """Remove an item that names no thread, unless its thread may be about to be written."""
        if item.meta.isdecimal() and int(item.meta) + GRACE_US < self.now_us():
            await self._remove(delete(*item.key, item.version))

    async def _remove(self, operation: Operation) -> None:
        with contextlib.suppress(ConditionFailed, StoreError):
            await self._table.transact([operation])


def _tenant_sort(tenant: str | None) -> str:
    return "0" if tenant is None else layout.listed_sort(tenant)
