"""Entries: the current history of a conversation, and those of branches that it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_ai.conversation_store import ConversationEntry

from agent_stores.backend import Row
from agent_stores.message_format import message_from_dict, message_to_dict
from agent_stores.message_rows import decode_rows, make_rows
from agent_stores.messages import ChatMessage
from agent_stores.plugins.documents import document, document_data
from agent_stores.plugins.pydantic_ai.codec import ModelMessageCodec
from agent_stores.plugins.pydantic_ai.parts import FRAMEWORK
from agent_stores.store import ChatMessageStore

_KIND = f"{FRAMEWORK}.entry"
_AT_LEAST = 8  # rows that are read, since not all of them need be entries


class Chain(NamedTuple):
    """The history that a thread holds, or its end.

    Attributes:
        rows: its rows, in order.
        entries: the entries among them; each follows the one before it.
    """

    rows: list[Row]
    entries: list[ConversationEntry]

    @property
    def ids(self) -> list[str]:
        """The ids of the entries."""
        return [entry.id for entry in self.entries]


@dataclass
class Conversation:
    """The threads of a conversation.

    Attributes:
        store: the thread of its history.
        left: the thread of the entries that are no longer part of it.
        codec: converts the messages.
    """

    store: ChatMessageStore[ChatMessage]
    left: ChatMessageStore[ChatMessage]
    codec: ModelMessageCodec

    async def read(self, limit: int | None = None) -> Chain:
        """The history, or its last `limit` entries and some more."""
        log, key = self.store.log, self.store._key
        if limit is None:
            return self._chain(await log.read(key))
        size = max(limit + 1, _AT_LEAST)
        rows: list[Row] = []
        while True:
            page = await log.read(key, before=rows[0].position if rows else None, limit=size, newest=True)
            rows = page + rows
            chain = self._chain(rows)
            if sum(not row.pinned for row in page) < size:
                return chain
            if len(chain.entries) > limit:  # the first one's parent is not known
                return Chain(rows, chain.entries[1:])

    async def has(self, entry_id: str) -> bool:
        """Whether an entry is in the history, or was."""
        for store in (self.store, self.left):
            if await store.log.backend.find(store._key, [entry_id]):
                return True
        return False

    async def history(self, entry_id: str, chain: Chain) -> list[ConversationEntry]:
        """The entries up to one.

        Args:
            entry_id: the last one.
            chain: the whole history.

        Raises:
            LookupError: when it does not exist, or one before it.
        """
        shared, rest = await self._path(entry_id, chain)
        return [*chain.entries[:shared], *rest]

    async def rows_to(self, entry_id: str, chain: Chain) -> list[Row]:
        """The rows of `history`, with those in between that are no entries."""
        shared, rest = await self._path(entry_id, chain)
        names = [row.message_id for row in chain.rows]
        count = names.index(chain.ids[shared - 1]) + 1 if shared else 0
        return [*chain.rows[:count], *self.rows_of(rest)]

    def rows_of(self, entries: Sequence[ConversationEntry]) -> list[Row]:
        """The rows of entries, as they are to be stored.

        Raises:
            MessageTooLargeError: when one is larger than the server can store.
        """
        messages = [self.codec.encode(entry.message, entry.id) for entry in entries]
        return self.store._settings.to_rows(messages, self.store.log.max_message_bytes)

    async def leave(self, entries: Sequence[ConversationEntry]) -> None:
        """Keep entries that are to be no longer part of the history; those that are kept stay as they are."""
        documents = []
        for entry in entries:
            message = message_to_dict(self.codec.encode(entry.message, entry.id))
            documents.append(document(_KIND, entry.id, {"parent": entry.parent_id, "message": message}))
        if documents:
            rows = make_rows(documents, lambda _: 0)
            await self.left.log.append(self.left._key, rows, ttl=self.left._settings.ttl)

    async def delete(self) -> None:
        """Delete all entries."""
        await self.left.delete_thread()
        await self.store.delete_thread()

    def _chain(self, rows: list[Row]) -> Chain:
        decoded = self.store._settings.from_rows(rows, self.store.thread_id)
        entries: list[ConversationEntry] = []
        for ours, message in self.codec.decode([message for _, message in decoded]):
            parent_id = entries[-1].id if entries else None
            entries.append(ConversationEntry(id=str(ours.message_id), parent_id=parent_id, message=message))
        return Chain(rows, entries)

    async def _path(self, entry_id: str, chain: Chain) -> tuple[int, list[ConversationEntry]]:
        """How many of the history's entries lead to one, and those after them."""
        ids = chain.ids
        left: dict[str, dict[str, Any]] = {}
        if entry_id not in ids:
            rows = await self.left.log.read(self.left._key)
            for row, message in decode_rows(rows, thread_id=self.left.thread_id, on_corrupt="raise"):
                left[row.message_id] = document_data(_KIND, message)
        found: list[ConversationEntry] = []
        current: str | None = entry_id
        while current is not None and current not in ids:
            if current not in left:
                raise LookupError(f"entry {current!r} does not exist")
            data = left[current]
            ((_, theirs),) = self.codec.decode([message_from_dict(data["message"])])
            found.append(ConversationEntry(id=current, parent_id=data["parent"], message=theirs))
            current = data["parent"]
        return 0 if current is None else ids.index(current) + 1, found[::-1]
