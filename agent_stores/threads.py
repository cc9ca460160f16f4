"""`AgentThread`: a conversation as agents hold it; what it serializes to, and how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from typing_extensions import Self

from agent_stores import _checks as check
from agent_stores.errors import ArgumentError, ArgumentTypeError, StateError
from agent_stores.memory import InMemoryChatMessageStore
from agent_stores.messages import ChatMessage
from agent_stores.protocols import ChatMessageStoreProtocol, ContextProvider
from agent_stores.states import STATE_DEPTH, StateKey, check_state_header, sign_state, verify_state

STATE_TYPE = "agent_stores.thread"
"""The type of a thread's state."""

MEMORY_STATE_TYPE = f"agent_stores.{InMemoryChatMessageStore.state_type}"
"""The type of the only store's state that a thread can restore by itself: it needs no connection."""


class ThreadState(NamedTuple):
    """What the state of a thread says, once its signature, type and version are checked.

    Attributes:
        service_thread_id: the conversation's id at the service that keeps it.
        store: the state of the thread's store.
        extra: fields that only a newer version knows.
    """

    service_thread_id: str | None
    store: dict[str, Any] | None
    extra: dict[str, Any]


class AgentThread:
    """One conversation: kept in a store of ours, or by the model's service, never in both.

    A thread that was given neither is not decided yet: its first run decides, by whether the model's service
    answers with the id of a conversation.

    Args:
        service_thread_id: the conversation's id at the service that keeps it.
        message_store: the store that keeps it; borrowed, so the caller closes it.
        context_provider: adds context to the runs of this thread only, after the agent's own providers.
            Whoever made it enters and exits it.

    Raises:
        ArgumentError: when both kinds are given, or the id is empty.
        ArgumentTypeError: when something else is given.
    """

    def __init__(
        self,
        *,
        service_thread_id: str | None = None,
        message_store: ChatMessageStoreProtocol[ChatMessage] | None = None,
        context_provider: ContextProvider | None = None,
    ) -> None:
        if service_thread_id is not None and message_store is not None:
            raise ArgumentError("service_thread_id and message_store must not be given together")
        if context_provider is not None and not isinstance(context_provider, ContextProvider):
            raise ArgumentTypeError(
                "context_provider must have the methods of ContextProvider, "
                f"got {type(context_provider).__name__}"
            )
        self._service_thread_id: str | None = None
        self._message_store: ChatMessageStoreProtocol[ChatMessage] | None = None
        self.context_provider = context_provider
        """Adds context to the runs of this thread only."""
        self._notified_providers: list[ContextProvider] = []
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._state_extra: dict[str, Any] = {}
        if service_thread_id is not None:
            self.service_thread_id = service_thread_id
        if message_store is not None:
            self.message_store = message_store

    @property
    def message_store(self) -> ChatMessageStoreProtocol[ChatMessage] | None:
        """The store that keeps the conversation; it can be set once, on a thread that is not decided.

        Raises:
            ArgumentError: when the thread is decided already.
            ArgumentTypeError: when it is set to something that is not a store.
        """
        return self._message_store

    @message_store.setter
    def message_store(self, store: ChatMessageStoreProtocol[ChatMessage]) -> None:
        if not isinstance(store, ChatMessageStoreProtocol):
            raise ArgumentTypeError(
                f"message_store must have the methods of ChatMessageStoreProtocol, got {type(store).__name__}"
            )
        if self._service_thread_id is not None:
            raise ArgumentError("message_store must not be set on a thread with a service_thread_id")
        if self._message_store is not None and self._message_store is not store:
            raise ArgumentError("message_store must be set only once; create another AgentThread")
        self._message_store = store

    @property
    def service_thread_id(self) -> str | None:
        """The conversation's id at the service that keeps it, which an agent sets when it learns it.

        Raises:
            ArgumentError: when it is set on a thread that has a store, or to an empty text.
            ArgumentTypeError: when it is set to something that is not text.
        """
        return self._service_thread_id

    @service_thread_id.setter
    def service_thread_id(self, service_thread_id: str) -> None:
        check.name(service_thread_id, "service_thread_id")
        if self._message_store is not None:
            raise ArgumentError("service_thread_id must not be set on a thread with a message_store")
        self._service_thread_id = service_thread_id

    @property
    def thread_id(self) -> str | None:
        """The conversation's id: the service's, or the store's where it has one; None if there is none."""
        if self._service_thread_id is not None:
            return self._service_thread_id
        thread_id = getattr(self._message_store, "thread_id", None)
        return thread_id if isinstance(thread_id, str) else None

    @property
    def lock(self) -> asyncio.Lock:
        """Held by each run on this object, so that turns do not interleave.

        There is one for each event loop, so that the object can be used in one loop after another. Runs in
        several loops at once (in several operating-system threads) are not serialised; nor are those on
        other objects for the same conversation. Stores keep each turn together in either case.

        Raises:
            RuntimeError: when no event loop is running.
        """
        loop = asyncio.get_running_loop()
        lock = self._locks.get(loop)
        if lock is None:
            # A lock that tasks waited for refers to its loop, which weak keys alone would keep for ever.
            for known in [reference() for reference in self._locks.keyrefs()]:
                if known is not None and known.is_closed():
                    self._locks.pop(known, None)
            lock = self._locks[loop] = asyncio.Lock()
        return lock

    async def on_new_messages(self, messages: ChatMessage | Sequence[ChatMessage]) -> None:
        """Keep new messages: all of them or none.

        They go to the store; a thread that is not decided gets an in-memory one. Where a service keeps the
        conversation, nothing is done.

        Raises:
            StoreError: what the store raises when it cannot keep them.
        """
        if self._service_thread_id is not None:
            return
        new = [messages] if isinstance(messages, ChatMessage) else list(messages)
        if self._message_store is not None:
            await self._message_store.add_messages(new)
            return
        store = InMemoryChatMessageStore()
        await store.add_messages(new)
        self.message_store = store

    async def serialize(self, key: StateKey | None = None) -> dict[str, Any]:
        """The thread's state: JSON-ready, and without secrets.

        Args:
            key: signs the state, so that one that was handed out cannot be changed; of several keys the first
                signs.

        Raises:
            StateError: when the store's state is not JSON-ready.
        """
        store = None if self._message_store is None else await self._message_store.serialize()
        try:
            if store is not None:
                store = check.json_object(store, "the store's state", max_depth=STATE_DEPTH)
            state: dict[str, Any] = {
                **self._state_extra,
                "type": STATE_TYPE,
                "version": 1,
                "service_thread_id": self._service_thread_id,
                "store": store,
            }
        except (ArgumentError, ArgumentTypeError) as error:
            raise StateError(f"the thread cannot be serialized: {error}") from None
        return state if key is None else sign_state(state, key)

    @classmethod
    async def deserialize(
        cls,
        state: Mapping[str, Any],
        *,
        message_store: ChatMessageStoreProtocol[ChatMessage] | None = None,
        key: StateKey | None = None,
        context_provider: ContextProvider | None = None,
    ) -> Self:
        """The thread of a state.

        A state never makes a connection: without `message_store`, only the state of an in-memory store is
        restored.

        Args:
            state: what `serialize` returned.
            message_store: the store to use; it is pointed at the state's conversation, and adds nothing to
                it. If the state holds no conversation yet, it is used as it is.
            key: verifies the state's signature; of several keys any may have signed it.
            context_provider: as for the constructor.

        Raises:
            StateError: when the state is malformed, or does not belong to this store.
            StateSignatureError: when its signature is missing, wrong, or cannot be verified without a key.
            UnsupportedVersionError: when a newer version wrote it.
        """
        content = read_thread_state(state, key)
        if content.service_thread_id is not None and message_store is not None:
            raise StateError(
                "the state's conversation is kept by a service: it cannot be restored to a message_store"
            )
        thread = cls(message_store=message_store, context_provider=context_provider)
        await thread._restore(content)
        return thread

    async def update_from_state(self, state: Mapping[str, Any], *, key: StateKey | None = None) -> None:
        """Point this thread at the conversation of a state, once a run in progress has ended.

        Args:
            state: what `serialize` returned.
            key: verifies the state's signature.

        Raises:
            StateError: when the state is malformed, is kept otherwise than this thread, or does not belong
                to its store; nothing is changed then. Also `StateSignatureError` and
                `UnsupportedVersionError`, as `deserialize` does.
        """
        content = read_thread_state(state, key)
        async with self.lock:
            await self._restore(content)

    async def _restore(self, content: ThreadState) -> None:
        store = self._message_store
        if content.service_thread_id is not None:
            if store is not None:
                raise StateError("the state's conversation is kept by a service, and this thread has a store")
            self._service_thread_id = content.service_thread_id
        elif self._service_thread_id is not None:
            raise StateError("the conversation of this thread is kept by a service, that of the state is not")
        elif content.store is not None:
            if store is not None:
                await store.update_from_state(content.store)
            else:
                self._message_store = await _restore_store(content.store)
        self._state_extra = content.extra
        self._notified_providers = []  # providers are notified again

    def __repr__(self) -> str:
        if self._service_thread_id is not None:
            return f"AgentThread(service_thread_id={self._service_thread_id!r})"
        return f"AgentThread(message_store={self._message_store!r})"


