"""Names of keys and of the data in them: readable for ordinary ids, unambiguous for all ids.

The keys of a thread and of its shard have the same hash tag, so that a Cluster keeps them in one slot::

    {prefix}:{tag}:meta:{thread}       the thread's metadata and the position of each message id, a hash
    {prefix}:{tag}:messages:{thread}   its rows that are not pinned, a list in the order of their positions
    {prefix}:{tag}:pinned:{thread}     its pinned rows by position, a hash
    {prefix}:{tag}:index               the shard's thread ids, a sorted set in the order of their bytes
    {prefix}:{tag}:recent              the same, by the time of their last write
    {prefix}:{tag}:expiry              the ids of threads that expire, by the time when they do

The tag is ``{tenant.shard}``: a tenant's threads are spread over 64 shards by a digest of their ids.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from agent_stores.backend import ThreadKey

SHARDS = 64
"""The number of shards, and so of slots, that a tenant's threads are spread over."""

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
    if not name or len(name) > _LONGEST:
        return f"~{hashlib.blake2b(encode(text), digest_size=20).hexdigest()}"
    return name


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
