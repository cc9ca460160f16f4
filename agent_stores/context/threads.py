"""The store of a run's thread, and which part of it a model is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_stores.backend import ThreadKey
from agent_stores.errors import ContextProviderError
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore


def require_store(thread: Any, provider: str) -> ChatMessageStore | None:
    """The store of a run's thread; None for a conversation that a service keeps, or without a store yet.

    Raises:
        ContextProviderError: when the provider was not given the thread, or the store is of another kind.
    """
    if thread is None:
        raise ContextProviderError(f"{provider} was not given the thread of the run, whose store it reads")
    store = getattr(thread, "message_store", None)
    if store is None or isinstance(store, ChatMessageStore):
        return store
    raise ContextProviderError(
        f"{provider} needs a thread whose store is a ChatMessageStore, got {type(store).__name__}"
    )


def thread_key(store: ChatMessageStore) -> ThreadKey:
    """The name of a store's thread in its log."""
    return ThreadKey(store.tenant, store.thread_id)


async def oldest_position(store: ChatMessageStore, shown: Sequence[ChatMessage]) -> int | None:
    """The position of the oldest unpinned message that a model is shown; None when there is none.

    When that message was deleted meanwhile, it is the position of the next one that exists.
    """
    for message in shown:
        if message.pinned or message.message_id is None:
            continue
        row = await store.log.get(thread_key(store), message.message_id)
        if row is not None:
            return row.position
    return None
