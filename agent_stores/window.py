"""Reads the part of a thread that a window shows, with as few reads as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

from agent_stores._checks import check_seconds
from agent_stores.backend import MAX_RUN, Row, ThreadKey
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.retention import Window, window_start
from agent_stores.thread_updates import trim_index
from agent_stores.tokens import TokenCounter

Decode = Callable[[Sequence[Row]], list[tuple[Row, ChatMessage]]]
"""Decodes rows as messages."""

_FIRST_PAGE = 64  # rows read at once when a window is limited by tokens or age


async def read_window(
    log: MessageLog,
    key: ThreadKey,
    window: Window,
    *,
    after: int,
    before: int | None,
    decode: Decode,
    count_tokens: TokenCounter,
) -> list[ChatMessage]:
    """The messages of a range that a window shows, pinned ones first.

    One read in the common case. A few more when the window is limited by tokens or age, when its newest
    group is longer than the limit, and for ranges with an end.
    """
    if before is not None:
        before = await _align_end(log, key, after, before)
    if window.max_tokens is None and window.max_age is None:
        rows, _ = await _read_last(log, key, after, before, window.last)
        pinned, messages = _separate_pinned(decode(rows))
        shown = [message for _, message in messages]
    else:
        pinned, shown = await _read_limited(log, key, after, before, window, decode, count_tokens)
    if window.start_on is not None:
        start = next((i for i, message in enumerate(shown) if message.role == window.start_on), 0)
        shown = shown[start:]
    return [*pinned, *shown] if pinned else shown


async def _read_last(
    log: MessageLog, key: ThreadKey, after: int, before: int | None, last: int | None
) -> tuple[list[Row], bool]:
    """The newest `last` rows of a range that are not pinned, from a boundary on, and the pinned ones.

    Returns:
        The rows, and whether the range may have older rows that are not pinned.
    """
    rows = await _read(log, key, after, before, last)
    boundaries = [row.boundary for row in rows if not row.pinned]
    has_older = last is not None and len(boundaries) >= last
    if not boundaries or boundaries[0] or not (has_older or after):
        return rows, has_older
    if last is not None and has_older and not any(boundaries):
        # The newest group is longer than the limit. It is shown whole.
        rows = await _read(log, key, after, before, last + MAX_RUN)
        boundaries = [row.boundary for row in rows if not row.pinned]
    start = 0 if last is None else len(boundaries) - last
    if start > 0:
        index = trim_index(boundaries, start)
    else:
        index = next((n for n, boundary in enumerate(boundaries) if boundary), len(boundaries))
        index = 0 if index == len(boundaries) and not after else index
    dropped = [row.position for row in rows if not row.pinned][:index]
    return [row for row in rows if row.pinned or not dropped or row.position > dropped[-1]], has_older


async def _read_limited(
    log: MessageLog,
    key: ThreadKey,
    after: int,
    before: int | None,
    window: Window,
    decode: Decode,
    count_tokens: TokenCounter,
) -> tuple[list[ChatMessage], list[ChatMessage]]:
    """Pinned and other messages of a window that is limited by tokens or age, which a log does not know."""
    oldest = _oldest(window.max_age)
    page = _FIRST_PAGE if window.last is None else min(window.last, _FIRST_PAGE)
    while True:
        rows, has_older = await _read_last(log, key, after, before, page)
        pinned, others = _separate_pinned(decode(rows))
        messages = [message for _, message in others]
        budget = window.max_tokens
        if budget:  # at least 1: 0 means that nothing is wanted
            budget = max(1, budget - sum(map(count_tokens, pinned)))
        start = window_start(
            [row.boundary for row, _ in others],
            last=window.last,
            tokens=[count_tokens(message) for message in messages],
            max_tokens=budget,
            created=[message.created_at for message in messages],
            oldest=oldest,
        )
        if start > 0 or not has_older or page == window.last:
            return pinned, messages[start:]
        page = max(page * 4, 2 * len(rows))
        page = page if window.last is None else min(window.last, page)


async def _align_end(log: MessageLog, key: ThreadKey, after: int, before: int) -> int:
    """The end of a range, moved back to the start of the group that it would cut."""
    position = before - 1
    while True:  # pinned rows do not belong to a group
        rows = await log.read(key, after=position, limit=16, bodies=False)
        following = next((row for row in rows if not row.pinned), None)
        if following is not None or len(rows) < 16:
            break
        position = rows[-1].position
    if following is None or following.boundary:
        return before
    rows = await log.read(key, after=after, before=before, limit=MAX_RUN, newest=True, bodies=False)
    boundaries = [row.position for row in rows if row.boundary and not row.pinned]
    return boundaries[-1] if boundaries else after + 1


async def _read(
    log: MessageLog, key: ThreadKey, after: int, before: int | None, limit: int | None
) -> list[Row]:
    if after == 0 and before is None:
        return await log.latest(key, limit)
    return await log.read(key, after=after, before=before, limit=limit, newest=True)


def _separate_pinned(
    decoded: list[tuple[Row, ChatMessage]],
) -> tuple[list[ChatMessage], list[tuple[Row, ChatMessage]]]:
    if not any([row.pinned for row, _ in decoded]):
        return [], decoded
    pinned = [message for row, message in decoded if row.pinned]
    return pinned, [item for item in decoded if not item[0].pinned]


def _oldest(max_age: float | timedelta | None) -> datetime | None:
    seconds = check_seconds("max_age", max_age, zero=True)
    if seconds is None:
        return None
    now = datetime.now(timezone.utc)
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:  # earlier than a datetime can be
        return datetime.min.replace(tzinfo=timezone.utc)
