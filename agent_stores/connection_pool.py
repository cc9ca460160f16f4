"""The connections of a process: one object a server, a client for each loop, loops for synchronous calls."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import os
import threading
import time
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from agent_stores.attempts import time_limit
from agent_stores.inline import may_block, run_inline

_MAX_IDLE = 8  # servers that no log uses, and that stay connected


class SharedConnection(Protocol):
    """A server's connections, as a registry handles them; it counts the logs that use them in `users`."""

    users: int

    async def aclose(self) -> None:
        """Wait for what is running, and close the connections."""

    def close_at_exit(self) -> None:
        """Close the connections at the end of the process, without an event loop."""

    def reset_after_fork(self) -> None:
        """After a fork: connections, threads and locks belong to the parent."""


class LoopClient(Protocol):
    """A client on one event loop."""

    async def aclose(self) -> None:
        """Close the connections, on their loop: by default as `close_sockets` does."""
        self.close_sockets()

    def close_sockets(self) -> None:
        """Close the sockets, when their loop is gone."""


T = TypeVar("T")
S = TypeVar("S", bound=SharedConnection)
C = TypeVar("C", bound=LoopClient)
_Loop = asyncio.AbstractEventLoop
_Finalizer: TypeAlias = "weakref.finalize[..., object]"


class ServerRegistry(Generic[S]):
    """The servers of one backend that are in use in this process."""

    def __init__(self) -> None:
        self._servers: dict[Hashable, S] = {}
        self._lock = threading.Lock()
        atexit.register(self._close_at_exit)
        _after_fork(self._reset)

    def acquire(self, key: Hashable, make: Callable[[], S], *, user: object) -> tuple[S, _Finalizer]:
        """The one server of a key, made if there is none; and a finalizer that counts the user out.

        A user that is dropped without releasing the server leaves its connections open for the next one.
        """
        with self._lock:
            server = self._servers.get(key)
            if server is None:
                # Close the oldest idle servers above the limit: their users were dropped without a release.
                idle = [other for other, found in self._servers.items() if found.users == 0]
                for other in idle[:-_MAX_IDLE]:
                    closing = (self._servers.pop(other).aclose(),)
                    threading.Thread(
                        target=run_inline, args=closing, name="agent-stores-close", daemon=True
                    ).start()
                server = self._servers[key] = make()
            server.users += 1
        return server, weakref.finalize(user, self._drop, server)

    async def release(self, server: S, finalizer: _Finalizer) -> None:
        """Release a server; the last release closes its connections."""
        if finalizer.detach() is None:
            return
        with self._lock:
            server.users -= 1
            if server.users > 0:
                return
            self._servers = {key: value for key, value in self._servers.items() if value is not server}
        await server.aclose()

    @staticmethod
    def _drop(server: S) -> None:
        server.users -= 1

    def _close_at_exit(self) -> None:
        for server in list(self._servers.values()):
            server.close_at_exit()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        for server in list(self._servers.values()):
            server.reset_after_fork()


