"""Lists of messages in a graph's state: each is a thread, to whose rows checkpoints refer by position.

The thread shows the list of the newest checkpoint, followed by what others added since. A step that adds
messages appends rows. Rows that the newest checkpoint does not have (removed, changed, or of a branch that
was left) move to the records, where older checkpoints find them.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from langchain_core.messages import BaseMessage
from msgspec.structs import replace

from agent_stores._recent import RecentDict
from agent_stores.backend import Row, ThreadKey
from agent_stores.errors import ConflictError, StoreUnavailableError
from agent_stores.message_format import decode_stored, message_from_dict, message_to_dict
from agent_stores.messages import ChatMessage
from agent_stores.plugins.langgraph.codec import GraphCodec, copy_message, is_own
from agent_stores.plugins.langgraph.records import Records, record_id
from agent_stores.store import ChatMessageStore

_ATTEMPTS = 32  # to add messages while others do, too
CACHED = 64  # threads


class Item:
    """A row of a list.

    Args:
        row: the row.
        message: its message.
    """

    __slots__ = ("_messages", "message", "own", "position", "row")

    def __init__(self, row: Row, message: ChatMessage) -> None:
        self.row = row
        self.position = row.position
        self.message = message
        self.own = is_own(message)
        self._messages: list[BaseMessage] | None = None

    def messages(self, codec: GraphCodec) -> list[BaseMessage]:
        """Its messages, for comparison only: they are not handed out, since graphs may change them."""
        if self._messages is None:
            self._messages = codec.decode(self.message)
        return self._messages


class Snapshot(NamedTuple):
    """A list's thread as of one moment.

    Attributes:
        items: its rows.
        last: its last position.
    """

    items: list[Item]
    last: int


Snapshots: TypeAlias = RecentDict[ThreadKey, Snapshot]
"""The threads that were used lately, as they were then."""


class Reference(NamedTuple):
    """A list in a checkpoint.

    Attributes:
        ranges: the first and the last position of each run of its messages.
        seen: what others added up to this position is part of the list, or was left out on purpose.
    """

    ranges: list[list[int]]
    seen: int

    def positions(self) -> Iterator[int]:
        """The positions of its messages, in the order of the list."""
        for first, last in self.ranges:
            yield from range(first, last + 1)


@dataclass
class MessageList:
    """A list of messages.

    Attributes:
        store: its thread.
        records: where rows are that left the thread.
        name: names the list there.
        codec: converts the messages.
        snapshots: what is known of threads.
    """

    store: ChatMessageStore[ChatMessage]
    records: Records
    name: str
    codec: GraphCodec
    snapshots: Snapshots

    def moved_id(self, position: int) -> str:
        """The id of the record that holds a row which left the thread."""
        return record_id("m", self.name, str(position))

    async def read(self) -> list[Item]:
        """The rows of the thread, as it is now."""
        return (await self._read()).items

    async def write(self, messages: Sequence[BaseMessage], parent: Reference | None) -> Reference:
        """Bring the thread to what the newest checkpoint has.

        Args:
            messages: the list.
            parent: the list of the checkpoint's parent.

        Raises:
            StoreUnavailableError: when other clients write to the thread all the time.
        """
        known, seen = (set(parent.positions()), parent.seen) if parent else (set[int](), 0)
        snapshot = self.snapshots.get(self.store._key)
        for _ in range(_ATTEMPTS):
            snapshot = snapshot or await self._read()
            kept, tail = self._match(snapshot.items, messages)
            stay = {item.position for item in kept}
            again = {message.id for message in tail}
            gone = [
                item
                for item in snapshot.items
                if item.position not in stay
                and (item.own or item.position in known or item.row.message_id in again)
                and item.messages(self.codec)
            ]
            if gone:
                await self.records.add(
                    {
                        self.moved_id(item.position): {"message": message_to_dict(item.message)}
                        for item in gone
                    }
                )
                await self.store.delete([item.row.message_id for item in gone])
            left = [item for item in snapshot.items if item not in gone]
            added = await self._append(tail, {item.row.message_id for item in left}, snapshot.last)
            if added is None:
                snapshot = None
                continue
            last = snapshot.last + len(added)
            unseen = any(item.position > seen and item.position not in stay and not item.own for item in left)
            self._remember(Snapshot(left + added, last))
            return Reference(_ranges(item.position for item in (*kept, *added)), seen if unseen else last)
        raise StoreUnavailableError(
            f"{self.store.location}: thread {self.store.thread_id!r} changed too often; the checkpoint was "
            "not written"
        )

    async def restore(self, references: Sequence[Reference], *, with_new: bool) -> list[list[BaseMessage]]:
        """The lists of checkpoints.

        Args:
            references: the list in each of the checkpoints.
            with_new: whether it has what others added since.
        """
        items = {item.position: item for item in await self.read()}
        # Where the oldest rows are trimmed, nothing below the first one is looked for.
        first = min(items, default=0) if self.store._settings.max_messages is not None else 0
        held = {position for reference in references for position in reference.positions()}
        names = {self.moved_id(one): one for one in held if one not in items and one >= first}
        every = dict(items)
        for name, data in (await self.records.get(names)).items():
            every[names[name]] = Item(Row("", b"", names[name]), message_from_dict(data["message"]))
        return [
            self.decode(_with_new(reference, items, every) if with_new else _resolve(reference, every))
            for reference in references
        ]

    async def keep_only(self, used: Collection[int]) -> None:
        """Delete the rows that graphs wrote, apart from those at some positions."""
        unused = [item for item in await self.read() if item.own and item.position not in used]
        if unused:
            await self.store.delete([item.row.message_id for item in unused])
            self.snapshots.discard(self.store._key)

    def decode(self, items: Iterable[Item]) -> list[BaseMessage]:
        """The messages of rows, to be handed out."""
        return [copy_message(message) for item in items for message in item.messages(self.codec)]

    async def _read(self) -> Snapshot:
        log, key = self.store.log, self.store._key
        stats = await log.stats(key)
        rows = [] if stats is None else await log.read(key, before=stats.last_position + 1)
        known = self.snapshots.get(key)
        held = {item.position: item for item in known.items} if known else {}
        items = [
            old
            if (old := held.get(row.position)) is not None and old.row.body == row.body
            else Item(row, decode_stored(row.body))
            for row in rows
        ]
        return self._remember(Snapshot(items, 0 if stats is None else stats.last_position))

    def _match(
        self, items: Sequence[Item], messages: Sequence[BaseMessage]
    ) -> tuple[list[Item], Sequence[BaseMessage]]:
        """The rows that hold the beginning of a list, in order, and the rest of the list."""
        by_id: dict[str | None, list[int]] = {}
        for index, item in enumerate(items):
            if found := item.messages(self.codec):
                by_id.setdefault(found[0].id, []).append(index)
        kept: list[Item] = []
        start, last = 0, -1
        while start < len(messages):
            candidates = by_id.get(messages[start].id, [])
            at = bisect_right(candidates, last)
            if at == len(candidates):
                break
            item = items[candidates[at]]
            held = item.messages(self.codec)
            if list(messages[start : start + len(held)]) != held:
                break
            kept.append(item)
            last = candidates[at]
            start += len(held)
        return kept, messages[start:]

    async def _append(self, messages: Sequence[BaseMessage], taken: set[str], last: int) -> list[Item] | None:
        """Add messages after a position; None when another client wrote to the thread since."""
        found = []
        for message in messages:
            name = message.id
            if not name or name in taken:
                name = os.urandom(16).hex()
            taken.add(name)
            found.append(self.codec.encode(message, name))
        if not found:
            return []
        log, settings = self.store.log, self.store._settings
        rows = settings.to_rows(found, log.max_message_bytes)
        try:
            position = await log.append(
                self.store._key,
                rows,
                expected_position=last,
                max_messages=settings.max_messages,
                ttl=settings.ttl,
            )
        except ConflictError:
            return None
        if position != last + len(rows):  # another client has added them
            return None
        return [
            Item(replace(row, position=number), message)
            for number, (row, message) in enumerate(zip(rows, found, strict=True), last + 1)
        ]

    def _remember(self, snapshot: Snapshot) -> Snapshot:
        self.snapshots[self.store._key] = snapshot
        return snapshot


def _resolve(reference: Reference, every: Mapping[int, Item]) -> list[Item]:
    """The rows of a list; those that were trimmed or deleted are missing."""
    return [every[position] for position in reference.positions() if position in every]


def _with_new(reference: Reference, items: Mapping[int, Item], every: Mapping[int, Item]) -> list[Item]:
    """The rows of the newest checkpoint's list, with what others added to the thread since.

    When another client replaced all rows of the thread, it has the new ones.

    Args:
        reference: the list.
        items: the rows of the thread.
        every: these, and those that are no longer there.
    """
    if reference.ranges and items and min(items) > reference.seen:
        return [items[position] for position in sorted(items)]
    held = set(reference.positions())
    new = (item for position, item in items.items() if position > reference.seen and position not in held)
    return [*_resolve(reference, every), *(item for item in new if not item.own)]


def _ranges(positions: Iterable[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for position in positions:
        if ranges and position == ranges[-1][1] + 1:
            ranges[-1][1] = position
        else:
            ranges.append([position, position])
    return ranges
