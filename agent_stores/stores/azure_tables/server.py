"""A table's service as the stores of a process share it: one client for each event loop that uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from agent_stores.connection_registry import LoopClients
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
        self._clients = LoopClients(
            lambda: Client(address, client_options), are_ours=address.client is None, timeout=timeout
        )

    async def run(self, operation: Callable[[Call], Awaitable[T]], *, write: bool = False) -> T:
        """Run an operation.

        Raises:
            StoreUnavailableError, StoreRejectedError, MessageTooLargeError, StoreError: nothing was written.
            OutcomeUnknownError: it may or may not be stored.
        """
        call = Call(self, write=write)
        try:
            return await operation(call)
        except LostError as error:
            raise unknown_error(self.address.location) from error.__cause__

    def client(self) -> Client:
        """The client of this event loop."""
        return self._clients.get()

    async def aclose(self) -> None:
        """Close the connections of all loops."""
        await self._clients.aclose()

    def close_unused(self) -> None:
        """Close the connections when no log uses them any more."""
        self._clients.close_unused()

    def close_at_exit(self) -> None:
        """Close the connections at the end of the process."""
        self._clients.close_at_exit()

    def reset_after_fork(self) -> None:
        """After a fork: the connections, and the loop that they are on, belong to the parent."""
        self._clients.reset_after_fork()
