"""What a provider reads of the thread of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_stores.backend import ThreadKey
from agent_stores.errors import ContextProviderError
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore


def stored_thread(thread: Any, who: str) -> ChatMessageStore | None:
    """The store of a run's thread; None for a conversation that a service keeps, or that has no store yet.

    Raises:
        ContextProviderError: when the provider was not given the thread, or the store is of another kind.
    """
    if thread is None:
        raise ContextProviderError(f"{who} was not given the thread of the run, whose store it reads")
    store = getattr(thread, "message_store", None)
    if store is None or isinstance(store, ChatMessageStore):
        return store
    raise ContextProviderError(
        f"{who} needs a thread whose store is a ChatMessageStore; this one's is {type(store).__name__}"
    )


async def place_of_oldest(store: ChatMessageStore, shown: Sequence[ChatMessage]) -> int | None:
    """The position of the oldest message that a model is shown, pinned ones aside; None when none is.

    When that message was deleted meanwhile, it is the position of the next one that is there.
    """
    key = ThreadKey(store.tenant, store.thread_id)
    for message in shown:
        if message.pinned or message.message_id is None:
            continue
        entry = await store.log.get(key, message.message_id)
        if entry is not None:
            return entry.position
    return None
