"""What an append does to a thread, worked out without reading it: shared by the backends.

A thread has a head: counters, the calls that wait for a result, and the last few batches. From the head and
the new records alone follows where each record goes, and where cuts are no longer allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

import msgspec

from agent_stores.errors import ConflictError, MessageTooLargeError
from agent_stores.log import Record, ThreadKey, ThreadStats, TimeToLive, TtlRefresh
from agent_stores.retention import follow_links, group_cuts

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

RECENT_BATCHES = 16
"""How many batches a thread remembers, to know a retry when the messages themselves are trimmed already."""

MAX_OPEN_CALLS = 256
"""How many calls without a result a thread remembers; older ones no longer hold their results."""


class Head(msgspec.Struct):
    """What is known of a thread without its records; `_us` are microseconds since 1970 UTC.

    Attributes:
        last_position: the newest position that was ever given.
        messages: records held.
        pinned: how many of them are pinned.
        bytes: size of their bodies.
        tokens: their tokens.
        first_us: when the first record ever added was made.
        last_us: when the last record added was made.
        open_calls: positions of the calls without a result, by id.
        recent: ids of the last batches, oldest first.
        ttl: time-to-live in seconds, or None.
        ttl_refresh: what renews it.
        ttl_set: whether `set_ttl` set it, so that appends leave it as it is.
        expires_us: when the thread expires, or None.
    """

    last_position: int = 0
    messages: int = 0
    pinned: int = 0
    bytes: int = 0
    tokens: int = 0
    first_us: int | None = None
    last_us: int | None = None
    open_calls: dict[str, int] = msgspec.field(default_factory=dict)
    recent: list[str] = msgspec.field(default_factory=list)
    ttl: float | None = None
    ttl_refresh: TtlRefresh = "write"
    ttl_set: bool = False
    expires_us: int | None = None

    def is_expired(self, now_us: int) -> bool:
        """Whether the thread's time is over."""
        return self.expires_us is not None and self.expires_us <= now_us

    def renew(self, now_us: int) -> None:
        """Count the time-to-live from now."""
        self.expires_us = None if self.ttl is None else now_us + round(self.ttl * 1_000_000)

    def set_ttl(self, ttl: TimeToLive, now_us: int, *, by_hand: bool) -> None:
        """Take over a time-to-live, set by hand or by an append."""
        if self.ttl_set and not by_hand:
            return
        is_new = (self.ttl, self.ttl_refresh) != (ttl.seconds, ttl.refresh)
        self.ttl, self.ttl_refresh = ttl.seconds, ttl.refresh
        self.ttl_set = by_hand
        if by_hand or is_new:
            self.renew(now_us)

    def written(self, now_us: int) -> None:
        """Renew the time-to-live after a write, where writes renew it."""
        if self.ttl_refresh != "never":
            self.renew(now_us)

    def add(self, record: Record, sign: int = 1) -> None:
        """Count a record in, or out with ``sign=-1``."""
        self.messages += sign
        self.pinned += sign * record.pinned
        self.bytes += sign * len(record.body)
        self.tokens += sign * record.tokens

    def excess(self, max_messages: int | None) -> int:
        """How many records that are not pinned are over a limit; 0 or less for none."""
        return 0 if max_messages is None else self.messages - self.pinned - max_messages

    def forget_calls(self, before: int) -> None:
        """Forget calls of records that were trimmed."""
        self.open_calls = {call: at for call, at in self.open_calls.items() if at >= before}

    def forget_batches(self) -> None:
        """After records were taken out by hand, adding them again is no retry."""
        self.recent = []


def fork_head(head: Head, at: int | None) -> Head:
    """The head of a copy of a thread up to a position; its records are still to be counted."""
    return Head(
        last_position=head.last_position if at is None else min(at, head.last_position),
        first_us=head.first_us,
        last_us=head.last_us,
        ttl=head.ttl,
        ttl_refresh=head.ttl_refresh,
        ttl_set=head.ttl_set,
        expires_us=head.expires_us,
    )


def head_stats(key: ThreadKey, head: Head) -> ThreadStats:
    """A head as callers are shown it."""
    return ThreadStats(
        tenant=key.tenant,
        thread_id=key.thread_id,
        messages=head.messages,
        bytes=head.bytes,
        tokens=head.tokens,
        last_position=head.last_position,
        first_at=from_microseconds(head.first_us),
        last_at=from_microseconds(head.last_us),
        expires_at=from_microseconds(head.expires_us),
    )


