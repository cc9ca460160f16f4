"""How tenants, thread ids, message ids and request ids become columns, and back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent_stores.backend import ThreadKey

KEY_LENGTH = 512
"""The length of an index key, in characters."""

PREFIX_LENGTH = KEY_LENGTH - 64
"""How many characters of a text its index key certainly begins with."""

LAST = "\U0010ffff"
"""The last character, by code point."""

NAME_COLUMNS = ("thread_key", "tenant_key", "sort_key", "tenant", "thread_id")
"""The columns that name a thread."""

_ESCAPED = re.compile("[\x00-\n\ud800-\udfff]")
_ESCAPE = re.compile("\x01([0-9a-f]{4})")


def thread_digest(key: ThreadKey) -> bytes:
    """What identifies a thread: SHA-256 of the tenant's digest and the thread id."""
    return bytes(thread_names(key)["thread_key"])


def tenant_digest(tenant: str | None) -> bytes:
    """What identifies a tenant; no tenant differs from every name."""
    return hashlib.sha256(b"none" if tenant is None else b"name:" + _encode(tenant)).digest()


@lru_cache(maxsize=1024)
def thread_names(key: ThreadKey) -> Mapping[str, Any]:
    """The values of a thread's `NAME_COLUMNS`, by name."""
    owner = tenant_digest(key.tenant)
    digest = hashlib.sha256(owner + _encode(key.thread_id)).digest()
    thread_id = to_text(key.thread_id)
    tenant = None if key.tenant is None else to_text(key.tenant)
    return dict(zip(NAME_COLUMNS, (digest, owner, index_key(thread_id), tenant, thread_id), strict=True))


def index_key(column: str) -> str:
    """A name's text in an index: of one that is longer than the index allows, the beginning and a digest.

    Only digests end at `KEY_LENGTH`, so that no other text has the same key.
    """
    if len(column) < KEY_LENGTH:
        return column
    return column[:PREFIX_LENGTH] + hashlib.sha256(column.encode()).hexdigest()


def to_text(name: str) -> str:
    """A name as text columns hold it: PostgreSQL rejects NUL, and every database unpaired surrogates.

    These, U+0001 and what else is below U+000B become U+0001 and four digits, which keeps the order of names
    by code point except for surrogates. So no text has line feeds, which separate request ids.
    """
    if name.isascii() and name.isprintable():
        return name
    return _ESCAPED.sub(lambda match: f"\x01{ord(match[0]):04x}", name)


def from_text(column: str) -> str:
    """The name that `to_text` made a column's text of."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), column) if "\x01" in column else column


def _encode(name: str) -> bytes:
    return name.encode(errors="surrogatepass")
