"""The layout of a table: how items are named, so that they sort as they are read, and what they hold.

The items of a thread share a partition, in this order. A generation is the life of a thread from its creation
or its last `clear` on::

    head                               the thread's head
    r{generation}k{place}              a pinned message
    r{generation}m{place}              another message, the newest first
    u{generation}{digest}              the message with an id, without its body
    x{generation}{place}{tag}{number}  a part of a large body

Places and generations count down, because tables are read in one direction. One more partition for each
tenant lists its threads, one lists the tenants, and one holds which threads a sweep is to visit.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from functools import lru_cache
from typing import Final

import msgspec
from msgspec.structs import replace

from agent_stores import _json
from agent_stores._recent import RecentDict
from agent_stores.backend import Row, Thread, ThreadKey
from agent_stores.backends.tables.table import Item
from agent_stores.errors import ArgumentError, StoreError, UnsupportedVersionError
from agent_stores.writer_queue import WriterQueue

LAYOUT = 1  # the version of the layout; a thread with a newer one is refused
MAX_NAME = 5000  # characters of a tenant, thread id or message id
HEAD, TENANTS, VISITS = "head", "n", "x.visits"
GENERATION = 19  # characters
_LAST_PLACE, _LAST_MILLISECOND, _LAST_MICROSECOND = 10**15 - 1, 10**13 - 1, 10**16 - 1
_LONGEST_NAME = 240  # characters of a name in a partition key, which has room for 512
_LONGEST_SORTED = 480  # characters of a name in a sort key, before its digest
_THREADS = 1024  # that a process remembers
_UTF8 = ("utf-8", "surrogatepass")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A thread as it is stored.

    Attributes:
        generation: names its visible messages.
        next: the generation of the messages that an unfinished commit wrote, if they replace all others.
        listed: the sort key of its item in the list by recency.
        thread: its metadata.
        version: its version in the table; neither this nor the next is part of the body.
        oldest: the oldest messages that are not pinned, as far as this process knows them, without bodies.
    """

    generation: str
    next: str = ""
    listed: str = ""
    thread: Thread
    version: str = ""
    oldest: tuple[Row, ...] = ()

    def generation_at(self, position: int) -> str:
        """The generation of a message at a position."""
        return self.next if self.next and position > self.thread.last_position else self.generation


NO_HEAD: Final = Head(generation="", thread=Thread())
"""That of a thread that does not exist; its version is `NEW`, the condition of creating it."""


class ThreadCache(RecentDict[ThreadKey, Head]):
    """A table's heads, as they were read or written last, and turns for writers. For any thread and loop."""

    def __init__(self) -> None:
        super().__init__(_THREADS)
        self.queue = WriterQueue()


_head_decoder = msgspec.json.Decoder(Head)
# A message's id, position, boundary, pinned, bytes, tokens and time, and the name of its body if that is in
# parts. Ids are bytes, which are Base64 in JSON, because an id may be text that is not UTF-8.
_row_decoder = msgspec.json.Decoder(tuple[bytes, int, bool, bool, int, int, int, str])
_names_decoder = msgspec.json.Decoder(tuple[bytes | None, bytes])


@lru_cache(maxsize=4096)
def thread_partition(key: ThreadKey) -> str:
    """The partition of a thread."""
    return f"t.{'' if key.tenant is None else _name(key.tenant)}~.{_name(key.thread_id)}"


def new_generation(now_us: int, previous: str = "") -> str:
    """A generation that no other thread of the name has, and that sorts before `previous`."""
    place = _LAST_MILLISECOND - now_us // 1000
    if previous:
        place = min(place, int(previous[:13]) - 1)
    return f"{max(0, place):013d}{secrets.token_hex(3)}"


def message_sort(generation: str, position: int, *, pinned: bool) -> str:
    """The sort key of a message."""
    return f"r{generation}{'k' if pinned else 'm'}{_LAST_PLACE - position:015d}"


def position_at(sort: str) -> int:
    """The position of a message with a sort key."""
    return _LAST_PLACE - int(sort[-15:])


def id_sort(generation: str, message_id: str) -> str:
    """The sort key of a message id."""
    return f"u{generation}{_digest(message_id)}"


def new_body(generation: str, position: int) -> str:
    """A name for the parts of a message's body, which begins with the generation."""
    return f"{generation}{_LAST_PLACE - position:015d}{secrets.token_hex(4)}"


def ranges(name: str) -> list[tuple[str, str]]:
    """The ranges of sort keys of a generation, or of a body's parts."""
    return [(f"{kind}{name}", f"{kind}{name}~") for kind in ("rux" if len(name) == GENERATION else "x")]


def split_body(body: bytes, size: int) -> list[str]:
    """A body in parts of at most `size` bytes; no character is divided."""
    parts: list[bytes] = re.findall(rb"(?s).{1,%d}(?![\x80-\xBF])" % size, body)
    return [part.decode() for part in parts]


