"""Names of keys, and threads and rows in them; docs/redis.md describes them, and the scripts read them.

Names are readable for ordinary ids, and unambiguous for all. The keys of a thread and of its shard have the
same hash tag, ``{tenant.shard}``, so that a Cluster keeps them in one slot. The digest of a thread's id gives
its shard.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import msgspec

from agent_stores.backend import Row, Thread, ThreadKey
from agent_stores.errors import StoreError, UnsupportedVersionError

LAYOUT = "3"
"""The version of the layout. A thread with another one is rejected."""

SHARDS = 64
"""The number of shards, and so of slots, that a tenant's threads are spread over."""

UTF8 = ("utf-8", "surrogatepass")
"""Encodes any text, unpaired surrogates included, as bytes that sort as its code points do."""

_LONGEST = 160  # characters of a name in a key; a longer name is replaced by its digest
_PLAIN = re.compile(r"[A-Za-z0-9_.:@+-]+")


class Keys(NamedTuple):
    """The keys of a thread, in the order in which scripts take them, and its id in the sets of its shard."""

    meta: bytes
    messages: bytes
    pinned: bytes
    by_id: bytes
    by_time: bytes
    by_expiry: bytes
    thread_id: bytes


def quote_name(text: str) -> str:
    """A text percent-encoded, but for letters, digits and ``_.:@+-``; `unquote_name` gives it back."""
    return text if _PLAIN.fullmatch(text) else quote(text.encode(*UTF8), safe=":@+").replace("~", "%7E")


def unquote_name(name: bytes) -> str:
    """The text of `quote_name`."""
    return unquote_to_bytes(name).decode(*UTF8)


def key_name(text: str) -> str:
    """A text as part of a key; different for each text, but not always reversible."""
    if 0 < len(name := quote_name(text)) <= _LONGEST:
        return name
    return f"~{hashlib.blake2b(text.encode(*UTF8), digest_size=20).hexdigest()}"


@lru_cache(maxsize=4096)
def thread_keys(prefix: str, key: ThreadKey) -> Keys:
    """The keys of a thread."""
    thread_id = key.thread_id.encode(*UTF8)
    shard = shard_keys(prefix, key.tenant, hashlib.blake2b(thread_id, digest_size=1).digest()[0] % SHARDS)
    stem, name = shard[0].removesuffix(b"index"), key_name(key.thread_id).encode()
    own = [stem + kind + b":" + name for kind in (b"meta", b"messages", b"pinned")]
    return Keys._make([*own, *shard, thread_id])


def shard_keys(prefix: str, tenant: str | None, shard: int) -> tuple[bytes, bytes, bytes]:
    """The keys of a shard: its thread ids by id, by time, and by expiry."""
    tag = f"{'' if tenant is None else key_name(tenant)}.{shard:02d}"
    stem = prefix.encode(*UTF8) + b":{" + tag.encode() + b"}:"
    return stem + b"index", stem + b"recent", stem + b"expiry"


def index_pattern(prefix: str) -> str:
    """The pattern of the keys that hold the thread ids of a shard, for SCAN."""
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", prefix) + ":{*}:index"


def tenants_of(keys: Iterable[bytes]) -> list[str | None]:
    """The tenants of keys that `index_pattern` found, by name; None, for none, comes first.

    A name that is too long for a key is not known, as the key holds its digest.
    """
    names = {key.rpartition(b".")[0].rpartition(b"{")[2] for key in keys}
    return sorted(
        [unquote_name(name) or None for name in names if name[:1] != b"~"], key=lambda name: name or ""
    )


# What a state holds after the layout and the version; what a client sets ends before `expires`.
_STATE = (
    *("last_position", "messages", "pinned", "bytes", "tokens", "requests", "first_us", "last_us", "ttl"),
    *("ttl_refresh", "ttl_explicit", "expires", "listed_until"),
)
_BOUNDARY = [bool(flags & 1) for flags in range(256)]

FIELDS = ("state", "requests", "metadata", "revision")
"""The fields of a meta hash that `decode_thread` needs."""


class RedisVersion(bytes):
    """The version of a thread, as the server knows it.

    Attributes:
        expires_us: the `Thread.expires_us` that was loaded with it: a commit that leaves it unchanged leaves
            the server's time of expiry unchanged. It does not count for equality.
    """

    expires_us: int | None

    def __new__(cls, number: bytes, expires_us: int | None) -> RedisVersion:
        """A version with the time of expiry."""
        version = super().__new__(cls, number)
        version.expires_us = expires_us
        return version


