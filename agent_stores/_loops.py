"""An event loop on a thread of its own, for what must stay on one loop whoever calls it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, TypeVar, cast

T = TypeVar("T")


class LoopThread:
    """Runs coroutines on its own event loop; starts with the first one. Usable from any thread.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine; cancelling the future cancels it."""
        if self._pid != os.getpid():  # after a fork: the loop and its thread are the parent's
            self.__init__(self._name)  # type: ignore[misc]
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it on the caller's loop."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Stop the loop and wait for its thread; what still runs is cancelled."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _run(self) -> None:
        loop = self._loop
        if loop is None:
            return
        asyncio.set_event_loop(loop)
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())


_may_block: ContextVar[bool] = ContextVar("agent_stores_may_block", default=False)


def may_block() -> bool:
    """Whether the running coroutine is driven by `run_here`, so that it may block and cannot wait."""
    return _may_block.get()


def run_here(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that blocks, where others wait, on this thread and without an event loop."""
    token = _may_block.set(True)
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        _may_block.reset(token)
        work.close()
    raise RuntimeError("a coroutine that should block waits for an event loop")
