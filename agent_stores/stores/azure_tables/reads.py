"""Reading a thread: its head and its newest messages come with one query, as they are stored side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent_stores.errors import StoreUnavailableError
from agent_stores.log import Entry, Slice, ThreadKey, ThreadStats
from agent_stores.retention import cut_at
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.commits import live, load, take
from agent_stores.stores.azure_tables.heads import Stored, ThreadHead
from agent_stores.stores.azure_tables.ids import find, follow, held
from agent_stores.stores.azure_tables.rows import (
    MessageRow,
    body_of,
    loose,
    message_rows,
    to_entry,
)
from agent_stores.stores.planning import head_stats

_PAGE = 1000  # rows in an answer at most
_SPAN = 64  # positions to read at least where there are gaps
_ATTEMPTS = 8  # of a read of several pages, while messages are taken out in between


class Part:
    """Rows of a thread as they were read.

    Attributes:
        head: the thread's head.
        rows: the messages, in the order of their positions.
        further: rows that hold what did not fit into a message's own, by key.
    """

    def __init__(self, head: ThreadHead, entities: list[Any]) -> None:
        self.head = head
        self.rows = sorted(message_rows(head, entities), key=_position)
        self.further = {
            entity["RowKey"]: entity for entity in entities if keys.is_continuation(entity["RowKey"])
        }

    def entries(self, rows: list[MessageRow]) -> list[Entry]:
        """Messages as readers get them."""
        return [to_entry(self.head, row, body_of(row, self.further)) for row in rows]

    def is_whole(self, row: MessageRow) -> bool:
        """Whether all rows of a message were read."""
        return all(key in self.further for key in row.row_keys[1:])


async def read(
    call: Call,
    key: ThreadKey,
    *,
    after: int,
    before: int | None,
    last: int | None,
    first: int | None,
    now_us: int,
) -> tuple[Slice, Stored | None]:
    """See `MessageLog.read`; also returns the head as it was read."""
    for _ in range(_ATTEMPTS):
        if before is None and first is None:
            found = await _read_newest(call, key, after=after, last=last, now_us=now_us)
        else:
            found = await _read_range(
                call, key, after=after, before=before, last=last, first=first, now_us=now_us
            )
        if found is not None:
            return found
        call.progress()
    raise StoreUnavailableError(
        f"the thread {key.thread_id!r} is too busy to be read as of one moment; nothing was written"
    )


async def get(call: Call, key: ThreadKey, id_digest: str, *, now_us: int) -> Entry | None:
    """See `MessageLog.get`."""
    stored: Any
    found: Any
    stored, found = await call.gather([lambda: live(call, key, now_us), lambda: follow(call, key, id_digest)])
    if stored is None:
        return None
    row = held(stored.head, found, id_digest)
    if row is None and stored.head.unsettled:
        row = await find(call, key, stored.head, id_digest)
        entity = None if row is None else await call.get(keys.thread_partition(key), row.key)
        row = held(stored.head, entity, id_digest)
    if row is None:
        return None
    part = Part(stored.head, [row.entity, *await _further(call, key, row)])
    return part.entries(part.rows)[0]


async def stats(call: Call, key: ThreadKey, *, now_us: int) -> ThreadStats | None:
    """See `MessageLog.stats`."""
    stored = await live(call, key, now_us)
    return None if stored is None else head_stats(key, stored.head)


async def read_all(
    call: Call, key: ThreadKey, now_us: int, *, select: tuple[str, ...] | None = None
) -> tuple[Stored, Part] | None:
    """A whole thread as of one moment; None when there is none.

    Args:
        call: the operation.
        key: the thread.
        now_us: the time.
        select: the properties of messages to bring; all by default.
    """
    partition = keys.thread_partition(key)
    for _ in range(_ATTEMPTS):
        stored = await live(call, key, now_us)
        if stored is None:
            return None
        entities = await call.query_all(partition, keys.PINNED, keys.AFTER_MESSAGES, select=select)
        if await _is_unchanged(call, key, stored):
            return stored, Part(stored.head, entities)
        call.progress()
    raise StoreUnavailableError(
        f"the thread {key.thread_id!r} is too busy to be read as of one moment; nothing was written"
    )


async def _read_newest(
    call: Call, key: ThreadKey, *, after: int, last: int | None, now_us: int
) -> tuple[Slice, Stored | None] | None:
    """The newest messages, and the head before them; None when the thread changed between two pages."""
    partition = keys.thread_partition(key)
    known = call.server.heads.get(key)
    top = None if last is None else 2 + last + (1 if known is None else known.head.pinned)
    page = await call.query(partition, keys.HEAD, keys.AFTER_MESSAGES, top=top)
    first = page.rows[0] if page.rows and page.rows[0]["RowKey"] == keys.HEAD else None
    stored = take(call, key, first)
    if stored is None or not stored.head.is_live(now_us):
        return Slice([]), stored
    head = stored.head
    entities, pages = page.rows[1:], 1
    while True:
        part = Part(head, entities)
        oldest = None if page.more is None else _oldest(entities)
        rows = [row for row in part.rows if row.position > after]
        loose_rows = loose(rows)
        if oldest is not None and loose_rows and not part.is_whole(loose_rows[0]):
            # The last row that came may be one of a message whose others are still to come.
            loose_rows = loose_rows[1:]
        is_end = oldest is None or oldest - head.offset <= max(after, head.base)
        start = _window_start(head, loose_rows, last, is_end=is_end)
        if start is not None:
            break
        call.progress()
        page = await call.query(partition, keys.HEAD, keys.AFTER_MESSAGES, more=page.more, top=top)
        entities, pages = entities + page.rows, pages + 1
    if pages > 1 and not await _is_unchanged(call, key, stored):
        return None
    shown = sorted([*(row for row in rows if row.pinned), *loose_rows[start:]], key=_position)
    return Slice(part.entries(shown), start > 0 or not is_end), stored


def _window_start(head: ThreadHead, rows: list[MessageRow], last: int | None, *, is_end: bool) -> int | None:
    """The first of the newest rows to show; None when older ones must be read to know.

    Args:
        head: the thread's head.
        rows: the newest messages that are not pinned, as many as were read.
        last: how many are wanted at most.
        is_end: whether there are no older ones.
    """
    if last is None:
        return 0 if is_end else None
    cuts = [head.is_cut(row.position, row.cut) for row in rows]
    excess = len(rows) - last
    if is_end:
        return cut_at(cuts, excess)
    if excess <= 0:
        return None  # one more than wanted shows that there are more
    if last == 0:
        return len(rows)
    found = cut_at(cuts, excess)
    return found if found and cuts[found] else None


async def _read_range(
    call: Call,
    key: ThreadKey,
    *,
    after: int,
    before: int | None,
    last: int | None,
    first: int | None,
    now_us: int,
) -> tuple[Slice, Stored | None] | None:
    """A range of positions; None when messages were taken out meanwhile."""
    stored = await load(call, key)
    if stored is None or not stored.head.is_live(now_us):
        return Slice([]), stored
    head = stored.head
    end = head.last_position + 1 if before is None else min(before, head.last_position + 1)
    pins = []
    if head.pinned:
        pins = await call.query_all(keys.thread_partition(key), keys.PINNED, keys.MESSAGE)
    begin = max(after, head.base)
    # A limit says how far to read, from one side or the other; gaps may make it further.
    wanted = None if first is None and last is None else (first if last is None else last + 1)
    entities: list[Any] = []
    part = Part(head, pins)
    least = 1
    low, high = begin, end  # what is still to be read: the positions between the two
    while high - low > 1 and not _is_enough(part, first=first, last=last):
        span = high - low - 1
        if wanted is not None:
            missing = wanted - len(loose(part.rows))
            span = min(span, max(missing, least))
            least = min(max(4 * least, _SPAN), _PAGE)
        at = (low, low + span + 1) if first is not None else (high - span - 1, high)
        entities += await _read_between(call, key, head, *at)
        low, high = (at[1] - 1, high) if first is not None else (low, at[0] + 1)
        part = Part(head, pins + entities)
        call.progress()
    rows = [row for row in part.rows if after < row.position < end]
    edge = await _edge(call, key, head, end, pins) if before is not None else True
    covered = (begin + 1, low) if first is not None else (high, end - 1)
    held = sum(covered[0] <= row.position <= covered[1] for row in rows)
    if held <= covered[1] - covered[0] and not await _is_unchanged(call, key, stored):
        return None
    if first is not None:
        return Slice(part.entries(rows[:first]), False, edge), stored
    loose_rows = loose(rows)
    is_end = high - low <= 1
    start = (
        0
        if last is None
        else cut_at([head.is_cut(row.position, row.cut) for row in loose_rows], len(loose_rows) - last)
    )
    shown = sorted([*(row for row in rows if row.pinned), *loose_rows[start:]], key=_position)
    return Slice(part.entries(shown), last is not None and (start > 0 or not is_end), edge), stored


def _is_enough(part: Part, *, first: int | None, last: int | None) -> bool:
    """Whether no more messages need be read."""
    rows = loose(part.rows)
    if first is not None:
        return len(rows) >= first
    return last is not None and _window_start(part.head, rows, last, is_end=False) is not None


async def _read_between(call: Call, key: ThreadKey, head: ThreadHead, low: int, high: int) -> list[Any]:
    """The rows of the messages between two positions that are not pinned."""
    return await call.query_all(
        keys.thread_partition(key),
        keys.message_row(head.offset + high - 1),
        keys.message_row(head.offset + low),
    )


async def _edge(call: Call, key: ThreadKey, head: ThreadHead, end: int, pins: list[Any]) -> bool:
    """Whether a cut may fall before the first message from a position on."""
    low, span = max(end - 1, head.base), 1
    rows = [row for row in message_rows(head, pins) if row.position >= end]
    while low < head.last_position:
        high = min(low + span, head.last_position) + 1
        rows += message_rows(head, await _read_between(call, key, head, low, high))
        nearest = min(rows, key=_position, default=None)
        if nearest is not None and nearest.position < high:
            return head.is_cut(nearest.position, nearest.cut)
        low, span = high - 1, min(span * 8, _PAGE)
    nearest = min(rows, key=_position, default=None)
    return nearest is None or head.is_cut(nearest.position, nearest.cut)


async def _further(call: Call, key: ThreadKey, row: MessageRow) -> list[Any]:
    if not row.parts:
        return []
    return await call.query_all(keys.thread_partition(key), f"{row.key}.", f"{row.key}/")


async def _is_unchanged(call: Call, key: ThreadKey, before: Stored) -> bool:
    """Whether no message was taken out or replaced since the head was read."""
    now = await load(call, key)
    return (
        now is not None
        and (now.head.offset, now.head.edits, now.head.base)
        == (before.head.offset, before.head.edits, before.head.base)
        and now.head.deleted == before.head.deleted
    )


def _oldest(entities: list[Any]) -> int | None:
    """The number of the oldest message of which a row was read that is not pinned."""
    if not entities or entities[-1]["RowKey"][0] != keys.MESSAGE:
        return 2**62  # only pinned ones so far
    return keys.message_number(entities[-1]["RowKey"])


_position: Callable[[MessageRow], int] = lambda row: row.position  # noqa: E731
