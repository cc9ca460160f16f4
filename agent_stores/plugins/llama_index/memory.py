"""`AgentStoresMemory`: a memory of LlamaIndex over any of our stores."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.memory.types import DEFAULT_CHAT_STORE_KEY, BaseMemory
from typing_extensions import Self, Unpack

from agent_stores._checks import check_limit
from agent_stores.errors import ArgumentError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.llama_index.chat_store import AgentStoresChatStore
from agent_stores.plugins.llama_index.codec import LlamaIndexCodec
from agent_stores.plugins.llama_index.threads import Threads
from agent_stores.plugins.store_resolver import PluginOptions, StoreSource
from agent_stores.store_options import identifier, sequence

T = TypeVar("T")

_LLM_SHARE = 0.75  # of a model's context; as LlamaIndex's own buffer takes it


class AgentStoresMemory(BaseMemory):
    """A conversation as LlamaIndex's agents and chat engines take it, synchronously and asynchronously.

    `get` is what a model is to be shown: the store's window, tool calls before their results, and an error
    result for a call that has none. `get_all` is everything, as it is stored.

    Args:
        store: where it is kept: a URL as `open_log` takes it, a `MessageLog`, a function that makes the store
            of a thread id, or a `AgentStoresChatStore` to share; by default in this process's memory.
        chat_store_key: names the conversation: the thread id of the store.
        token_limit: at most so many tokens are shown, by the store's ``count_tokens``; the newest group is
            shown whole.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``window``, ``dangling_calls``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
    """

    chat_store_key: str = DEFAULT_CHAT_STORE_KEY
    token_limit: int | None = None

    _threads: Threads = PrivateAttr()

    def __init__(
        self,
        store: StoreSource | AgentStoresChatStore = "memory:",
        *,
        chat_store_key: str = DEFAULT_CHAT_STORE_KEY,
        token_limit: int | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        check_limit("token_limit", token_limit)
        fields: dict[str, Any] = {
            "chat_store_key": identifier("chat_store_key", chat_store_key),
            "token_limit": token_limit,
        }
        super().__init__(**fields)
        if isinstance(store, AgentStoresChatStore):
            if options:
                raise ArgumentError(
                    f"{', '.join(sorted(options))}: given beside a chat store, which has its own"
                )
            self._threads = store.threads
        else:
            self._threads = Threads(store, options)

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's JSON."""
        return "AgentStoresMemory"

    @classmethod
    def from_defaults(
        cls,
        store: StoreSource | AgentStoresChatStore = "memory:",
        *,
        chat_history: Sequence[LlamaMessage] | None = None,
        llm: Any = None,
        chat_store_key: str = DEFAULT_CHAT_STORE_KEY,
        token_limit: int | None = None,
        tokenizer_fn: Callable[[str], Sequence[Any]] | None = None,
        **options: Any,
    ) -> Self:
        """A memory as LlamaIndex makes its own.

        Args:
            store: as for the class.
            chat_history: what the conversation is to hold; what it held goes.
            llm: the model; without a `token_limit`, three quarters of its context are shown.
            chat_store_key: names the conversation.
            token_limit: at most so many tokens are shown.
            tokenizer_fn: gives the tokens of a text, to count those of messages with.
            options: those of the store.
        """
        if token_limit is None and llm is not None:
            token_limit = int(llm.metadata.context_window * _LLM_SHARE)
        if tokenizer_fn is not None:
            options["count_tokens"] = _counter(tokenizer_fn)
        memory = cls(store, chat_store_key=chat_store_key, token_limit=token_limit, **options)
        if chat_history is not None:
            memory.set(list(chat_history))
        return memory

    async def aget(
        self, input: str | None = None, initial_token_count: int = 0, **kwargs: Any
    ) -> list[LlamaMessage]:
        """What a model is to be shown, oldest message first.

        Args:
            input: not used; other memories search by it.
            initial_token_count: tokens of the limit that something else takes.
            kwargs: not used.

        Raises:
            ArgumentError: when `initial_token_count` is over the limit.
        """
        limit = self.token_limit
        if limit is not None:
            if initial_token_count > limit:
                raise ArgumentError(
                    f"initial_token_count must be at most the limit, {limit}, got {initial_token_count}"
                )
            limit = max(1, limit - initial_token_count) if limit else 0
        shown = await self._threads.opened.view(self.chat_store_key, max_tokens=limit)
        return [message for ours in shown for message in self._threads.codec.from_chat_message(ours)]

    async def aget_all(self) -> list[LlamaMessage]:
        """All messages as they are stored, oldest first."""
        return [
            item.message for found in await self._threads.all(self.chat_store_key) for item in found.shown
        ]

    async def aput(self, message: LlamaMessage) -> None:
        """Add a message."""
        await self.aput_messages([message])

    async def aput_messages(self, messages: list[LlamaMessage]) -> None:
        """Add messages, all or none; the same objects may be added again after a call that failed."""
        await self._threads.store(self.chat_store_key).add_messages(messages)

    async def aset(self, messages: list[LlamaMessage]) -> None:
        """Let the conversation hold these messages and no others, in one step."""
        await self._threads.set(self.chat_store_key, sequence("messages", messages))

    async def areset(self) -> None:
        """Delete the conversation."""
        await self._threads.store(self.chat_store_key).delete_thread()

    async def aclose(self) -> None:
        """Close what the memory opened; what it was given stays open."""
        await self._threads.aclose()

    def get(
        self, input: str | None = None, initial_token_count: int = 0, **kwargs: Any
    ) -> list[LlamaMessage]:
        """See `aget`; blocks."""
        return self._wait(self.aget(input, initial_token_count, **kwargs))

    def get_all(self) -> list[LlamaMessage]:
        """See `aget_all`; blocks."""
        return self._wait(self.aget_all())

    def put(self, message: LlamaMessage) -> None:
        """See `aput`; blocks."""
        self._wait(self.aput(message))

    def put_messages(self, messages: list[LlamaMessage]) -> None:
        """See `aput_messages`; blocks."""
        self._wait(self.aput_messages(messages))

    def set(self, messages: list[LlamaMessage]) -> None:
        """See `aset`; blocks."""
        self._wait(self.aset(messages))

    def reset(self) -> None:
        """See `areset`; blocks."""
        self._wait(self.areset())

    def close(self) -> None:
        """See `aclose`; blocks."""
        self._threads.opened.wait(self.aclose())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._threads.opened.wait(work, self.chat_store_key)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """The same memory: its conversation is where it is."""
        return self


def _counter(tokenizer: Callable[[str], Sequence[Any]]) -> Callable[[ChatMessage], int]:
    """Counts the tokens of a message's text, as LlamaIndex's own buffer does."""
    codec = LlamaIndexCodec()

    def count(message: ChatMessage) -> int:
        return sum(len(tokenizer(str(found.content))) for found in codec.from_chat_message(message))

    return count
