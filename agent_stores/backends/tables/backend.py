"""`TablesBackend`: threads in a table, by the contract of `agent_stores.backend`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from agent_stores._concurrency import gather_or_cancel
from agent_stores.append_plan import assign_positions, new_rows, split_trimmed
from agent_stores.backend import (
    Limits,
    Row,
    Snapshot,
    Thread,
    ThreadKey,
    TimeToLive,
    Version,
    VersionConflict,
    in_batches,
)
from agent_stores.backends.tables import layout
from agent_stores.backends.tables import table as tables
from agent_stores.backends.tables.index import Index
from agent_stores.backends.tables.layout import Head, ThreadCache
from agent_stores.backends.tables.table import NEW, ConditionFailed, Item, Operation, Table
from agent_stores.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from agent_stores.thread_updates import touch, with_request, with_rows, with_ttl

_Rows: TypeAlias = Sequence[Row]

_FEW = 16  # messages that are remembered of a thread that is not trimmed
_OLDEST = 256  # messages that are remembered of a thread that is trimmed
_ATTEMPTS = 50  # of reading a thread as of one moment
_SLACK = 4  # items read beyond those that are needed

StoredRow: TypeAlias = tuple[Row, str]
"""A message, and the name of its body if that is in parts, which are not read yet."""


class TablesBackend:
    """Threads in a table of a service; an `Appender`, `TenantLister` and `Sweeper`, too.

    Args:
        table: the table; `aclose` closes it.
        cache: what the process knows of the table's threads; shared by the backends of a table.
        clock: returns seconds since 1970 UTC.
        loop_independent: whether the table may be used from any event loop.
    """

    def __init__(
        self,
        table: Table,
        cache: ThreadCache | None = None,
        *,
        clock: Callable[[], float] = time.time,
        loop_independent: bool = True,
    ) -> None:
        self.table = table
        self.loop_independent = loop_independent
        self.location = table.location
        # A commit writes the head, and two items for a message: itself and its id; one more where a message
        # is no longer pinned. A quarter of the bytes is for the head and the texts of the items.
        self.limits = Limits(
            body_bytes=table.limits.body_bytes,
            commit_rows=(table.limits.operations - 2) // 2,
            commit_bytes=table.limits.transaction_bytes * 3 // 4,
        )
        self._cache = ThreadCache() if cache is None else cache
        self._index = Index(table, clock)
        self.threads = self._index.threads
        self.tenants = self._index.tenants
        self.sweep = self._index.sweep
        self.scrub = self._index.scrub
        self.aclose = table.aclose

    async def append(
        self,
        key: ThreadKey,
        rows: Sequence[Row],
        *,
        request_id: str,
        now_us: int,
        expected_position: int | None = None,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
        create: bool = True,
    ) -> int | None:
        """See `agent_stores.capabilities.Appender`: one commit on what is known of the thread.

        The fallback, which reads the thread, does what is not certain.
        """
        rows = new_rows(rows, ())
        if any(len(row.body) > self.table.limits.item_bytes for row in rows):
            return None
        async with self._cache.queue.turn(key):
            for _ in range(2):
                old = self._cache.get(key) or await self.head(key)
                thread = Thread() if old is None else old.thread
                if (
                    not (old is None or thread.is_visible(now_us))
                    or thread.staged_position
                    or request_id in thread.recent_request_ids
                    or expected_position not in (None, thread.last_position)
                    or not (create or thread.last_position)
                ):
                    return None
                unpinned, oldest = thread.unpinned, list(old.oldest if old is not None else ())
                thread, added = assign_positions(thread, rows)
                pages = self._oldest(key, old, oldest)
                kept, trimmed = await split_trimmed(unpinned, added, max_messages, pages)
                is_over = len(list(in_batches([*added, *trimmed], self.limits))) > 1
                if is_over or len(kept) < len(added):  # whose ids must be compared, too
                    return None
                thread = with_rows(with_rows(thread, added), trimmed, -1)
                thread = touch(with_request(with_ttl(thread, ttl, now_us), request_id), now_us)
                if len(oldest) == unpinned:
                    oldest += [replace(row, body=b"") for row in added if not row.pinned]
                oldest = oldest[len(trimmed) :][: _FEW if max_messages is None else _OLDEST]
                new = _next_head(old, thread, added, clear=False, now_us=now_us)
                low = trimmed[-1].position if trimmed else new.low
                new = replace(new, oldest=tuple(oldest), low=low)
                try:
                    await self._write(key, old, new, added, trimmed, are_new=True)
                    return thread.last_position
                except VersionConflict:  # another process was faster
                    continue
                except ConditionFailed:  # an id exists
                    return None
                except OutcomeUnknownError as error:
                    with contextlib.suppress(StoreError):
                        found = await self.head(key)
                        is_stored = found is not None and request_id in found.thread.recent_request_ids
                        return thread.last_position if is_stored else None
                    raise error from None
        return None

    async def commit(
        self,
        key: ThreadKey,
        thread: Thread | None,
        *,
        expected: Version | None,
        put: Sequence[Row] = (),
        delete: Sequence[Row] = (),
        clear: bool = False,
    ) -> Version | None:
        """See `Backend.commit`."""
        old = self._cache.get(key) if expected is not None else None
        if expected is not None and (old is None or old.version != expected):
            old = await self.head(key)
            if old is None or old.version != expected:
                raise VersionConflict
        if thread is not None:
            new = _next_head(old, thread, put, clear=clear, now_us=self._index.now_us())
            if put or delete or clear:
                new = replace(new, oldest=())
            return await self._write(key, old, new, put, () if clear else delete)
        if old is not None:
            visits = await self._index.schedule(key, filter(None, (old.generation, old.next)))
            unlisted = await self._index.listed(key)
            name = (layout.thread_partition(key), layout.HEAD)
            await self._transact(key, [tables.delete(*name, old.version)])
            await self._index.clean(key, old, None, visits, unlisted)
        return None

    async def head(self, key: ThreadKey) -> Head | None:
        """A thread's head, as it is now."""
        name = (layout.thread_partition(key), layout.HEAD)
        return self._remember(key, (await self.table.get([name])).get(name))

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
        first = await self._first_page(key, limit) if is_end else (await self.head(key), None, False)
        head, found, is_certain = first
        for _ in range(_ATTEMPTS):
            if head is None:
                return None
            if found is None:
                high = head.thread.staged_position if staged else head.thread.last_position
                high = high if before is None else min(before - 1, high)
                view = replace(head, generation=head.next or head.generation) if staged else head
                found = await self._select(key, view, after + 1, high, limit, newest, bodies)
            rows = await self._with_bodies(key, found) if bodies else [row for row, _ in found]
            again = head if is_certain and not any(name for _, name in found) else await self.head(key)
            if again is not None and again.version == head.version:
                return Snapshot(head.thread, head.version, sorted(rows, key=lambda row: row.position))
            head, found = again, None
        raise StoreUnavailableError(
            f"{self.table.location}: a thread changed {_ATTEMPTS} times while it was read"
        )

    async def find(self, key: ThreadKey, message_ids: Iterable[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        head, wanted, partition = await self.head(key), set(message_ids), layout.thread_partition(key)
        while head is not None:
            names = [(partition, layout.id_sort(head.generation, each)) for each in wanted]
            rows = [layout.read_row(item)[0] for item in (await self.table.get(names)).values()]
            found = {row.message_id: row for row in rows if row.position <= head.thread.last_position}
            generation = head.generation
            head = head if len(found) == len(wanted) else await self.head(key)
            if head is not None and head.generation == generation:  # else messages may have moved
                return found
        return {}

    async def _first_page(
        self, key: ThreadKey, limit: int | None
    ) -> tuple[Head | None, list[StoredRow] | None, bool]:
        """By one query: the head; the newest messages, if all are there; whether this is of one moment."""
        known = self._cache.get(key)
        end = layout.END_OF_ROWS if known is None else f"r{known.generation}n"
        pinned = 0 if known is None else known.thread.pinned
        size = None if limit is None else 1 + limit + pinned + _SLACK
        items, _ = await self.table.query(layout.thread_partition(key), layout.HEAD, end, limit=size)
        head = self._remember(key, items[0] if items and items[0].sort == layout.HEAD else None)
        if head is None:
            return None, None, True
        last, begin = head.thread.last_position, f"r{head.generation}"
        found = [layout.read_row(item) for item in items[1:] if item.sort.startswith(begin)]
        unpinned_rows = [each for each in found if each[0].position <= last and not each[0].pinned][:limit]
        found = [each for each in found if each[0].position <= last and each[0].pinned]
        unpinned = head.thread.unpinned if limit is None else min(limit, head.thread.unpinned)
        if (len(found), len(unpinned_rows)) != (head.thread.pinned, unpinned):
            return head, None, False
        found += unpinned_rows
        # Where a page may change while it is read, positions without a gap show that it did not.
        low = unpinned_rows[-1][0].position if unpinned_rows else last + 1
        has_no_gap = sum(row.position >= low for row, _ in found) == last + 1 - low
        return head, found, has_no_gap or self.table.limits.snapshot_pages

    async def _with_bodies(self, key: ThreadKey, found: Sequence[StoredRow]) -> list[Row]:
        """The messages with bodies that are in parts."""

        async def whole(row: Row, name: str) -> Row:
            (parts,) = layout.ranges(name)
            items = await tables.query_all(self.table, layout.thread_partition(key), *parts)
            return replace(row, body="".join(item.body for item in items).encode())

        large = await gather_or_cancel(whole(row, name) for row, name in found if name)
        return [*large, *(row for row, name in found if not name)]

    def _remember(self, key: ThreadKey, item: Item | None) -> Head | None:
        head = None if item is None else layout.read_head(item)
        self._cache.put(key, head)
        return head

    async def _select(
        self, key: ThreadKey, head: Head, low: int, high: int, limit: int | None, newest: bool, bodies: bool
    ) -> list[StoredRow]:
        """Messages between two positions, by `Backend.rows`."""
        partition = layout.thread_partition(key)

        async def read(low: int, high: int, most: int | None = None, pinned: bool = False) -> list[StoredRow]:
            if low > high or most == 0:
                return []
            first = layout.message_sort(head.generation, high, pinned=pinned)
            end = tables.following(layout.message_sort(head.generation, low, pinned=pinned))
            items = await tables.query_all(self.table, partition, first, end, limit=most, bodies=bodies)
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

    async def _write(
        self,
        key: ThreadKey,
        old: Head | None,
        new: Head,
        put: Sequence[Row],
        delete: Sequence[Row],
        *,
        are_new: bool = False,
    ) -> str:
        """Write a thread by one transaction under its version: the head, messages, and their ids.

        Raises:
            VersionConflict: when another writer was faster.
            ConditionFailed: when the id of one of `put` exists, and all `are_new`.
        """
        partition, size = layout.thread_partition(key), self.table.limits.item_bytes
        is_same = old is not None and old.generation == new.generation
        replaced = await self._replaced(partition, old, put, delete) if old is not None and is_same else []
        large = {
            row.position: layout.new_body(new.generation_at(row.position), row.position)
            for row in put
            if len(row.body) > size
        }
        generations = (
            {old.generation, old.next} - {"", new.generation, new.next} if old is not None else set()
        )
        unused = [*generations, *(name for _, name in replaced if name)]
        visits = await self._index.schedule(key, [*unused, *large.values()])
        for row in put:
            if row.position in large:
                await self._write_parts(partition, large[row.position], row.body)
        new = await self._index.announce(key, old, new)
        operations = [tables.put(layout.head_item(partition, new), NEW if old is None else old.version)]
        for row in put:
            parts = large.get(row.position, "")
            item, id_item = layout.message_items(partition, new.generation_at(row.position), row, parts)
            operations += [tables.put(item), tables.put(id_item, NEW if are_new else None)]
        pinned, ids = {row.position: row.pinned for row in put}, {row.message_id for row in put}
        moved = [row for row, _ in replaced if pinned.get(row.position, row.pinned) is not row.pinned]
        for row in (*delete, *moved):
            generation = new.generation_at(row.position)
            sorts = [layout.message_sort(generation, row.position, pinned=row.pinned)]
            if row.message_id and row.message_id not in ids:
                sorts.append(layout.id_sort(generation, row.message_id))
            operations += [tables.delete(partition, sort) for sort in sorts]
        version = await self._transact(key, operations)
        self._cache.put(key, replace(new, version=version))
        await self._index.clean(key, old, new, visits)
        return version

    async def _transact(self, key: ThreadKey, operations: Sequence[Operation]) -> str:
        """Write to a thread's partition; the first operation is that of the head, and has a condition."""
        self._cache.put(key, None)
        try:
            return (await self.table.transact(operations))[0]
        except ConditionFailed as error:
            if error.index == 0:
                raise VersionConflict from None
            if operations[error.index].kind == "put":
                raise
        # What is to be removed is missing: other tools removed it.
        names = [one.item.key for one in operations if one.kind == "delete"]
        present = await self.table.get(names, bodies=False)
        kept = [one for one in operations if one.kind == "put" or one.item.key in present]
        return (await self.table.transact(kept))[0]

    async def _write_parts(self, partition: str, name: str, body: bytes) -> None:
        """Write a large body, which no message names yet."""
        limits = self.table.limits
        parts = enumerate(layout.split_body(body, limits.item_bytes))
        writes = [tables.put(Item(partition, f"x{name}{number:04d}", body=part)) for number, part in parts]
        room = max(1, limits.transaction_bytes // limits.item_bytes)
        for start in range(0, len(writes), room):
            await self.table.transact(writes[start : start + room])

    async def _replaced(self, partition: str, old: Head, put: _Rows, delete: _Rows) -> list[StoredRow]:
        """What is stored where a commit replaces messages, and where it deletes large ones."""
        rows = [row for row in put if row.position <= old.thread.last_position]
        rows += [row for row in delete if row.bytes > self.table.limits.item_bytes]
        names = [(partition, layout.id_sort(old.generation_at(row.position), row.message_id)) for row in rows]
        return [layout.read_row(item) for item in (await self.table.get(names)).values()] if names else []

    async def _oldest(self, key: ThreadKey, head: Head | None, oldest: list[Row]) -> AsyncIterator[list[Row]]:
        """A thread's oldest messages, in pages; those that are read are added to what is known of them."""
        yield oldest
        while head is not None and len(oldest) < head.thread.unpinned:
            low = oldest[-1].position + 1 if oldest else 1
            high = head.thread.last_position
            found = await self._select(key, head, low, high, _OLDEST, newest=False, bodies=False)
            page = [row for row, _ in found if not row.pinned]
            if not page:  # another process changed the thread
                break
            oldest += page
            yield page


def _next_head(old: Head | None, thread: Thread, put: Sequence[Row], *, clear: bool, now_us: int) -> Head:
    """The head after a commit; `clear` begins a new generation, that of staged messages if there are any."""
    if old is None:
        return Head(generation=layout.new_generation(now_us), thread=thread)
    newer = old.next
    if not newer and (clear or thread.staged_clear):
        newer = layout.new_generation(now_us, old.generation)
    low = min([old.thread.last_position if clear else old.low, *(row.position - 1 for row in put)])
    if clear:
        return replace(old, generation=newer, next="", low=low, thread=thread)
    return replace(old, next=newer if thread.staged_clear else "", low=low, thread=thread)
