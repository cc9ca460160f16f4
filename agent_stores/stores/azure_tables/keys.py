"""The keys of rows: valid and unambiguous for all ids, and sorted as they are read.

The rows of a thread share a partition, in this order::

    head                     the thread's head
    k{place}                 a pinned message
    m{place}                 another message, the newest first
    m{place}.{tag}{number}   what did not fit into the message's row
    u{digest}                which row a message id belongs to

A place is what remains of a large number when the row's number is taken off, as tables are read in one
direction only. Beside the threads' partitions there is one for each tenant, which lists its threads, and a
few that hold when threads end. docs/azure-tables.md describes them all.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache

from agent_stores.log import ThreadKey

HEAD = "head"
PINNED = "k"
MESSAGE = "m"
UNIQUE = "u"
AFTER_MESSAGES = "n"
AFTER_ALL = "v"

TIMER_PARTITIONS = 16
"""Over how many partitions the times of expiry are spread."""

_LAST = 10**16 - 1
_DIGITS = 16
_LONGEST_NAME = 240  # characters of a name in a partition key, which has room for 512
_LONGEST_SORTED = 480  # characters of a name in a row key, before its digest
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_NON_ASCII_OR_HIGH = 0x7B
_SORTED = {
    chr(code): chr(code)
    if chr(code).isalnum()
    else f"{'-' if code < 0x30 else ':' if code < 0x41 else '_'}{code:02x}"
    for code in range(_NON_ASCII_OR_HIGH)
}


def encode(text: str) -> bytes:
    """Any text as bytes, unpaired surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def name(text: str) -> str:
    """A text as part of a partition key: the same for no other text; letters, digits and ``_.-~`` only."""
    escaped = _UNSAFE.sub(lambda found: "".join(f"~{byte:02X}" for byte in encode(found[0])), text)
    return escaped if len(escaped) <= _LONGEST_NAME else f"~d{digest(text)}"


def digest(text: str) -> str:
    """A digest of 27 characters."""
    data = hashlib.blake2b(encode(text), digest_size=20).digest()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@lru_cache(maxsize=4096)
def thread_partition(key: ThreadKey) -> str:
    """The partition of a thread."""
    return f"t.{'' if key.tenant is None else name(key.tenant)}~.{name(key.thread_id)}"


def index_partition(tenant: str | None) -> str:
    """The partition that lists a tenant's threads."""
    return f"i.{'~.' if tenant is None else name(tenant)}"


def sortable(text: str) -> str:
    """A text in characters that sort as its code points do; what a text begins with, its form begins with.

    Letters and digits stay; other characters become a sign that sorts where they do, and their code.
    """
    return "".join(_SORTED.get(character) or f"~{ord(character):06x}" for character in text)


def index_row(thread_id: str) -> str:
    """The row of a thread in the list of its tenant's; a long id ends with a digest."""
    whole = sortable(thread_id)
    if len(whole) <= _LONGEST_SORTED:
        return whole
    return f"{index_prefix(thread_id)}!{digest(thread_id)}"


def index_prefix(text: str) -> str:
    """What the rows of all threads begin with whose ids begin with a text."""
    kept, length = [], 0
    for character in text:
        code = sortable(character)
        length += len(code)
        if length > _LONGEST_SORTED:
            break
        kept.append(code)
    return "".join(kept)


def after_prefix(prefix: str) -> str:
    """What sorts after all rows with a prefix, and before all others behind them."""
    return f"{prefix}~~"


def timer_partition(key: ThreadKey) -> str:
    """The partition that holds when a thread ends."""
    data = hashlib.blake2b(thread_partition(key).encode(), digest_size=1).digest()
    return timer_partitions()[data[0] % TIMER_PARTITIONS]


def timer_partitions() -> list[str]:
    """All partitions that hold when threads end."""
    return [f"x.{number:02d}" for number in range(TIMER_PARTITIONS)]


def timer_row(key: ThreadKey, at_us: int) -> str:
    """The row that says that a thread ends, in microseconds since 1970."""
    return f"{timer_time(at_us)}{digest(thread_partition(key))}"


def timer_time(at_us: int) -> str:
    """What the rows of all threads begin with that end at a time; they sort as the times do."""
    return f"{max(0, at_us):020d}."


def message_row(number: int, *, pinned: bool = False) -> str:
    """The row of the message with a number."""
    return f"{PINNED if pinned else MESSAGE}{_LAST - number:0{_DIGITS}d}"


def message_number(row_key: str) -> int:
    """The number of a message's row, or of what did not fit into it."""
    return _LAST - int(row_key[1 : 1 + _DIGITS])


def is_continuation(row_key: str) -> bool:
    """Whether a row holds what did not fit into a message's row."""
    return len(row_key) > 1 + _DIGITS


def continuation_row(row_key: str, tag: str, number: int) -> str:
    """A further row of a message; the tag tells those of one write from those of another."""
    return f"{row_key}.{tag}{number:03d}"


def unique_row(id_digest: str) -> str:
    """The row of a message id's digest."""
    return f"{UNIQUE}{id_digest}"
