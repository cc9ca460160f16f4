"""Changing what a thread holds: replacing, deleting, taking the newest, clearing, and its time-to-live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent_stores.log import Entry, Record, ThreadKey, TimeToLive
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.cleaning import sweep
from agent_stores.stores.azure_tables.commits import change, write, write_parts
from agent_stores.stores.azure_tables.failures import ChangedError
from agent_stores.stores.azure_tables.heads import Stored, ThreadHead, add_range, head_entity, new_token
from agent_stores.stores.azure_tables.ids import find
from agent_stores.stores.azure_tables.reads import Part
from agent_stores.stores.azure_tables.rows import (
    META,
    MessageRow,
    loose,
    message_entities,
    message_rows,
    unique_entity,
    with_cut,
    with_short_links,
)
from agent_stores.stores.azure_tables.timers import announce
from agent_stores.stores.azure_tables.transactions import Operation, delete, pack
from agent_stores.stores.planning import recut

Clock = Callable[[], int]
"""The time in microseconds since 1970."""

_FEW = 4  # messages that are looked for one by one
_PER_PAGE = 400  # messages that are read to find one of them, at most


async def replace(call: Call, key: ThreadKey, record: Record, *, clock: Clock) -> bool:
    """See `MessageLog.replace`."""
    record = with_short_links(record)
    id_digest = keys.digest(record.message_id)
    partition = keys.thread_partition(key)

    async def attempt(stored: Stored | None) -> bool:
        now = clock()
        if stored is None or not stored.head.is_live(now):
            return False
        found = await _find_rows(call, key, stored, [id_digest])
        if not found:
            return False
        old, head = found[0], stored.head.copy()
        _count(head, old, -1)
        head.add(record)
        _edited(head)
        cut = old.cut
        marks: list[Operation] = []
        if old.links != ((), ()) or record.calls or record.results:
            cut, marks = await _recut(call, key, stored, head, replaced=(old, record))
        if old.pinned and not record.pinned and old.position <= head.base:
            # It takes its place in front of what was trimmed, of which nothing may be left then.
            if head.dirty:
                await sweep(call, key)
                raise ChangedError
            head.base = old.position - 1
        head.written(now)
        number = head.offset + old.position
        entities = message_entities(partition, number, record, cut=cut, id_digest=id_digest, tag=new_token())
        new_key = entities[0]["RowKey"]
        final = [Operation("upsert", entities[0])]
        final += delete(partition, [row for row in old.row_keys if row != new_key])
        if new_key != old.key:
            final.append(Operation("upsert", unique_entity(partition, id_digest, new_key)))
        parts = [Operation("upsert", entity) for entity in entities[1:]]
        await announce(call, key, head, now, is_new=False)
        await _write_with_marks(call, key, stored, head, parts, final, marks)
        return True

    return await change(call, key, attempt)


async def delete_messages(call: Call, key: ThreadKey, message_ids: Sequence[str], *, clock: Clock) -> int:
    """See `MessageLog.delete`."""
    digests = list(dict.fromkeys(map(keys.digest, message_ids)))

    async def attempt(stored: Stored | None) -> tuple[int, bool]:
        now = clock()
        if stored is None or not stored.head.is_live(now):
            return 0, False
        rows = await _find_rows(call, key, stored, digests)
        if not rows:
            return 0, False
        return len(rows), await _take_out(call, key, stored, rows, now)

    count, is_dirty = await change(call, key, attempt)
    if is_dirty:
        await sweep(call, key)
    return count


async def pop_last(call: Call, key: ThreadKey, *, clock: Clock) -> Entry | None:
    """See `MessageLog.pop_last`."""
    partition = keys.thread_partition(key)

    async def attempt(stored: Stored | None) -> tuple[Entry | None, bool]:
        now = clock()
        if stored is None or not stored.head.is_live(now):
            return None, False
        head = stored.head
        if head.messages <= head.pinned:
            return None, False
        entities: list[Any] = []
        page = await call.query(
            partition, keys.message_row(head.offset + head.last_position), keys.AFTER_MESSAGES, top=4
        )
        while True:
            entities += page.rows
            part = Part(head, entities)
            newest = loose(part.rows)[-1:]
            if page.more is None or (newest and part.is_whole(newest[0])):
                break
            page = await call.query(
                partition,
                keys.message_row(head.offset + head.last_position),
                keys.AFTER_MESSAGES,
                more=page.more,
            )
        if not newest:
            return None, False
        entry = part.entries(newest)[0]
        return entry, await _take_out(call, key, stored, newest, now)

    entry, is_dirty = await change(call, key, attempt)
    if is_dirty:
        await sweep(call, key)
    return entry


async def clear(call: Call, key: ThreadKey, *, clock: Clock) -> int:
    """See `MessageLog.clear`."""

    async def attempt(stored: Stored | None) -> int:
        now = clock()
        if stored is None or not stored.head.is_live(now) or not stored.head.messages:
            return 0
        head = stored.head.copy()
        head.messages = head.pinned = head.bytes = head.tokens = 0
        head.open_calls, head.closed, head.dead, head.unsettled = {}, [], [], []
        head.base = head.pins_base = head.group = head.last_position
        head.dirty = True
        head.forget_batches()
        _edited(head)
        head.written(now)
        await announce(call, key, head, now, is_new=False)
        await write(call, key, stored, head, [])
        return stored.head.messages

    count = await change(call, key, attempt)
    if count:
        await sweep(call, key)
    return count


async def set_ttl(call: Call, key: ThreadKey, ttl: TimeToLive, *, clock: Clock) -> bool:
    """See `MessageLog.set_ttl`."""

    async def attempt(stored: Stored | None) -> bool:
        now = clock()
        if stored is None or not stored.head.is_live(now):
            return False
        head = stored.head.copy()
        head.set_ttl(ttl, now, by_hand=True)
        await announce(call, key, head, now, is_new=False)
        await write(call, key, stored, head, [])
        return True

    return await change(call, key, attempt)


async def renew(call: Call, key: ThreadKey, *, clock: Clock) -> None:
    """Count the time-to-live from now, where reads renew it."""

    async def attempt(stored: Stored | None) -> None:
        now = clock()
        if stored is None or not stored.head.is_live(now) or stored.head.ttl_refresh != "read":
            return
        head = stored.head.copy()
        head.renew(now)
        await announce(call, key, head, now, is_new=False)
        await write(call, key, stored, head, [])

    await change(call, key, attempt, known=True)


async def _take_out(call: Call, key: ThreadKey, stored: Stored, rows: Sequence[MessageRow], now: int) -> bool:
    """Take messages out of a thread; whether rows are left to be removed."""
    partition = keys.thread_partition(key)
    head = stored.head.copy()
    for row in rows:
        _count(head, row, -1)
    head.forget_batches()
    _edited(head)
    marks: list[Operation] = []
    if any(row.links != ((), ()) for row in rows):
        _, marks = await _recut(call, key, stored, head, gone=rows)
    head.written(now)
    await announce(call, key, head, now, is_new=False)
    gone = [row_key for row in rows for row_key in (*row.row_keys, keys.unique_row(row.id_digest))]
    final = delete(partition, gone)
    if len(pack([*final, *marks], Operation("create", head_entity(key, head)))) > 1:
        final, head.dirty = [], True
        for row in rows:
            head.dead = add_range(head.dead, row.position, row.position)
    await _write_with_marks(call, key, stored, head, [], final, marks)
    return head.dirty


async def _write_with_marks(
    call: Call,
    key: ThreadKey,
    stored: Stored,
    head: ThreadHead,
    parts: Sequence[Operation],
    final: Sequence[Operation],
    marks: Sequence[Operation],
) -> None:
    """Write a head with what goes with it, and other marks for cuts."""
    staged = stored.head.copy()
    staged.dirty = True
    if len(pack([*final, *marks], Operation("create", head_entity(key, head)))) == 1:
        await write_parts(call, key, stored, head, parts, staged=staged, final=[*final, *marks])
        return
    # Too many marks for one transaction: none of these places takes a cut until all are written.
    closed, head.closed = head.closed, [(head.base + 1, head.last_position)]
    stored = await write_parts(call, key, stored, head, parts, staged=staged, final=final)
    now = stored.head.copy()
    now.closed = closed
    await write_parts(call, key, stored, now, marks, staged=stored.head)


async def _find_rows(call: Call, key: ThreadKey, stored: Stored, digests: Sequence[str]) -> list[MessageRow]:
    """The rows of the messages with these ids that the thread holds."""
    head = stored.head
    if len(digests) > _FEW and head.messages <= _PER_PAGE * len(digests):
        rows = await call.query_all(keys.thread_partition(key), keys.PINNED, keys.AFTER_MESSAGES, select=META)
        wanted = set(digests)
        return [row for row in message_rows(head, rows) if row.id_digest in wanted]

    def finder(id_digest: str) -> Callable[[], Awaitable[MessageRow | None]]:
        return lambda: find(call, key, head, id_digest)

    found = await call.gather([finder(id_digest) for id_digest in digests])
    return [row for row in found if row is not None]


async def _recut(
    call: Call,
    key: ThreadKey,
    stored: Stored,
    head: ThreadHead,
    *,
    gone: Sequence[MessageRow] = (),
    replaced: tuple[MessageRow, Record] | None = None,
) -> tuple[bool, list[Operation]]:
    """Work out anew where cuts may fall, after calls or results were taken out or replaced.

    Returns:
        Whether a cut may fall before the message that is replaced, and what to write to other rows.
    """
    entities = await call.query_all(keys.thread_partition(key), keys.PINNED, keys.AFTER_MESSAGES, select=META)
    out = {row.position for row in gone}
    rows = sorted(
        (row for row in message_rows(stored.head, entities) if row.position not in out),
        key=lambda row: row.position,
    )
    at = replaced[0].position if replaced else 0
    links = [
        (row.position, replaced[1].calls, replaced[1].results)
        if replaced and row.position == at
        else (row.position, *row.links)
        for row in rows
    ]
    cuts, head.open_calls = recut(links)
    head.closed = []
    head.group = max((position for position, cut in cuts.items() if cut), default=head.base)
    changed = [row for row in rows if row.cut != cuts[row.position] and row.position != at]
    return cuts.get(at, True), await _marks(call, key, changed, cuts)


async def _marks(
    call: Call, key: ThreadKey, rows: Sequence[MessageRow], cuts: dict[int, bool]
) -> list[Operation]:
    """The operations that write other marks for cuts to messages' rows."""
    partition = keys.thread_partition(key)

    def reader(row: MessageRow) -> Callable[[], Awaitable[Any]]:
        return lambda: call.get(partition, row.key)

    entities = await call.gather([reader(row) for row in rows])
    return [
        Operation("upsert", with_cut(row._replace(entity=entity), cuts[row.position]))
        for row, entity in zip(rows, entities, strict=True)
        if entity is not None
    ]


def _count(head: ThreadHead, row: MessageRow, sign: int) -> None:
    head.messages += sign
    head.pinned += sign * row.pinned
    head.bytes += sign * row.bytes
    head.tokens += sign * row.tokens


def _edited(head: ThreadHead) -> None:
    """What was known of the oldest messages may no longer be so."""
    head.edits += 1
    head.front, head.front_to = [], head.base
