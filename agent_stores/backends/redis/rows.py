"""Rows and metadata as they are stored; docs/redis.md describes them, and the scripts read them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from agent_stores.backend import Row, Thread, ThreadKey, TimeToLive
from agent_stores.backends.redis.keys import quote_name, unquote_name
from agent_stores.errors import StoreError, UnsupportedVersionError

LAYOUT = b"2"
"""The version of the layout. A thread with another one is refused."""

_encode_json = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
THREAD_FIELDS = (
    *("layout", "version", "last_position", "messages", "pinned", "bytes", "tokens", "first_us", "last_us"),
    *("updated_us", "ttl", "ttl_refresh", "ttl_explicit", "requests", "metadata", "revision"),
)
"""The fields of a meta hash that `decode_thread` needs."""


class RedisVersion(bytes):
    """The version of a thread, as the server knows it.

    Attributes:
        expires_us: the `Thread.expires_us` that was loaded with it. A commit that leaves it unchanged leaves
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
    """A row as an entry: ``flags,created,tokens,id``, a line feed, and the body; a script adds its position."""
    flags = "bp" if row.boundary and row.pinned else "b" if row.boundary else "p" if row.pinned else ""
    line = f"{flags},{row.created_us},{row.tokens},{quote_name(row.message_id)}\n"
    return line.encode() + row.body


def encode_placed_row(row: Row) -> bytes:
    """A row that has a position as an entry."""
    return b"%d,%b" % (row.position, encode_row(row))


def decode_row(entry: bytes, *, bodies: bool = True) -> Row:
    """The row of an entry; without `bodies`, the size of the body follows the line instead."""
    line, _, body = entry.partition(b"\n")
    position, flags, created, tokens, name = line.split(b",")
    return Row(
        unquote_name(name),
        body if bodies else b"",
        int(position),
        b"b" in flags,
        b"p" in flags,
        len(body) if bodies else int(body),
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


def is_plain(entry: bytes) -> bool:
    """Whether an entry of the list, its last one, says that the list alone shows what a read needs."""
    comma = entry.index(b",")
    return entry[comma + 1 : comma + 2] == b"e"


def encode_ttl(ttl: TimeToLive | None) -> tuple[str | int, str]:
    """A time-to-live in milliseconds, and what renews it; empty where there is none."""
    return ("", "") if ttl is None else (_milliseconds(ttl.seconds), ttl.refresh)


def encode_thread(thread: Thread) -> list[Any]:
    """The fields and values of a meta hash, in turn; a script adds the version and the times of the server."""
    requests = "".join(f"{quote_name(one)}," for one in thread.recent_request_ids)
    metadata = _encode_json(thread.metadata).decode()
    fields: dict[str, Any] = {
        "last_position": thread.last_position,
        "messages": thread.messages,
        "pinned": thread.pinned,
        "bytes": thread.bytes,
        "tokens": thread.tokens,
        "first_us": _text(thread.first_us),
        "last_us": _text(thread.last_us),
        "ttl": _milliseconds(thread.ttl),
        "ttl_refresh": thread.ttl_refresh,
        "ttl_explicit": "1" if thread.ttl_explicit else "",
        "requests": f",{requests}",
        "request_count": len(thread.recent_request_ids),
        "metadata": metadata,
        "revision": thread.revision,
    }
    return [text for pair in fields.items() for text in pair]


def decode_thread(key: ThreadKey, fields: dict[bytes, bytes], left: int) -> tuple[Thread, RedisVersion]:
    """The thread of a meta hash.

    Args:
        key: its name.
        fields: the hash.
        left: the milliseconds until it expires; -1 for never.

    Raises:
        UnsupportedVersionError: when the layout is another one.
        StoreError: when the hash is damaged.
    """
    if fields.get(b"layout") != LAYOUT:
        raise unsupported_layout(fields.get(b"layout", b"?"))
    try:
        expires_us = None if left < 0 else time.time_ns() // 1000 + left * 1000
        ttl, refresh = fields[b"ttl"], fields[b"ttl_refresh"].decode()
        requests = [unquote_name(name) for name in fields[b"requests"].split(b",") if name]
        thread = Thread(
            last_position=int(fields[b"last_position"]),
            messages=int(fields[b"messages"]),
            pinned=int(fields[b"pinned"]),
            bytes=int(fields[b"bytes"]),
            tokens=int(fields[b"tokens"]),
            first_us=_number(fields.get(b"first_us", b"")),
            last_us=_number(fields.get(b"last_us", b"")),
            updated_us=int(fields[b"updated_us"]),
            ttl=int(ttl) / 1000 if ttl else None,
            ttl_refresh=refresh,  # type: ignore[arg-type]
            ttl_explicit=fields[b"ttl_explicit"] == b"1",
            expires_us=expires_us,
            recent_request_ids=tuple(requests),
            metadata=_decode_object(fields.get(b"metadata", b"{}")),
            revision=int(fields.get(b"revision", 0)),
        )
        return thread, RedisVersion.of(fields[b"version"], expires_us)
    except (KeyError, ValueError) as error:
        raise StoreError(f"thread {key.thread_id!r} is damaged: its meta hash is malformed") from error


def unsupported_layout(layout: bytes) -> UnsupportedVersionError:
    """The error for a thread of another layout."""
    return UnsupportedVersionError(
        f"a thread has version {layout.decode(errors='replace')} of the layout, and this version of "
        f"agent-stores uses {LAYOUT.decode()}; nothing was written"
    )


def _milliseconds(seconds: float | None) -> str | int:
    return "" if seconds is None else max(1, round(seconds * 1000))


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def _number(value: bytes) -> int | None:
    return int(value) if value else None
