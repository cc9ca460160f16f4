"""A store for code without an event loop: the same methods, without ``await``."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Coroutine, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic

from typing_extensions import Self, TypeVar

from agent_stores.backend import ThreadOrder, TtlRefresh
from agent_stores.connection_pool import loop_pool
from agent_stores.errors import ArgumentError
from agent_stores.inline import run_inline
from agent_stores.listing import ThreadPage, ThreadStats
from agent_stores.messages import ChatMessage
from agent_stores.protocols import MessageCodec
from agent_stores.retention import DanglingCalls
from agent_stores.store import ChatMessageStore, SearchResult, StoredMessage

M = TypeVar("M", default=ChatMessage)
N = TypeVar("N", default=ChatMessage)
T = TypeVar("T")


class _LoopThread:
    """An event loop on a thread of its own, which starts with the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it; usable from any thread."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                _all_loops.append(self._loop)
                threading.Thread(target=self._loop.run_forever, name="agent-stores-sync", daemon=True).start()
            done = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result()

    def _reset(self) -> None:
        self._lock, self._loop = threading.Lock(), None


_all_loops: list[asyncio.AbstractEventLoop] = []  # after a fork, the parent's must not be closed
_loop_thread = _LoopThread()


class SyncChatMessageStore(Generic[M]):
    """The synchronous view of a store: each method does what the store's own does, and waits for it.

    Operations run on the caller's thread; only those on what belongs to one event loop, as a client that was
    lent, run on a loop on a thread of its own. Views may be used from any thread, but not from a running
    event loop, which they would block: that raises `ArgumentError`.

    Args:
        store: the store; closing the view closes it.
    """

    def __init__(self, store: ChatMessageStore[M]) -> None:
        self._store = store

    @property
    def store(self) -> ChatMessageStore[M]:
        """The store below."""
        return self._store

    @property
    def thread_id(self) -> str:
        """The conversation's id."""
        return self._store.thread_id

    @property
    def tenant(self) -> str | None:
        """Whose conversation it is."""
        return self._store.tenant

    @property
    def dangling_calls(self) -> DanglingCalls:
        """What `list_messages` does with tool calls that have no result."""
        return self._store.dangling_calls

    def add_messages(self, messages: Sequence[M], *, expected_position: int | None = None) -> None:
        """See `ChatMessageStore.add_messages`."""
        self._wait(self._store.add_messages(messages, expected_position=expected_position))

    def list_messages(
        self,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        max_tokens: int | None = None,
        max_age: float | timedelta | None = None,
    ) -> list[M]:
        """See `ChatMessageStore.list_messages`."""
        limits: dict[str, Any] = {"last": last, "before": before, "after": after}
        return self._wait(self._store.list_messages(**limits, max_tokens=max_tokens, max_age=max_age))

    def iter_messages(
        self, *, after: int = 0, before: int | None = None, page_size: int = 256
    ) -> Iterator[StoredMessage[M]]:
        """See `ChatMessageStore.iter_messages`."""
        messages = self._store.iter_messages(after=after, before=before, page_size=page_size)
        while True:
            self._check()
            # Begun without a loop, since a loop that closes ends the generators that were begun on it.
            message = block_on(_finish(anext(messages, None)), self._store.log)
            if message is None:
                return
            yield message

    def latest(self, count: int) -> list[StoredMessage[M]]:
        """See `ChatMessageStore.latest`."""
        return self._wait(self._store.latest(count))

    def get(self, message_id: str) -> M | None:
        """See `ChatMessageStore.get`."""
        return self._wait(self._store.get(message_id))

    def replace(self, message_id: str, message: M) -> None:
        """See `ChatMessageStore.replace`."""
        self._wait(self._store.replace(message_id, message))

    def delete(self, message_ids: str | Sequence[str]) -> int:
        """See `ChatMessageStore.delete`."""
        return self._wait(self._store.delete(message_ids))

    def pop_last(self) -> M | None:
        """See `ChatMessageStore.pop_last`."""
        return self._wait(self._store.pop_last())

    def clear(self) -> int:
        """See `ChatMessageStore.clear`."""
        return self._wait(self._store.clear())

    def replace_all(self, messages: Sequence[M], *, expected_position: int | None = None) -> None:
        """See `ChatMessageStore.replace_all`."""
        self._wait(self._store.replace_all(messages, expected_position=expected_position))

    def count(self) -> int:
        """See `ChatMessageStore.count`."""
        return self._wait(self._store.count())

    def stats(self) -> ThreadStats:
        """See `ChatMessageStore.stats`."""
        return self._wait(self._store.stats())

    def set_ttl(self, ttl: float | timedelta | None, *, refresh: TtlRefresh | None = None) -> bool:
        """See `ChatMessageStore.set_ttl`."""
        return self._wait(self._store.set_ttl(ttl, refresh=refresh))

    def fork(self, new_thread_id: str | None = None, *, at: int | None = None) -> SyncChatMessageStore[M]:
        """See `ChatMessageStore.fork`."""
        return SyncChatMessageStore(self._wait(self._store.fork(new_thread_id, at=at)))

    def search(self, query: str, *, limit: int = 10, all_threads: bool = False) -> list[SearchResult[M]]:
        """See `ChatMessageStore.search`."""
        return self._wait(self._store.search(query, limit=limit, all_threads=all_threads))

    def with_codec(
        self, codec: MessageCodec[N] | None, *, dangling_calls: DanglingCalls | None = None
    ) -> SyncChatMessageStore[N]:
        """See `ChatMessageStore.with_codec`."""
        return SyncChatMessageStore(self._store.with_codec(codec, dangling_calls=dangling_calls))

    def metadata(self) -> dict[str, Any]:
        """See `ChatMessageStore.metadata`."""
        return self._wait(self._store.metadata())

    def update_metadata(self, changes: Mapping[str, Any], *, expected_revision: int | None = None) -> int:
        """See `ChatMessageStore.update_metadata`."""
        return self._wait(self._store.update_metadata(changes, expected_revision=expected_revision))

    def list_threads(
        self,
        *,
        prefix: str = "",
        limit: int = 100,
        cursor: str | None = None,
        order: ThreadOrder = "id",
    ) -> ThreadPage:
        """See `ChatMessageStore.list_threads`."""
        return self._wait(self._store.list_threads(prefix=prefix, limit=limit, cursor=cursor, order=order))

    def delete_thread(self, thread_id: str | None = None) -> bool:
        """See `ChatMessageStore.delete_thread`."""
        return self._wait(self._store.delete_thread(thread_id))

    def purge_expired(self, *, limit: int = 1000) -> int:
        """See `ChatMessageStore.purge_expired`."""
        return self._wait(self._store.purge_expired(limit=limit))

    def serialize(self) -> dict[str, Any]:
        """See `ChatMessageStore.serialize`."""
        return self._wait(self._store.serialize())

    def update_from_state(self, serialized_store_state: dict[str, Any]) -> None:
        """See `ChatMessageStore.update_from_state`."""
        self._wait(self._store.update_from_state(serialized_store_state))

    def close(self) -> None:
        """Close the store; see `ChatMessageStore.aclose`."""
        self._wait(self._store.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SyncChatMessageStore({self._store!r})"

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._check()
        except BaseException:
            work.close()
            raise
        return block_on(work, self._store.log)

    def _check(self) -> None:
        if _has_loop():
            raise ArgumentError(
                "SyncChatMessageStore must not be called in a running event loop; await the store instead"
            )


async def _finish(step: Awaitable[T]) -> T:
    return await step


def block_on(work: Coroutine[Any, Any, T], log: object = None) -> T:
    """Run a coroutine, and wait for it, where the log that it uses allows: on this thread, if that can be.

    Called on a running event loop, this blocks that loop until the work is done; it is for interfaces that
    say of themselves that they block.

    Args:
        work: it awaits nothing but operations on the log.
        log: with its ``supports_inline`` the work needs no event loop; with its ``loop_independent`` it may
            run on a loop that is the call's own. Otherwise, and without one, the work runs on a loop that
            stays the same.
    """
    if getattr(log, "supports_inline", False):
        return run_inline(work)
    if getattr(log, "loop_independent", False) and not _has_loop() and (loop := loop_pool.take()) is not None:
        return loop_pool.run(loop, work)
    return _loop_thread.run(work)


def _has_loop() -> bool:
    return asyncio._get_running_loop() is not None  # which costs less than an error
