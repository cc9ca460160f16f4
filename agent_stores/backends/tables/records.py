"""What the items of a thread hold: its head, its messages, their ids, and parts of large bodies."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from agent_stores import _json
from agent_stores.backend import Row, Thread, ThreadKey
from agent_stores.backends.tables import keys
from agent_stores.backends.tables.table import Item
from agent_stores.errors import StoreError, UnsupportedVersionError

LAYOUT = 1
"""The version of the layout. A thread with a newer one is refused."""


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A thread as it is stored.

    Attributes:
        generation: names its messages; see `agent_stores.backends.tables.keys`.
        floor: messages up to this position are invisible.
        low: no message that is not pinned is at or below this position.
        listed_us: the time under which the thread is in its tenant's list by recency.
        thread: its metadata.
    """

    generation: str
    floor: int = 0
    low: int = 0
    listed_us: int = 0
    thread: Thread

    def is_visible(self, position: int) -> bool:
        """Whether a message at a position belongs to the thread."""
        return self.floor < position <= self.thread.last_position


class StoredHead(NamedTuple):
    """A head and its version in the table."""

    head: Head
    version: str

    @property
    def thread(self) -> Thread:
        """The thread's metadata."""
        return self.head.thread


class StoredRow(NamedTuple):
    """A message as it is stored.

    Attributes:
        row: the message; its body is missing where it is in parts, or was not asked for.
        tag: names the parts of its body; empty where it has none.
        parts: how many they are.
    """

    row: Row
    tag: str = ""
    parts: int = 0


class _Meta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message's fields but its body."""

    message_id: str
    boundary: int
    bytes: int
    tokens: int
    created_us: int
    tag: str = ""
    parts: int = 0


_head_decoder = msgspec.json.Decoder(Head)
_meta_decoder = msgspec.json.Decoder(_Meta)


def head_item(partition: str, head: Head) -> Item:
    """The item of a head."""
    expires = head.thread.expires_us
    return Item(
        partition,
        keys.HEAD,
        str(LAYOUT),
        _json.encode(head).decode(),
        None if expires is None else -(-expires // 1_000_000),
    )


def read_head(item: Item) -> StoredHead:
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
        return StoredHead(_json.decode(item.body, _head_decoder, Head), item.version)
    except (msgspec.DecodeError, UnicodeError):
        raise StoreError("a thread is damaged: its head is malformed") from None


def message_item(partition: str, generation: str, row: Row, tag: str = "", parts: int = 0) -> Item:
    """The item of a message; without its body where that is in parts."""
    keys.check_length("message_id", row.message_id)
    meta = msgspec.json.encode(
        (
            keys.escape(row.message_id),
            int(row.boundary),
            row.bytes,
            row.tokens,
            row.created_us,
            *((tag, parts) if tag else ()),
        )
    ).decode()
    sort = keys.message_sort(generation, row.position, pinned=row.pinned)
    return Item(partition, sort, meta, "" if tag else row.body.decode())


def read_row(item: Item) -> StoredRow:
    """The message of an item; one that is damaged has no id and no body."""
    _, pinned, position = keys.message_place(item.sort)
    body = item.body.encode("utf-8", "surrogatepass")
    try:
        meta = _meta_decoder.decode(item.meta)
        message_id = keys.unescape(meta.message_id)
    except ValueError:  # msgspec's errors, too
        return StoredRow(Row("", body, position, pinned=pinned, bytes=len(body)))
    row = Row(
        message_id, body, position, bool(meta.boundary), pinned, meta.bytes, meta.tokens, meta.created_us
    )
    return StoredRow(row, meta.tag, meta.parts)


def id_item(partition: str, generation: str, row: Row) -> Item:
    """The item of a message's id."""
    sort = keys.id_sort(generation, keys.digest(row.message_id))
    return Item(partition, sort, write_places([(row.position, row.pinned)]))


def read_places(item: Item) -> list[tuple[int, bool]]:
    """The positions that an id's item names, and whether the messages are pinned."""
    found = []
    for text in item.meta.split(","):
        if text[:-1].isdecimal():
            found.append((int(text[:-1]), text[-1] == "k"))
    return found


def write_places(places: list[tuple[int, bool]]) -> str:
    """Positions as an id's item holds them."""
    return ",".join(f"{position}{'k' if pinned else 'm'}" for position, pinned in places)


def split_body(body: bytes, size: int) -> Iterator[str]:
    """A body in parts of at most `size` bytes; no character is divided."""
    start = 0
    while start < len(body):
        end = min(start + size, len(body))
        while end < len(body) and body[end] & 0xC0 == 0x80:
            end -= 1
        yield body[start:end].decode()
        start = end


def part_items(partition: str, generation: str, tag: str, body: bytes, size: int, now_us: int) -> list[Item]:
    """The items of a large body; each notes when it was written, in microseconds."""
    return [
        Item(partition, keys.part_sort(generation, tag, number), str(now_us), part)
        for number, part in enumerate(split_body(body, size))
    ]


def new_tag() -> str:
    """Names the parts of a body."""
    return secrets.token_hex(4)


def names_body(key: ThreadKey) -> str:
    """The names of a thread, as the items of the index hold them."""
    tenant = None if key.tenant is None else keys.escape(key.tenant)
    return msgspec.json.encode((tenant, keys.escape(key.thread_id))).decode()


def read_names(item: Item) -> ThreadKey | None:
    """The thread that an item of the index names; None for a damaged one."""
    try:
        tenant, thread_id = msgspec.json.decode(item.body, type=tuple[str | None, str])
        return ThreadKey(None if tenant is None else keys.unescape(tenant), keys.unescape(thread_id))
    except ValueError:
        return None
