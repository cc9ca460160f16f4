"""A table's service as the stores of a process share it: one client for each event loop that uses it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from agent_stores.stores.azure_tables.address import Address
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.connection import Client
from agent_stores.stores.azure_tables.failures import LostError, unknown_error
from agent_stores.stores.azure_tables.heads import HeadCache

T = TypeVar("T")


class AzureTableServer:
    """A table and our connections to its service; shared by all the stores of a process that name it alike.

    Args:
        address: the table.
        timeout: seconds that a step of an operation may take, attempts and pauses included.
        client_options: further arguments of the service's client.

    Attributes:
        heads: heads of threads as they were read or written last.
    """

    def __init__(self, address: Address, *, timeout: float, client_options: Mapping[str, Any]) -> None:
        self.address = address
        self.users = 0
        self.timeout = timeout
        self.heads = HeadCache()
        self._client_options = client_options
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}
        self._lock = threading.Lock()

    async def run(self, operation: Callable[[Call], Awaitable[T]], *, write: bool = False) -> T:
        """Run an operation.

        Raises:
            StoreUnavailableError, StoreRefusedError, MessageTooLargeError, StoreError: nothing was written.
            OutcomeUnknownError: it may or may not be stored.
        """
        call = Call(self, write=write)
        try:
            return await operation(call)
        except LostError as error:
            raise unknown_error(self.address.location) from error.__cause__

    def client(self) -> Client:
        """The client of this event loop."""
        loop = asyncio.get_running_loop()
        return self._clients.get(loop) or self._new_client(loop)

    async def aclose(self) -> None:
        """Close the connections of all loops."""
        here = asyncio.get_running_loop()
        with self._lock:
            clients, self._clients = self._clients, {}
        for loop, client in clients.items():
            if loop is here:
                await client.aclose()
            elif loop.is_running():
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(
                        asyncio.wrap_future(asyncio.run_coroutine_threadsafe(client.aclose(), loop)),
                        self.timeout,
                    )
            else:
                client.abandon()

    def close_at_exit(self) -> None:
        """Close the connections at the end of the process."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.abandon()

    def forget_in_child(self) -> None:
        """After a fork: the connections, and the loop that they are on, belong to the parent."""
        self._lock = threading.Lock()
        _of_the_parent.append(self._clients)
        self._clients = {}

    def _new_client(self, loop: asyncio.AbstractEventLoop) -> Client:
        with self._lock:
            for other in [other for other in self._clients if other.is_closed()]:
                self._clients.pop(other).abandon()
            client = self._clients[loop] = Client(self.address, self._client_options)
        if client.is_ours:
            hook = self._close_with(loop, client)
            client.hook = hook
            with contextlib.suppress(StopIteration):
                hook.asend(None).send(None)
        return client

    async def _close_with(
        self, loop: asyncio.AbstractEventLoop, client: Client
    ) -> AsyncGenerator[None, None]:
        """Suspended while the loop runs: before a loop closes, it ends its asynchronous generators."""
        try:
            yield
        finally:
            client.hook = None
            if self._clients.get(loop) is client:
                del self._clients[loop]
                with contextlib.suppress(Exception):
                    await client.aclose()


_of_the_parent: list[Any] = []
