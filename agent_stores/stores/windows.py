"""Reading the part of a thread that a window shows, with as little reading as it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

from agent_stores.log import Entry, MessageLog, Slice, ThreadKey
from agent_stores.messages import ChatMessage
from agent_stores.notes import is_note
from agent_stores.retention import Window, check_seconds, window_start
from agent_stores.tokens import TokenCounter

Decode = Callable[[Sequence[Entry]], list[tuple[Entry, ChatMessage]]]
"""Reads entries as messages."""

_FIRST_PAGE = 64  # messages read at once when a window is limited by tokens or age


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
    """The messages that a window shows of a range of positions, pinned ones in front.

    One read, or a few growing ones where the window is limited by tokens or age, which the log does not know.
    """
    oldest = _oldest(window.max_age)
    if window.max_tokens is None and oldest is None:
        part, _ = await _read_to_cut(log, key, after=after, before=before, last=window.last)
        if after == 0 and part.ends_at_cut and not any([entry.pinned for entry in part.entries]):
            return [message for _, message in decode(part.entries)]  # as it is, which is the rule
        pinned, _, messages = _split(part, decode)
        return [*pinned, *messages]
    page = _FIRST_PAGE if window.last is None else min(window.last, _FIRST_PAGE)
    while True:
        part, before = await _read_to_cut(log, key, after=after, before=before, last=page)
        pinned, entries, messages = _split(part, decode)
        budget = window.max_tokens
        if budget:  # at least 1, since 0 alone means that nothing is wanted
            budget = max(1, budget - sum(map(count_tokens, pinned)))
        start = window_start(
            [entry.cut for entry in entries],
            last=window.last,
            tokens=[count_tokens(message) for message in messages],
            max_tokens=budget,
            created=[message.created_at for message in messages],
            oldest=oldest,
        )
        if start > 0 or not part.has_older or page == window.last:
            return [*pinned, *messages[start:]]
        page = max(page * 4, 2 * len(part.entries))
        page = page if window.last is None else min(window.last, page)


async def _read_to_cut(
    log: MessageLog, key: ThreadKey, *, after: int, before: int | None, last: int | None
) -> tuple[Slice, int | None]:
    """Read a range; one that ends inside a group is read again up to where the group begins.

    Returns:
        What was read, and the end of the range that it is.
    """
    part = await log.read(key, after=after, before=before, last=last)
    if part.ends_at_cut:
        return part, before
    # The group's first message is among the newest ones, of which at least one is needed to see it.
    newest = part if last != 0 else await log.read(key, after=after, before=before, last=1)
    loose = [entry for entry in newest.entries if not entry.pinned]
    before = next((entry.position for entry in reversed(loose) if entry.cut), after + 1)
    return await log.read(key, after=after, before=before, last=last), before


def _split(part: Slice, decode: Decode) -> tuple[list[ChatMessage], list[Entry], list[ChatMessage]]:
    """The pinned messages, and the others with their entries, without a group that the range cuts.

    Notes, which are pinned, are in no window.
    """
    decoded = decode(part.entries)
    pinned = [message for entry, message in decoded if entry.pinned and not is_note(message)]
    others = [(entry, message) for entry, message in decoded if not entry.pinned]
    if not part.ends_at_cut:  # a result came between two reads
        while others and not others.pop()[0].cut:
            pass
    begin = next((index for index, (entry, _) in enumerate(others) if entry.cut), len(others))
    others = others[begin:]  # the range may begin inside a group
    return pinned, [entry for entry, _ in others], [message for _, message in others]


def _oldest(max_age: float | timedelta | None) -> datetime | None:
    seconds = check_seconds("max_age", max_age, zero=True)
    if seconds is None:
        return None
    now = datetime.now(timezone.utc)
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:  # longer ago than a datetime can say
        return datetime.min.replace(tzinfo=timezone.utc)
