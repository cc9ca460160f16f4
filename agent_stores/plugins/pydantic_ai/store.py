"""`AgentStoresConversationStore`: a conversation store of Pydantic AI over any of our stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec.structs import replace
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from typing_extensions import Unpack

from agent_stores.backend import Row
from agent_stores.errors import ArgumentError, ConflictError, StoreRejectedError, StoreUnavailableError
from agent_stores.listing import ThreadStats
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.pydantic_ai.codec import ModelMessageCodec
from agent_stores.plugins.pydantic_ai.entries import Chain, Conversation
from agent_stores.plugins.pydantic_ai.parts import FRAMEWORK
from agent_stores.plugins.pydantic_ai.records import (
    BRANCHES,
    foreign_record,
    kept,
    load_record,
    record_data,
    revision_of,
)
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.store_options import identifier

_REMEMBERED = 4096  # entries whose conversation is remembered


class AgentStoresConversationStore(AsyncClosing, ConversationStore):
    """Conversations as Pydantic AI stores them; implements every primitive.

    A conversation is the thread of its id, each message of its current history a row of it, which other
    frameworks read and add to. The record is in the thread's metadata. Entries of branches that the
    conversation left are in the thread ``#pydantic_ai/{conversation id}``.

    Args:
        store: where they are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id.
        options: those of the store, for a URL or a log: ``tenant``, ``ttl``, ``ttl_refresh``,
            ``max_messages``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for wrong values. Nothing connects before the first operation.
    """

    def __init__(self, store: StoreLike, **options: Unpack[PluginOptions]) -> None:
        self._codec = ModelMessageCodec()
        self._opened: StoreResolver[Any] = StoreResolver(
            store, codec=self._codec, options=options, dangling_calls="keep"
        )
        self._homes: dict[str, str] = {}  # the conversation of an entry, by the entry's id

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """The record of a conversation, or None.

        A conversation that another framework began has a record, too. What another framework added since a
        save changes the revision, and is part of the history.
        """
        conversation = self._conversation(conversation_id)
        stats = await self._stats(conversation)
        if stats is None or self._revision(stats) is None:
            return None
        record = load_record(stats) if kept(stats) else foreign_record(stats)
        if stats.last_position != kept(stats).get("position", 0):
            chain = await conversation.read(limit=1)
            record.head_id = chain.ids[-1] if chain.ids else None
        self._remember(conversation_id, [record.head_id, *record.branches])
        return record

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """The records that Pydantic AI saved, newest first; reads no messages."""
        found: list[ConversationRecord] = []
        if limit == 0:
            return found
        async for stats in self._threads():
            record = load_record(stats)
            if scope is None or record.scope == scope:
                self._remember(record.conversation_id, [record.head_id, *record.branches])
                found.append(record)
                if len(found) == limit:
                    break
        found.sort(key=lambda record: record.updated_at, reverse=True)
        return found

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and the entries that its history adds, or neither.

        Raises:
            ConversationConflict: when the conversation is not at `expected_revision`.
            ArgumentError: when the record is larger than 64 KiB.
        """
        conversation_id = record.conversation_id
        conversation = self._conversation(conversation_id)
        store = conversation.store
        conflict = ConversationConflict(conversation_id)
        stats = await self._stats(conversation)
        if self._revision(stats) != expected_revision:
            raise conflict
        stats = stats or ThreadStats(tenant=store.tenant, thread_id=store.thread_id)
        base = new_entries[0].parent_id if new_entries else record.head_id
        if record.head_id != (new_entries[-1].id if new_entries else base):
            raise conflict
        rows = conversation.rows_of(new_entries)
        chain = await conversation.read(limit=1)
        undo: list[Row] | None = None
        settings = store._settings
        position = stats.last_position
        try:
            if base == (chain.ids[-1] if chain.ids else None):
                if rows:
                    position = await store.log.append(
                        store._key,
                        rows,
                        expected_position=position,
                        max_messages=settings.max_messages,
                        ttl=settings.ttl,
                    )
            else:
                chain = await conversation.read()
                changed = await self._rewritten(conversation, record, chain, base)
                if changed is None:
                    raise conflict
                undo = chain.rows
                position = await store.log.replace_all(
                    store._key, _placeless([*changed, *rows]), expected_position=position, ttl=settings.ttl
                )
        except ConflictError:
            raise conflict from None
        try:
            data = {FRAMEWORK: record_data(record, position)}
            await store.update_metadata(data, expected_revision=stats.revision)
        except (ArgumentError, ConflictError, StoreUnavailableError, StoreRejectedError) as error:
            if undo is not None:
                await store.log.replace_all(store._key, _placeless(undo), expected_position=position)
            elif rows:
                await store.log.delete(store._key, [row.message_id for row in rows])
            if isinstance(error, ConflictError):
                raise conflict from None
            raise
        self._remember(conversation_id, [record.head_id, *(row.message_id for row in rows)])

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation with all its messages; forks have their own and stay.

        Raises:
            ConversationConflict: when the conversation is not at `expected_revision`.
        """
        conversation = self._conversation(conversation_id)
        stats = await self._stats(conversation)
        if stats is None or self._revision(stats) != expected_revision:
            raise ConversationConflict(conversation_id)
        try:
            await conversation.store.update_metadata({FRAMEWORK: None}, expected_revision=stats.revision)
        except ConflictError:
            raise ConversationConflict(conversation_id) from None
        await conversation.delete()

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """The entries from the first one up to `head_id`, or only the last `limit` of them.

        Raises:
            LookupError: when there is no such entry.
        """
        if head_id is None or limit == 0:
            return []
        conversation_id = await self._home(head_id)
        conversation = self._conversation(conversation_id)
        chain = await conversation.read(limit)
        if head_id not in chain.ids or (limit is not None and chain.ids[-1:] != [head_id]):
            chain = await conversation.read()
        entries = await conversation.history(head_id, chain)
        self._remember(conversation_id, [entry.id for entry in entries[-64:]])
        return entries if limit is None else entries[-limit:]

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """The entry with this id.

        Raises:
            LookupError: when there is none.
        """
        return (await self.read_history(entry_id))[-1]

    async def _rewritten(
        self, conversation: Conversation, record: ConversationRecord, chain: Chain, base: str | None
    ) -> list[Row] | None:
        """The rows of the history up to an entry; what it leaves is kept first.

        None when the entry does not exist.
        """
        rows: list[Row] = []
        if base is not None:
            try:
                rows = await conversation.rows_to(base, chain)
            except LookupError:
                if record.forked_from is None or record.forked_from == record.conversation_id:
                    return None
                source = self._conversation(record.forked_from)
                try:
                    rows = await source.rows_to(base, await source.read())
                except LookupError:
                    return None
        stay = {row.message_id for row in rows}
        await conversation.leave([entry for entry in chain.entries if entry.id not in stay])
        return rows

    async def _home(self, entry_id: str) -> str:
        """The conversation of an entry; looks for it in all of them where it was not read before."""
        found = self._homes.get(entry_id)
        if found is not None:
            return found
        async for stats in self._threads():
            if await self._conversation(stats.thread_id).has(entry_id):
                self._remember(stats.thread_id, [entry_id])
                return stats.thread_id
        raise LookupError(f"entry {entry_id!r} does not exist")

    def _remember(self, conversation_id: str, entry_ids: Sequence[str | None]) -> None:
        for entry_id in entry_ids:
            if entry_id is not None:
                self._homes[entry_id] = conversation_id
        while len(self._homes) > _REMEMBERED:
            self._homes.pop(next(iter(self._homes)), None)

    @staticmethod
    def _revision(stats: ThreadStats | None) -> str | None:
        return None if stats is None or not (kept(stats) or stats.messages) else revision_of(stats)

    @staticmethod
    async def _stats(conversation: Conversation) -> ThreadStats | None:
        return await conversation.store.log.stats(conversation.store._key)

    def _conversation(self, conversation_id: str) -> Conversation:
        if identifier("conversation_id", conversation_id).startswith(BRANCHES):
            raise ArgumentError(f"conversation_id must not begin with {BRANCHES!r}, got {conversation_id!r}")
        store, left = map(self._opened.neutral, (conversation_id, BRANCHES + conversation_id))
        return Conversation(store, left, self._codec)

    async def _threads(self) -> AsyncIterator[ThreadStats]:
        """The threads of conversations that Pydantic AI saved, the most recently written first."""
        async for stats in self._opened.threads(order="recent"):
            if kept(stats):
                yield stats


def _placeless(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, position=0) for row in rows]
