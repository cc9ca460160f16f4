"""Names of keys, threads and rows in them, and the Lua scripts that read and write them; see docs/redis.md.

Names are readable for ordinary ids, and unambiguous for all. The keys of a thread and of its shard have the
same hash tag, ``{tenant.shard}``, so that a Cluster keeps them in one slot. The digest of a thread's id gives
its shard.
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import msgspec

from agent_stores.backend import Row, Thread, ThreadKey
from agent_stores.errors import StoreError, UnsupportedVersionError

LAYOUT = "4"
"""The version of the layout. A thread with another one is rejected."""

SHARDS = 64
"""The number of shards, and so of slots, that a tenant's threads are spread over."""

UTF8 = ("utf-8", "surrogatepass")
"""Encodes any text, unpaired surrogates included, as bytes that sort as its code points do."""

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
    """A text percent-encoded, but for letters, digits and ``_.:@+-~``; `unquote_name` gives it back."""
    return text if _PLAIN.fullmatch(text) else quote(text.encode(*UTF8), safe=":@+") or "%"


def unquote_name(name: bytes) -> str:
    """The text of `quote_name`."""
    return unquote_to_bytes(name.rstrip(b"%")).decode(*UTF8) if b"%" in name else name.decode()


@lru_cache(maxsize=4096)
def thread_keys(prefix: str, key: ThreadKey) -> Keys:
    """The keys of a thread."""
    thread_id, name = key.thread_id.encode(*UTF8), quote_name(key.thread_id)
    shard = hashlib.blake2b(thread_id, digest_size=1).digest()[0] % SHARDS
    kinds = (f"meta:{name}", f"messages:{name}", f"pinned:{name}", "index", "recent", "expiry")
    return Keys._make([*(shard_key(prefix, key.tenant, shard, kind) for kind in kinds), thread_id])


def shard_key(prefix: str, tenant: str | None, shard: int, kind: str) -> bytes:
    """A key of a shard: ``index``, ``recent`` or ``expiry``, which hold its thread ids, or a thread's."""
    name = "" if tenant is None else quote_name(tenant)
    return f"{prefix}:{{{name}.{shard:02d}}}:{kind}".encode(*UTF8)


def index_pattern(prefix: str) -> str:
    """The pattern of the keys that hold the thread ids of a shard, for SCAN."""
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", prefix) + ":{*}:index"


def tenants_of(keys: Iterable[bytes]) -> list[str | None]:
    """The tenants of keys that `index_pattern` found, None for none."""
    names = {key.rpartition(b".")[0].rpartition(b"{")[2] for key in keys}
    return [unquote_name(name) if name else None for name in names]


# What a state holds after the layout, in order: named as in `Thread` where that has it.
_STATE = (
    *("version", "last_position", "messages", "pinned", "bytes", "tokens", "requests", "first_us", "last_us"),
    *("ttl", "ttl_refresh", "ttl_explicit", "revision", "expires", "listed_until"),
)
_BOUNDARY = [bool(flags & 1) for flags in range(256)]

FIELDS = ("state", "requests", "metadata")
"""The fields of a meta hash that `decode_thread` needs."""


@dataclass(frozen=True)
class RedisVersion:
    """The version of a thread.

    Attributes:
        number: as the server knows it.
        expires_us: the `Thread.expires_us` that was loaded with it: a commit that leaves it unchanged leaves
            the server's time of expiry unchanged.
    """

    number: bytes
    expires_us: int | None = field(compare=False)


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
    # Positions only increase. Without gaps between them, the ends say them all, in two thirds of the time.
    is_dense = last - first == len(entries) - 1
    positions = range(first, last + 1) if is_dense else map(_position, entries)
    names = map(_message_id, entries) if ids else repeat("")
    return [
        Row(name, entry[entry.index(10) + 1 :], position, _BOUNDARY[entry[0]])
        for position, entry, name in zip(positions, entries, names, strict=False)
    ]


def _message_id(entry: bytes) -> str:
    return unquote_name(entry[entry.index(35) + 1 : entry.index(10)])


def _position(entry: bytes) -> int:
    return int(entry[1 : entry.index(44)])


def encode_thread(thread: Thread) -> tuple[list[str], list[str]]:
    """A thread's state as far as a client sets it; the other fields and values of its meta hash in turn."""
    values = msgspec.structs.asdict(thread) | {"requests": len(thread.recent_request_ids)}
    state = ["" if values[name] is None else str(values[name]) for name in _STATE[1:-2]]
    requests = ",".join(["", *map(quote_name, thread.recent_request_ids), ""])
    return state, ["requests", requests, "metadata", json.dumps(thread.metadata)]


def decode_thread(key: ThreadKey, values: Sequence[bytes | None], left: int) -> tuple[Thread, RedisVersion]:
    """The thread of the values of `FIELDS`, which expires in `left` milliseconds; -1 for never.

    Raises:
        UnsupportedVersionError: when the layout is another one.
        StoreError: when the hash is damaged.
    """
    line, requests, metadata = (value or b"" for value in values)
    layout, *state = line.decode(errors="replace").split(",")
    if layout != LAYOUT:
        raise unsupported_layout(layout)
    expires_us = None if left < 0 else time.time_ns() // 1000 + left * 1000
    try:
        # Numbers are texts, and there is nothing for None.
        found: dict[str, Any] = {name: text for name, text in zip(_STATE, state, strict=True) if text}
        found |= {
            "updated_us": found["version"].partition(".")[0],
            "expires_us": expires_us,
            "recent_request_ids": [unquote_name(name) for name in requests.split(b",") if name],
            "metadata": json.loads(metadata or b"{}"),
        }
        thread = msgspec.convert(found, Thread, strict=False)
    except (LookupError, ValueError, msgspec.MsgspecError) as error:
        raise StoreError(f"thread {key.thread_id!r} is damaged: its meta hash is malformed") from error
    return thread, RedisVersion(found["version"].encode(), expires_us)


def unsupported_layout(layout: str) -> UnsupportedVersionError:
    """The error for a thread of another layout."""
    return UnsupportedVersionError(
        f"a thread has version {layout} of the layout, and this version of agent-stores uses {LAYOUT}; "
        "nothing was written"
    )


class Script:
    """A script of ``lua/`` as EVALSHA and EVAL take it: one atomic step on the server, in one round trip.

    Args:
        name: the name of its file; its lines ``-- include name`` become those of another file.
        keys: how many of a thread's keys it takes: a slot that moves is waited for if one of them is missing.
        writes: whether it changes threads, other than to renew a time-to-live.
        repeats: whether it may run twice.

    Attributes:
        source: its text.
        sha: the digest by which the server knows it.
    """

    def __init__(self, name: str, *, keys: int = 6, writes: bool = True, repeats: bool = True) -> None:
        self.keys, self.writes, self.repeats = keys, writes, repeats
        self.source = _source(name)
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


def _source(name: str) -> bytes:
    # Read as modules are: the first import may be on an event loop, where other reads raise under a guard.
    text = pkgutil.get_data("agent_stores.backends.redis", f"lua/{name}.lua") or b""
    return re.sub(rb"-- include (\w+)\n", lambda found: _source(found[1].decode()), text)


APPEND = Script("append")
COMMIT = Script("commit", repeats=False)
DELETE = Script("delete", repeats=False)
LOAD = Script("load", keys=2, writes=False)
READ = Script("read", keys=3, writes=False)
LATEST = Script("latest", writes=False)
