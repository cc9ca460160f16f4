"""Any of our stores in the threads of Agent Framework's betas."""

from __future__ import annotations

import uuid
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import Self, Unpack

from agent_stores import redis as ours
from agent_stores.errors import ArgumentError, ArgumentTypeError, StateError, StoreError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.agent_framework.ids import loaded, stored, stored_as, with_ids
from agent_stores.plugins.agent_framework.redis_options import PREFIX, redis_options
from agent_stores.plugins.agent_framework_beta.state_message import marked, pack, unpack
from agent_stores.plugins.closing import AsyncClosing, AsyncContext
from agent_stores.plugins.merge_messages import model_view
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.retention import DanglingCalls
from agent_stores.states import StateKey
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import choice, sequence

if TYPE_CHECKING:
    from redis.credentials import CredentialProvider


class ChatMessageStoreAdapter(AsyncContext):
    """A store of ours as the beta's `ChatMessageStoreProtocol`: it holds the beta's own messages.

    A message with a `message_id` is stored once in its thread (an answer with the id of another one says
    something else, and is another). One without gets an id, which is set on it: one message object is one
    message, however often it is added, and messages with the same words are different ones.

    Args:
        store: the store, of our own messages; `aclose` closes it.
        key: signs the states and verifies them; of several keys the first signs. Without a key, a state that
            was changed may name another thread of the same server and tenant, but nothing else.
        dangling_calls: what `list_messages` does with tool calls that have no result: ``"synthesize"`` an
            error result, ``"drop"`` the call, ``"raise"``, or ``"keep"`` them. The calls of the last message
            are left alone: their results may come with the next run.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
    """

    def __init__(
        self,
        store: ChatMessageStore[Any],
        *,
        key: StateKey | None = None,
        dangling_calls: DanglingCalls = "synthesize",
    ) -> None:
        if not isinstance(store, ChatMessageStore):
            raise ArgumentTypeError(f"store must be one of agent_stores' stores, got {type(store).__name__}")
        self._given = store
        self._store: ChatMessageStore[ChatMessage] = store.with_codec(None, dangling_calls="keep")
        self._key = key
        self._dangling_calls: DanglingCalls = choice("dangling_calls", dangling_calls, DanglingCalls)
        self._codec = AgentFrameworkCodec()
        self._is_new = True

    @property
    def store(self) -> ChatMessageStore[ChatMessage]:
        """The store below, which shows all messages as they are stored."""
        return self._store

    @property
    def thread_id(self) -> str:
        """The conversation's id."""
        return self._store.thread_id

    async def list_messages(self) -> list[Any]:
        """The conversation as a model is to be shown it, oldest message first.

        Raises:
            CorruptMessageError: when a message cannot be read, unless they are skipped.
            UnansweredToolCallError: when `dangling_calls` is ``"raise"``.
            StoreUnavailableError: when the server cannot be reached.
        """
        self._is_new = False
        view = await self._store.list_messages()
        if any(message.tool_calls for message in view):
            view = model_view(view, self._dangling_calls)
        return self._shown(view)

    async def add_messages(self, messages: Sequence[Any]) -> None:
        """Add messages at the end of the thread, in order, all or none.

        The framework restores a thread by adding what `serialize` returned to a new store: that turns this
        store to the state's conversation, and adds nothing.

        Raises:
            MessageTooLargeError: when one is larger than the store can hold.
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            OutcomeUnknownError: when they may or may not be stored; adding the same messages again is safe.
            ArgumentError, ArgumentTypeError: for a message that holds what JSON cannot.
            StateError: for a state that is not valid here.
        """
        given = sequence("messages", messages)
        if any(marked(message) is not None for message in given):
            state = unpack({"messages": given}, self._key)
            if not self._is_new and not (
                isinstance(state, dict) and state.get("thread_id") == self.thread_id
            ):
                raise StateError("a state of another thread must be restored on a new store, got one in use")
            await self.update_from_state({"messages": given})
            return
        self._is_new = False
        if not given:
            return
        neutral = [self._codec.to_chat_message(message) for message in given]
        await self._store.add_messages(with_ids(given, neutral))
        stored(given)

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        """The store's state, as the framework's threads carry it: without secrets, signed with the key.

        It names the conversation, and holds its messages for an in-memory store only.
        """
        return pack(await self._store.serialize(), self._key)

    @classmethod
    async def deserialize(cls, serialized_store_state: MutableMapping[str, Any], **kwargs: Any) -> Self:
        """A store on the conversation of a state.

        Args:
            serialized_store_state: what `serialize` returned.
            kwargs: arguments of the constructor: a state makes no connection.

        Raises:
            StateError, StateSignatureError: for a state that is not valid here.
        """
        adapter = cls(**kwargs)
        await adapter.update_from_state(serialized_store_state)
        return adapter

    async def update_from_state(
        self, serialized_store_state: MutableMapping[str, Any], **kwargs: Any
    ) -> None:
        """Turn this store to the conversation of a state; adds nothing to it.

        The state of the framework's own store names no conversation, and holds messages: they are added to
        this store, which must be a new one.

        Raises:
            StateError: when the state is malformed, or of another store, server or tenant.
            StateSignatureError: when its signature is missing, wrong, or cannot be verified without a key.
            UnsupportedVersionError: when a newer version wrote it.
        """
        state = unpack(serialized_store_state, self._key)
        if isinstance(state, dict):
            await self._store.update_from_state(state)
            self._is_new = False
        elif self._is_new:
            await self.add_messages(state)
        else:
            raise StateError("a state with messages must be restored on a new store, got one in use")

    # -- as the framework's RedisChatMessageStore has them ------------------------------------------------

    async def append(self, item: Any) -> None:
        """Add one message; see `add_messages`."""
        await self.add_messages([item])

    async def extend(self, items: Sequence[Any]) -> None:
        """Add messages; see `add_messages`."""
        await self.add_messages(items)

    async def count(self) -> int:
        """How many messages are stored."""
        return await self._store.count()

    async def getitem(self, index: int) -> Any:
        """The stored message at an index, from 0 for the oldest, or from -1 for the newest backwards.

        Raises:
            IndexError: when there is none.
        """
        return (await self._at(index))[1]

    async def setitem(self, index: int, item: Any) -> None:
        """Replace the stored message at an index, as `getitem` takes it.

        Raises:
            IndexError: when there is none.
        """
        neutral = self._codec.to_chat_message(item)
        message_id, _ = await self._at(index)
        await self._store.replace(message_id, stored_as(neutral, message_id))
        loaded([item], [neutral.replace(message_id=message_id)])

    async def index(self, item: Any) -> int:
        """The index of the first stored message that is equal to another one.

        Messages are equal whose data is; where `item` has no id, whatever the other one's id is.

        Raises:
            ArgumentError: when there is none; a `ValueError`.
        """
        return (await self._find(item))[0]

    async def remove(self, item: Any) -> None:
        """Delete the first stored message that is equal to another one, as `index` finds it.

        Raises:
            ArgumentError: when there is none; a `ValueError`.
        """
        await self._store.delete((await self._find(item))[1])

    async def clear(self) -> None:
        """Delete all messages; the thread stays."""
        await self._store.clear()

    async def ping(self) -> bool:
        """Whether the server can be reached."""
        try:
            await self._store.count()
        except StoreError:
            return False
        return True

    async def _first(self, is_it: Callable[[int, Any], bool]) -> tuple[int, str, Any] | None:
        """The first stored message of a kind: its index, the id under which it is stored, and itself."""
        self._is_new = False
        at = 0
        async for item in self._store.iter_messages():
            (found,) = self._shown([item.message])
            if is_it(at, found):
                return at, item.message.message_id or "", found
            at += 1
        return None

    async def _at(self, index: int) -> tuple[str, Any]:
        wanted = index if index >= 0 else index + await self.count()
        found = await self._first(lambda at, _: at == wanted)
        if found is None:
            raise IndexError(f"index must be that of a stored message, got {index}")
        return found[1:]

    def _shown(self, neutral: Sequence[ChatMessage]) -> list[Any]:
        """The framework's messages for stored ones."""
        found = [self._codec.from_chat_message(message) for message in neutral]
        loaded(found, neutral)
        return found

    async def _find(self, item: Any) -> tuple[int, str]:
        """The index of a stored message that is equal to another one, and the id under which it is stored."""
        wanted = {**item.to_dict(), "message_id": None}

        def is_equal(_: int, found: Any) -> bool:
            is_it = item.message_id in (None, found.message_id)
            return is_it and {**found.to_dict(), "message_id": None} == wanted

        if (found := await self._first(is_equal)) is None:
            raise ArgumentError("item must be equal to a stored message, got another one")
        return found[:2]

    # -- closing ------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the store; afterwards every operation raises `StoreClosedError`."""
        await self._store.aclose()
        await self._given.aclose()

    def __bool__(self) -> bool:
        """True: the framework asks a thread so whether it has a store."""
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"


