"""One object a server in a process, whatever the number of logs that use it."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class SharedServer(Protocol):
    """A server's connections, as a registry handles them.

    Attributes:
        users: how many logs use it; counted by the registry.
    """

    users: int

    async def aclose(self) -> None:
        """Wait for what is running, and close the connections."""
        ...

    def close_at_exit(self) -> None:
        """Close the connections at the end of the process, without an event loop."""
        ...

    def forget_in_child(self) -> None:
        """After a fork: connections, threads and locks belong to the parent."""
        ...


S = TypeVar("S", bound=SharedServer)

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
            threading.Thread(target=server.close_at_exit, name="agent-stores-close", daemon=True).start()

    @staticmethod
    def _drop(server: S) -> None:
        server.users -= 1

    def _close_all(self) -> None:
        for server in list(self._servers.values()):
            server.close_at_exit()

    def _forget_all(self) -> None:
        self._lock = threading.Lock()
        for server in list(self._servers.values()):
            server.forget_in_child()
