"""Conversations in this process's memory: `InMemoryMessageLog`, `InMemoryChatMessageStore`."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar, Unpack

from agent_stores import _checks as check
from agent_stores.backend import Limits
from agent_stores.backends.memory import MemoryBackend
from agent_stores.errors import ArgumentError, ArgumentTypeError, StateError
from agent_stores.log import MessageLog, NewThread
from agent_stores.message_format import decode_message, message_from_dict, message_to_dict
from agent_stores.message_rows import make_rows
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import StoreOptions
from agent_stores.thread_updates import METADATA_BYTES

if TYPE_CHECKING:
    from agent_stores.encryption import Keys

M = TypeVar("M", default=ChatMessage)


class InMemoryMessageLog(MessageLog):
    """Threads that live as long as this object, for tests, samples and conversations that may be lost.

    Args:
        clock: returns seconds since 1970 UTC; for tests of expiry.
        limits: limits of a commit; for tests.
        encryption: the keys that encrypt messages and metadata; none by default.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        limits: Limits | None = None,
        encryption: Keys | None = None,
    ) -> None:
        super().__init__(MemoryBackend(limits), clock=clock, encryption=encryption)


class InMemoryChatMessageStore(ChatMessageStore[M]):
    """A conversation in this process's memory; its state holds the messages and the metadata themselves.

    Args:
        log: an `InMemoryMessageLog` that stores share; by default each store has one of its own.
        options: those of `ChatMessageStore`: ``thread_id``, ``tenant``, ``max_messages``, ``ttl`` and so on.
    """

    state_type = "memory"

    def __init__(self, *, log: MessageLog | None = None, **options: Unpack[StoreOptions[M]]) -> None:
        if log is None:
            own: MessageLog = InMemoryMessageLog(encryption=options.pop("encryption", None))
        else:
            own = log
        super().__init__(own, **options)
        if log is None:
            self._take_ownership(own)

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        """The store's state, with the messages as they are stored, and the metadata."""
        state = await super().serialize(**kwargs)
        await self._create_thread()
        rows = await self._open_log().read(self._key)
        state["messages"] = [message_to_dict(decode_message(row.body)) for row in rows]
        if metadata := await self.metadata():
            state["metadata"] = metadata
        return state

    async def update_from_state(
        self, serialized_store_state: MutableMapping[str, Any], **kwargs: Any
    ) -> None:
        """Restore the conversation of a state; messages that are here are not added again.

        Raises:
            StateError: when the state is malformed, or of another store or tenant.
            MessageFormatError: when a message in it is malformed.
            UnsupportedVersionError: when a newer version wrote it.
        """
        log = self._open_log()
        thread_id, extra = self._read_state(serialized_store_state)
        documents = extra.pop("messages", [])
        if not isinstance(documents, (list, tuple)):
            raise StateError(f"the state's messages must be an array, got {type(documents).__name__}")
        try:
            metadata = check.json_object(
                extra.pop("metadata", {}), "the state's metadata", max_bytes=METADATA_BYTES
            )
        except (ArgumentError, ArgumentTypeError) as error:
            raise StateError(str(error)) from None
        messages = [message_from_dict(document) for document in documents]
        self._switch_thread(thread_id, extra)
        settings = self._settings
        if metadata:
            await log.create(self._key, NewThread((), metadata), ttl=settings.ttl)
        if messages:
            rows = make_rows(messages, settings.count_tokens)
            await log.append(self._key, rows, max_messages=settings.max_messages, ttl=settings.ttl)
