"""`AgentStoresChatStore`: a chat store of LlamaIndex over any of our stores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from llama_index.core.storage.chat_store import loading
from llama_index.core.storage.chat_store.base import BaseChatStore
from typing_extensions import Self, Unpack

from agent_stores.errors import ArgumentError, StateError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.blocking import blocking
from agent_stores.plugins.llama_index.threads import ChatStoreOptions, Stored, StoredThreads, flat
from agent_stores.plugins.shown import newest, take_out
from agent_stores.plugins.store_resolver import StoreLike
from agent_stores.store_options import sequence


def _key(store: Any, key: str, *_: Any, **__: Any) -> str:
    return key


class AgentStoresChatStore(StoredThreads, BaseChatStore):
    """Conversations by key, as `ChatMemoryBuffer` takes them, synchronously and asynchronously.

    A key is the thread id of a store. Messages come back as they are stored; `set_messages` is one step, and
    keeps the records of messages that come back unchanged. The asynchronous methods run on the caller's event
    loop; the synchronous ones wait for it on a loop thread, and block a running loop that calls them.

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
        return "AgentStoresChatStore"

    # -- asynchronously ---------------------------------------------------------------------------------

    async def aset_messages(self, key: str, messages: list[LlamaMessage]) -> None:
        """Let a conversation hold these messages and no others, in one step."""
        given = sequence("messages", messages)
        await self._rewrite(key, lambda before: self._match_existing(before, given))

    async def aget_messages(self, key: str) -> list[LlamaMessage]:
        """The messages of a conversation as they are stored, oldest first; none for an unknown key."""
        return [found.message for _, found in flat(await self._all(key))]

    async def async_add_message(self, key: str, message: LlamaMessage, idx: int | None = None) -> None:
        """Add a message at the end, or before the one at an index.

        At the end the cost does not depend on the length; the same object may be added again after a call
        that failed, and is then added once.
        """
        if idx is None:
            await self.store_of(key).add_messages([message])
            return

        def insert(before: list[Stored]) -> list[ChatMessage]:
            messages = [found.message for _, found in flat(before)]
            messages.insert(idx, message)
            return self._match_existing(before, messages)

        await self._rewrite(key, insert)

    async def adelete_messages(self, key: str) -> list[LlamaMessage] | None:
        """Delete a conversation, and return its messages; None for an unknown key."""
        messages = await self.aget_messages(key)
        return messages if await self.store_of(key).delete_thread() else None

    async def adelete_message(self, key: str, idx: int) -> LlamaMessage | None:
        """Delete the message at an index, as of a list, and return it; None where there is none."""
        every = list(flat(await self._all(key)))
        if not -len(every) <= idx < len(every):
            return None
        item, found = every[idx]
        is_done = await take_out(self._neutral(key), item.message, found.parts, self._codec.messages_of)
        return found.message if is_done else None

    async def adelete_last_message(self, key: str) -> LlamaMessage | None:
        """Delete the newest message and return it; None where there is none."""
        store, show = self._neutral(key), self._codec.messages_of
        while last := await newest(store, show, 1):
            message, found = last[0]
            if await take_out(store, message, found.parts, show):
                return found.message
        return None

    async def aget_keys(self) -> list[str]:
        """The keys of all conversations, in order."""
        return await self._opened.thread_ids()

    # -- the same, for code without an event loop ---------------------------------------------------------

    set_messages = blocking(aset_messages, BaseChatStore.set_messages, _key)
    get_messages = blocking(aget_messages, BaseChatStore.get_messages, _key)
    delete_messages = blocking(adelete_messages, BaseChatStore.delete_messages, _key)
    delete_message = blocking(adelete_message, BaseChatStore.delete_message, _key)
    delete_last_message = blocking(adelete_last_message, BaseChatStore.delete_last_message, _key)
    get_keys = blocking(aget_keys, BaseChatStore.get_keys)

    def add_message(self, key: str, message: LlamaMessage, idx: int | None = None) -> None:
        """See `async_add_message`; blocks."""
        self._opened.wait(self.async_add_message(key, message, idx), key)

    # -- as a file --------------------------------------------------------------------------

    def persist(self, persist_path: str | Path = "chat_store.json", fs: Any = None) -> None:
        """Write the conversations of a store in memory to a file.

        Args:
            persist_path: the file's name; folders are made if need be.
            fs: a file system of fsspec; the machine's own by default.

        Raises:
            ArgumentError: for a store that is not in memory, which keeps them itself.
        """
        if not self._is_in_memory:
            raise ArgumentError("this chat store is not in memory: its conversations are kept already")
        fs, path = fs or fsspec.filesystem("file"), str(persist_path)
        folder = path.rpartition("/")[0]
        if folder and not fs.exists(folder):
            fs.makedirs(folder)
        with fs.open(path, "w", encoding="utf-8") as file:
            file.write(self.model_dump_json())

    @classmethod
    def from_persist_path(cls, persist_path: str | Path = "chat_store.json", fs: Any = None) -> Self:
        """A store in memory with the conversations of a file; an empty one where there is no file.

        Raises:
            StateError: when the file is not one that `persist` wrote.
        """
        fs, path = fs or fsspec.filesystem("file"), str(persist_path)
        if not fs.exists(path):
            return cls()
        with fs.open(path, "r", encoding="utf-8") as file:
            text = file.read()
        try:
            data = json.loads(text)
        except ValueError as error:
            raise StateError(f"the file {path!r} is not JSON: {error}") from None
        return cls._from_file(data, path)

    @classmethod
    def _from_file(cls, data: Any, path: str) -> Self:
        if not isinstance(data, dict) or data.get("class_name") != cls.class_name():
            raise StateError(f"the file {path!r} is not one that {cls.__name__}.persist wrote")
        return cls(**data)


# So that LlamaIndex's own memory finds the class of a chat store in its JSON.
loading.RECOGNIZED_CHAT_STORES[AgentStoresChatStore.class_name()] = AgentStoresChatStore  # type: ignore[assignment]
