"""How tenants, thread ids, message ids and request ids become columns, and back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

from agent_stores.backend import ThreadKey

SORT_LENGTH = 512
"""The length of a thread id's sort key, in characters."""

PREFIX_LENGTH = SORT_LENGTH - 64
"""How many characters of a thread id its sort key certainly begins with."""

LAST = "\U0010ffff"
"""The last character, by code point."""

ID_LENGTH = 255
"""The longest message id, in characters, that the unique index holds; it holds a longer one's digest."""

NAME_COLUMNS = ("thread_key", "tenant_key", "sort_key", "tenant", "thread_id")
"""The columns that name a thread; `thread_names` has their values."""

# "n" sorts before "o", so that NUL stays before U+0001, and both before all other text.
_ESCAPES = {"\x00": "\x01n", "\x01": "\x01o", "\n": "\x01l"}
_UNESCAPES = {escape: character for character, escape in _ESCAPES.items()}
_ESCAPED = re.compile("[\x00\x01\ud800-\udfff]")
_ESCAPE = re.compile("\x01(?:s([0-9a-f]{4})|[nol])")


def thread_digest(key: ThreadKey) -> bytes:
    """What identifies a thread: SHA-256 of the tenant's digest and the thread id."""
    return thread_names(key)[0]


def tenant_digest(tenant: str | None) -> bytes:
    """What identifies a tenant; no tenant differs from every name."""
    return _sha256(b"none" if tenant is None else b"name:" + _encode(tenant)).digest()


@lru_cache(maxsize=1024)
def thread_names(key: ThreadKey) -> tuple[bytes, bytes, str, str | None, str]:
    """The values of a thread's `NAME_COLUMNS`."""
    owner = tenant_digest(key.tenant)
    digest = _sha256(owner + _encode(key.thread_id)).digest()
    thread_id = to_text(key.thread_id)
    return digest, owner, sort_key(thread_id), None if key.tenant is None else to_text(key.tenant), thread_id


def sort_key(column: str) -> str:
    """What listings are ordered by, unique within a tenant: a thread id as its column holds it.

    Of an id that is longer than the index allows, it is the beginning and a digest.
    """
    if len(column) <= SORT_LENGTH:
        return column
    return column[:PREFIX_LENGTH] + _sha256(column.encode()).hexdigest()


def to_text(name: str) -> str:
    """A name as text columns hold it: PostgreSQL rejects NUL, and every database unpaired surrogates.

    Both are escaped with U+0001, which keeps the order of names by code point except for surrogates.
    """
    if name.isascii() and name.isprintable():
        return name
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match[0]) or f"\x01s{ord(match[0]):04x}", name)


def from_text(column: str) -> str:
    """The name that `to_text` or `to_line` made a column's text of."""
    if "\x01" not in column:
        return column
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _UNESCAPES[match[0]], column)


def index_id(column: str) -> str:
    """A message id, as its column holds it, in the unique index."""
    return column if len(column) <= ID_LENGTH else "\x01d" + _sha256(column.encode()).hexdigest()


def to_line(request_id: str) -> str:
    """A request id without line feeds."""
    return to_text(request_id).replace("\n", _ESCAPES["\n"])


def join_ids(ids: Sequence[str]) -> str:
    """Request ids as their column holds them: each followed by a line feed."""
    return "".join(f"{to_line(each)}\n" for each in ids)


def split_ids(column: str) -> tuple[str, ...]:
    """The request ids of a column."""
    return tuple(map(from_text, column.split("\n")[:-1]))


def _encode(name: str) -> bytes:
    return name.encode(errors="surrogatepass")


_sha256 = hashlib.sha256
