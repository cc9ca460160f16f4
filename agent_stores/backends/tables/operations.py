"""The transaction of a write: the head, messages, and their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent_stores.backend import Row, ThreadKey
from agent_stores.backends.tables import keys, records
from agent_stores.backends.tables.records import Head, StoredHead, StoredRow
from agent_stores.backends.tables.table import NEW, Item, ItemKey, Operation, delete, put


def write_operations(
    key: ThreadKey,
    stored: StoredHead | None,
    new: Head,
    puts: Sequence[Row],
    deletes: Sequence[Row],
    *,
    tags: Mapping[int, tuple[str, int]] | None = None,
    replaced: Sequence[StoredRow] = (),
    are_new: bool = False,
    present: Mapping[ItemKey, Item] | None = None,
) -> list[Operation]:
    """The operations of a write; the first is that of the head.

    Args:
        key: the thread.
        stored: its head before.
        new: its head after.
        puts: messages to write.
        deletes: messages to remove.
        tags: of large bodies, by position: what names the parts, and how many they are.
        replaced: what is stored at positions of `puts`.
        are_new: whether the ids must not exist.
        present: what is stored at the ids of staged messages and at all keys to be deleted, once a condition
            has failed. An id of a staged message may be that of a visible one, too, which it then keeps.
    """
    partition, generation = keys.thread_partition(key), new.generation
    operations = [put(records.head_item(partition, new), NEW if stored is None else stored.version)]
    pinned = {}
    for row in puts:
        pinned[row.position] = row.pinned
        tag, parts = (tags or {}).get(row.position, ("", 0))
        operations.append(put(records.message_item(partition, generation, row, tag, parts)))
        item = records.id_item(partition, generation, row)
        is_staged = row.position > new.thread.last_position
        if is_staged and present is not None and item.key in present:
            older = _visible(present[item.key], new)
            item = item._replace(meta=f"{item.meta},{older}" if older else item.meta)
        operations.append(put(item, NEW if are_new or (is_staged and present is None) else None))
    doomed: list[tuple[Row, bool]] = [(row, True) for row in deletes]
    doomed += [
        (each.row, False)
        for each in replaced
        if pinned.get(each.row.position, each.row.pinned) is not each.row.pinned
    ]
    kept = {row.message_id for row in puts}
    for row, has_id in doomed:
        sorts = [keys.message_sort(generation, row.position, pinned=row.pinned)]
        if has_id and row.message_id and row.message_id not in kept:
            sorts.append(keys.id_sort(generation, keys.digest(row.message_id)))
        for sort in sorts:
            if present is None:
                operations.append(delete(partition, sort))
            elif (partition, sort) in present:
                item = present[partition, sort]
                others = _visible(item, new, but=row.position)
                operations.append(put(item._replace(meta=others)) if others else delete(partition, sort))
    return operations


def _visible(item: Item, new: Head, but: int = 0) -> str:
    """The visible positions that an id's item names, except one."""
    places = records.read_places(item) if item.sort[0] == "u" else []
    return records.write_places([one for one in places if new.is_visible(one[0]) and one[0] != but])
