"""`TablesBackend`: threads in a table, by the contract of `agent_stores.backend`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from agent_stores._concurrency import gather_or_cancel
from agent_stores.append_plan import add_rows, new_rows
from agent_stores.backend import Change, Limits, Row, RowRange, Snapshot, Thread, ThreadKey, VersionConflict
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.index import Index
from agent_stores.backends.tables.layout import NO_HEAD, Head, ThreadCache
from agent_stores.backends.tables.table import NEW, ConditionFailed, Item, Operation, Table, delete, following
from agent_stores.capabilities import Append
from agent_stores.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from agent_stores.thread_updates import touch, with_request, with_ttl

_Rows: TypeAlias = Sequence[Row]
_FEW, _OLDEST = 16, 256  # messages that are remembered of a thread that is not trimmed, and of one that is
_APPENDS = 3  # attempts before the fallback, which waits between them
_ATTEMPTS = 50  # of reading a thread as of one moment
_SLACK = 4  # items read beyond those that are needed


class TablesBackend(Index):
    """Threads in a table of a service; an `Appender`, `TenantLister`, `Sweeper` and `Scrubber`, too.

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
        super().__init__(table, clock)
        self.loop_independent = loop_independent
        self.location, self.aclose = table.location, table.aclose
        # A commit writes the head, and two items for a message: itself and its id; one more where a message
        # is no longer pinned. A quarter of the bytes is for the head and the texts of the items.
        self._most_rows = (table.limits.operations - 2) // 2
        self._most_bytes = table.limits.transaction_bytes * 3 // 4
        self.limits = Limits(
            body_bytes=table.limits.body_bytes, commit_rows=self._most_rows, commit_bytes=self._most_bytes
        )
        self._cache = ThreadCache() if cache is None else cache

    async def append(self, key: ThreadKey, call: Append) -> int | None:
        """See `Appender.append`: one commit on what is known of the thread; None if that is not certain."""
        rows, now_us, max_messages = new_rows(call.rows, ()), call.now_us, call.max_messages
        lost: OutcomeUnknownError | None = None
        async with self._cache.queue.turn(key):
            for _ in range(_APPENDS):
                try:
                    old = self._cache.get(key) or await self.head(key)
                    thread = old.thread
                    if call.request_id in thread.recent_request_ids:
                        return None if lost is None else thread.last_position
                    if (
                        (old is not NO_HEAD and not thread.is_visible(now_us))
                        or thread.staged_position
                        or call.expected_position not in (None, thread.last_position)
                        or not (call.create or thread.last_position)
                        or (max_messages is not None and thread.unpinned > max_messages + self._most_rows)
                    ):
                        return None
                    pages = self._oldest(key, old, oldest := list(old.oldest))
                    thread, put, trimmed = await add_rows(thread, rows, max_messages, pages)
                    sizes = [len(row.body) for row in put]
                    is_one = len(put) + len(trimmed) <= self._most_rows and sum(sizes) <= self._most_bytes
                    is_one = is_one and max(sizes, default=0) <= self.table.limits.item_bytes
                    if not is_one or len(put) < len(rows):  # whose ids must be compared, too
                        return None
                    thread = with_request(with_ttl(thread, call.ttl, now_us), call.request_id)
                    thread = touch(thread, now_us)
                    if len(oldest) == old.thread.unpinned:
                        oldest += [replace(row, body=b"") for row in put if not row.pinned]
                    oldest = oldest[len(trimmed) :][: _FEW if max_messages is None else _OLDEST]
                    new = replace(_next_head(old, thread, now_us=now_us), oldest=tuple(oldest))
                    await self._write(key, old, new, put, trimmed, are_new=True)
                    return thread.last_position
                except VersionConflict:  # a write whose reply was lost is in the head now, or is over
                    lost = None
                except ConditionFailed:  # an id exists; so that the same write, if it was lost, had no effect
                    return None
                except OutcomeUnknownError as error:  # the head tells, or the same write once more
                    lost = error
                except StoreError as error:
                    raise (lost or error) from error.__cause__
        if lost is not None:
            raise lost
        return None

    async def commit(self, key: ThreadKey, change: Change) -> str | None:
        """See `Backend.commit`."""
        old = NO_HEAD if change.expected is None else self._cache.get(key, NO_HEAD)
        if old.version != (change.expected or NEW):
            old = await self.head(key)
            if old.version != change.expected:
                raise VersionConflict
        if change.thread is None:
            return None if old is NO_HEAD else await self._write(key, old, NO_HEAD, (), ())
        new = _next_head(old, change.thread, clear=change.clear, now_us=self.now_us())
        if change.put or change.delete or change.clear:
            new = replace(new, oldest=())
        return await self._write(key, old, new, change.put, () if change.clear else change.delete)

    async def head(self, key: ThreadKey) -> Head:
        """A thread's head, as it is now; `NO_HEAD` when there is no such thread."""
        name = (layout.thread_partition(key), layout.HEAD)
        return self._remember(key, (await self.table.get([name])).get(name))

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        head = await self.head(key)
        return None if head is NO_HEAD else Snapshot(head.thread, head.version)

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """See `Backend.rows`."""
        is_end = wanted in (RowRange(), RowRange(limit=wanted.limit, newest=True))
        first = await self._first_page(key, wanted.limit) if is_end else (await self.head(key), None, False)
        head, items, is_certain = first
        for _ in range(_ATTEMPTS):
            if head is NO_HEAD:
                return None
            if items is None:
                items = await self._select(key, head, wanted)
            rows = await self._read(items, bodies=wanted.bodies)
            again = head if is_certain and all(item.body for item in items) else await self.head(key)
            if again.version == head.version:
                return Snapshot(head.thread, head.version, rows)
            head, items = again, None
        raise StoreUnavailableError(f"{self.location}: a thread changed {_ATTEMPTS} times while it was read")

    async def find(self, key: ThreadKey, message_ids: Iterable[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        head, wanted, partition = await self.head(key), set(message_ids), layout.thread_partition(key)
        while head is not NO_HEAD:
            names = [(partition, layout.id_sort(head.generation, each)) for each in wanted]
            rows = [layout.read_row(item)[0] for item in (await self.table.get(names)).values()]
            found = {row.message_id: row for row in rows if 0 < row.position <= head.thread.last_position}
            generation = head.generation
            head = head if len(found) == len(wanted) else await self.head(key)
            if head.generation == generation:  # else messages may have moved
                return found
        return {}

    async def _first_page(self, key: ThreadKey, limit: int | None) -> tuple[Head, list[Item] | None, bool]:
        """By one query: the head; the newest messages, if all are there; whether this is of one moment."""
        known, partition = self._cache.get(key, NO_HEAD), layout.thread_partition(key)
        size = None if limit is None else 1 + limit + known.thread.pinned + _SLACK
        items = await self.table.query(partition, layout.HEAD, f"r{known.generation}n", limit=size)
        head = self._remember(key, items[0] if items and items[0].sort == layout.HEAD else None)
        last, begin = head.thread.last_position, f"r{head.generation}"
        first, middle = (layout.message_sort(head.generation, last, pinned=each) for each in (True, False))
        pinned = [item for item in items if first <= item.sort < f"{begin}l"]
        newest = [item for item in items if middle <= item.sort < f"{begin}n"][:limit]
        unpinned = head.thread.unpinned if limit is None else min(limit, head.thread.unpinned)
        if (len(pinned), len(newest)) != (head.thread.pinned, unpinned):
            return head, None, False
        found = [*pinned, *newest]
        # That no message is missing, or no position, shows that none was removed while the items were read.
        low = layout.position_at(newest[-1].sort) if newest else last + 1
        places = {layout.position_at(item.sort) for item in found}
        has_no_gap = sum(place >= low for place in places) == last + 1 - low
        return head, found, has_no_gap or len(places) == head.thread.messages

    async def _read(self, items: Sequence[Item], *, bodies: bool) -> list[Row]:
        """The messages of items of one generation, in order; damaged ones are read from the items of ids."""
        found = list(map(layout.read_row, items))
        if not all(row.message_id for row, _ in found):
            begin = f"u{items[0].sort[1:-16]}"
            ids = await self.table.query(items[0].partition, begin, f"{begin}~", bodies=False)
            metas = {layout.read_row(item)[0].position: item.meta for item in ids}
            whole = (
                item._replace(meta=metas.get(layout.position_at(item.sort), item.meta)) for item in items
            )
            found = list(map(layout.read_row, whole))

        async def with_body(row: Row, name: str) -> Row:
            ((first, end),) = layout.ranges(name)
            parts = await self.table.query(items[0].partition, first, end)
            return replace(row, body="".join(item.body for item in parts).encode())

        rows = [row for row, name in found if not (name and bodies)]
        rows += await gather_or_cancel(with_body(*each) for each in found if each[1] and bodies)
        return sorted(rows, key=lambda row: row.position)

    def _remember(self, key: ThreadKey, item: Item | None) -> Head:
        if item is None:
            self._cache.discard(key)
            return NO_HEAD
        head = self._cache.get(key)
        if head is None or item.version != head.version:
            head = self._cache[key] = layout.read_head(item)
        return head

    async def _select(self, key: ThreadKey, head: Head, wanted: RowRange) -> list[Item]:
        """The items of the messages of a range, pinned ones first where both are read as a whole."""
        partition, thread, limit = layout.thread_partition(key), head.thread, wanted.limit
        generation = (head.next if wanted.staged else "") or head.generation
        low, high = wanted.after + 1, thread.staged_position if wanted.staged else thread.last_position
        high = high if wanted.before is None else min(wanted.before - 1, high)

        async def read(low: int, high: int, most: int | None = None, pinned: bool = False) -> list[Item]:
            if low > high or most == 0:
                return []
            first = layout.message_sort(generation, high, pinned=pinned)
            end = following(layout.message_sort(generation, low, pinned=pinned))
            return await self.table.query(partition, first, end, limit=most, bodies=wanted.bodies)

        found = await read(low, high, pinned=True) if thread.pinned or wanted.staged else []
        if wanted.newest or limit is None:
            return found + await read(low, high, limit)
        # Tables are read from the newest on: windows of positions are read, the oldest first.
        count, size = len(found) + limit, limit + _SLACK
        while low <= high and len(found) < count:
            window = await read(low, min(high, low + size - 1))
            found += reversed(window)
            low, size = low + size, size if window else 2 * size
        return sorted(found, key=lambda item: layout.position_at(item.sort))[:limit]

    async def _write(
        self, key: ThreadKey, old: Head, new: Head, put: _Rows, removed: _Rows, *, are_new: bool = False
    ) -> str | None:
        """Write a thread by one transaction under its version: the head, messages, and their ids.

        Raises:
            VersionConflict: when another writer was faster.
            ConditionFailed: when the id of one of `put` exists, and all `are_new`.
        """
        partition, limits, replaced = layout.thread_partition(key), self.table.limits, list[tuple[Row, str]]()
        if old.generation == new.generation:  # what a message had, if it is replaced, or was large
            rows = [row for row in put if row.position <= old.thread.last_position]
            rows += [row for row in removed if row.bytes > limits.item_bytes]
            places = ((old.generation_at(row.position), row.message_id) for row in rows)
            ids = [(partition, layout.id_sort(*place)) for place in places]
            replaced = [layout.read_row(item) for item in (await self.table.get(ids)).values()] if ids else []
        large = [row for row in put if len(row.body) > limits.item_bytes]
        parts = {n: layout.new_body(new.generation_at(n), n) for n in (row.position for row in large)}
        unused = {old.generation, old.next, *(name for _, name in replaced), *parts.values()}
        operations = list[Operation]()
        for row in put:
            name = parts.get(row.position, "")
            item, id_item = layout.message_items(partition, new.generation_at(row.position), row, name)
            operations += [Operation(item), Operation(id_item, NEW if are_new else None)]
        pinned, known = {row.position: row.pinned for row in put}, {row.message_id for row in put}
        moved = [row for row, _ in replaced if pinned.get(row.position, row.pinned) is not row.pinned]
        for row in (*removed, *moved):
            generation = new.generation_at(row.position)
            sorts = [layout.message_sort(generation, row.position, pinned=row.pinned)]
            if row.message_id and row.message_id not in known:
                sorts.append(layout.id_sort(generation, row.message_id))
            operations += [delete(partition, sort) for sort in sorts]
        async with self.listed(key, old, new, unused - {"", new.generation, new.next}) as new:
            for row in large:
                pieces = enumerate(layout.split_body(row.body, limits.item_bytes))
                name, room = f"x{parts[row.position]}", max(1, limits.transaction_bytes // limits.item_bytes)
                writes = [Operation(Item(partition, f"{name}{n:04d}", body=piece)) for n, piece in pieces]
                for start in range(0, len(writes), room):
                    await self.table.transact(writes[start : start + room])
            head = Operation(layout.head_item(partition, new), old.version, is_delete=new is NO_HEAD)
            self._cache.discard(key)
            try:
                version = await self.table.transact([head, *operations])
            except ConditionFailed as error:
                raise (error if error.index else VersionConflict()) from None
            if new is NO_HEAD:
                return None
            self._cache[key] = replace(new, version=version)
            return version

    async def _oldest(self, key: ThreadKey, head: Head, oldest: list[Row]) -> AsyncIterator[list[Row]]:
        """A thread's oldest messages, in pages; those that are read are added to what is known of them."""
        yield oldest
        while (left := head.thread.unpinned - len(oldest)) > 0:
            # The windows of a limit are empty where a long thread was trimmed: few messages are read at once.
            limit = _OLDEST if left > 4 * _OLDEST else None
            after = oldest[-1].position if oldest else 0
            items = await self._select(key, head, RowRange(after=after, limit=limit, bodies=False))
            rows = [row for row in await self._read(items, bodies=False) if not row.pinned]
            if not rows:  # another process changed the thread
                return
            oldest += rows
            yield rows


def _next_head(old: Head, thread: Thread, *, clear: bool = False, now_us: int) -> Head:
    """The head after a commit; `clear` begins a new generation, that of staged messages if there are any."""
    newer = old.next
    if old is NO_HEAD or (not newer and (clear or thread.staged_clear)):
        newer = layout.new_generation(now_us, old.generation)
    if old is NO_HEAD or clear:
        return replace(old, generation=newer, next="", thread=thread)
    return replace(old, next=newer if thread.staged_clear else "", thread=thread)
