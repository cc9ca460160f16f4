"""The keys of items: valid and unambiguous for all names, and sorted as they are read.

The items of a thread share a partition, in this order. A generation is the life of a thread from its creation
or its last `clear` on::

    head                          the thread's head
    r{generation}k{place}         a pinned message
    r{generation}m{place}         another message, the newest first
    u{generation}{digest}         the position of a message id
    x{generation}{tag}{number}    a part of a large body

A place counts down from a large number, and so do generations, because tables are read in one direction. One
more partition for each tenant lists its threads, and a few hold which threads are to be visited by a sweep.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from functools import lru_cache

from agent_stores.backend import ThreadKey
from agent_stores.errors import ArgumentError

MAX_NAME = 5000
"""The longest tenant, thread id or message id, in characters."""

HEAD = "head"
END_OF_ROWS = "s"
TENANTS = "n"
VISIT_PARTITIONS = [f"x.{number:02d}" for number in range(8)]

_LAST_PLACE = 10**15 - 1
_LAST_MILLISECOND = 10**13 - 1
_LAST_MICROSECOND = 10**16 - 1
_TIME_DIGITS = 13
_LONGEST_NAME = 240  # characters of a name in a partition key, which has room for 512
_LONGEST_SORTED = 480  # characters of a name in a sort key, before its digest
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_PLAIN = re.compile(r"[ -}]*")
_SORTED = {
    chr(code): chr(code)
    if chr(code).isalnum()
    else f"{'-' if code < 0x30 else ':' if code < 0x41 else '_'}{code:02x}"
    for code in range(0x7B)
}


def _encode(text: str) -> bytes:
    """Any text as bytes; two surrogates differ from the character that they would make."""
    return text.encode("utf-8", "surrogatepass")


def digest(text: str) -> str:
    """A digest of 27 characters."""
    data = hashlib.blake2b(_encode(text), digest_size=20).digest()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def escape(text: str) -> str:
    """Any text in printable ASCII of at most six characters for one; the same for no other text."""
    if _PLAIN.fullmatch(text):
        return text
    return f"~{base64.b64encode(_encode(text)).decode()}"


def unescape(text: str) -> str:
    """The text that `escape` was given.

    Raises:
        ValueError: when it was given none.
    """
    if not text.startswith("~"):
        return text
    return base64.b64decode(text[1:], validate=True).decode("utf-8", "surrogatepass")


def check_length(what: str, text: str) -> None:
    """Check the length of a name.

    Raises:
        ArgumentError: when it is too long.
    """
    if len(text) > MAX_NAME:
        raise ArgumentError(f"{what} must have at most {MAX_NAME} characters, got {len(text)}")


# -- a thread's partition


@lru_cache(maxsize=4096)
def thread_partition(key: ThreadKey) -> str:
    """The partition of a thread.

    Raises:
        ArgumentError: when a name is too long.
    """
    check_length("thread_id", key.thread_id)
    check_length("tenant", key.tenant or "")
    return f"t.{'' if key.tenant is None else _name(key.tenant)}~.{_name(key.thread_id)}"


def new_generation(now_us: int, previous: str | None = None) -> str:
    """A generation that no other thread of the name has, and that sorts before `previous`."""
    place = _LAST_MILLISECOND - now_us // 1000
    if previous is not None:
        place = min(place, int(previous[:_TIME_DIGITS]) - 1)
    return f"{max(0, place):0{_TIME_DIGITS}d}{secrets.token_hex(3)}"


def message_sort(generation: str, position: int, *, pinned: bool) -> str:
    """The sort key of a message."""
    return f"r{generation}{'k' if pinned else 'm'}{_LAST_PLACE - position:015d}"


def message_place(sort: str) -> tuple[str, bool, int]:
    """The generation of a message, whether it is pinned, and its position."""
    return sort[1:-16], sort[-16] == "k", _LAST_PLACE - int(sort[-15:])


def end_of(generation: str, *, pinned: bool = False) -> str:
    """The sort key after all messages of a generation, or after its pinned ones."""
    return f"r{generation}{'l' if pinned else 'n'}"


def id_sort(generation: str, id_digest: str) -> str:
    """The sort key of a message id."""
    return f"u{generation}{id_digest}"


def part_sort(generation: str, tag: str, number: int) -> str:
    """The sort key of a part of a large body."""
    return f"x{generation}{tag}{number:04d}"


def part_tag(sort: str) -> str:
    """The tag of a part of a large body."""
    return sort[:-4][-8:]


def ranges(generation: str) -> list[tuple[str, str]]:
    """The ranges of sort keys of a generation's messages, ids, and parts of bodies."""
    return [(f"{kind}{generation}", f"{kind}{generation}~") for kind in "rux"]


# -- the index


def index_partition(tenant: str | None) -> str:
    """The partition that lists a tenant's threads."""
    return f"i.{'~.' if tenant is None else _name(tenant)}"


def listed_sort(thread_id: str) -> str:
    """The sort key of a thread in its tenant's list by id; a long id ends with a digest."""
    whole = _sortable(thread_id)
    if len(whole) <= _LONGEST_SORTED:
        return f"a{whole}"
    return f"{listed_prefix(thread_id)}!{digest(thread_id)}"


def listed_prefix(text: str) -> str:
    """The beginning of the sort keys of all threads whose ids begin with a text."""
    kept, length = ["a"], 0
    for character in text:
        code = _sortable(character)
        length += len(code)
        if length > _LONGEST_SORTED:
            break
        kept.append(code)
    return "".join(kept)


def recent_sort(updated_us: int, generation: str, partition: str) -> str:
    """The sort key of a thread in its tenant's list by recency."""
    return f"{recent_time(updated_us)}{generation}{digest(partition)}"


def recent_time(updated_us: int) -> str:
    """The beginning of the sort keys of all threads of a time; the newest sort first."""
    return f"r{_LAST_MICROSECOND - updated_us:016d}"


def recent_us(sort: str) -> int:
    """The time of a sort key in the list by recency."""
    return _LAST_MICROSECOND - int(sort[1:17])


def visit_partition(partition: str) -> str:
    """Which of `VISIT_PARTITIONS` holds when a thread is to be visited."""
    number = hashlib.blake2b(partition.encode(), digest_size=1).digest()[0]
    return VISIT_PARTITIONS[number % len(VISIT_PARTITIONS)]


def visit_sort(at_us: int, generation: str, partition: str) -> str:
    """The sort key of a visit."""
    return f"{visit_time(at_us)}{generation}{digest(partition)}"


def visit_time(at_us: int) -> str:
    """The beginning of the sort keys of all visits at a time; they sort as the times do."""
    return f"{max(0, at_us):016d}."


def visit_us(sort: str) -> int:
    """The time of a visit."""
    return int(sort[:16])


def tenant_sort(tenant: str | None) -> str:
    """The sort key of a tenant; the one without a name is first."""
    return "0" if tenant is None else f"1{listed_sort(tenant)}"


def _name(text: str) -> str:
    """A text as part of a partition key: letters, digits and ``_.-~``, the same for no other text."""
    escaped = _UNSAFE.sub(lambda found: "".join(f"~{byte:02X}" for byte in _encode(found[0])), text)
    return escaped if len(escaped) <= _LONGEST_NAME else f"~d{digest(text)}"


def _sortable(text: str) -> str:
    """A text in characters that sort as its code points do; a prefix of it is a prefix of the result.

    Letters and digits stay; other characters become a sign that sorts where they do, and their code.
    """
    return "".join(_SORTED.get(character) or f"~{ord(character):06x}" for character in text)
