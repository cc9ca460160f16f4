"""A thread's head: what is known of it without its messages, and how that is stored.

Each transaction that writes to a thread changes its head, on the condition that nobody else did in the
meantime: this is what keeps writers apart.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace as structs_replace

from agent_stores import _json
from agent_stores.errors import StoreError, UnsupportedVersionError
from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.text import join_text, names, split_text
from agent_stores.stores.planning import Head

LAYOUT = 1
"""The version of the layout. A thread with a newer one is refused."""

REMEMBERED = 8
"""How many writes a head remembers, so that the outcome of one whose answer was lost is known."""

_CACHED = 2048  # heads


class Brief(msgspec.Struct, array_like=True, frozen=True):
    """What trimming needs to know of a message.

    Attributes:
        position: its position.
        cut: whether a cut may fall before it, as its row says.
        bytes: the size of its document.
        tokens: its tokens.
        id_digest: the digest of its id.
        parts: how many further rows it has.
        tag: what these are told by.
    """

    position: int
    cut: bool
    bytes: int
    tokens: int
    id_digest: str
    parts: int = 0
    tag: str = ""


class ThreadHead(Head, omit_defaults=True):
    """A head as it is stored: what all backends know, and what this one needs to find its rows.

    The row of position *p* has the number ``offset + p``. Numbers are never used again, so that rows of a
    thread that expired, or was deleted, are told from those of one that began anew under the same name.

    Attributes:
        offset: the number before the first message's.
        top: the largest number of any row that was ever written.
        base: no message that is not pinned is held up to this position.
        pins_base: no pinned message is held up to this position.
        dead: ranges of positions, first and last, that are gone, though their rows may still be there.
        dirty: whether there may be rows that belong to no message.
        unsettled: ranges of positions, first and last, of messages whose ids' rows may name older ones.
        closed: ranges of positions, first and last, where no cut may fall, whatever the rows say.
        group: no cut may fall behind this position.
        front: the oldest messages that are not pinned, for trimming.
        front_to: up to which position `front` is complete; `base` where it is not used.
        edits: grows when messages are taken out or replaced.
        writes: tokens of the last writes, oldest first.
        known_us: until when the thread is there, as far as those know who clean up.
        deleted: whether the thread is deleted, and its rows are being removed.
    """

    offset: int = 0
    top: int = 0
    base: int = 0
    pins_base: int = 0
    dead: list[tuple[int, int]] = msgspec.field(default_factory=list)
    dirty: bool = False
    unsettled: list[tuple[int, int]] = msgspec.field(default_factory=list)
    closed: list[tuple[int, int]] = msgspec.field(default_factory=list)
    group: int = 0
    front: list[Brief] = msgspec.field(default_factory=list)
    front_to: int = 0
    edits: int = 0
    writes: list[str] = msgspec.field(default_factory=list)
    known_us: int | None = None
    deleted: bool = False

    def copy(self) -> ThreadHead:
        """A copy that can be changed."""
        return structs_replace(self, open_calls=dict(self.open_calls))

    def is_live(self, now_us: int) -> bool:
        """Whether there is a thread."""
        return not self.deleted and not self.is_expired(now_us)

    def holds(self, position: int, *, pinned: bool) -> bool:
        """Whether a row at a position may be that of a message: it was committed, and not taken out."""
        base = self.pins_base if pinned else self.base
        return base < position <= self.last_position and not covers(self.dead, position)

    def is_cut(self, position: int, cut: bool) -> bool:
        """Whether a cut may fall before a message whose row says `cut`."""
        return cut and not covers(self.closed, position)

    def remember(self, token: str) -> None:
        """Note a write."""
        self.writes = [*self.writes[1 - REMEMBERED :], token]

    def restarted(self) -> ThreadHead:
        """The head of a new thread in the place of this one, which expired or is deleted."""
        top = max(self.top, self.offset + self.last_position)
        return ThreadHead(offset=top, top=top, dirty=True, edits=self.edits + 1, writes=self.writes)

    def close(self, first: int, last: int) -> None:
        """Allow no cut between two positions any more."""
        if first <= self.group:
            self.closed = add_range(self.closed, first, last)
            self.group = first - 1


class Stored(NamedTuple):
    """A head as it is in the table.

    Attributes:
        head: a copy of its own.
        version: what the service calls this version of the row.
        is_fresh: whether it was just read.
    """

    head: ThreadHead
    version: str
    is_fresh: bool


def covers(ranges: list[tuple[int, int]], position: int) -> bool:
    """Whether one of the ranges holds a position."""
    return any(first <= position <= last for first, last in ranges)


def add_range(ranges: list[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """The ranges with one more, in order and apart from each other."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted([*ranges, (first, last)]):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def new_token() -> str:
    """Names a write."""
    return secrets.token_urlsafe(6)


def head_entity(key: ThreadKey, head: ThreadHead) -> dict[str, Any]:
    """The row of a head."""
    return {
        "PartitionKey": keys.thread_partition(key),
        "RowKey": keys.HEAD,
        "version": LAYOUT,
        **names(key),
        **split_text("head", _json.encode(head).decode()),
    }


def read_head(entity: Any) -> ThreadHead:
    """The head of a row.

    Raises:
        UnsupportedVersionError: when a newer version wrote it.
        StoreError: when it is damaged.
    """
    version = entity.get("version")
    if isinstance(version, int) and version > LAYOUT:
        raise UnsupportedVersionError(
            f"a thread has version {version} of the layout: a newer version of agent-stores wrote it"
        )
    try:
        text = join_text("head", entity)
        return _json.decode(text.encode(), _decoder, ThreadHead)
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeError):
        raise StoreError("a thread is damaged: its head is malformed") from None


_decoder = msgspec.json.Decoder(ThreadHead)


class HeadCache:
    """The heads that this process knows, as they were read or written last; usable from any thread."""

    def __init__(self) -> None:
        self._heads: OrderedDict[ThreadKey, tuple[bytes, str]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: ThreadKey) -> Stored | None:
        """What is known of a thread's head; somebody else may have changed it since."""
        with self._lock:
            found = self._heads.get(key)
            if found is None:
                return None
            self._heads.move_to_end(key)
        return Stored(_json.decode(found[0], _decoder, ThreadHead), found[1], False)

    def put(self, key: ThreadKey, head: ThreadHead, version: str) -> None:
        """Note a head."""
        document = _json.encode(head)
        with self._lock:
            self._heads[key] = (document, version)
            self._heads.move_to_end(key)
            while len(self._heads) > _CACHED:
                self._heads.popitem(last=False)

    def drop(self, key: ThreadKey) -> None:
        """Forget a head."""
        with self._lock:
            self._heads.pop(key, None)
