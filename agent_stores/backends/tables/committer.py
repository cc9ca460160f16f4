"""Writing to a thread in one transaction under its version; commits, for the log's general path."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from msgspec.structs import replace

from agent_stores.backend import Row, Thread, ThreadKey, Version, VersionConflict
from agent_stores.backends.tables import keys, records
from agent_stores.backends.tables import table as tables
from agent_stores.backends.tables.cache import Known, ThreadCache
from agent_stores.backends.tables.index import GRACE_US, Index, Visit
from agent_stores.backends.tables.operations import write_operations
from agent_stores.backends.tables.reader import Reader
from agent_stores.backends.tables.records import Head, StoredHead, StoredRow
from agent_stores.backends.tables.sweeper import remove_generation
from agent_stores.backends.tables.table import ConditionFailed, Operation, Table
from agent_stores.errors import StoreError

_EAGER = 2000  # rows that a commit removes itself after it cleared or deleted a thread


class Committer:
    """Commits to threads of a table."""

    def __init__(
        self, table: Table, cache: ThreadCache, reader: Reader, index: Index, now_us: Callable[[], int]
    ) -> None:
        self.table = table
        self.cache = cache
        self.reader = reader
        self.index = index
        self._now_us = now_us

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
        stored = await self._expected(key, expected)
        if thread is None:
            if stored is not None:
                await self._delete(key, stored)
            return None
        now_us = self._now_us()
        old = None if stored is None else stored.head
        new = _next_head(old, thread, put, clear=clear, now_us=now_us)
        is_same = old is not None and old.generation == new.generation
        tags, visits = await self._write_parts(key, new, put, now_us)
        replaced: list[StoredRow] = []
        if old is not None and is_same:
            positions = [row.position for row in put if row.position <= old.thread.last_position]
            positions += [row.position for row in delete if row.bytes > self.table.limits.item_bytes]
            replaced = await self.reader.at_places(key, old, positions)
        unused = [each for each in replaced if each.tag]
        if old is not None and (not is_same or new.floor > old.floor or unused):
            visits.append(await self.index.schedule(key, old.generation, now_us))
        new = await self.index.announce(key, old, new)
        delete = delete if is_same else ()
        make = partial(write_operations, key, stored, new, put, delete, tags=tags, replaced=replaced)
        staged = [row for row in (*put, *delete) if row.position > thread.last_position]
        is_careful = any(row.position > thread.last_position for row in delete)
        try:
            version = await self._transact(key, make, new.generation, staged, is_first=not is_careful)
        except ConditionFailed:
            self.cache.drop(key)
            raise VersionConflict from None
        except StoreError:
            self.cache.drop(key)
            raise
        self.cache.put(key, Known(StoredHead(new, version)))
        with contextlib.suppress(StoreError, ConditionFailed):  # it is committed; a sweep removes the rest
            await self.index.after_write(key, old, new)
            if await self._clean(key, old, new, unused):
                for visit in visits:
                    await self.index.unschedule(visit)
        return version

    async def _expected(self, key: ThreadKey, expected: Version | None) -> StoredHead | None:
        if expected is None:
            return None
        known = self.cache.get(key)
        if known is not None and known.stored.version == expected:
            return known.stored
        stored = await self.reader.head(key)
        if stored is None or stored.version != expected:
            raise VersionConflict
        return stored

    async def _delete(self, key: ThreadKey, stored: StoredHead) -> None:
        generation, partition = stored.head.generation, keys.thread_partition(key)
        listed = await self.index.listed_item(key)
        visit = await self.index.schedule(key, generation, self._now_us())
        try:
            await self.table.transact([tables.delete(partition, keys.HEAD, stored.version)])
        except ConditionFailed:
            raise VersionConflict from None
        finally:
            self.cache.drop(key)
        with contextlib.suppress(StoreError, ConditionFailed):  # it is deleted; a sweep removes the rest
            await self.index.remove_thread(key, stored.head, listed)
            if await remove_generation(self.table, partition, generation, _EAGER) < _EAGER:
                await self.index.unschedule(visit)

    async def _write_parts(
        self, key: ThreadKey, new: Head, rows: Sequence[Row], now_us: int
    ) -> tuple[dict[int, tuple[str, int]], list[Visit]]:
        """Write the parts of large bodies, which no message names yet; returns their tags by position."""
        size = self.table.limits.item_bytes
        large = [row for row in rows if len(row.body) > size]
        if not large:
            return {}, []
        visit = await self.index.schedule(key, new.generation, now_us + GRACE_US)
        partition, tags = keys.thread_partition(key), {}
        room = max(1, self.table.limits.transaction_bytes // size)
        for row in large:
            tag = records.new_tag()
            parts = records.part_items(partition, new.generation, tag, row.body, size, now_us)
            for start in range(0, len(parts), room):
                await self.table.transact([tables.put(item) for item in parts[start : start + room]])
            tags[row.position] = (tag, len(parts))
        return tags, [visit]

    async def _transact(
        self,
        key: ThreadKey,
        make: Callable[..., list[Operation]],
        generation: str,
        staged: Sequence[Row],
        *,
        is_first: bool,
    ) -> str:
        """Write under the thread's version.

        Args:
            key: the thread.
            make: makes the operations, from what is stored at some keys if that matters.
            generation: the thread's generation.
            staged: messages above the last position that are put or deleted.
            is_first: whether to try without looking at what is stored.
        """
        operations = make()
        try:
            if is_first:
                return (await self.table.transact(operations))[0]
        except ConditionFailed as error:
            if error.index == 0:
                raise
        # An id of a staged message exists, or does not: keep what is visible.
        places = [each.item.key for each in operations if each.kind == "delete"]
        partition = keys.thread_partition(key)
        for row in staged:
            places.append((partition, keys.id_sort(generation, keys.digest(row.message_id))))
        present = await self.table.get(list(dict.fromkeys(places)), bodies=False)
        return (await self.table.transact(make(present=present)))[0]

    async def _clean(self, key: ThreadKey, old: Head | None, new: Head, unused: Sequence[StoredRow]) -> bool:
        """Remove what a commit left behind; whether all of it is removed."""
        partition = keys.thread_partition(key)
        if old is None:
            return True
        if old.generation != new.generation:
            return await remove_generation(self.table, partition, old.generation, _EAGER) < _EAGER
        for each in unused:
            sorts = [keys.part_sort(new.generation, each.tag, number) for number in range(each.parts)]
            await self.table.transact([tables.delete(partition, sort) for sort in sorts])
        return new.floor == old.floor


def _next_head(old: Head | None, thread: Thread, rows: Sequence[Row], *, clear: bool, now_us: int) -> Head:
    """The head after a commit; `clear` begins a new generation, unless staged messages are to stay."""
    if old is None:
        return Head(generation=keys.new_generation(now_us), thread=thread)
    low = min([old.low, *(row.position - 1 for row in rows)])
    if not clear:
        return replace(old, thread=thread, low=low)
    if old.thread.staged_position > old.thread.last_position and thread.messages > len(rows):
        floor = old.thread.last_position
        return replace(old, thread=thread, floor=floor, low=max(floor, low))
    return Head(generation=keys.new_generation(now_us, old.generation), thread=thread)
