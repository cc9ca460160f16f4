"""`AgentStoresDBChatStore`: the chat store of LlamaIndex's `Memory`, over any of our stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus
from typing_extensions import Unpack

from agent_stores._checks import check_limit
from agent_stores.messages import ChatMessage
from agent_stores.plugins.llama_index.threads import ChatStoreOptions, Stored, StoredThreads, flat
from agent_stores.plugins.store_resolver import StoreLike
from agent_stores.store_options import sequence

_MARK = "llama_index_archived"  # of `additional_properties`
_THIS = "this"  # the message alone
_THROUGH = "through"  # the message and all before it
_FIRST = 64  # messages read at once when the active ones are looked for


class AgentStoresDBChatStore(StoredThreads, AsyncDBChatStore):
    """Conversations by key, with active and archived messages, as `Memory` keeps them.

    A key is the thread id of a store. Archiving the oldest messages writes one record, whatever their number,
    and reading the active ones does not read the archive.

    Made, closed and carried to another process as `StoredThreads` says; ``threads`` are the conversations
    that a store in memory begins with, as its JSON has them.
    """

    def __init__(
        self,
        store: StoreLike = "memory:",
        *,
        threads: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        **options: Unpack[ChatStoreOptions],
    ) -> None:
        super().__init__(store, {"threads": threads, **options})

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's JSON."""
        return "AgentStoresDBChatStore"

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[LlamaMessage]:
        """The messages of that status, or all, oldest first.

        Args:
            key: the conversation.
            status: which ones; None for all.
            limit: at most this number of messages, the oldest.
            offset: skip this number of messages.
        """
        check_limit("limit", limit)
        start = check_limit("offset", offset) or 0
        shown = [found.message for _, found in flat(await self._of(key, status))]
        return shown[start:] if limit is None else shown[start : start + limit]

    async def count_messages(self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE) -> int:
        """How many messages of that status there are, or of all."""
        return sum(len(item.shown) for item in await self._of(key, status))

    async def add_message(
        self, key: str, message: LlamaMessage, status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add a message at the end."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[LlamaMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add messages at the end, all or none."""
        given = sequence("messages", messages)
        if status == MessageStatus.ACTIVE:
            await self.store_of(key).add_messages(given)
        else:
            ours = [with_status(self._codec.to_chat_message(message), status) for message in given]
            await self._neutral(key).add_messages(ours)

    async def set_messages(
        self, key: str, messages: list[LlamaMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Let a conversation hold these messages and no others, in one step."""
        given = sequence("messages", messages)

        def change(before: list[Stored]) -> list[ChatMessage]:
            return [with_status(one, status) for one in self._match_existing(before, given)]

        await self._rewrite(key, change)

    async def delete_message(self, key: str, idx: int) -> LlamaMessage | None:
        """Delete the message at a position, and return it; None where there is none.

        Args:
            key: the conversation.
            idx: the position in the thread, from 1 up, as `ChatMessageStore.iter_messages` gives it.
        """
        every = await self._all(key)
        found = next((item for item in every if item.stored.position == idx and item.shown), None)
        if found is None:
            return None
        await self._delete(key, every, [found])
        return found.shown[0].message

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Delete the messages of that status, or the conversation."""
        if status is None:
            await self.store_of(key).delete_thread()
            return
        every = await self._all(key)
        await self._delete(key, every, _with_status(every, status))

    async def delete_oldest_messages(self, key: str, n: int) -> list[LlamaMessage]:
        """Delete the oldest *n* active messages, and return them."""
        oldest = await self._oldest(key, n)
        await self._neutral(key).delete([item.message.message_id or "" for item in oldest])
        return [found.message for _, found in flat(oldest)]

    async def archive_oldest_messages(self, key: str, n: int) -> list[LlamaMessage]:
        """Archive the oldest *n* active messages, and return them: all or none, by writing one record."""
        oldest = await self._oldest(key, n)
        if oldest:
            newest = oldest[-1].message
            await self._neutral(key).replace(newest.message_id or "", _marked(newest, _THROUGH))
        return [found.message for _, found in flat(oldest)]

    async def get_keys(self) -> list[str]:
        """The keys of all conversations, in order."""
        return await self._opened.thread_ids()

    async def _of(self, key: str, status: MessageStatus | None) -> list[Stored]:
        if status != MessageStatus.ACTIVE:
            return _with_status(await self._all(key), status)
        wanted = _FIRST
        while True:
            found = await self._neutral(key).latest(wanted)
            items = [Stored(one, self._codec.messages_of(one.message)) for one in found]
            if len(found) < wanted or any(_mark_of(one.message) == _THROUGH for one in found):
                return _with_status(items, status)
            wanted *= 4

    async def _oldest(self, key: str, count: int) -> list[Stored]:
        """The oldest active messages that LlamaIndex is shown as at most *n*."""
        check_limit("n", count)
        chosen: list[Stored] = []
        shown = 0
        for item in await self._of(key, MessageStatus.ACTIVE):
            shown += len(item.shown)
            if shown > count:
                break
            chosen.append(item)
        while chosen and not chosen[-1].shown:  # what stands before a message belongs to it
            chosen.pop()
        return chosen

    async def _delete(self, key: str, every: Sequence[Stored], gone: Sequence[Stored]) -> None:
        """Delete messages; the archive still ends where it did."""
        neutral = self._neutral(key)
        names = {item.message.message_id or "" for item in gone}
        end = max((i for i, item in enumerate(every) if _mark_of(item.message) == _THROUGH), default=-1)
        if end >= 0 and every[end].message.message_id in names:
            before = [item.message for item in every[:end] if item.message.message_id not in names]
            if before:
                await neutral.replace(before[-1].message_id or "", _marked(before[-1], _THROUGH))
        await neutral.delete(sorted(names))


def with_status(message: ChatMessage, status: str) -> ChatMessage:
    """The message with that status, whatever comes behind it."""
    return _marked(message, None if status == MessageStatus.ACTIVE else _THIS)


def _mark_of(message: ChatMessage) -> Any:
    return message.additional_properties.get(_MARK)


def _marked(message: ChatMessage, mark: str | None) -> ChatMessage:
    """The message with that mark, or without one."""
    if _mark_of(message) == mark:
        return message
    rest = {name: value for name, value in message.additional_properties.items() if name != _MARK}
    return message.replace(additional_properties=rest if mark is None else {**rest, _MARK: mark})


def _with_status(items: Sequence[Stored], status: MessageStatus | None) -> list[Stored]:
    """The messages of a status, of those that reach back to the end of the archive."""
    if status is None:
        return list(items)
    end = max((i for i, item in enumerate(items) if _mark_of(item.message) == _THROUGH), default=-1)
    archived = [i <= end or _mark_of(item.message) == _THIS for i, item in enumerate(items)]
    wanted = status == MessageStatus.ARCHIVED
    return [item for item, is_archived in zip(items, archived, strict=True) if is_archived == wanted]
