"""Live tail: the messages that any client adds to a thread, as they come, by polling."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from agent_stores.errors import StoreUnavailableError

if TYPE_CHECKING:
    from agent_stores.store import ChatMessageStore, M, StoredMessage

_SHORTEST_PAUSE = 0.05  # seconds


async def watch(
    store: ChatMessageStore[M], after: int | None, longest_pause: float
) -> AsyncIterator[StoredMessage[M]]:
    """See `ChatMessageStore.watch`."""
    import asyncio  # late: it would double the time of importing the package

    position, begun, pause = after, None, _SHORTEST_PAUSE
    while True:
        try:
            stats = await store.stats()
            if position is None:
                position = stats.last_position
            elif stats.last_position < position or (begun is not None and stats.first_at != begun):
                position = 0  # the thread was deleted, and maybe created again
            begun = stats.first_at
            if stats.last_position > position:
                async for stored in store.iter_messages(after=position, before=stats.last_position + 1):
                    position = stored.position
                    yield stored
                position = stats.last_position
                pause = _SHORTEST_PAUSE
                continue
        except StoreUnavailableError:
            pass  # the next attempt goes on at the same position
        await asyncio.sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311 - jitter
        pause = min(2 * pause, longest_pause)
