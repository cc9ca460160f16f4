"""`ChatMessageStoreFactory`: what the beta's agents take to make the store of each thread."""

from __future__ import annotations

import uuid

from typing_extensions import Unpack

from agent_stores.plugins.agent_framework_beta.store import ChatMessageStoreAdapter
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.retention import DanglingCalls
from agent_stores.states import StateKey
from agent_stores.store_options import choice


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
