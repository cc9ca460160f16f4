"""Threads that run what would block an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from agent_stores.errors import StoreClosedError

_Item = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class ThreadPool:
    """A few threads that run functions for the event loops of a process, in the order in which they come.

    A call costs less than with `concurrent.futures`, whose futures are for threads that wait: no lock, and no
    timer of its own. Threads start when they are needed, and end with the process; `close` lets them finish
    before.

    Args:
        threads: how many at most.
        name: what their names begin with.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._limit = threads
        self._name = name
        self._items: SimpleQueue[_Item | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._deadlines: dict[asyncio.Future[Any], float] = {}  # of the calls that run or wait
        self._alarms: dict[asyncio.AbstractEventLoop, float] = {}  # when each loop looks for late calls
        self._closed = False
        self._lock = threading.Lock()

    async def run(self, deadline: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on a thread. One that has begun goes on when its caller gives up.

        Args:
            deadline: when to give up, by `time.monotonic`.
            function: what to run.
            arguments: its arguments.

        Raises:
            asyncio.TimeoutError: when it did not end in time.
        """
        if self._closed:
            raise StoreClosedError("the store was closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._deadlines[future] = deadline
        try:
            if deadline < self._alarms.get(loop, math.inf):
                self._set_alarm(loop, deadline)
            if len(self._threads) < self._limit and len(self._deadlines) > len(self._threads):
                self._start_thread()
            # Last, so that this thread lets go of the interpreter's lock when the other one wakes up.
            self._items.put((loop, future, function, arguments))
            return await future
        finally:
            del self._deadlines[future]

    def close(self, timeout: float) -> None:
        """Let the threads finish what they were given, and wait for it, in seconds."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._items.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _start_thread(self) -> None:
        with self._lock:
            if self._closed or len(self._threads) >= self._limit:
                return
            name = f"{self._name}-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _set_alarm(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        """One timer of a loop is enough for all its calls, which mostly end in time."""
        for other in [other for other in list(self._alarms) if other.is_closed()]:
            self._alarms.pop(other, None)
        self._alarms[loop] = when
        loop.call_later(when - time.monotonic(), self._time_out, loop, when)

    def _time_out(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._alarms.get(loop) != when:  # an earlier one was set, and sets the next one
            return
        del self._alarms[loop]
        later = math.inf
        for future, deadline in list(self._deadlines.items()):
            if future.get_loop() is loop:
                if deadline <= when:
                    _settle(future, None, asyncio.TimeoutError())
                else:
                    later = min(later, deadline)
        if later < math.inf:
            self._set_alarm(loop, later)

    def _work(self) -> None:
        while (item := self._items.get()) is not None:
            loop, future, function, arguments = item
            result: Any = None
            failure: BaseException | None = None
            if not future.done():
                try:
                    result = function(*arguments)
                except BaseException as error:  # whatever it is, it is the caller's
                    failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its caller gone
                loop.call_soon_threadsafe(_settle, future, result, failure)
            del item, loop, future, function, arguments, result, failure


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