def head_item(partition: str, head: Head) -> Item:
    """The item of a head."""
    expires, stored = head.thread.expires_us, replace(head, version="", oldest=())
    seconds = None if expires is None else -(-expires // 1_000_000)
    return Item(partition, HEAD, str(LAYOUT), _json.encode(stored).decode(), seconds)


def read_head(item: Item) -> Head:
    """The head of an item.

    Raises:
        UnsupportedVersionError: when a newer version wrote it.
        StoreError: when it is damaged.
    """
    if item.meta.isdecimal() and int(item.meta) > LAYOUT:
        raise UnsupportedVersionError(
            f"a thread has version {item.meta} of the table layout: a newer version of agent-stores wrote it"
        )
    try:
        return replace(_json.decode(item.body, _head_decoder, Head), version=item.version)
    except (msgspec.DecodeError, UnicodeError):
        raise StoreError("a thread is damaged: its head is malformed") from None


def message_items(partition: str, generation: str, row: Row, parts: str = "") -> tuple[Item, Item]:
    """The items of a message and of its id; `parts` names its body, if that is in parts."""
    facts = (row.position, row.boundary, row.pinned, row.bytes, row.tokens, row.created_us, parts)
    meta = msgspec.json.encode((_encode(row.message_id), *facts)).decode()
    sort = message_sort(generation, row.position, pinned=row.pinned)
    body = "" if parts else row.body.decode()
    return Item(partition, sort, meta, body), Item(partition, id_sort(generation, row.message_id), meta)


def read_row(item: Item) -> tuple[Row, str]:
    """The message of an item, and the name of its body if that is in parts, which are not read yet.

    A damaged one has no id, and that of an id no position either.
    """
    body = item.body.encode(*_UTF8)
    try:
        name, position, boundary, pinned, size, tokens, created_us, parts = _row_decoder.decode(item.meta)
        return Row(name.decode(*_UTF8), body, position, boundary, pinned, size, tokens, created_us), parts
    except ValueError:  # msgspec's errors, too
        position = position_at(item.sort) if item.sort[0] == "r" else 0
        return Row("", body, position, pinned=item.sort[-16] == "k", bytes=len(body)), ""


def index_partition(tenant: str | None) -> str:
    """The partition that lists a tenant's threads."""
    return f"i.{'~.' if tenant is None else _name(tenant)}"


def listed_sort(name: str | None) -> str:
    """The sort key of a thread in its tenant's list by id, or of a tenant; None is the first."""
    begin = "0" if name is None else listed_prefix(name)
    return begin if name is None or len(begin) < _LONGEST_SORTED else f"{begin}!{_digest(name)}"


def listed_prefix(text: str) -> str:
    """The beginning of the sort keys of all names that begin with a text; the empty one is first."""
    return f"a{_encode(text).hex()}"[:_LONGEST_SORTED]


def recent_sort(updated_us: int, suffix: str = "") -> str:
    """The sort key of a thread in its tenant's list by recency, or its beginning; the newest is first."""
    return f"r{_LAST_MICROSECOND - updated_us:016d}{suffix}"


def recent_us(sort: str) -> int:
    """The time of a sort key in the list by recency."""
    return _LAST_MICROSECOND - int(sort[1:17])


def visit_item(key: ThreadKey, at_us: int, name: str) -> Item:
    """The item of a visit to a generation, or to a body, of a thread."""
    sort = f"{at_us:016d}.{name}{_digest(thread_partition(key))}"
    return Item(VISITS, sort, name, names_body(*key))


def names_body(tenant: str | None, thread_id: str = "") -> str:
    """The names of a thread, as the items of lists hold them; those of tenants have no thread id."""
    return msgspec.json.encode((None if tenant is None else _encode(tenant), _encode(thread_id))).decode()


def read_names(item: Item) -> ThreadKey | None:
    """The thread that an item of a list names; None for a damaged one."""
    try:
        tenant, thread_id = _names_decoder.decode(item.body)
        return ThreadKey(None if tenant is None else tenant.decode(*_UTF8), thread_id.decode(*_UTF8))
    except ValueError:
        return None


def _encode(text: str) -> bytes:
    """A name as bytes; two surrogates differ from the character that they would make.

    Raises:
        ArgumentError: when it has more than `MAX_NAME` characters.
    """
    if len(text) > MAX_NAME:
        raise ArgumentError(f"an id must have at most {MAX_NAME} characters, got {len(text)}")
    return text.encode(*_UTF8)


def _digest(text: str) -> str:
    """A digest of 27 characters."""
    return base64.urlsafe_b64encode(hashlib.blake2b(_encode(text), digest_size=20).digest()).decode()[:-1]


def _name(text: str) -> str:
    """A text as part of a partition key: letters, digits and ``_.-~``, the same for no other text."""
    escaped = _UNSAFE.sub(lambda found: "".join(f"~{byte:02X}" for byte in _encode(found[0])), text)
    return escaped if len(escaped) <= _LONGEST_NAME else f"~d{_digest(text)}"
