"""`AgentStoresMemory`: a memory of LlamaIndex over any of our stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from llama_index.core.memory.types import DEFAULT_CHAT_STORE_KEY, BaseChatStoreMemory
from llama_index.core.storage.chat_store.base import BaseChatStore
from typing_extensions import Self, Unpack

from agent_stores._checks import check_limit
from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.blocking import blocking
from agent_stores.plugins.llama_index.chat_store import AgentStoresChatStore
from agent_stores.plugins.llama_index.codec import LlamaIndexCodec
from agent_stores.plugins.llama_index.threads import Carried
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.store_options import identifier

_LLM_SHARE = 0.75  # of a model's context; as LlamaIndex's own buffer takes it


def _key(memory: Any, *_: Any, **__: Any) -> str:
    return str(memory.chat_store_key)


class _MemoryStore(AgentStoresChatStore):
    """The chat store of a memory, which has options for what a model is shown."""

    _not_taken: ClassVar[Sequence[str]] = ()
    _arguments: ClassVar[Sequence[str]] = ("store", "chat_store", "chat_store_key", "token_limit")

    def __init__(self, store: StoreLike, options: dict[str, Any]) -> None:
        super().__init__(store, **options)


class AgentStoresMemory(Carried, BaseChatStoreMemory):
    """A conversation as LlamaIndex's agents and chat engines take it, synchronously and asynchronously.

    `get` is what a model is to be shown: the store's window, tool calls before their results, and an error
    result for a call that has none. `get_all` is everything, as it is stored.

    As JSON, and pickled, it is its chat store (see `StoredThreads`) with its key and limit.

    Args:
        store: where it is kept: a URL as `open_log` takes it, a `MessageLog`, a function that makes the store
            of a thread id, or an `AgentStoresChatStore` to share; by default in this process's memory.
        chat_store: an `AgentStoresChatStore` instead, as LlamaIndex's own memories take it.
        chat_store_key: names the conversation: the thread id of the store.
        token_limit: at most *n* tokens are shown, by the store's ``count_tokens``; the newest group is shown
            whole.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``window``, ``dangling_calls``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
        StateError: for the JSON of a memory whose store needs a login: give the store too.
    """

    token_limit: int | None = None

    def __init__(
        self,
        store: StoreLike | AgentStoresChatStore | None = None,
        *,
        chat_store: AgentStoresChatStore | None = None,
        chat_store_key: str = DEFAULT_CHAT_STORE_KEY,
        token_limit: int | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        fields: dict[str, Any] = {
            "chat_store_key": identifier("chat_store_key", chat_store_key),
            "token_limit": check_limit("token_limit", token_limit),
        }
        given: dict[str, Any] = {**options}
        self._take_name(given)
        super().__init__(chat_store=_chat_store(store, chat_store, given), **fields)

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's JSON."""
        return "AgentStoresMemory"

    @classmethod
    def from_defaults(  # type: ignore[override]
        cls,
        store: StoreLike | AgentStoresChatStore | None = None,
        *,
        chat_history: Sequence[LlamaMessage] | None = None,
        llm: Any = None,
        chat_store: AgentStoresChatStore | None = None,
        chat_store_key: str = DEFAULT_CHAT_STORE_KEY,
        token_limit: int | None = None,
        tokenizer_fn: Callable[[str], Sequence[Any]] | None = None,
        **options: Unpack[PluginOptions],
    ) -> Self:
        """A memory as LlamaIndex makes its own.

        Args:
            store: as for the class.
            chat_history: what the conversation is to hold; what it held goes.
            llm: the model; without a `token_limit`, three quarters of its context are shown.
            chat_store: as for the class.
            chat_store_key: names the conversation.
            token_limit: at most *n* tokens are shown.
            tokenizer_fn: gives the tokens of a text, to count those of messages with.
            options: those of the store.
        """
        if token_limit is None and llm is not None:
            token_limit = int(llm.metadata.context_window * _LLM_SHARE)
        if tokenizer_fn is not None:
            options["count_tokens"] = _counter(tokenizer_fn)
        memory = cls(
            store, chat_store=chat_store, chat_store_key=chat_store_key, token_limit=token_limit, **options
        )
        if chat_history is not None:
            memory.set(list(chat_history))
        return memory

    @property
    def _opened(self) -> StoreResolver[Any]:  # type: ignore[override]
        return self._store._opened

    @property
    def _store(self) -> AgentStoresChatStore:
        return cast("AgentStoresChatStore", self.chat_store)

    def to_string(self) -> str:
        """The memory as JSON."""
        return self.to_json()

    @classmethod
    def from_string(cls, json_str: str, **more: Any) -> Self:
        """A memory for its JSON; `more` are arguments of the class, such as ``store``."""
        return cls.from_json(json_str, **more)

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
        shown = await self._opened.view(self.chat_store_key, max_tokens=limit)
        return [message for ours in shown for message in self._store._codec.from_chat_message(ours)]

    async def aput_messages(self, messages: list[LlamaMessage]) -> None:
        """Add messages, all or none; the same objects may be added again after a call that failed."""
        await self._store.store_of(self.chat_store_key).add_messages(messages)

    get = blocking(aget, BaseChatStoreMemory.get, _key)
    put_messages = blocking(aput_messages, BaseChatStoreMemory.put_messages, _key)


def _chat_store(store: Any, chat_store: Any, options: dict[str, Any]) -> AgentStoresChatStore:
    """The chat store of a memory, from what its constructor was given."""
    if isinstance(chat_store, Mapping):  # of a state
        given = {**chat_store, **options, **({} if store is None else {"store": store})}
        return _MemoryStore(given.pop("store", "memory:"), given)
    if store is not None and chat_store is not None:
        raise ArgumentError("store and chat_store must not be given together")
    source: Any = next((one for one in (store, chat_store) if one is not None), "memory:")
    if isinstance(source, AgentStoresChatStore):
        if options:
            raise ArgumentError(f"{', '.join(sorted(options))} must be given to the chat store")
        return source
    if isinstance(source, BaseChatStore):
        raise ArgumentTypeError(
            f"chat_store must be an AgentStoresChatStore, got {type(source).__name__}: for others there is "
            "LlamaIndex's ChatMemoryBuffer"
        )
    return _MemoryStore(source, options)


def _counter(tokenizer: Callable[[str], Sequence[Any]]) -> Callable[[ChatMessage], int]:
    """Counts the tokens of a message's text, as LlamaIndex's own buffer does."""
    codec = LlamaIndexCodec()

    def count(message: ChatMessage) -> int:
        return sum(len(tokenizer(str(found.content))) for found in codec.from_chat_message(message))

    return count