class LoopClients(Generic[C]):
    """The clients of a server: one for each event loop that uses it, until the loop ends, and a blocking one.

    For any thread.

    Args:
        make: makes a client, on its loop; or a blocking one, where the caller may block.
        are_ours: whether the clients are to be closed; not those over what a caller lent.
        timeout: seconds that a loop on another thread has to close its client.
    """

    def __init__(self, make: Callable[[], C], *, are_ours: bool, timeout: float) -> None:
        self.users = 0
        self._make, self._are_ours, self._timeout = make, are_ours, timeout
        self._clients: dict[_Loop | None, C] = {}  # None: the blocking one
        self._hooks: dict[_Loop, AsyncGenerator[None, None]] = {}  # each closes a client with its loop
        self._lock = threading.Lock()

    def get(self) -> C:
        """The client of the running loop, or the blocking one."""
        loop = None if may_block() else asyncio.get_running_loop()
        return self._clients.get(loop) or self._new(loop)

    async def aclose(self) -> None:
        """Close the clients of all loops; without a loop, they are closed when their loops run."""
        if may_block():
            for loop, client in self._take_all().items():
                _close_soon(loop, client)
            return
        here = asyncio.get_running_loop()
        loop_pool.closing.add(here)
        try:
            for loop, client in self._take_all().items():
                with contextlib.suppress(Exception):  # the others are closed all the same
                    await (client.aclose() if loop is here else self._close(loop, client))
        finally:
            loop_pool.closing.discard(here)

    async def _close(self, loop: _Loop, client: C) -> None:
        if await loop_pool.run_in(loop, client.aclose, self._timeout):
            return
        is_running, deadline = loop.is_running(), time.monotonic() + self._timeout
        closed = _close_soon(loop, client)
        while is_running and not closed.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
            # A caller's loop may stop before it runs the callback.
            await loop_pool.run_in(loop, lambda: asyncio.sleep(0.001), 0)

    def close_at_exit(self) -> None:
        """Close the clients at the end of the process."""
        for loop, client in self._take_all().items():
            if loop.is_running() or loop.is_closed():
                client.close_sockets()
            else:
                with contextlib.suppress(Exception):
                    loop.run_until_complete(_close_in_time(client))

    def reset_after_fork(self) -> None:
        """After a fork: the clients, and the loops that they are on, belong to the parent."""
        of_the_parent.append((self._clients, self._hooks))
        self._lock, self._clients, self._hooks = threading.Lock(), {}, {}

    def _take_all(self) -> dict[_Loop, C]:
        with self._lock:
            clients, self._clients, self._hooks = self._clients, {}, {}
        if not self._are_ours:
            return {}
        if (blocking := clients.get(None)) is not None:
            with contextlib.suppress(Exception):
                run_inline(blocking.aclose())
        return {loop: client for loop, client in clients.items() if loop is not None}

    def _new(self, loop: _Loop | None) -> C:
        with self._lock:
            for other in [other for other in self._clients if other is not None and other.is_closed()]:
                ended, _ = self._clients.pop(other), self._hooks.pop(other, None)
                if self._are_ours:
                    ended.close_sockets()
            client = self._clients.setdefault(loop, self._make())
        if self._are_ours and loop is not None:
            hook = self._hooks[loop] = self._close_with(loop, client)
            with contextlib.suppress(StopIteration):
                hook.asend(None).send(None)
        return client

    async def _close_with(self, loop: _Loop, client: C) -> AsyncGenerator[None, None]:
        """Suspended while the loop runs: before a loop closes, it ends its asynchronous generators."""
        try:
            yield
        finally:
            if self._clients.get(loop) is client:
                del self._clients[loop], self._hooks[loop]
                with contextlib.suppress(Exception):
                    await client.aclose()


async def _close_in_time(client: LoopClient) -> None:
    async with time_limit(time.monotonic() + 1):
        await client.aclose()


def _close_soon(loop: _Loop, client: LoopClient) -> threading.Event:
    """Close a client on its loop when that runs; the event says when it is done.

    Its sockets may not be closed behind a loop's back: the system gives their numbers to the next ones that
    are opened, which the loop would take for the old.
    """
    closed = threading.Event()

    async def close() -> None:
        with contextlib.suppress(Exception):
            await client.aclose()
        closed.set()

    def begin() -> None:
        task = loop.create_task(close())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError:  # it is closed
        client.close_sockets()
    return closed


def let_go(release: Callable[[], object]) -> None:
    """Release what holds sockets whose loop is gone: they end as garbage, of which Python would warn."""

    def collect() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            with contextlib.suppress(Exception):
                release()
            gc.collect()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        collect()
    else:  # clients would report to the loop that runs here
        thread = threading.Thread(target=collect, name="agent-stores-close", daemon=True)
        thread.start()
        thread.join()