def read_thread_state(state: Mapping[str, Any], key: StateKey | None) -> ThreadState:
    """Check a thread's state and take it apart; restores nothing.

    Raises:
        StateError: when it is malformed, or names both a service's conversation and a store.
        StateSignatureError: when its signature is missing, wrong, or cannot be verified without a key.
        UnsupportedVersionError: when a newer version wrote it.
    """
    fields = check_state_header(verify_state(state, key), expected_type=STATE_TYPE)
    service_thread_id = fields.pop("service_thread_id", None)
    store = fields.pop("store", None)
    if service_thread_id is not None and (not isinstance(service_thread_id, str) or not service_thread_id):
        raise StateError("the state's service_thread_id is not a text, or empty")
    if store is not None and not isinstance(store, Mapping):
        raise StateError(f"the state's store must be an object, got {type(store).__name__}")
    if service_thread_id is not None and store is not None:
        raise StateError("the state names a service's conversation and a store; a thread has one of them")
    return ThreadState(service_thread_id, None if store is None else dict(store), fields)


async def _restore_store(state: dict[str, Any]) -> ChatMessageStoreProtocol[ChatMessage]:
    kind = state.get("type")
    if kind != MEMORY_STATE_TYPE:
        raise StateError(
            f"the state's store is of type {kind!r}, and a state makes no connection: "
            "give a store of that kind as message_store="
        )
    return await InMemoryChatMessageStore.deserialize(state)
