"""Entries: the current history of a conversation, and those of branches that it left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic_ai.conversation_store import ConversationEntry

from agent_stores.backend import Row
from agent_stores.contents import OpaqueContent
from agent_stores.listing import to_microseconds
from agent_stores.message_format import encode_message, message_from_dict, message_to_dict
from agent_stores.message_rows import decode_rows, make_rows
from agent_stores.messages import ChatMessage
from agent_stores.plugins.pydantic_ai.codec import ModelMessageCodec
from agent_stores.plugins.pydantic_ai.parts import FRAMEWORK
from agent_stores.store import ChatMessageStore

_AT_LEAST = 8  # rows that are read, since not all of them need be entries


class Chain:
    """The history that a thread holds, or its end.

    Args:
        rows: its rows, in order.
        entries: the entries among them; each follows the one before it.
    """

    def __init__(self, rows: list[Row], entries: list[ConversationEntry]) -> None:
        self.rows = rows
        self.entries = entries
        self.ids = [entry.id for entry in entries]

    def rows_to(self, entry_id: str) -> list[Row]:
        """The rows up to an entry, those that are no entries included."""
        names = [row.message_id for row in self.rows]
        return self.rows[: names.index(entry_id) + 1]


async def read_chain(
    store: ChatMessageStore[ChatMessage], codec: ModelMessageCodec, *, limit: int | None = None
) -> Chain:
    """The history that a thread holds, or its last `limit` entries and some more."""
    if limit is None:
        rows = await store.log.read(store._key)
        return _chain(store, codec, rows, None)
    rows = []
    while True:
        size = max(limit + 1, _AT_LEAST)
        before = rows[0].position if rows else None
        page = await store.log.read(store._key, before=before, limit=size, newest=True)
        rows = page + rows
        unpinned = sum(not row.pinned for row in page)
        chain = _chain(store, codec, rows, None)
        if unpinned < size:
            return chain
        if len(chain.entries) > limit:  # the first one's parent is not known
            return Chain(rows, chain.entries[1:])


def _chain(
    store: ChatMessageStore[ChatMessage],
    codec: ModelMessageCodec,
    rows: list[Row],
    parent_id: str | None,
) -> Chain:
    decoded = decode_rows(rows, thread_id=store.thread_id, on_corrupt=store._settings.on_corrupt)
    entries: list[ConversationEntry] = []
    for ours, message in codec.decode([message for _, message in decoded]):
        entry = ConversationEntry(id=str(ours.message_id), parent_id=parent_id, message=message)
        entries.append(entry)
        parent_id = entry.id
    return Chain(rows, entries)


class Branches:
    """The entries that are in no current history, of one conversation.

    Args:
        store: their thread.
        codec: converts the messages.
    """

    def __init__(self, store: ChatMessageStore[ChatMessage], codec: ModelMessageCodec) -> None:
        self._store = store
        self._codec = codec

    async def has(self, entry_id: str) -> bool:
        """Whether an entry is here."""
        return bool(await self._store.log.backend.find(self._store._key, [entry_id]))

    async def add(self, entries: Sequence[ConversationEntry]) -> None:
        """Keep entries; those that are here stay as they are."""
        if not entries:
            return
        now = datetime.now(timezone.utc)
        rows = []
        for entry in entries:
            message = message_to_dict(self._codec.encode(entry.message, entry.id))
            part = OpaqueContent(
                {"type": f"{FRAMEWORK}.entry", "parent": entry.parent_id, "message": message}
            )
            kept = ChatMessage("system", contents=[part], message_id=entry.id, created_at=now)
            body = encode_message(kept)
            rows.append(Row(entry.id, body, bytes=len(body), created_us=to_microseconds(now)))
        await self._store.log.append(self._store._key, rows, ttl=self._store._settings.ttl)

    async def delete(self) -> None:
        """Delete all of them."""
        await self._store.log.delete_thread(self._store._key)

    async def history(self, entry_id: str, chain: Chain) -> list[ConversationEntry]:
        """The entries up to one that is here.

        Raises:
            LookupError: when it is not, or one before it is neither here nor in the current history.
        """
        kept = await self._read()
        found: list[ConversationEntry] = []
        current: str | None = entry_id
        while current is not None and current not in chain.ids:
            if current not in kept:
                raise LookupError(f"entry {current!r} does not exist")
            data = kept[current]
            ((_, message),) = self._codec.decode([message_from_dict(data["message"])])
            found.append(ConversationEntry(id=current, parent_id=data["parent"], message=message))
            current = data["parent"]
        shared = [] if current is None else chain.entries[: chain.ids.index(current) + 1]
        return [*shared, *reversed(found)]

    async def rows_to(self, entry_id: str, chain: Chain) -> list[Row]:
        """The rows of the history up to an entry that is here.

        Raises:
            LookupError: as `history` does.
        """
        history = await self.history(entry_id, chain)
        shared = [entry for entry in history if entry.id in chain.ids]
        rows = chain.rows_to(shared[-1].id) if shared else []
        rest = [self._codec.encode(entry.message, entry.id) for entry in history if entry.id not in chain.ids]
        return [*rows, *make_rows(rest, self._store._settings.count_tokens)]

    async def _read(self) -> dict[str, dict[str, Any]]:
        store = self._store
        rows = await store.log.read(store._key)
        found: dict[str, dict[str, Any]] = {}
        for row, message in decode_rows(rows, thread_id=store.thread_id, on_corrupt="raise"):
            if message.contents and isinstance(message.contents[0], OpaqueContent):
                found[row.message_id] = dict(message.contents[0].data)
        return found
