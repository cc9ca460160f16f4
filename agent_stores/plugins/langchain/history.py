"""`AgentStoresChatMessageHistory`: a chat message history of LangChain over any of our stores."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from typing_extensions import Unpack

from agent_stores.errors import ArgumentTypeError
from agent_stores.plugins.closing import AsyncClosing, SyncClosing
from agent_stores.plugins.langchain.codec import LangChainCodec
from agent_stores.plugins.store_resolver import PluginOptions, StoreResolver, StoreSource
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import identifier, sequence

_PART_OF = re.compile(r"(.+)#\d+", re.DOTALL)


class AgentStoresChatMessageHistory(SyncClosing, AsyncClosing, BaseChatMessageHistory):
    """A conversation as `RunnableWithMessageHistory` takes it, synchronously and asynchronously.

    `messages` is what a model is to be shown: tool calls stand before their results, and a call without a
    result gets an error result (see `dangling_calls`). A message with an id that is in the conversation
    already is not added twice; one without an id is given one, on the object, before it is first added.

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

    def __init__(self, session_id: str, store: StoreSource, **options: Unpack[PluginOptions]) -> None:
        self.session_id = identifier("session_id", session_id)
        self._codec = LangChainCodec()
        self._opened: StoreResolver[Any] = StoreResolver(store, codec=self._codec, options=options)

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

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages at the end; blocks. See `aadd_messages`."""
        self._opened.wait(self.aadd_messages(messages), self.session_id)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages at the end, in order, all or none; the cost does not depend on the length.

        Raises:
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            OutcomeUnknownError: when they may or may not be stored; adding them again is safe.
            MessageTooLargeError: when one is larger than the store can hold.
            ArgumentError, ArgumentTypeError: for a message that JSON cannot hold, naming the field; nothing
                is written.
        """
        given = sequence("messages", messages)
        store = self.store
        new = []
        for message in _with_ids(given):
            part = _PART_OF.fullmatch(message.id or "")
            # What another framework wrote as one message may be shown as several, of which one has its id.
            if part is None or await store.get(part[1]) is None:
                new.append(message)
        await store.add_messages(new)

    def clear(self) -> None:
        """Delete all messages; blocks."""
        self._opened.wait(self.aclear(), self.session_id)

    async def aclear(self) -> None:
        """Delete all messages."""
        await self.store.clear()

    def __repr__(self) -> str:
        return f"AgentStoresChatMessageHistory({self.session_id!r})"


def _with_ids(messages: Sequence[Any]) -> list[BaseMessage]:
    """The messages, each with an id; one that is given twice and has none is two messages."""
    for index, message in enumerate(messages):
        if not isinstance(message, BaseMessage):
            raise ArgumentTypeError(
                f"messages[{index}] must be one of LangChain's messages, got {type(message).__name__}"
            )
    found: list[BaseMessage] = []
    named: set[int] = set()
    for message in messages:
        if id(message) in named:
            found.append(message.model_copy(update={"id": _new_id()}))
            continue
        if not message.id:
            message.id = _new_id()
            named.add(id(message))
        found.append(message)
    return found


def _new_id() -> str:
    return os.urandom(16).hex()
