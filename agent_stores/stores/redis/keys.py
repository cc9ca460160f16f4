"""The names of keys and of what is in them: readable where ids are ordinary, unambiguous for all ids.

The keys of a thread, and the two of its bucket, hold the same hash tag, so that they are in one slot of a
Cluster::

    {prefix}:{tag}:h:{thread}    the thread's head, a hash
    {prefix}:{tag}:m:{thread}    its entries, a list
    {prefix}:{tag}:i             the thread ids of the bucket, a sorted set
    {prefix}:{tag}:x             when those of them that expire do so, a sorted set

The tag is ``{tenant.bucket}``, in braces; a tenant's threads are spread over 64 buckets by a digest of their
ids.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from agent_stores.log import ThreadKey

BUCKETS = 64
"""Over how many buckets, and so slots, a tenant's threads are spread."""

_LONGEST = 160  # characters of a name; longer ones are replaced by their digest
_PLAIN = re.compile(r"[A-Za-z0-9_.:@+-]{1,160}")


class Keys(NamedTuple):
    """The keys of a thread and of its bucket, as scripts take them, and the thread's id in the index."""

    head: bytes
    entries: bytes
    bucket: bytes
    expiry: bytes
    member: bytes


def encode(text: str) -> bytes:
    """Any text as bytes that sort as its code points do; unpaired surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """The text of `encode`."""
    return data.decode("utf-8", "surrogatepass")


def name(text: str) -> str:
    """A text as part of a key or a line: the same for no other text, without separators."""
    if _PLAIN.fullmatch(text):
        return text
    data = encode(text)
    quoted = quote(data, safe=":@+").replace("~", "%7E")
    if not quoted or len(quoted) > _LONGEST:
        return f"~{hashlib.blake2b(data, digest_size=20).hexdigest()}"
    return quoted


@lru_cache(maxsize=4096)
def thread_keys(prefix: str, key: ThreadKey) -> Keys:
    """The keys of a thread."""
    member = encode(key.thread_id)
    bucket = hashlib.blake2b(member, digest_size=1).digest()[0] % BUCKETS
    index, expiry = bucket_keys(prefix, key.tenant, bucket)
    stem, thread = index[:-1], name(key.thread_id).encode()
    return Keys(stem + b"h:" + thread, stem + b"m:" + thread, index, expiry, member)


def bucket_keys(prefix: str, tenant: str | None, bucket: int) -> tuple[bytes, bytes]:
    """The keys of a bucket: its index, and its times of expiry."""
    tag = f"{'' if tenant is None else name(tenant)}.{bucket:02d}"
    stem = encode(prefix) + b":{" + tag.encode() + b"}:"
    return stem + b"i", stem + b"x"
