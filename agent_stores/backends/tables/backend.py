"""`TablesBackend`: threads in a table, by the contract of `agent_stores.backend`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from agent_stores.append_plan import new_rows, place, split_trimmed
from agent_stores.backend import Limits, Row, Thread, ThreadKey, TimeToLive, Version, VersionConflict
from agent_stores.backends.tables import layout
from agent_stores.backends.tables import table as tables
from agent_stores.backends.tables.index import Index
from agent_stores.backends.tables.layout import Head
from agent_stores.backends.tables.reader import Reader, StoredRow, ThreadCache
from agent_stores.backends.tables.table import NEW, ConditionFailed, Item, Operation, Table
from agent_stores.errors import OutcomeUnknownError, StoreError
from agent_stores.thread_updates import with_request, with_rows, with_ttl, written

_Rows: TypeAlias = Sequence[Row]

_FEW = 16  # messages that are remembered of a thread that is not trimmed
_OLDEST = 256  # messages that are remembered of a thread that is trimmed
_ITEM_BYTES = 2048  # of an item without its body, at most


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
        # is no longer pinned.
        self.limits = Limits(
            body_bytes=table.limits.body_bytes,
            commit_rows=(table.limits.operations - 2) // 2,
            commit_bytes=table.limits.transaction_bytes // 2,
        )
        self._cache = ThreadCache() if cache is None else cache
        self._reader = Reader(table, self._cache)
        self._index = Index(table, clock)
        self.load = self._reader.load
        self.rows = self._reader.rows
        self.find = self._reader.find
        self.threads = self._index.threads
        self.tenants = self._index.tenants
        self.sweep = self._index.sweep
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

        The general path, which reads the thread, does what is not certain.
        """
        rows, limits = new_rows(rows, ()), self.table.limits
        if any(len(row.body) > limits.item_bytes for row in rows):
            return None
        async with self._cache.queue.turn(key):
            for _ in range(2):
                old = self._cache.get(key) or await self._reader.head(key)
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
                thread, added = place(thread, rows)
                pages = self._oldest(key, old, oldest)
                kept, trimmed = await split_trimmed(unpinned, added, max_messages, pages)
                operations = 1 + 2 * (len(added) + len(trimmed))
                size = _ITEM_BYTES * operations + sum(len(row.body) for row in added)
                is_over = operations > limits.operations or size > limits.transaction_bytes
                if is_over or len(kept) < len(added):  # whose ids must be compared, too
                    return None
                thread = with_rows(with_rows(thread, added), trimmed, -1)
                thread = written(with_request(with_ttl(thread, ttl, now_us), request_id), now_us)
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
                except _IdExists:
                    return None
                except OutcomeUnknownError as error:
                    try:
                        found = await self._reader.head(key)
                    except StoreError:
                        raise error from None
                    is_stored = found is not None and request_id in found.thread.recent_request_ids
                    return found.thread.last_position if found is not None and is_stored else None
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
            old = await self._reader.head(key)
            if old is None or old.version != expected:
                raise VersionConflict
        if thread is not None:
            new = _next_head(old, thread, put, clear=clear, now_us=self._index.now_us())
            if put or delete or clear:
                new = replace(new, oldest=())
            return await self._write(key, old, new, put, () if clear else delete)
        if old is not None:
            await self._delete(key, old)
        return None

    async def _delete(self, key: ThreadKey, old: Head) -> None:
        lost = list(filter(None, (old.generation, old.next)))
        visits = await self._index.schedule(key, lost)
        unused = await self._index.listed(key, old)
        head = tables.delete(layout.thread_partition(key), layout.HEAD, old.version)
        await self._transact(key, [head])
        await self._index.clean(key, unused, lost, visits)

    async def _write(
        self, key: ThreadKey, old: Head | None, new: Head, put: _Rows, delete: _Rows, *, are_new: bool = False
    ) -> str:
        """Write a thread by one transaction under its version: the head, messages, and their ids.

        Raises:
            VersionConflict: when another writer was faster.
            _IdExists: when the id of one of `put` exists, and all `are_new`.
        """
        partition, size = layout.thread_partition(key), self.table.limits.item_bytes
        replaced, lost = list[StoredRow](), list[str]()
        if old is not None:
            lost = [name for name in (old.generation, old.next) if name not in ("", new.generation, new.next)]
            if old.generation == new.generation:
                replaced = await self._replaced(partition, old, put, delete)
        lost += [name for _, name in replaced if name]
        large = {
            row.position: layout.new_body(new.generation_at(row.position), row.position)
            for row in put
            if len(row.body) > size
        }
        visits = await self._index.schedule(key, [*lost, *large.values()])
        for row in put if large else ():
            await self._write_parts(partition, large.get(row.position), row.body)
        new, unused = await self._index.announce(key, old, new)
        operations = [tables.put(layout.head_item(partition, new), NEW if old is None else old.version)]
        for row in put:
            parts = large.get(row.position, "")
            item, id_item = layout.message_items(partition, new.generation_at(row.position), row, parts)
            operations += [tables.put(item), tables.put(id_item, NEW if are_new else None)]
        pinned, kept = {row.position: row.pinned for row in put}, {row.message_id for row in put}
        moved = [row for row, _ in replaced if pinned.get(row.position, row.pinned) is not row.pinned]
        for row in (*delete, *moved):
            generation = new.generation_at(row.position)
            sorts = [layout.message_sort(generation, row.position, pinned=row.pinned)]
            if row.message_id and row.message_id not in kept:
                sorts.append(layout.id_sort(generation, row.message_id))
            operations += [tables.delete(partition, sort) for sort in sorts]
        version = await self._transact(key, operations)
        self._cache.put(key, replace(new, version=version))
        await self._index.clean(key, unused, lost, visits)
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
                raise _IdExists from None
        # What is to be removed is missing: other tools removed it.
        names = [one.item.key for one in operations if one.kind == "delete"]
        present = await self.table.get(names, bodies=False)
        kept = [one for one in operations if one.kind == "put" or one.item.key in present]
        return (await self.table.transact(kept))[0]

    async def _write_parts(self, partition: str, name: str | None, body: bytes) -> None:
        """Write a large body, which no message names yet."""
        limits = self.table.limits
        parts = enumerate(layout.split_body(body, limits.item_bytes) if name else ())
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
            found = await self._reader.select(key, head, low, high, _OLDEST, newest=False, bodies=False)
            page = [row for row, _ in found if not row.pinned]
            if not page:  # another process changed the thread
                break
            oldest += page
            yield page


class _IdExists(Exception):
    """A message id that must not exist does."""


def _next_head(old: Head | None, thread: Thread, put: Sequence[Row], *, clear: bool, now_us: int) -> Head:
    """The head after a commit; `clear` begins a new generation, that of staged messages if there are any."""
    if old is None:
        return Head(generation=layout.new_generation(now_us), thread=thread)
    newer = old.next or layout.new_generation(now_us, old.generation)
    low = min([old.thread.last_position if clear else old.low, *(row.position - 1 for row in put)])
    if clear:
        return replace(old, generation=newer, next="", low=low, thread=thread)
    return replace(old, next=newer if thread.staged_clear else "", low=low, thread=thread)
