"""What an append drops from the front of a thread; known from the head alone, most of the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent_stores.log import ThreadKey
from agent_stores.retention import cut_at
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.heads import Brief, ThreadHead
from agent_stores.stores.azure_tables.rows import META, fits_one_row, message_rows
from agent_stores.stores.planning import Row

FRONT = 16
"""How many of the oldest messages a head knows; when they are gone, more are read."""

_PAGE = 1000


class Trim(NamedTuple):
    """What an append keeps and drops.

    Attributes:
        kept: the new messages to store.
        gone: older messages whose rows are to be removed.
    """

    kept: Sequence[Row]
    gone: Sequence[Brief]


async def trim(
    call: Call, key: ThreadKey, head: ThreadHead, rows: Sequence[Row], max_messages: int | None
) -> Trim:
    """Work out what is dropped, and bring the head up to date; see `retention.cut_at`.

    Args:
        call: the operation.
        key: the thread.
        head: its head, with the new messages counted in.
        rows: the new messages.
        max_messages: how many that are not pinned are kept at most.
    """
    if max_messages is None:
        return Trim(rows, [])
    new = [
        Brief(row.position, row.cut, len(row.record.body), row.record.tokens, "")
        for row in rows
        if not row.record.pinned
    ]
    first_new = rows[0].position
    older = head.messages - head.pinned - len(new)
    front = list(head.front)
    excess = head.excess(max_messages)
    while True:
        is_complete = len(front) >= older
        known = [*front, *new] if is_complete else front
        cuts = [head.is_cut(one.position, one.cut) for one in known]
        if excess <= 0 or is_complete or any(cuts[excess:]):
            break
        at = max(head.front_to, head.base)
        wanted = max(4 * FRONT, excess + FRONT - len(front))
        front += await read_briefs(call, key, head, after=at, count=wanted, before=first_new)
        if head.front_to >= first_new - 1:
            older = len(front)
    keep = cut_at(cuts, excess) if excess > 0 else 0
    gone, left = known[:keep], known[keep:]
    if gone:
        start = left[0].position if left else head.last_position + 1
        for one in gone:
            head.messages -= 1
            head.bytes -= one.bytes
            head.tokens -= one.tokens
        head.forget_calls(before=start)
        head.base = start - 1
        head.closed = [(low, high) for low, high in head.closed if high > head.base]
    dropped = {one.position for one in gone if not one.id_digest}
    _note_front(head, left, rows, is_complete=is_complete)
    return Trim(
        [row for row in rows if row.position not in dropped],
        [one for one in gone if one.id_digest],
    )


async def read_briefs(
    call: Call, key: ThreadKey, head: ThreadHead, *, after: int, count: int, before: int
) -> list[Brief]:
    """Read what trimming needs of the messages behind a position, and note up to where they were read."""
    found: list[Brief] = []
    while len(found) < count and after < before - 1:
        last = min(after + min(_PAGE, max(count, 4 * FRONT)), before - 1)
        page = await call.query_all(
            keys.thread_partition(key),
            keys.message_row(head.offset + last),
            keys.message_row(head.offset + after),
            select=META,
        )
        found += [row.brief() for row in reversed(message_rows(head, page))]
        after = head.front_to = last
        call.progress()
    return found


def _note_front(head: ThreadHead, left: Sequence[Brief], rows: Sequence[Row], *, is_complete: bool) -> None:
    """Note the oldest messages, as far as they are known."""
    records = {row.position: row.record for row in rows}
    front: list[Brief] = []
    for one in left:
        if len(front) == FRONT:
            break
        record = records.get(one.position)
        if record is not None:
            if not fits_one_row(record):
                break  # how many rows it takes is not known yet
            one = Brief(one.position, one.cut, one.bytes, one.tokens, keys.digest(record.message_id))
        front.append(one)
    if len(front) < len(left):
        head.front_to = front[-1].position if front else head.base
    elif is_complete:
        head.front_to = head.last_position
    head.front = front
    head.front_to = max(head.front_to, head.base)
