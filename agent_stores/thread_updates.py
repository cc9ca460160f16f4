"""How a thread's metadata changes: counters, time-to-live, request ids, and where a trim cuts.

Pure functions over `Thread`, for the log's fallback (`Operations.append`) and for backends that append by
themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from agent_stores import _json
from agent_stores._encrypted import MARKER, check_keys, is_marked
from agent_stores.backend import MAX_RUN, RECENT_REQUESTS, Row, Thread, TimeToLive
from agent_stores.errors import ArgumentError, ConflictError
from agent_stores.lineage import PREFIX, own_metadata

METADATA_BYTES = 65_536
"""The largest metadata of a thread, in bytes of its JSON."""


def trim_index(boundaries: Sequence[bool], start: int) -> int:
    """Where a trim or a window cuts a sequence of rows that are not pinned.

    The cut is at the first boundary at or after `start`, so that at most the limit is kept. When there is
    none, it is at the newest boundary before `start`, so that the newest group stays whole; but a run of more
    than `MAX_RUN` rows without a boundary is cut at `start`. ``backends/sql/append.py`` and
    ``backends/redis/lua/trim.lua`` have the same rule for their servers: change all three.

    Args:
        boundaries: for each row, in order, whether a cut may fall directly before it.
        start: the index of the first row to keep.

    Returns:
        The index of the first row that is kept; ``len(boundaries)`` keeps none.
    """
    count = len(boundaries)
    if start <= 0:
        return 0
    if start >= count:
        return count
    for index in range(start, count):
        if boundaries[index]:
            return index
    for index in range(start - 1, max(-1, start - 1 - MAX_RUN), -1):
        if boundaries[index]:
            return index
    return start


def with_rows(thread: Thread, rows: Iterable[Row], sign: int = 1) -> Thread:
    """The thread with rows counted in, or out with ``sign=-1``."""
    messages = pinned = size = tokens = 0
    for row in rows:
        messages += 1
        pinned += row.pinned
        size += row.bytes
        tokens += row.tokens
    return replace(
        thread,
        messages=thread.messages + sign * messages,
        pinned=thread.pinned + sign * pinned,
        bytes=thread.bytes + sign * size,
        tokens=thread.tokens + sign * tokens,
    )


def with_request(thread: Thread, request_id: str) -> Thread:
    """The thread with one more recent request id."""
    recent = (*thread.recent_request_ids[1 - RECENT_REQUESTS :], request_id)
    return replace(thread, recent_request_ids=recent)


def with_metadata(thread: Thread, changes: Mapping[str, Any]) -> Thread:
    """The thread with values merged into its metadata by key; None deletes a key.

    Raises:
        ArgumentError: when the metadata would be larger than `METADATA_BYTES`, a value has the form of an
            encrypted one, or a key that of a fork's ancestors.
        EncryptionKeyError: when the metadata is encrypted with a key that the log does not have.
    """
    check_keys(thread.metadata)
    for key, value in changes.items():
        if key.startswith(PREFIX):
            raise ArgumentError(
                f"metadata must not have a key that begins with {PREFIX!r}, got {key[:100]!r}"
            )
        if is_marked(value):
            raise ArgumentError(
                f"metadata {key!r} must not have the key {MARKER!r}, which marks encrypted values"
            )
    merged = {key: value for key, value in {**thread.metadata, **changes}.items() if value is not None}
    document = _json.encode(merged)
    if document == _json.encode(thread.metadata):
        return thread
    size = len(_json.encode(own_metadata(merged)))
    if size > METADATA_BYTES:
        raise ArgumentError(f"metadata must be at most {METADATA_BYTES} bytes as JSON, got {size}")
    return replace(thread, metadata=merged, revision=thread.revision + 1)


def with_ttl(thread: Thread, ttl: TimeToLive | None, now_us: int) -> Thread:
    """The thread with the time-to-live of an append: a new one is set, but never over an explicit one.

    Args:
        thread: the thread.
        ttl: the time-to-live; None leaves the thread's own.
        now_us: from when a new one counts, in microseconds.
    """
    if ttl is None or thread.ttl_explicit or (thread.ttl, thread.ttl_refresh) == (ttl.seconds, ttl.refresh):
        return thread
    return replace(
        thread, ttl=ttl.seconds, ttl_refresh=ttl.refresh, expires_us=expiry_after(ttl.seconds, now_us)
    )


def touch(thread: Thread, now_us: int) -> Thread:
    """The thread after a write: the time of the write, and the time-to-live renewed where writes renew it."""
    expires_us = thread.expires_us if thread.ttl_refresh == "never" else expiry_after(thread.ttl, now_us)
    return replace(thread, updated_us=now_us, expires_us=expires_us)


def expiry_after(ttl: float | None, now_us: int) -> int | None:
    """When a time-to-live in seconds ends that counts from now, in microseconds; None for never."""
    return None if ttl is None else now_us + round(ttl * 1_000_000)


def check_position(thread: Thread, expected_position: int | None) -> None:
    """Check that no other client wrote to a thread since a position.

    Raises:
        ConflictError: when one did.
    """
    if expected_position is not None and expected_position != thread.last_position:
        raise position_conflict(expected_position, thread.last_position)


def position_conflict(expected: int | None, actual: int) -> ConflictError:
    """The error for a thread that another client wrote to."""
    return ConflictError(
        f"expected_position is {expected}, but the thread's last position is {actual}: "
        "another client wrote to it; nothing was written",
        expected=expected,
        actual=actual,
    )
