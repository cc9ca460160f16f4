"""Lists of messages in a graph's state: each is a thread, to whose rows checkpoints refer by position.

The thread shows the list of the newest checkpoint, followed by what others added since. A step that adds
messages appends rows. Rows that the newest checkpoint does not have (removed, changed, or of a branch that
was left) move to the records, where older checkpoints find them.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_stores.backend import Row
from agent_stores.errors import ConflictError, StoreUnavailableError
from agent_stores.message_format import decode_stored, message_from_dict, message_to_dict
from agent_stores.message_rows import make_rows
from agent_stores.messages import ChatMessage
from agent_stores.plugins.langgraph.codec import GraphMessageCodec, copy_message, is_own
from agent_stores.plugins.langgraph.threads import GraphThreads, ListKey
from agent_stores.store import ChatMessageStore

Ranges = list[list[int]]
"""Positions in the order of a list: first and last of each run."""

_ATTEMPTS = 32  # to add messages while others do, too
_CACHED = 64  # threads


class Item:
    """A row of a list.

    Args:
        row: the row.
        message: its message.
    """

    __slots__ = ("_messages", "message", "own", "row")

    def __init__(self, row: Row, message: ChatMessage) -> None:
        self.row = row
        self.message = message
        self.own = is_own(message)
        self._messages: list[BaseMessage] | None = None

    @property
    def position(self) -> int:
        """Its position."""
        return self.row.position

    def messages(self, codec: GraphMessageCodec, serde: SerializerProtocol) -> list[BaseMessage]:
        """Its messages, for comparison only: they are not handed out, since graphs may change them."""
        if self._messages is None:
            self._messages = codec.decode(self.message, serde)
        return self._messages


class Snapshot(NamedTuple):
    """A list's thread as of one moment.

    Attributes:
        items: its rows.
        last: its last position.
    """

    items: list[Item]
    last: int


class Reference(NamedTuple):
    """A list in a checkpoint.

    Attributes:
        ranges: the positions of its messages.
        seen: what others added up to this position is part of the list, or was left out on purpose.
    """

    ranges: Ranges
    seen: int


class MessageLists:
    """The lists of messages of graphs' states.

    Args:
        threads: finds their threads.
        codec: converts the messages.
    """

    def __init__(self, threads: GraphThreads, codec: GraphMessageCodec) -> None:
        self._threads = threads
        self._codec = codec
        self._cache: dict[tuple[str | None, str], Snapshot] = {}

    async def read(self, store: ChatMessageStore[ChatMessage]) -> Snapshot:
        """The thread of a list, as it is now."""
        key = store._key
        stats = await store.log.stats(key)
        rows = [] if stats is None else await store.log.read(key, before=stats.last_position + 1)
        known = self._cache.get(key)
        held = {item.position: item for item in known.items} if known else {}
        items = [
            old
            if (old := held.get(row.position)) is not None and old.row.body == row.body
            else Item(row, decode_stored(row.body))
            for row in rows
        ]
        return self._remember(store, Snapshot(items, 0 if stats is None else stats.last_position))

    async def write(
        self,
        key: ListKey,
        messages: Sequence[BaseMessage],
        parent: Reference | None,
        serde: SerializerProtocol,
    ) -> Reference:
        """Bring the thread of a list to what the newest checkpoint has.

        Args:
            key: names the list.
            messages: the list.
            parent: the list of the checkpoint's parent.
            serde: the graph's serializer.

        Raises:
            StoreUnavailableError: when other clients write to the thread all the time.
        """
        store = self._threads.messages(key)
        settings = store._settings
        known = set(positions(parent.ranges)) if parent else set()
        seen = parent.seen if parent else 0
        snapshot = self._cache.get(store._key)
        for _ in range(_ATTEMPTS):
            if snapshot is None:
                snapshot = await self.read(store)
            kept, tail = self._match(snapshot.items, messages, serde)
            stay = {item.position for item in kept}
            again = {message.id for message in tail}
            gone = [
                item
                for item in snapshot.items
                if item.position not in stay
                and (item.own or item.position in known or item.row.message_id in again)
                and item.messages(self._codec, serde)
            ]
            if gone:
                moved = {
                    self._threads.moved_id(key, item.position): {"message": message_to_dict(item.message)}
                    for item in gone
                }
                await self._threads.records(key.thread_id).add(moved)
                await store.log.delete(store._key, [item.row.message_id for item in gone])
            left = [item for item in snapshot.items if item not in gone]
            encoded = self._encode(tail, {item.row.message_id for item in left}, serde)
            rows = make_rows(encoded, settings.count_tokens, max_bytes=store.log.max_message_bytes)
            last = snapshot.last
            if rows:
                try:
                    last = await store.log.append(
                        store._key,
                        rows,
                        expected_position=snapshot.last,
                        max_messages=settings.max_messages,
                        ttl=settings.ttl,
                    )
                except ConflictError:
                    snapshot = None
                    continue
                if last != snapshot.last + len(rows):  # another client has added them
                    snapshot = None
                    continue
            new = [
                Item(_at(row, snapshot.last + number), message)
                for number, (row, message) in enumerate(zip(rows, encoded, strict=True), 1)
            ]
            unseen = any(item.position > seen and item.position not in stay and not item.own for item in left)
            self._remember(store, Snapshot(left + new, last))
            return Reference(_ranges([item.position for item in (*kept, *new)]), seen if unseen else last)
        raise StoreUnavailableError(
            f"{store.location}: thread {store.thread_id!r} changed too often; the checkpoint was not written"
        )

    async def restore(
        self, key: ListKey, references: Sequence[Reference], serde: SerializerProtocol, *, with_new: bool
    ) -> list[list[BaseMessage]]:
        """The lists of checkpoints.

        Args:
            key: names the list.
            references: the list in each of the checkpoints.
            serde: the graph's serializer.
            with_new: whether the conversation has what others added since.
        """
        store = self._threads.messages(key)
        items = {item.position: item for item in (await self.read(store)).items}
        # Where the oldest rows are trimmed, nothing below the first one is looked for.
        first = min(items, default=0) if store._settings.max_messages is not None else 0
        held = {one for reference in references for one in positions(reference.ranges)}
        names = {self._threads.moved_id(key, one): one for one in held if one not in items and one >= first}
        moved = {}
        for name, data in (await self._threads.records(key.thread_id).get(names)).items():
            message = message_from_dict(data["message"])
            moved[names[name]] = Item(Row(message.message_id or "", b"", names[name]), message)
        new = with_new and self._threads.is_conversation(key)
        return [
            self.decode(_resolve(reference, items, moved, with_new=new), serde) for reference in references
        ]

    async def keep_only(self, key: ListKey, used: Collection[int]) -> None:
        """Delete the rows of a list that graphs wrote, apart from those at some positions."""
        store = self._threads.messages(key)
        items = (await self.read(store)).items
        unused = [item.row.message_id for item in items if item.own and item.position not in used]
        if unused:
            await store.delete(unused)
            self._cache.pop(store._key, None)

    def decode(self, items: Iterable[Item], serde: SerializerProtocol) -> list[BaseMessage]:
        """The messages of rows, to be handed out."""
        return [copy_message(message) for item in items for message in item.messages(self._codec, serde)]

    def _match(
        self, items: Sequence[Item], messages: Sequence[BaseMessage], serde: SerializerProtocol
    ) -> tuple[list[Item], Sequence[BaseMessage]]:
        """The rows that hold the beginning of a list, in order, and the rest of the list."""
        by_id: dict[str | None, list[int]] = {}
        for index, item in enumerate(items):
            if found := item.messages(self._codec, serde):
                by_id.setdefault(found[0].id, []).append(index)
        kept: list[Item] = []
        start, last = 0, -1
        while start < len(messages):
            candidates = by_id.get(messages[start].id, [])
            at = bisect_right(candidates, last)
            if at == len(candidates):
                break
            item = items[candidates[at]]
            held = item.messages(self._codec, serde)
            if list(messages[start : start + len(held)]) != held:
                break
            kept.append(item)
            last = candidates[at]
            start += len(held)
        return kept, messages[start:]

    def _encode(
        self, messages: Sequence[BaseMessage], taken: set[str], serde: SerializerProtocol
    ) -> list[ChatMessage]:
        found = []
        for message in messages:
            name = message.id
            if not name or name in taken:
                name = os.urandom(16).hex()
            taken.add(name)
            found.append(self._codec.encode(message, name, serde))
        return found

    def _remember(self, store: ChatMessageStore[ChatMessage], snapshot: Snapshot) -> Snapshot:
        key = store._key
        self._cache.pop(key, None)
        self._cache[key] = snapshot
        if len(self._cache) > _CACHED:
            self._cache.pop(next(iter(self._cache)), None)
        return snapshot


def positions(ranges: Ranges) -> Iterator[int]:
    """The positions of a list, in its order."""
    for first, last in ranges:
        yield from range(first, last + 1)


def _resolve(
    reference: Reference, items: Mapping[int, Item], moved: Mapping[int, Item], *, with_new: bool
) -> list[Item]:
    """The rows of a list in a checkpoint; those that were trimmed or deleted are missing.

    When another client replaced all rows of the thread, the newest checkpoint has the new ones.

    Args:
        reference: the list.
        items: the rows of its thread.
        moved: rows that are no longer there.
        with_new: whether to add what others added since.
    """
    if with_new and reference.ranges and items and min(items) > reference.seen:
        return [items[position] for position in sorted(items)]
    found = [
        item
        for position in positions(reference.ranges)
        if (item := items.get(position) or moved.get(position)) is not None
    ]
    if with_new:
        held = {item.position for item in found}
        new = (item for position, item in items.items() if position > reference.seen)
        found += [item for item in new if not item.own and item.position not in held]
    return found


def _ranges(found: Sequence[int]) -> Ranges:
    ranges: Ranges = []
    for position in found:
        if ranges and position == ranges[-1][1] + 1:
            ranges[-1][1] = position
        else:
            ranges.append([position, position])
    return ranges


def _at(row: Row, position: int) -> Row:
    return Row(row.message_id, row.body, position, row.boundary, row.pinned, row.bytes, row.tokens)
