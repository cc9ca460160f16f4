"""Rows and threads as they are stored; docs/redis.md describes them, and the scripts read them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agent_stores.backend import Row, Thread, ThreadKey, TimeToLive
from agent_stores.backends.redis.keys import quote_name, unquote_name
from agent_stores.errors import StoreError, UnsupportedVersionError

LAYOUT = b"2"
"""The version of the layout. A thread with another one is rejected."""

FIELDS = ("state", "requests", "metadata", "revision")
"""The fields of a meta hash that `decode_thread` needs."""


class RedisVersion(bytes):
    """The version of a thread, as the server knows it.

    Attributes:
        expires_us: the `Thread.expires_us` that was loaded with it: a commit that leaves it unchanged leaves
            the server's time of expiry unchanged.
    """

    expires_us: int | None

    @classmethod
    def of(cls, number: bytes, expires_us: int | None) -> RedisVersion:
        """A version with a time of expiry, which does not count for its equality."""
        version = cls(number)
        version.expires_us = expires_us
        return version


def encode_row(row: Row) -> bytes:
    """A row as an entry, ``flags,created,tokens,id``, a line feed and the body; without its position."""
    flags = f"{'b' if row.boundary else ''}{'p' if row.pinned else ''}"
    return f"{flags},{row.created_us},{row.tokens},{quote_name(row.message_id)}\n".encode() + row.body


def decode_row(entry: bytes, *, bodies: bool = True) -> Row:
    """The row of an entry; without `bodies`, the size of the body follows the line instead."""
    line, _, body = entry.partition(b"\n")
    position, flags, created, tokens, name = line.split(b",")
    size = len(body) if bodies else int(body)
    is_pinned = b"p" in flags
    return Row(
        unquote_name(name),
        body if bodies else b"",
        int(position),
        b"b" in flags,
        is_pinned,
        size,
        int(tokens),
        int(created),
    )


def decode_latest(entries: Sequence[bytes]) -> list[Row]:
    """The rows of entries, with what a view of the thread needs."""
    rows = []
    for entry in entries:
        end = entry.index(b"\n")
        position, flags, _ = entry[:end].split(b",", 2)
        rows.append(Row("", entry[end + 1 :], int(position), b"b" in flags, b"p" in flags))
    return rows


def encode_ttl(ttl: TimeToLive | None) -> tuple[str | int, str]:
    """A time-to-live in milliseconds, and what renews it; empty where there is none."""
    return ("", "") if ttl is None else (_milliseconds(ttl.seconds), ttl.refresh)


def encode_thread(thread: Thread) -> tuple[dict[str, Any], list[Any]]:
    """A thread's state as the scripts name it, and the other fields and values of its meta hash in turn."""
    requests = "".join(f"{quote_name(request)}," for request in thread.recent_request_ids)
    state = {
        "last": thread.last_position,
        "messages": thread.messages,
        "pinned": thread.pinned,
        "bytes": thread.bytes,
        "tokens": thread.tokens,
        "updated_us": thread.updated_us,
        "request_count": len(thread.recent_request_ids),
        "first_us": "" if thread.first_us is None else str(thread.first_us),
        "last_us": "" if thread.last_us is None else str(thread.last_us),
        "ttl": str(_milliseconds(thread.ttl)),
        "refresh": thread.ttl_refresh,
        "explicit": "1" if thread.ttl_explicit else "",
    }
    metadata = json.dumps(thread.metadata)
    return state, ["requests", f",{requests}", "metadata", metadata, "revision", thread.revision]


def decode_thread(key: ThreadKey, fields: Mapping[str, bytes], left: int) -> tuple[Thread, RedisVersion]:
    """The thread of a meta hash that expires in `left` milliseconds; -1 for never.

    Raises:
        UnsupportedVersionError: when the layout is another one.
        StoreError: when the hash is damaged.
    """
    state = fields["state"].split(b",")
    if state[0] != LAYOUT:
        raise unsupported_layout(state[0])
    try:
        numbers = [int(number) if number else None for number in state[1:12]]
        _, last, messages, pinned, size, tokens, _, updated_us, first_us, last_us, ttl = numbers
        refresh, explicit = state[12].decode(), state[13]
        expires_us = None if left < 0 else time.time_ns() // 1000 + left * 1000
        counts: dict[str, Any] = {
            **{
                "last_position": last,
                "messages": messages,
                "pinned": pinned,
                "bytes": size,
                "tokens": tokens,
            },
            **{"first_us": first_us, "last_us": last_us, "updated_us": updated_us, "ttl_refresh": refresh},
        }
        thread = Thread(
            **counts,
            ttl=None if ttl is None else ttl / 1000,
            ttl_explicit=bool(explicit),
            expires_us=expires_us,
            recent_request_ids=tuple(unquote_name(name) for name in fields["requests"].split(b",") if name),
            metadata=json.loads(fields.get("metadata", b"{}")),
            revision=int(fields.get("revision", 0)),
        )
    except (LookupError, ValueError) as error:
        raise StoreError(f"thread {key.thread_id!r} is damaged: its meta hash is malformed") from error
    return thread, RedisVersion.of(state[1], expires_us)


def unsupported_layout(layout: bytes) -> UnsupportedVersionError:
    """The error for a thread of another layout."""
    return UnsupportedVersionError(
        f"a thread has version {layout.decode(errors='replace')} of the layout, and this version of "
        f"agent-stores uses {LAYOUT.decode()}; nothing was written"
    )


def _milliseconds(seconds: float | None) -> str | int:
    return "" if seconds is None else max(1, round(seconds * 1000))
