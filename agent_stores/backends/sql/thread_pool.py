"""Threads that run what would block an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from agent_stores.errors import StoreClosedError

T = TypeVar("T")

_Item = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class ThreadPool:
    """A few threads that run functions for the event loops of a process, in the order in which they come.

    A function goes over and its result comes back in half the time that `ThreadPoolExecutor` takes, whose
    futures are for threads that wait. Threads start when they are needed. They end with the process, however
    it ends; `close` lets them finish before.

    Args:
        threads: how many at most.
        name: what their names begin with.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._limit = threads
        self._name = name
        self._items: SimpleQueue[_Item | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._load = 0  # functions that run or wait to
        self._closed = False
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], T], timeout: float) -> T:
        """Run a function on a thread. One that has begun goes on when nobody waits for it any more.

        Raises:
            asyncio.TimeoutError: when it did not end within so many seconds.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        timer = loop.call_later(timeout, _expire, future)
        try:
            # Last, so that this thread lets go of the interpreter's lock when the other one wakes up.
            self._put((loop, future, function))
            return await future
        finally:
            timer.cancel()

    def close(self, timeout: float) -> None:
        """Let the threads finish what they were given, and wait so many seconds for it."""
        with self._lock:
            self._closed = True
            threads = self._threads
            for _ in threads:
                self._items.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _put(self, item: _Item) -> None:
        with self._lock:
            if self._closed:
                raise StoreClosedError("the store was closed")
            self._load += 1
            if self._load > len(self._threads) < self._limit:
                name = f"{self._name}-{len(self._threads) + 1}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._items.put(item)

    def _work(self) -> None:
        while (item := self._items.get()) is not None:
            loop, future, function = item
            settle: Callable[[Any, Any], None] = _succeed
            result: Any = None
            if not future.done():
                try:
                    result = function()
                except BaseException as error:  # whatever it is, it is the caller's
                    settle, result = _fail, error
            with self._lock:
                self._load -= 1
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so nobody waits
                loop.call_soon_threadsafe(settle, future, result)
            del item, loop, future, function, result


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _expire(future: asyncio.Future[Any]) -> None:
    _fail(future, asyncio.TimeoutError())