def from_microseconds(value: int | None) -> datetime | None:
    """A time as a datetime in UTC."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def to_microseconds(value: datetime) -> int:
    """A time with a time zone in microseconds since 1970 UTC, exactly."""
    return (value - _EPOCH) // timedelta(microseconds=1)


class Row(NamedTuple):
    """A record and its place."""

    position: int
    cut: bool
    record: Record


class Plan(NamedTuple):
    """What an append does.

    Attributes:
        rows: the records to insert; empty when there is nothing to do.
        closed: ranges of positions, first and last, of rows stored before where no cut may fall any more.
    """

    rows: list[Row]
    closed: list[tuple[int, int]]


def plan_append(
    head: Head,
    records: Sequence[Record],
    *,
    batch_id: str,
    present: Collection[str],
    expected_position: int | None,
) -> Plan:
    """Work out an append, and bring the head up to date.

    Args:
        head: the thread's head; updated.
        records: what is to be added.
        batch_id: the id of the call.
        present: which of the records' ids are in the thread already.
        expected_position: see `MessageLog.append`.

    Raises:
        ConflictError: when the position does not hold and there is something to add.
    """
    seen = set(present)
    fresh = []
    for record in records if batch_id not in head.recent else ():
        if record.message_id not in seen:
            seen.add(record.message_id)
            fresh.append(record)
    if not fresh:
        return Plan([], [])
    check_position(head, expected_position)
    first_new = head.last_position + 1
    cuts: list[bool] = []
    closed: list[tuple[int, int]] = []
    for offset, record in enumerate(fresh):
        position = first_new + offset
        cuts.append(True)
        start = None
        if record.calls or record.results:
            start = follow_links(head.open_calls, position, record.calls, record.results)
        if start is not None:
            kept = max(0, start + 1 - first_new)
            cuts[kept:] = [False] * (len(cuts) - kept)
            if start + 1 < first_new:
                closed.append((start + 1, first_new - 1))
        head.add(record)
    if len(head.open_calls) > MAX_OPEN_CALLS:  # those of the newest message are never forgotten
        newest = max(head.open_calls.values())
        older = sorted((at, call) for call, at in head.open_calls.items() if at != newest)
        for _, call in older[: len(head.open_calls) - MAX_OPEN_CALLS]:
            del head.open_calls[call]
    if head.first_us is None:
        head.first_us = fresh[0].created_us
    head.last_us = fresh[-1].created_us
    head.last_position += len(fresh)
    head.recent = [*head.recent[1 - RECENT_BATCHES :], batch_id]
    rows = [Row(first_new + n, cuts[n], record) for n, record in enumerate(fresh)]
    return Plan(rows, closed)


def plan_rewrite(
    head: Head, records: Sequence[Record], *, batch_id: str, expected_position: int | None
) -> Plan | None:
    """Work out the replacement of all of a thread's records, and bring the head up to date.

    Returns:
        Its rows are to take the place of all that the thread holds; None when there is nothing to do.

    Raises:
        ConflictError: when the position does not hold.
    """
    if batch_id in head.recent:
        return None
    check_position(head, expected_position)
    head.messages = head.pinned = head.bytes = head.tokens = 0
    head.open_calls = {}
    head.recent = [] if records else [batch_id]
    return plan_append(head, records, batch_id=batch_id, present=(), expected_position=None)


def check_position(head: Head, expected_position: int | None) -> None:
    """Check that nobody wrote to a thread since a position.

    Raises:
        ConflictError: when somebody did.
    """
    if expected_position is not None and expected_position != head.last_position:
        raise position_conflict(expected_position, head.last_position)


def position_conflict(expected: int | None, actual: int) -> ConflictError:
    """The error for a thread that somebody else wrote to."""
    return ConflictError(
        f"expected_position is {expected}, but the thread's last position is {actual}: "
        "somebody else wrote to it; nothing was added",
        expected=expected,
        actual=actual,
    )


def recut(
    links: Iterable[tuple[int, Sequence[str], Sequence[str]]],
) -> tuple[dict[int, bool], dict[str, int]]:
    """Where cuts may fall after records were taken out or replaced.

    Args:
        links: position, calls and results of the thread's records, in order.

    Returns:
        For each position whether a cut may fall before it, and the positions of the calls without a result.
    """
    rows = list(links)
    cuts, open_calls = group_cuts((calls, results) for _, calls, results in rows)
    return (
        {position: cut for (position, _, _), cut in zip(rows, cuts, strict=True)},
        {call: rows[index][0] for call, index in open_calls.items()},
    )


def check_sizes(records: Sequence[Record], limit: int | None) -> None:
    """Refuse records whose body is larger than a log can hold, in bytes.

    Raises:
        MessageTooLargeError: before anything is written.
    """
    for record in records:
        if limit is not None and len(record.body) > limit:
            raise MessageTooLargeError(
                f"the message {record.message_id!r} is {len(record.body)} bytes long as JSON; this store "
                f"holds up to {limit} bytes; nothing was written",
                size=len(record.body),
                limit=limit,
            )