class EventLoopPool:
    """At most `limit` event loops that run on the threads of those who wait, and only while they wait.

    So a call needs no other thread, and each that is made at the same time has a loop of its own. A loop
    stays for later calls, from any thread, with what belongs to it, such as a client's connections.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._all: set[_Loop] = set()
        self._idle: list[_Loop] = []  # the one that was used last is used next
        self.closing: set[_Loop] = set()  # whose work waits for other loops, which may wait for it in turn
        self._lock = threading.Lock()
        atexit.register(self.close)
        _after_fork(self._reset)

    def take(self) -> _Loop | None:
        """An idle loop, for `run`; None when all are in use."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if len(self._all) >= self._limit:
                return None
            loop = asyncio.new_event_loop()
            self._all.add(loop)
            return loop

    def run(self, loop: _Loop, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on a loop that was taken, on this thread, and give the loop back.

        A loop that was interrupted, as by Ctrl-C, is closed instead: it may have lost a callback.
        """

        async def drained() -> T:
            try:
                await asyncio.sleep(0)  # events since the loop stopped, as a lost connection
                return await work
            finally:
                work.close()  # where it never began

        whole = drained()
        task = loop.create_task(whole)
        try:
            return loop.run_until_complete(task)
        except BaseException as error:
            if not (task.done() and isinstance(error, (Exception, asyncio.CancelledError))):
                task.cancel()
                self._all.discard(loop)
                _end(loop)
                # Close pending coroutines now: Python 3.11 crashed when the garbage collector closed them.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                for each in (whole, work):
                    with contextlib.suppress(Exception):
                        each.close()
            raise
        finally:
            self._give_back(loop)

    async def run_in(self, loop: _Loop, make: Callable[[], Coroutine[Any, Any, Any]], timeout: float) -> bool:
        """Run a coroutine on a certain one of these loops, as soon as it is idle; returns whether it was.

        Not when it is none of these loops, is in use for more than `timeout` seconds, or is `closing`.
        """
        deadline = time.monotonic() + timeout
        while loop in self._all and loop not in self.closing:
            with self._lock:
                if is_free := loop in self._idle:
                    self._idle.remove(loop)
            if is_free:
                try:
                    done = asyncio.get_running_loop().run_in_executor(None, lambda: self.run(loop, make()))
                except RuntimeError:  # no thread begins any more: the process ends
                    self._give_back(loop)
                    break
                await asyncio.shield(done)  # which else might never begin, and not give the loop back
                return True
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.005)
        return False

    def _give_back(self, loop: _Loop) -> None:
        with self._lock:
            if loop in self._all:  # it was not closed
                self._idle.append(loop)

    def close(self) -> None:
        """Close the idle loops; what they keep is closed with them."""
        with self._lock:
            loops, self._idle = self._idle, []
            self._all.difference_update(loops)
        for loop in loops:
            _end(loop)

    def _reset(self) -> None:
        of_the_parent.extend(self._all)  # what they wait with is the parent's, too
        self._lock, self._all, self._idle = threading.Lock(), set(), []


def _end(loop: _Loop) -> None:
    """Close a loop: run the pending close callbacks, then close the remaining resources."""

    async def finish() -> None:
        await asyncio.sleep(0)
        if waiting := asyncio.all_tasks(loop) - {asyncio.current_task(loop)}:
            await asyncio.wait(waiting, timeout=1)
        await loop.shutdown_asyncgens()

    try:
        for _ in range(2):  # the first may find that the loop was asked to stop before an interruption
            with contextlib.suppress(Exception):
                loop.run_until_complete(finish())
                break
    finally:
        with contextlib.suppress(RuntimeError):
            loop.close()


def _after_fork(reset: Callable[[], object]) -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


_tasks: set[asyncio.Task[None]] = set()
of_the_parent: list[object] = []
"""What a forked child has of its parent, and must neither use nor close."""

loop_pool = EventLoopPool(16)
"""The loops of all synchronous calls of the process."""
