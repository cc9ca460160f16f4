"""Names of keys and of the data in them: readable for ordinary ids, unambiguous for all ids.

docs/redis.md lists the keys. Those of a thread and of its shard have the same hash tag, ``{tenant.shard}``,
so that a Cluster keeps them in one slot. The digest of a thread's id gives its shard.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from agent_stores.backend import ThreadKey

SHARDS = 64
"""The number of shards, and so of slots, that a tenant's threads are spread over."""

_LONGEST = 160  # characters of a name in a key; a longer name is replaced by its digest
_PLAIN = re.compile(r"[A-Za-z0-9_.:@+-]+")
_INDEX = re.compile(rb":\{([^{}]*)\.\d\d\}:index\Z")
_SPECIAL = re.compile(r"([\\*?\[\]^-])")  # of the patterns of SCAN


class Keys(NamedTuple):
    """The keys of a thread, in the order in which scripts take them, and its id in the sets of its shard."""

    meta: bytes
    messages: bytes
    pinned: bytes
    by_id: bytes
    by_time: bytes
    by_expiry: bytes
    thread_id: bytes


def encode(text: str) -> bytes:
    """Any text as bytes that sort as its code points do; unpaired surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """The text of `encode`."""
    return data.decode("utf-8", "surrogatepass")


def quote_name(text: str) -> str:
    """A text percent-encoded, but for letters, digits and ``_.:@+-``; `unquote_name` gives it back."""
    return text if _PLAIN.fullmatch(text) else quote(encode(text), safe=":@+").replace("~", "%7E")


def unquote_name(name: bytes) -> str:
    """The text of `quote_name`."""
    return decode(unquote_to_bytes(name))


def key_name(text: str) -> str:
    """A text as part of a key; different for each text, but not always reversible."""
    name = quote_name(text)
    is_short = 0 < len(name) <= _LONGEST
    return name if is_short else f"~{hashlib.blake2b(encode(text), digest_size=20).hexdigest()}"


@lru_cache(maxsize=4096)
def thread_keys(prefix: str, key: ThreadKey) -> Keys:
    """The keys of a thread."""
    thread_id = encode(key.thread_id)
    shard = shard_keys(prefix, key.tenant, hashlib.blake2b(thread_id, digest_size=1).digest()[0] % SHARDS)
    stem, name = shard[0].removesuffix(b"index"), key_name(key.thread_id).encode()
    own = [stem + kind + b":" + name for kind in (b"meta", b"messages", b"pinned")]
    return Keys._make([*own, *shard, thread_id])


def shard_keys(prefix: str, tenant: str | None, shard: int) -> tuple[bytes, bytes, bytes]:
    """The keys of a shard: its thread ids by id, by time, and by expiry."""
    tag = f"{'' if tenant is None else key_name(tenant)}.{shard:02d}"
    stem = encode(prefix) + b":{" + tag.encode() + b"}:"
    return stem + b"index", stem + b"recent", stem + b"expiry"


def index_pattern(prefix: str) -> str:
    """The pattern of the keys that hold the thread ids of a shard, for SCAN."""
    return _SPECIAL.sub(r"\\\1", prefix) + ":{*}:index"


def sort_tenants(keys: Iterable[bytes], after: str | None) -> list[str | None]:
    """The tenants of keys that `index_pattern` found, after a name, by name; None, for none, comes first.

    A name that is too long for a key is not known, as the key holds its digest.
    """
    names = {found[1] for key in keys if (found := _INDEX.search(key)) is not None}
    tenants = {unquote_name(name) if name else None for name in names if not name.startswith(b"~")}
    ordered = sorted(tenants, key=lambda name: (name is not None, name or ""))
    return [name for name in ordered if after is None or (name is not None and name > after)]
