"""Live tail: the messages that any client adds to a thread, as they come.

A notification of the server, or the time, wakes the watcher; the rows to return follow from the
thread alone. A notification that is lost or comes twice changes nothing but the time.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from agent_stores.backend import Backend, ThreadKey
from agent_stores.capabilities import ChangeNotifier, Subscription
from agent_stores.errors import StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from agent_stores.store import ChatMessageStore, M, StoredMessage

_SHORTEST_PAUSE = 0.05  # seconds
_UNNOTIFIED = 10.0  # seconds after which a thread is looked at without a notification, which may be lost


async def watch(
    store: ChatMessageStore[M], backend: Backend, key: ThreadKey, after: int | None, longest_pause: float
) -> AsyncIterator[StoredMessage[M]]:
    """See `ChatMessageStore.watch`."""
    import asyncio  # late: it would double the time of importing the package

    notifier = backend if isinstance(backend, ChangeNotifier) else None
    position, begun, pause = after, None, _SHORTEST_PAUSE
    subscription: Subscription | None = None
    subscribe_at = 0.0
    try:
        while True:
            if notifier is not None and subscription is None and time.monotonic() >= subscribe_at:
                try:
                    subscription = await notifier.subscribe(key)
                    notifier = None if subscription is None else notifier
                except StoreUnavailableError:
                    subscribe_at = time.monotonic() + _UNNOTIFIED
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
                if subscription is not None:
                    await subscription.wait(max(longest_pause, _UNNOTIFIED))
                    continue
            except StoreUnavailableError:  # the next attempt goes on at the same position
                await _close(subscription)
                subscription = None
            await asyncio.sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311 - jitter
            pause = min(2 * pause, longest_pause)
    finally:
        await _close(subscription)


async def _close(subscription: Subscription | None) -> None:
    if subscription is not None:
        with contextlib.suppress(StoreError):
            await subscription.aclose()
