"""A client of the service on one event loop, and how it is closed, also when the loop is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from weakref import WeakValueDictionary

from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables.address import Address
from agent_stores.stores.azure_tables.sdk import TableClient, TableServiceClient


class Client:
    """A client of the service on one event loop; the caller's is used as it is and never closed.

    Args:
        address: the table.
        options: further arguments of the service's client.

    Attributes:
        table: the client of the table.
        is_ours: whether we made it.
        loop_close_hook: what closes it with its loop.
    """

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        self.is_ours = address.client is None
        self.loop_close_hook: AsyncGenerator[None, None] | None = None
        self._credential: Any = None
        self._service: TableServiceClient
        if address.client is not None:
            self._service = address.client
        elif address.make_credential is not None:
            credential, is_ours = address.make_credential()
            self._credential = credential if is_ours else None
            self._service = TableServiceClient(address.endpoint, credential=credential, **options)
        self._locks: WeakValueDictionary[ThreadKey, asyncio.Lock] = WeakValueDictionary()
        self.table: TableClient = self._service.get_table_client(address.table)

    def lock(self, key: ThreadKey) -> asyncio.Lock:
        """The lock of a thread, for as long as somebody holds or awaits it."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        if not self.is_ours:
            return
        await self._service.close()
        if self._credential is not None:
            await self._credential.close()
        await asyncio.sleep(0)  # aiohttp's transports end in the loop's next turn

    def close_sockets(self) -> None:
        """Close the sockets, when their loop is gone: their transports can no longer do it."""
        if not self.is_ours:
            return
        connector = getattr(_session(self._service), "_connector", None)
        for connections in list(getattr(connector, "_conns", {}).values()):
            for entry in connections:
                _close(getattr(entry[0], "transport", None))
        with contextlib.suppress(Exception):
            connector._conns.clear()  # type: ignore[union-attr]
            connector._closed = True  # type: ignore[union-attr]


def _session(service: TableServiceClient) -> Any:
    """The aiohttp session below a client; None where another transport was asked for."""
    found: Any = service
    for name in ("_client", "_client", "_pipeline", "_transport", "session"):
        found = getattr(found, name, None)
    return found


def _close(transport: Any) -> None:
    protocol = getattr(transport, "_ssl_protocol", None)
    for one in (transport, getattr(protocol, "_transport", None)):
        if one is None:
            continue
        with contextlib.suppress(Exception):
            one._closing = one._closed = True
        with contextlib.suppress(Exception):
            one._sock.close()
            one._sock = None
