"""`AgentStoresChatMessageStore`: a chat message store of Haystack over any of our stores."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from haystack import default_from_dict, default_to_dict
from haystack.dataclasses import ChatMessage as HaystackMessage
from haystack.dataclasses import ChatRole
from haystack.utils import Secret
from typing_extensions import Self, Unpack

from agent_stores.backend import ThreadKey
from agent_stores.errors import ArgumentError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.closing import SyncClosing
from agent_stores.plugins.haystack.codec import MESSAGE_ID, PART_OF, HaystackMessageCodec, message_id
from agent_stores.plugins.haystack.rounds import last_rounds, with_results
from agent_stores.plugins.merge_messages import joined
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver


class AgentStoresChatMessageStore(SyncClosing):
    """Conversations as ``ChatMessageRetriever`` and ``ChatMessageWriter`` take them.

    The chat history id is the thread id, and each message a row of the thread. Methods block, as those of
    Haystack's own store do.

    Args:
        store: where conversations are kept: a URL as `open_log` takes it, or a `Secret` that holds one, a
            `MessageLog`, or a function that makes the store of a thread id.
        skip_system_messages: whether system messages are not stored.
        last_k: how many rounds of a conversation are retrieved; None for all.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for wrong values. Nothing connects before the first operation.
    """

    __module__ = "agent_stores.haystack"  # the name that Haystack writes to the files of pipelines

    def __init__(
        self,
        store: StoreLike | Secret,
        skip_system_messages: bool = True,
        last_k: int | None = 10,
        **options: Unpack[PluginOptions],
    ) -> None:
        self.skip_system_messages = skip_system_messages
        self.last_k = last_k
        self._source = store
        self._options = options
        self._codec = HaystackMessageCodec()
        source: Any = store.resolve_value() if isinstance(store, Secret) else store
        self._opened: StoreResolver[Any] = StoreResolver(
            source,
            codec=self._codec,
            options=options,
            dangling_calls="keep",
            accepts=("skip_system_messages", "last_k"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The store's configuration, for a pipeline's file.

        Raises:
            ArgumentError: when it was made from what cannot be written there: a log, a function, or a URL
                that may hold a secret; give it as ``Secret.from_env_var`` instead.
        """
        source = self._source
        if not isinstance(source, Secret):
            source = _without_secret(source)
        return default_to_dict(
            self,
            store=source.to_dict() if isinstance(source, Secret) else source,
            skip_system_messages=self.skip_system_messages,
            last_k=self.last_k,
            **self._options,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The store of a configuration."""
        parameters = dict(data.get("init_parameters", {}))
        if isinstance(parameters.get("store"), dict):
            parameters["store"] = Secret.from_dict(parameters["store"])
        found: Self = default_from_dict(cls, {**data, "init_parameters": parameters})
        return found

    def count_messages(self, chat_history_id: str) -> int:
        """How many messages a conversation has."""
        return self._opened.wait(self._opened.store(chat_history_id).count(), chat_history_id)

    def write_messages(self, chat_history_id: str, messages: list[HaystackMessage]) -> int:
        """Add messages at the end of a conversation, all or none; returns how many.

        A message whose ``chat_message_id`` is in the conversation is not added again. A message without one
        gets a random one.

        Raises:
            ValueError: when `messages` is not a list of messages.
            StoreUnavailableError, StoreRejectedError, MessageTooLargeError: when nothing was written.
            OutcomeUnknownError: when they may or may not be stored.
        """
        if not isinstance(messages, Iterable) or any(
            not isinstance(message, HaystackMessage) for message in messages
        ):
            raise ValueError("Please provide a list of ChatMessages.")
        wanted = [
            message
            for message in messages
            if not (self.skip_system_messages and message.is_from(ChatRole.SYSTEM))
        ]
        return self._opened.wait(self._write(chat_history_id, wanted), chat_history_id) if wanted else 0

    def retrieve_messages(self, chat_history_id: str, last_k: int | None = None) -> list[HaystackMessage]:
        """The last rounds of a conversation.

        A call whose run ended before its result is given an error result when the conversation goes on after
        it, as model providers need one.

        Args:
            chat_history_id: the conversation.
            last_k: how many rounds; by default that of the constructor.

        Raises:
            ValueError: when `last_k` is negative.
        """
        if last_k is not None and last_k < 0:
            raise ValueError(f"last_k must be 0 or greater, got {last_k}")
        count = self.last_k if last_k is None else last_k
        if count == 0:
            return []
        shown = self._opened.wait(self._read(chat_history_id, count), chat_history_id)
        return self._codec.decode(with_results(joined(shown)))

    def delete_messages(self, chat_history_id: str) -> None:
        """Delete a conversation."""
        self._opened.wait(self._opened.store(chat_history_id).delete_thread(), chat_history_id)

    def delete_all_messages(self) -> None:
        """Delete all conversations of the tenant, those of other frameworks included."""
        self._opened.wait(self._delete_all())

    async def _write(self, thread_id: str, messages: Sequence[HaystackMessage]) -> int:
        store = self._opened.neutral(thread_id)
        names = [name for message in messages if (name := message_id(message)) is not None]
        names += [name for message in messages if isinstance(name := message.meta.get(PART_OF), str)]
        known: set[str] = set()
        if names and await store.count():
            known.update(await store.log.backend.find(ThreadKey(store.tenant, thread_id), names))
        new: list[HaystackMessage] = []
        for message in messages:
            name = message_id(message)
            if name in known or message.meta.get(PART_OF) in known:
                continue
            if name is None:
                name = uuid.uuid4().hex
                message = replace(message, _meta={**message.meta, MESSAGE_ID: name})
            known.add(name)
            new.append(message)
        if new:
            await store.add_messages(self._codec.encode(new))
        return len(new)

    async def _read(self, thread_id: str, count: int | None) -> list[ChatMessage]:
        store = self._opened.neutral(thread_id)
        if count is None:
            return [stored.message async for stored in store.iter_messages()]
        wanted = 8 * count + 8
        while True:
            stored = await store.latest(wanted)
            messages = [one.message for one in stored]
            shown = last_rounds(messages, count, complete=len(stored) < wanted)
            if shown is not None:
                return shown
            wanted *= 4

    async def _delete_all(self) -> None:
        store = self._opened.store("threads")
        for thread_id in await self._opened.thread_ids():
            await store.delete_thread(thread_id)


def _without_secret(source: Any) -> str:
    """A URL or a file's name, if it has no place for a secret."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        parts = urlsplit(text)
        if isinstance(text, str) and "@" not in parts.netloc and not parts.query and ";" not in text:
            return text
        raise ArgumentError(
            "the store's URL may hold a secret, which a configuration must not; give it as a Secret: "
            'haystack.utils.Secret.from_env_var("STORE_URL")'
        )
    raise ArgumentError(
        f"store must be a URL or a Secret to be written to a configuration, got {type(source).__name__}"
    )
