"""Event loops for what is called without one: on threads of their own, or on those of the callers."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from agent_stores.inline import may_block as may_block
from agent_stores.inline import run_inline as run_inline

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


class EventLoopPool:
    """Event loops that run on the threads of those who wait, and only while they wait.

    So a call needs no other thread, and each that is made at the same time has a loop of its own. A loop
    stays for later calls, from any thread, with what belongs to it, such as a client's connections.

    Args:
        limit: how many loops at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._all: set[asyncio.AbstractEventLoop] = set()
        self._idle: list[asyncio.AbstractEventLoop] = []  # the one that was used last is used next
        self._lent: set[asyncio.AbstractEventLoop] = set()  # whose work waits for other loops
        self._lock = threading.Lock()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_all)

    def take(self) -> asyncio.AbstractEventLoop | None:
        """A loop that nobody else uses, to be given back; None when all are in use."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if len(self._all) >= self._limit:
                return None
            loop = asyncio.new_event_loop()
            self._all.add(loop)
            return loop

    def give_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let others use a loop."""
        with self._lock:
            if loop in self._all:
                self._idle.append(loop)

    def run(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on a loop that was taken, on this thread, and give the loop back.

        A loop that was interrupted, as by Ctrl-C, is closed instead: it may have been between taking up
        something and doing it, and then it never will.
        """
        whole = _drain_pending_io(work)
        task = loop.create_task(whole)
        try:
            result = loop.run_until_complete(task)
        except BaseException as error:
            if task.cancelled():
                is_own = isinstance(error, asyncio.CancelledError)
            else:
                is_own = task.done() and task.exception() is error and isinstance(error, Exception)
            if is_own:
                self.give_back(loop)
            else:
                task.cancel()
                self._discard(loop)
                # Nobody goes on with what still waits; left to garbage collection, it crashed Python 3.11.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                for each in (whole, work):
                    with contextlib.suppress(Exception):
                        each.close()
            raise
        self.give_back(loop)
        return result

    async def run_in(
        self, loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, object]], timeout: float
    ) -> bool:
        """Run a coroutine on a certain one of these loops, as soon as nobody uses it.

        Returns:
            False when it is none of these loops, or in use for more than `timeout` seconds, or by what waits
            for other loops in turn; it runs then.
        """
        deadline = time.monotonic() + timeout
        while loop in self._all and loop not in self._lent:
            with self._lock:
                is_free = loop in self._idle
                if is_free:
                    self._idle.remove(loop)
            if is_free:
                try:
                    done = asyncio.get_running_loop().run_in_executor(None, lambda: self.run(loop, make()))
                except RuntimeError:  # no thread begins any more: the process ends
                    self.give_back(loop)
                    break
                await asyncio.shield(done)  # which else might never begin, and not give the loop back
                return True
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.005)
        return False

    @contextlib.contextmanager
    def allow_reentrant_close(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """While its work waits for other loops, which may wait for it: let that be done on it at once."""
        self._lent.add(loop)
        try:
            yield
        finally:
            self._lent.discard(loop)

    def close(self) -> None:
        """Close the loops that nobody uses; what they keep is closed with them."""
        with self._lock:
            loops, self._idle = self._idle, []
            self._all.difference_update(loops)
        for loop in loops:
            with contextlib.suppress(Exception):
                loop.run_until_complete(_end(loop))
            loop.close()

    def _discard(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close a loop that was interrupted, with what it keeps."""
        with self._lock:
            self._all.discard(loop)
        try:
            for _ in range(2):  # the first may find that the loop was told to stop before the interruption
                with contextlib.suppress(Exception):
                    loop.run_until_complete(_end(loop))
                    break
        finally:
            with contextlib.suppress(RuntimeError):
                loop.close()

    def _forget_all(self) -> None:
        """After a fork: what the loops wait with is the parent's, too."""
        _of_the_parent.extend(self._all)
        self._lock = threading.Lock()
        self._all, self._idle = set(), []


async def _drain_pending_io(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine when the loop has heard what came while it stood still, as the end of a connection."""
    try:
        await asyncio.sleep(0)
        return await work
    finally:
        work.close()  # where it never began


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Let what a loop was told to close be closed, and then what it keeps."""
    await asyncio.sleep(0)
    waiting = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    if waiting:
        await asyncio.wait(waiting, timeout=1)
    await loop.shutdown_asyncgens()


_of_the_parent: list[object] = []

loop_pool = EventLoopPool(16)
"""The loops of all synchronous calls of the process."""