def encode_row(row: Row) -> bytes:
    """A row as an entry, ``,created,tokens,#id``, a line feed and the body; without flags and position."""
    return b",%d,%d,%b\n%b" % (row.created_us, row.tokens, quote_id(row.message_id), row.body)


def quote_id(message_id: str) -> bytes:
    """A message id as a field of the meta hash."""
    return b"#" + quote_name(message_id).encode()


def flags_of(row: Row) -> int:
    """A row's flags: 1 where a trim may cut before it, and 2 for a pinned one."""
    return row.boundary + 2 * row.pinned


def decode_row(entry: bytes, *, bodies: bool = True) -> Row:
    """The row of an entry; without `bodies`, the size of the body follows the line instead."""
    line, _, body = entry.partition(b"\n")
    position, created, tokens, name = line.split(b",")
    size, body = (len(body), body) if bodies else (int(body), b"")
    flags, message_id = entry[0], unquote_name(name[1:])
    is_boundary, is_pinned = bool(flags & 1), bool(flags & 2)
    return Row(message_id, body, int(position[1:]), is_boundary, is_pinned, size, int(tokens), int(created))


def decode_latest(entries: Sequence[bytes], *, ids: bool = False) -> list[Row]:
    """The rows of entries of a list, with what a view of the thread needs, and their ids if asked for."""
    if not entries:
        return []
    first, last = _position(entries[0]), _position(entries[-1])
    # Positions only increase. Without gaps between them, the ends say them all.
    is_dense = last - first == len(entries) - 1
    positions = range(first, last + 1) if is_dense else map(_position, entries)
    names = map(_message_id, entries) if ids else repeat("")
    return [
        Row(name, entry[entry.index(10) + 1 :], position, _BOUNDARY[entry[0]], False)
        for position, entry, name in zip(positions, entries, names, strict=False)
    ]


def _message_id(entry: bytes) -> str:
    name = entry[entry.index(35) + 1 : entry.index(10)]
    return unquote_name(name) if 37 in name else name.decode()


def _position(entry: bytes) -> int:
    return int(entry[1 : entry.index(44)])


def encode_thread(thread: Thread) -> tuple[list[str], list[Any]]:
    """A thread's state as far as a client sets it; the other fields and values of its meta hash in turn."""
    values = {name: getattr(thread, name, None) for name in _STATE[:-2]}
    values |= {"requests": len(thread.recent_request_ids), "ttl": milliseconds(thread.ttl)}
    values["ttl_explicit"] = "1" if thread.ttl_explicit else ""
    requests = ",".join(["", *map(quote_name, thread.recent_request_ids), ""])
    fields = {"requests": requests, "metadata": json.dumps(thread.metadata), "revision": thread.revision}
    return ["" if value is None else str(value) for value in values.values()], [*sum(fields.items(), ())]


def decode_thread(key: ThreadKey, values: Sequence[bytes | None], left: int) -> tuple[Thread, RedisVersion]:
    """The thread of the values of `FIELDS`, which expires in `left` milliseconds; -1 for never.

    Raises:
        UnsupportedVersionError: when the layout is another one.
        StoreError: when the hash is damaged.
    """
    line, requests, metadata, revision = (value or b"" for value in values)
    layout, *state = line.decode(errors="replace").split(",")
    if layout != LAYOUT:
        raise unsupported_layout(layout)
    expires_us = None if left < 0 else time.time_ns() // 1000 + left * 1000
    try:
        # Numbers are texts, and there is nothing for None.
        found: dict[str, Any] = {name: text for name, text in zip(_STATE, state[1:], strict=True) if text}
        found |= {
            "updated_us": state[0].partition(".")[0],
            "ttl": float(found["ttl"]) / 1000 if "ttl" in found else None,
            "expires_us": expires_us,
            "recent_request_ids": [unquote_name(name) for name in requests.split(b",") if name],
            "metadata": json.loads(metadata or b"{}"),
            "revision": revision.decode() or 0,
        }
        thread = msgspec.convert(found, Thread, strict=False)
    except (LookupError, ValueError, msgspec.MsgspecError) as error:
        raise StoreError(f"thread {key.thread_id!r} is damaged: its meta hash is malformed") from error
    return thread, RedisVersion(state[0].encode(), expires_us)


def unsupported_layout(layout: str) -> UnsupportedVersionError:
    """The error for a thread of another layout."""
    return UnsupportedVersionError(
        f"a thread has version {layout} of the layout, and this version of agent-stores uses {LAYOUT}; "
        "nothing was written"
    )


def milliseconds(seconds: float | None) -> str | int:
    """A time-to-live in milliseconds; empty where there is none."""
    return "" if seconds is None else max(1, round(seconds * 1000))
