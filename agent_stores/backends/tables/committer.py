"""Commits: changes of a thread and its messages under its version, for the log's general path."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from agent_stores.backend import Row, Thread, ThreadKey, Version, VersionConflict
from agent_stores.backends.tables import keys, records
from agent_stores.backends.tables.cache import Known, ThreadCache
from agent_stores.backends.tables.index import GRACE_US, Index, Visit
from agent_stores.backends.tables.reader import Reader
from agent_stores.backends.tables.records import Head, StoredHead, StoredRow
from agent_stores.backends.tables.sweeper import TableSweeper
from agent_stores.backends.tables.table import (
    NEW,
    ConditionFailed,
    Item,
    ItemKey,
    Operation,
    Table,
    delete,
    put,
)
from agent_stores.errors import StoreError

_EAGER = 2000  # rows that a commit removes itself after it cleared or deleted a thread


class Committer:
    """Commits to threads of a table.

    Args:
        table: the table.
        cache: what the process knows of threads.
        reader: reads threads.
        index: the table's index.
        sweeper: removes what commits leave behind.
        now_us: the time.
    """

    def __init__(
        self,
        table: Table,
        cache: ThreadCache,
        reader: Reader,
        index: Index,
        sweeper: TableSweeper,
        now_us: Callable[[], int],
    ) -> None:
        self._table = table
        self._cache = cache
        self._reader = reader
        self._index = index
        self._sweeper = sweeper
        self._now_us = now_us

    async def commit(
        self,
        key: ThreadKey,
        thread: Thread,
        *,
        expected: Version | None,
        puts: Sequence[Row],
        deletes: Sequence[Row],
        clear: bool,
    ) -> Version:
        """See `Backend.commit`."""
        stored = await self._expected(key, expected)
        now_us = self._now_us()
        old = None if stored is None else stored.head
        new = _next_head(old, thread, puts, clear=clear, now_us=now_us)
        is_same = old is not None and old.generation == new.generation
        if not is_same:
            deletes = ()
        if thread.staged_position > thread.last_position and not (old and old.thread.staged_position):
            await self._index.schedule(key, new.generation, now_us + GRACE_US)
        tags, visits = await self._write_parts(key, new, puts, now_us)
        replaced = await self._replaced(key, old, puts, deletes) if old is not None and is_same else []
        unused = [each for each in replaced if each.tag]
        if old is not None and (not is_same or new.floor > old.floor or unused):
            visits.append(await self._index.schedule(key, old.generation, now_us))
        new = await self._index.announce(key, old, new, now_us)
        version = await self._transact(key, stored, new, puts, deletes, tags, replaced)
        self._cache.put(key, Known(StoredHead(new, version)))
        with contextlib.suppress(StoreError, ConditionFailed):  # it is committed; a sweep removes the rest
            await self._index.after_write(key, old, new)
            if await self._clean(key, old, StoredHead(new, version), unused):
                for visit in visits:
                    await self._index.unschedule(visit)
        return version

    async def delete(self, key: ThreadKey, *, expected: Version | None) -> None:
        """Delete a thread; see `Backend.commit`."""
        stored = await self._expected(key, expected)
        if stored is None:
            return
        head = stored.head
        listed = await self._index.listed_item(key)
        visit = await self._index.schedule(key, head.generation, self._now_us())
        partition = keys.thread_partition(key)
        try:
            await self._table.transact([delete(partition, keys.HEAD, stored.version)])
        except ConditionFailed:
            raise VersionConflict from None
        finally:
            self._cache.drop(key)
        with contextlib.suppress(StoreError):  # the thread is deleted; a sweep removes the rest
            await self._index.remove_thread(key, head, listed)
            if await self._sweeper.remove_generation(partition, head.generation, _EAGER) < _EAGER:
                await self._index.unschedule(visit)

    async def _expected(self, key: ThreadKey, expected: Version | None) -> StoredHead | None:
        if expected is None:
            return None
        known = self._cache.get(key)
        if known is not None and known.stored.version == expected:
            return known.stored
        stored = await self._reader.head(key)
        if stored is None or stored.version != expected:
            raise VersionConflict
        return stored

    async def _write_parts(
        self, key: ThreadKey, new: Head, puts: Sequence[Row], now_us: int
    ) -> tuple[dict[int, tuple[str, int]], list[Visit]]:
        """Write the parts of large bodies, which no message names yet; returns their tags by position."""
        size = self._table.limits.item_bytes
        large = [row for row in puts if len(row.body) > size]
        if not large:
            return {}, []
        visit = await self._index.schedule(key, new.generation, now_us + GRACE_US)
        partition, tags = keys.thread_partition(key), {}
        room = max(1, self._table.limits.transaction_bytes // size)
        for row in large:
            tag = records.new_tag()
            parts = records.part_items(partition, new.generation, tag, row.body, size, now_us)
            for start in range(0, len(parts), room):
                await self._table.transact([put(item) for item in parts[start : start + room]])
            tags[row.position] = (tag, len(parts))
        return tags, [visit]

    async def _replaced(
        self, key: ThreadKey, old: Head, puts: Sequence[Row], deletes: Sequence[Row]
    ) -> list[StoredRow]:
        """What is stored at positions that are put again, and of large messages that are deleted."""
        positions = [row.position for row in puts if row.position <= old.thread.last_position]
        positions += [row.position for row in deletes if row.bytes > self._table.limits.item_bytes]
        return await self._reader.at_places(key, old, positions) if positions else []

    async def _transact(
        self,
        key: ThreadKey,
        stored: StoredHead | None,
        new: Head,
        puts: Sequence[Row],
        deletes: Sequence[Row],
        tags: Mapping[int, tuple[str, int]],
        replaced: Sequence[StoredRow],
    ) -> str:
        partition = keys.thread_partition(key)
        head = put(records.head_item(partition, new), NEW if stored is None else stored.version)
        rows = _row_operations(partition, new, puts, tags, replaced)
        try:
            if any(row.position > new.thread.last_position for row in deletes):
                raise ConditionFailed(1)
            operations = [
                head,
                *rows,
                *_id_puts(partition, new, puts),
                *_deletes(partition, new, puts, deletes),
            ]
            return (await self._table.transact(operations))[0]
        except ConditionFailed as error:
            if error.index == 0:
                raise self._conflict(key) from None
        except StoreError:
            self._cache.drop(key)
            raise
        # An id of a staged message exists already, or staged messages are deleted: keep what is visible.
        doomed = _deletes(partition, new, puts, deletes)
        staged_ids = [
            keys.id_sort(new.generation, keys.digest(row.message_id))
            for row in (*puts, *deletes)
            if row.position > new.thread.last_position
        ]
        places = dict.fromkeys(
            [*(one.item.key for one in doomed), *((partition, sort) for sort in staged_ids)]
        )
        present = await self._table.get(list(places), bodies=False)
        rest = [_without_staged(one, new, present) for one in doomed if one.item.key in present]
        operations = [head, *rows, *_id_puts(partition, new, puts, present), *rest]
        try:
            return (await self._table.transact(operations))[0]
        except ConditionFailed:
            raise self._conflict(key) from None
        finally:
            self._cache.drop(key)

    async def _clean(
        self, key: ThreadKey, old: Head | None, stored: StoredHead, unused: Sequence[StoredRow]
    ) -> bool:
        """Remove what a commit left behind; whether all of it is removed."""
        partition, new = keys.thread_partition(key), stored.head
        if old is None:
            return True
        if old.generation != new.generation:
            return await self._sweeper.remove_generation(partition, old.generation, _EAGER) < _EAGER
        for each in unused:
            sorts = [keys.part_sort(new.generation, each.tag, number) for number in range(each.parts)]
            await self._table.transact([delete(partition, sort) for sort in sorts])
        return new.floor == old.floor

    def _conflict(self, key: ThreadKey) -> VersionConflict:
        self._cache.drop(key)
        return VersionConflict()


def _next_head(old: Head | None, thread: Thread, puts: Sequence[Row], *, clear: bool, now_us: int) -> Head:
    """The head after a commit; `clear` begins a new generation, unless staged messages are to stay."""
    if old is None:
        return Head(generation=keys.new_generation(now_us), thread=thread)
    low = min([old.low, *(row.position - 1 for row in puts)])
    if not clear:
        return replace(old, thread=thread, low=low)
    if old.thread.staged_position > old.thread.last_position and thread.messages > len(puts):
        floor = old.thread.last_position
        return replace(old, thread=thread, floor=floor, low=max(floor, low))
    return Head(generation=keys.new_generation(now_us, old.generation), thread=thread)


def _row_operations(
    partition: str,
    new: Head,
    puts: Sequence[Row],
    tags: Mapping[int, tuple[str, int]],
    replaced: Sequence[StoredRow],
) -> list[Operation]:
    """What writes the messages, and removes those that are no longer pinned, or now are."""
    operations = [
        put(records.message_item(partition, new.generation, row, *tags.get(row.position, ()))) for row in puts
    ]
    pinned = {row.position: row.pinned for row in puts}
    for each in replaced:
        position = each.row.position
        if position in pinned and pinned[position] != each.row.pinned:
            sort = keys.message_sort(new.generation, position, pinned=each.row.pinned)
            operations.append(delete(partition, sort))
    return operations


def _id_puts(
    partition: str, new: Head, puts: Sequence[Row], present: Mapping[ItemKey, Item] | None = None
) -> list[Operation]:
    """What writes the ids. Those of staged messages must be new, unless it is known what is there."""
    operations = []
    for row in puts:
        item = records.id_item(partition, new.generation, row)
        if row.position <= new.thread.last_position:
            operations.append(put(item))
        elif present is None:
            operations.append(put(item, NEW))
        else:
            older = _visible_places(present.get(item.key), new)
            operations.append(put(item._replace(meta=",".join(filter(None, (item.meta, older))))))
    return operations


def _deletes(partition: str, new: Head, puts: Sequence[Row], deletes: Sequence[Row]) -> list[Operation]:
    """What removes messages and their ids, those aside that are put again."""
    kept = {row.message_id for row in puts}
    operations = []
    for row in deletes:
        operations.append(
            delete(partition, keys.message_sort(new.generation, row.position, pinned=row.pinned))
        )
        if row.message_id and row.message_id not in kept:
            sort = keys.id_sort(new.generation, keys.digest(row.message_id))
            operations.append(delete(partition, sort))
    return operations


def _without_staged(operation: Operation, new: Head, present: Mapping[ItemKey, Item]) -> Operation:
    """A deletion; of an id that names a visible message, too, it keeps that."""
    item = present[operation.item.key]
    positions = [position for position, _ in records.read_places(item)]
    if not item.sort.startswith("u") or not any(map(new.is_visible, positions)) or len(positions) == 1:
        return operation
    return put(item._replace(meta=_visible_places(item, new)))


def _visible_places(item: Item | None, new: Head) -> str:
    """The visible positions that an id's item names."""
    places = [] if item is None else records.read_places(item)
    return records.write_places([place for place in places if new.is_visible(place[0])])