class ChatMessageStoreFactory(AsyncClosing):
    """Makes the store of a new thread, as ``ChatAgent(chat_message_store_factory=...)`` takes it.

    Each call makes a store on a thread of its own, with a random id; a state that the agent restores turns it
    to the thread of the state. All of them share one connection; `aclose`
    closes it, and them.

    Args:
        source: a URL as `open_log` takes it, a `MessageLog` (which stays open), or a function that makes the
            store of a thread id.
        key: signs the states of threads and verifies them; see `ChatMessageStoreAdapter`.
        options: those of `ChatMessageStore`, such as ``tenant``, ``max_messages``, ``ttl`` and ``window``;
            with a function, whose stores have their own, only ``dangling_calls``, as
            `ChatMessageStoreAdapter` takes it.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
        MissingDependencyError: when the URL's backend is not installed; names the extra.
    """

    def __init__(
        self,
        source: StoreLike,
        *,
        key: StateKey | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        self._key = key
        self._dangling_calls: DanglingCalls = choice(
            "dangling_calls", options.pop("dangling_calls", "synthesize"), DanglingCalls
        )
        self._opened = StoreResolver(source, options=options, dangling_calls="keep")

    def __call__(self) -> ChatMessageStoreAdapter:
        """The store of a new thread.

        Raises:
            StoreClosedError: after `aclose`.
        """
        store = self._opened.store(f"thread_{uuid.uuid4().hex}")
        return ChatMessageStoreAdapter(store, key=self._key, dangling_calls=self._dangling_calls)


class RedisChatMessageStore(ChatMessageStoreAdapter):
    """`ChatMessageStoreAdapter` as the ``RedisChatMessageStore`` of agent-framework-redis is made.

    Its data is in our layout; ``agent-stores migrate`` copies what the framework's own store wrote.

    Args:
        redis_url: the server.
        credential_provider: gives user and password, or token, at each connection to `host`.
        host, port, ssl, username: the server, with a `credential_provider`.
        thread_id: the conversation's id; a random one by default.
        key_prefix: the beginning of all keys; the framework's default stands for ours, which is ``agent``.
        max_messages: the newest messages that the thread keeps.
        messages: what a new thread begins with.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        credential_provider: CredentialProvider | None = None,
        host: str | None = None,
        port: int = 6380,
        ssl: bool = True,
        username: str | None = None,
        thread_id: str | None = None,
        key_prefix: str = PREFIX,
        max_messages: int | None = None,
        messages: Sequence[Any] | None = None,
    ) -> None:
        store: ours.RedisChatMessageStore[Any] = ours.RedisChatMessageStore(
            redis_url,
            thread_id=thread_id,
            max_messages=max_messages,
            messages=messages,
            codec=AgentFrameworkCodec(),
            **redis_options(key_prefix, credential_provider, host, port, ssl, username),
        )
        super().__init__(store)
