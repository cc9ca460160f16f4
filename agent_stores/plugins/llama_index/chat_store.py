"""`AgentStoresChatStore`: a chat store of LlamaIndex over any of our stores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.storage.chat_store import loading
from llama_index.core.storage.chat_store.base import BaseChatStore
from pydantic import SerializationInfo, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import Self, Unpack

from agent_stores.errors import ArgumentError, StateError
from agent_stores.message_format import message_from_dict, message_to_dict
from agent_stores.plugins.llama_index.threads import Threads
from agent_stores.plugins.store_resolver import PluginOptions, StoreSource
from agent_stores.store_options import sequence


class AgentStoresChatStore(BaseChatStore):
    """Conversations by key, as `ChatMemoryBuffer` takes them, synchronously and asynchronously.

    A key is the thread id of a store. Messages come back as they are stored; `set_messages` is one step, and
    keeps the records of messages that come back unchanged. The asynchronous methods run on the caller's event
    loop; the synchronous ones wait for it on a loop thread, and block a running loop that calls them.

    Args:
        store: where they are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id; by default in this process's memory.
        threads: for a store in memory, the conversations that it begins with, as its JSON has them.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
    """

    _threads: Threads = PrivateAttr()
    _in_memory: bool = PrivateAttr(default=False)

    def __init__(
        self,
        store: StoreSource = "memory:",
        *,
        threads: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        if "window" in options or "dangling_calls" in options:
            raise ArgumentError(
                "a chat store shows messages as they are stored: window and dangling_calls are accepted by "
                "AgentStoresMemory"
            )
        given: dict[str, Any] = dict(options)
        is_state = given.pop("class_name", self.class_name()) != self.class_name() or "location" in given
        if is_state:
            raise StateError("a chat store on a server is not made from its JSON: make it from its URL")
        super().__init__()
        self._threads = Threads(store, given)  # type: ignore[arg-type]
        self._in_memory = isinstance(store, str) and store.rstrip("/") == "memory:"
        if threads:
            if not self._in_memory:
                raise ArgumentError("threads is given beside a store that is not in memory")
            self._threads.opened.wait(self._load(threads))

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's JSON."""
        return "AgentStoresChatStore"

    @property
    def threads(self) -> Threads:
        """The operations below."""
        return self._threads

    # -- asynchronously ---------------------------------------------------------------------------------

    async def aset_messages(self, key: str, messages: list[LlamaMessage]) -> None:
        """Let a conversation hold these messages and no others, in one step."""
        await self._threads.set(key, sequence("messages", messages))

    async def aget_messages(self, key: str) -> list[LlamaMessage]:
        """The messages of a conversation as they are stored, oldest first; none for an unknown key."""
        return [found.message for item in await self._threads.all(key) for found in item.shown]

    async def async_add_message(self, key: str, message: LlamaMessage, idx: int | None = None) -> None:
        """Add a message at the end, or before the one at an index.

        At the end the cost does not depend on the length; the same object may be added again after a call
        that failed, and is then added once.
        """
        if idx is None:
            await self._threads.store(key).add_messages([message])
        else:
            await self._threads.insert(key, idx, message)

    async def adelete_messages(self, key: str) -> list[LlamaMessage] | None:
        """Delete a conversation, and return its messages; None for an unknown key."""
        messages = await self.aget_messages(key)
        return messages if await self._threads.store(key).delete_thread() else None

    async def adelete_message(self, key: str, idx: int) -> LlamaMessage | None:
        """Delete the message at an index, as of a list, and return it; None where there is none."""
        return await self._threads.delete_at(key, idx)

    async def adelete_last_message(self, key: str) -> LlamaMessage | None:
        """Delete the newest message and return it; None where there is none."""
        return await self._threads.delete_last(key)

    async def aget_keys(self) -> list[str]:
        """The keys of all conversations, in order."""
        return await self._threads.opened.thread_ids()

    async def aclose(self) -> None:
        """Close what the chat store opened; what it was given stays open."""
        await self._threads.aclose()

    # -- synchronously ----------------------------------------------------------------------------------

    def set_messages(self, key: str, messages: list[LlamaMessage]) -> None:
        """See `aset_messages`; blocks."""
        self._threads.opened.wait(self.aset_messages(key, messages), key)

    def get_messages(self, key: str) -> list[LlamaMessage]:
        """See `aget_messages`; blocks."""
        return self._threads.opened.wait(self.aget_messages(key), key)

    def add_message(self, key: str, message: LlamaMessage, idx: int | None = None) -> None:
        """See `async_add_message`; blocks."""
        self._threads.opened.wait(self.async_add_message(key, message, idx), key)

    def delete_messages(self, key: str) -> list[LlamaMessage] | None:
        """See `adelete_messages`; blocks."""
        return self._threads.opened.wait(self.adelete_messages(key), key)

    def delete_message(self, key: str, idx: int) -> LlamaMessage | None:
        """See `adelete_message`; blocks."""
        return self._threads.opened.wait(self.adelete_message(key, idx), key)

    def delete_last_message(self, key: str) -> LlamaMessage | None:
        """See `adelete_last_message`; blocks."""
        return self._threads.opened.wait(self.adelete_last_message(key), key)

    def get_keys(self) -> list[str]:
        """See `aget_keys`; blocks."""
        return self._threads.opened.wait(self.aget_keys())

    def close(self) -> None:
        """See `aclose`; blocks."""
        self._threads.opened.wait(self.aclose())

    # -- as JSON and as a file --------------------------------------------------------------------------

    def persist(self, persist_path: str | Path = "chat_store.json", fs: Any = None) -> None:
        """Write the conversations of a store in memory to a file.

        Args:
            persist_path: the file's name; folders are made if need be.
            fs: a file system of fsspec; the machine's own by default.

        Raises:
            ArgumentError: for a store that is not in memory, which keeps them itself.
        """
        if not self._in_memory:
            raise ArgumentError("this chat store is not in memory: its conversations are kept already")
        text, path = self.model_dump_json(), str(persist_path)
        if fs is None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, encoding="utf-8")
            return
        folder = path.rpartition("/")[0]
        if folder and not fs.exists(folder):
            fs.makedirs(folder)
        with fs.open(path, "w", encoding="utf-8") as file:
            file.write(text)

    @classmethod
    def from_persist_path(cls, persist_path: str | Path = "chat_store.json", fs: Any = None) -> Self:
        """A store in memory with the conversations of a file; an empty one where there is no file.

        Raises:
            StateError: when the file is not one that `persist` wrote.
        """
        path = str(persist_path)
        if fs is None:
            if not Path(path).exists():
                return cls()
            text = Path(path).read_text(encoding="utf-8")
        else:
            if not fs.exists(path):
                return cls()
            with fs.open(path, "r", encoding="utf-8") as file:
                text = file.read()
        try:
            data = json.loads(text)
        except ValueError as error:
            raise StateError(f"the file {path!r} is not JSON: {error}") from None
        if not isinstance(data, dict) or data.get("class_name") != cls.class_name():
            raise StateError(f"the file {path!r} is not one that {cls.__name__}.persist wrote")
        return cls(**data)

    @model_serializer(mode="wrap")
    def custom_model_dump(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """The conversations of a store in memory; of any other, where it is, without secrets."""
        data = {**handler(self), "class_name": self.class_name()}
        if self._in_memory:
            return {**data, "threads": self._threads.opened.wait(self._dump())}
        return {**data, "location": self._threads.opened.location}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """The same chat store: its conversations are where they are."""
        return self

    async def _dump(self) -> dict[str, list[dict[str, Any]]]:
        return {
            key: [message_to_dict(item.message) for item in await self._threads.all(key)]
            for key in await self.aget_keys()
        }

    async def _load(self, threads: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        for key, documents in threads.items():
            await self._threads.neutral(key).add_messages([message_from_dict(one) for one in documents])


# So that LlamaIndex's own memory finds the class of a chat store in its JSON.
loading.RECOGNIZED_CHAT_STORES[AgentStoresChatStore.class_name()] = AgentStoresChatStore  # type: ignore[assignment]
