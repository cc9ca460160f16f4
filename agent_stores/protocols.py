"""The structural types of the library: a class that has the methods is one, whatever it derives from."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from typing_extensions import Self, TypeVar

from agent_stores.messages import ChatMessage

__all__ = ["ChatMessageStoreProtocol", "Context", "ContextProvider", "MessageCodec"]

M = TypeVar("M", default=ChatMessage)
"""The type of message that a store holds: ours, or a framework's."""


@runtime_checkable
class ChatMessageStoreProtocol(Protocol[M]):
    """One conversation, as an agent uses it.

    The contract: messages come back in the order in which they were added; `add_messages` adds all of them
    or raises; a message whose id is in the thread already is not added twice; `serialize` returns no secret.

    A class that derives from this protocol inherits `deserialize`, and defines the other four methods.
    """

    async def list_messages(self) -> list[M]:
        """The conversation as a model is to be shown it, oldest message first."""
        ...

    async def add_messages(self, messages: Sequence[M]) -> None:
        """Add messages at the end, in order, all or none."""
        ...

    @classmethod
    async def deserialize(cls, serialized_store_state: MutableMapping[str, Any], **kwargs: Any) -> Self:
        """Make a store from what `serialize` returned; connection details come as keywords.

        Inherited, it makes the class with the keywords and calls `update_from_state`.
        """
        store = cls(**kwargs)
        await store.update_from_state(serialized_store_state)
        return store

    async def update_from_state(
        self, serialized_store_state: MutableMapping[str, Any], **kwargs: Any
    ) -> None:
        """Point this store at the conversation of a state."""
        ...

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        """The store's state: JSON-ready, and without secrets."""
        ...


@runtime_checkable
class MessageCodec(Protocol[M]):
    """Converts between a framework's message and `ChatMessage`, both ways without loss."""

    def to_chat_message(self, message: M) -> ChatMessage:
        """Our message for a framework's.

        Raises:
            ArgumentError, ArgumentTypeError: when it is not a message of that framework, or holds what JSON
                cannot.
        """
        ...

    def from_chat_message(self, message: ChatMessage) -> M:
        """The framework's message for ours."""
        ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a provider adds to one run of an agent; none of it is stored in the thread.

    Attributes:
        instructions: further instructions, after the agent's own.
        messages: messages to be shown before the conversation.
        tools: further tools, as `ChatAgent` takes them.
    """

    instructions: str | None = None
    messages: Sequence[ChatMessage] = field(default=())
    tools: Sequence[Callable[..., Any]] = field(default=())


@runtime_checkable
class ContextProvider(Protocol):
    """Adds context before an agent's run, and learns from it afterwards.

    All methods are called by the agent. A class that derives from this protocol inherits methods that do
    nothing, and may define only those that it needs.

    `invoking` and `invoked` are given, of these keywords, those that they take:

    - ``thread_id``: the conversation's id, or None while it has none;
    - ``thread``: the `AgentThread`, whose store a provider may read;
    - ``history``: with `invoking`, the messages of the conversation that the model is shown;
    - ``chat_client``: the agent's model, as a `ChatClient`.

    What a method raises is logged and the run goes on without it, unless it is a `ContextProviderError`.
    """

    async def thread_created(self, thread_id: str | None) -> None:
        """A thread was begun or restored; called before its first run."""
        return None

    async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
        """The model is about to be called; `messages` are the run's new messages."""
        return Context()

    async def invoked(
        self,
        request_messages: Sequence[ChatMessage],
        response_messages: Sequence[ChatMessage] | None = None,
        invoke_exception: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        """A run ended, with the messages of its response or with an error; not called for cancelled runs."""
        return None

    async def __aenter__(self) -> Self:
        """Begin: open what the provider needs."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End: flush and close what the provider opened."""
        return None
