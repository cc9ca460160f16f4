"""One object a server in a process, whatever the number of logs that use it, and one client a loop."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from agent_stores.event_loops import loop_pool


class SharedConnection(Protocol):
    """A server's connections, as a registry handles them.

    Attributes:
        users: how many logs use it; counted by the registry.
    """

    users: int

    async def aclose(self) -> None:
        """Wait for what is running, and close the connections."""
        ...

    def close_unused(self) -> None:
        """Close the connections when no log uses them any more; called on a thread without an event loop."""
        ...

    def close_at_exit(self) -> None:
        """Close the connections at the end of the process, without an event loop."""
        ...

    def reset_after_fork(self) -> None:
        """After a fork: connections, threads and locks belong to the parent."""
        ...


class LoopClient(Protocol):
    """A client on one event loop.

    Attributes:
        loop_close_hook: what closes it with its loop; set by `LoopClients`.
    """

    loop_close_hook: AsyncGenerator[None, None] | None

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        ...

    def close_sockets(self) -> None:
        """Close the sockets, when their loop is gone."""
        ...


S = TypeVar("S", bound=SharedConnection)
C = TypeVar("C", bound=LoopClient)

_MAX_IDLE = 8


class ServerRegistry(Generic[S]):
    """The servers of one backend that are in use in this process."""

    def __init__(self) -> None:
        self._servers: dict[Hashable, S] = {}
        self._lock = threading.Lock()
        atexit.register(self._close_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_all)

    def acquire(
        self, key: Hashable, make: Callable[[], S], *, user: object
    ) -> tuple[S, weakref.finalize[..., object]]:
        """The one server of a key, made if there is none yet.

        A user that is dropped without releasing the server leaves its connections open for the next one.

        Args:
            key: names the server with all that makes its connections what they are.
            make: makes it.
            user: who uses it.

        Returns:
            The server, and what counts the user out when it is dropped.
        """
        with self._lock:
            server = self._servers.get(key)
            if server is None:
                self._close_idle()
                server = self._servers[key] = make()
            server.users += 1
        return server, weakref.finalize(user, self._drop, server)

    async def release(self, server: S, finalizer: weakref.finalize[..., object]) -> None:
        """Do without a server; the last one who does closes its connections."""
        if finalizer.detach() is None:
            return
        with self._lock:
            server.users -= 1
            if server.users > 0:
                return
            for key in [key for key, value in self._servers.items() if value is server]:
                del self._servers[key]
        await server.aclose()

    def _close_idle(self) -> None:
        """Close the servers longest unused, but for a few, of users that were dropped without a word."""
        idle = [key for key, server in self._servers.items() if server.users == 0]
        for key in idle[: len(idle) - _MAX_IDLE] if len(idle) > _MAX_IDLE else ():
            server = self._servers.pop(key)
            threading.Thread(target=server.close_unused, name="agent-stores-close", daemon=True).start()

    @staticmethod
    def _drop(server: S) -> None:
        server.users -= 1

    def _close_all(self) -> None:
        for server in list(self._servers.values()):
            server.close_at_exit()

    def _forget_all(self) -> None:
        self._lock = threading.Lock()
        for server in list(self._servers.values()):
            server.reset_after_fork()


class LoopClients(Generic[C]):
    """The clients of a server: one for each event loop that uses it, made when it first does.

    A client ends with its loop. Usable from any thread.

    Args:
        make: makes a client, on its loop.
        are_ours: whether the clients are to be closed; not those over what a caller lent.
        timeout: seconds that a loop on another thread has to close its client.
    """

    def __init__(self, make: Callable[[], C], *, are_ours: bool, timeout: float) -> None:
        self._make = make
        self._are_ours = are_ours
        self._timeout = timeout
        self._clients: dict[asyncio.AbstractEventLoop, C] = {}
        self._lock = threading.Lock()

    def get(self) -> C:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        return self._clients.get(loop) or self._new(loop)

    async def aclose(self) -> None:
        """Close the clients of all loops."""
        with loop_pool.allow_reentrant_close(asyncio.get_running_loop()):
            for loop, client in self._take_all().items():
                with contextlib.suppress(Exception):  # the others are closed all the same
                    await self._close(loop, client)

    async def _close(self, loop: asyncio.AbstractEventLoop, client: C) -> None:
        if loop is asyncio.get_running_loop():
            await client.aclose()
        elif await loop_pool.run_in(loop, client.aclose, self._timeout):
            pass
        elif loop.is_running():
            deadline = time.monotonic() + self._timeout
            closed = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(client.aclose(), loop))
            while time.monotonic() < deadline and not (await asyncio.wait({closed}, timeout=0.005))[0]:
                # A caller's loop may stand still again before it came to that.
                await loop_pool.run_in(loop, _turns, 0)
        else:
            _close_later(loop, client)

    def close_unused(self) -> None:
        """Close the clients of all loops, from a thread that has none."""
        for loop, client in self._take_all().items():
            _close_later(loop, client)

    def close_at_exit(self) -> None:
        """Close the clients at the end of the process."""
        for loop, client in self._take_all().items():
            if loop.is_running() or loop.is_closed():
                client.close_sockets()
                continue
            with contextlib.suppress(Exception):
                loop.run_until_complete(asyncio.wait_for(client.aclose(), 1))

    def reset_after_fork(self) -> None:
        """After a fork: the clients, and the loops that they are on, belong to the parent."""
        self._lock = threading.Lock()
        _of_the_parent.append(self._clients)
        self._clients = {}

    def _take_all(self) -> dict[asyncio.AbstractEventLoop, C]:
        """The clients that are to be closed; none is known after that."""
        with self._lock:
            clients, self._clients = self._clients, {}
        return clients if self._are_ours else {}

    def _new(self, loop: asyncio.AbstractEventLoop) -> C:
        with self._lock:
            for other in [other for other in self._clients if other.is_closed()]:
                ended = self._clients.pop(other)
                if self._are_ours:
                    ended.close_sockets()
            client = self._clients[loop] = self._make()
        if self._are_ours:
            client.loop_close_hook = loop_close_hook = self._close_with(loop, client)
            with contextlib.suppress(StopIteration):
                loop_close_hook.asend(None).send(None)
        return client

    async def _close_with(self, loop: asyncio.AbstractEventLoop, client: C) -> AsyncGenerator[None, None]:
        """Suspended while the loop runs: before a loop closes, it ends its asynchronous generators."""
        try:
            yield
        finally:
            client.loop_close_hook = None
            if self._clients.get(loop) is client:
                del self._clients[loop]
                await _closed(client)


def _close_later(loop: asyncio.AbstractEventLoop, client: LoopClient) -> None:
    """Close a client on its loop when that runs.

    Its sockets may not be closed behind a loop's back: the system gives their numbers to the next ones that
    are opened, which the loop would take for the old.
    """

    def close() -> None:
        task = loop.create_task(_closed(client))
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    try:
        loop.call_soon_threadsafe(close)
    except RuntimeError:  # it is closed
        client.close_sockets()


async def _turns() -> None:
    await asyncio.sleep(0.001)


async def _closed(client: LoopClient) -> None:
    with contextlib.suppress(Exception):
        await client.aclose()


_closing: set[asyncio.Task[None]] = set()

_of_the_parent: list[Any] = []
