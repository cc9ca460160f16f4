"""`AgentStoresChatMessageHistory`: a chat message history of LangChain over any of our stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from typing_extensions import Unpack

from agent_stores.errors import ArgumentTypeError
from agent_stores.plugins.blocking import blocking
from agent_stores.plugins.closing import AsyncClosing, SyncClosing
from agent_stores.plugins.langchain.codec import LangChainCodec
from agent_stores.plugins.langchain.identity import Added, not_stored
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import identifier, sequence


def _session_id(history: Any, *_: Any, **__: Any) -> str:
    return str(history.session_id)


class AgentStoresChatMessageHistory(SyncClosing, AsyncClosing, BaseChatMessageHistory):
    """A conversation as `RunnableWithMessageHistory` takes it, synchronously and asynchronously.

    `messages` is what a model is to be shown: tool calls stand before their results, and a call without a
    result gets an error result (see `dangling_calls`), unless it is in the last message, whose calls may yet
    be answered. A message that is in the conversation already, with its id and its content, is not added
    twice: see `aadd_messages`.

    Args:
        session_id: the conversation's id: the thread id of the store.
        store: where it is kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``window``, ``dangling_calls``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
    """

    def __init__(self, session_id: str, store: StoreLike, **options: Unpack[PluginOptions]) -> None:
        self.session_id = identifier("session_id", session_id)
        self._codec = LangChainCodec()
        self._opened: StoreResolver[Any] = StoreResolver(store, codec=self._codec, options=options)
        self._last: str | None = None  # the id of the message that was added last
        self._failed: tuple[list[BaseMessage], Added] | None = None

    @property
    def store(self) -> ChatMessageStore[Any]:
        """The store below; it takes messages, and gives lists of them."""
        return self._opened.store(self.session_id)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The conversation, oldest message first; blocks. See `aget_messages`."""
        return self._opened.wait(self.aget_messages(), self.session_id)

    async def aget_messages(self) -> list[BaseMessage]:
        """The conversation as a model is to be shown it, oldest message first.

        Raises:
            StoreUnavailableError: when the server cannot be reached.
            CorruptMessageError: when a message cannot be read, unless they are skipped.
            UnansweredToolCallError: when `dangling_calls` is ``"raise"``.
        """
        shown = await self._opened.view(self.session_id)
        return [message for ours in shown for message in self._codec.from_chat_message(ours)]

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages at the end, in order, all or none; the cost does not depend on the length.

        A message is not added again when it has the id and the content of a stored one, and comes behind the
        messages that were given before it. An answer that a cache gives again, and a changed text under the
        same id, are messages of their own. The objects stay as they are. One without an id is known as long
        as the object lives: its copy, or the same text in another process, is another message.

        Raises:
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            OutcomeUnknownError: when they may or may not be stored; adding them again is safe.
            MessageTooLargeError: when one is larger than the store can hold.
            ArgumentError, ArgumentTypeError: for a message that JSON cannot hold, naming the field; nothing
                is written.
        """
        given = sequence("messages", messages)
        for index, message in enumerate(given):
            if not isinstance(message, BaseMessage):
                raise ArgumentTypeError(
                    f"messages[{index}] must be one of LangChain's messages, got {type(message).__name__}"
                )
        if not given:
            return
        store = self._opened.neutral(self.session_id)
        failed, self._failed = self._failed, None
        if failed is not None and list(map(id, failed[0])) == list(map(id, given)):
            added = failed[1]  # the store knows it as the same call
        else:
            added = await not_stored(given, self._codec, store, self._last)
        try:
            await store.add_messages(added.messages)
        except BaseException:
            self._failed = (given, added)
            raise
        self._last = added.last

    async def aclear(self) -> None:
        """Delete all messages."""
        await self.store.clear()

    add_messages = blocking(aadd_messages, BaseChatMessageHistory.add_messages, _session_id)
    clear = blocking(aclear, BaseChatMessageHistory.clear, _session_id)

    def __repr__(self) -> str:
        return f"AgentStoresChatMessageHistory({self.session_id!r})"
