"""The Azure Tables backend's log: maps `MessageLog` onto operations, and shares clients within a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_stores.connection_registry import ServerRegistry
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError
from agent_stores.log import Entry, Record, Slice, ThreadKey, ThreadPage, ThreadStats, TimeToLive
from agent_stores.retention import check_seconds
from agent_stores.stores.azure_tables import (
    appends,
    edits,
    forks,
    keys,
    listing,
    reads,
    removals,
    rewrites,
)
from agent_stores.stores.azure_tables.address import describe, make_address
from agent_stores.stores.azure_tables.rows import MAX_MESSAGE_BYTES
from agent_stores.stores.azure_tables.server import AzureTableServer
from agent_stores.stores.planning import check_sizes

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.data.tables.aio import TableServiceClient

DEFAULT_TABLE = "agentstores"

_LONGEST_NAME = 5000  # characters of a tenant or thread id, so that a property holds it whatever they are


class AzureTableMessageLog:
    """Threads in a table of Azure Table Storage, or of Cosmos DB's API for Table.

    Logs of one process that name a table alike, with the same login, share their connections. Nothing
    connects before the first operation. A table that is missing is made by the first write.

    Args:
        connection_string: the account and its login; see `AzureTableChatMessageStore`.
        endpoint: the account's URL for tables instead, to go with a login.
        account_name: the account's name, instead of its URL or beside it.
        account_key: its key.
        sas_token: a shared access signature instead.
        credential: an `AzureNamedKeyCredential`, `AzureSasCredential` or asynchronous token credential of the
            caller's instead; it is never closed.
        table_service_client: an asynchronous client of the caller's instead of all that; it is never closed.
        table_name: the table.
        timeout: seconds that a step of an operation may take, attempts and pauses included. Short operations
            have one step; a long one has one for each page or transaction.
        client_options: further arguments of `azure.data.tables.aio.TableServiceClient`.
        clock: seconds since 1970, for tests of expiry.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
        MissingDependencyError: when a package is missing; names the extra.
    """

    def __init__(
        self,
        connection_string: str | None = None,
        *,
        endpoint: str | None = None,
        account_name: str | None = None,
        account_key: str | None = None,
        sas_token: str | None = None,
        credential: AzureNamedKeyCredential | AzureSasCredential | AsyncTokenCredential | None = None,
        table_service_client: TableServiceClient | None = None,
        table_name: str = DEFAULT_TABLE,
        timeout: float = 10.0,
        client_options: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if check_seconds("timeout", timeout, zero=False) is None:
            raise ArgumentError("timeout is None; accepted is a positive number of seconds")
        if client_options is not None and not isinstance(client_options, Mapping):
            raise ArgumentTypeError(
                f"client_options is of type {type(client_options).__name__}; accepted is a mapping"
            )
        if client_options and table_service_client is not None:
            raise ArgumentError("client_options is not accepted with table_service_client")
        address = make_address(
            connection_string=connection_string,
            endpoint=endpoint,
            account_name=account_name,
            account_key=account_key,
            sas_token=sas_token,
            credential=credential,
            table_service_client=table_service_client,
            table_name=table_name,
        )
        options: dict[str, Any] = {"timeout": float(timeout), "client_options": dict(client_options or {})}
        self._server, self._finalizer = _registry.acquire(
            (address.identity, float(timeout), describe(client_options)),
            lambda: AzureTableServer(address, **options),
            user=self,
        )
        self._clock = clock
        self._closed = False

    @property
    def location(self) -> str:
        """See `MessageLog.location`."""
        return self._server.address.location

    @property
    def loop_independent(self) -> bool:
        """Whether its operations may come from any event loop, also one that runs for one call only."""
        return self._server.address.loop_independent

    @property
    def max_message_bytes(self) -> int | None:
        """See `MessageLog.max_message_bytes`."""
        return MAX_MESSAGE_BYTES

    async def append(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """See `MessageLog.append`."""
        server = self._use(key)
        check_sizes(records, MAX_MESSAGE_BYTES)
        return await server.run(
            lambda call: appends.append(
                call,
                key,
                records,
                batch_id=batch_id,
                expected_position=expected_position,
                max_messages=max_messages,
                ttl=ttl,
                clock=self._now,
            ),
            write=True,
        )

    async def read(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        last: int | None = None,
        first: int | None = None,
    ) -> Slice:
        """See `MessageLog.read`."""
        server = self._use(key)
        part, stored = await server.run(
            lambda call: reads.read(
                call, key, after=after, before=before, last=last, first=first, now_us=self._now()
            )
        )
        if stored is not None and stored.head.ttl_refresh == "read" and stored.head.ttl is not None:
            await server.run(lambda call: edits.renew(call, key, clock=self._now), write=True)
        return part

    async def get(self, key: ThreadKey, message_id: str) -> Entry | None:
        """See `MessageLog.get`."""
        server = self._use(key)
        id_digest = keys.digest(message_id)
        return await server.run(lambda call: reads.get(call, key, id_digest, now_us=self._now()))

    async def replace(self, key: ThreadKey, record: Record) -> bool:
        """See `MessageLog.replace`."""
        server = self._use(key)
        check_sizes([record], MAX_MESSAGE_BYTES)
        return await server.run(lambda call: edits.replace(call, key, record, clock=self._now), write=True)

    async def delete(self, key: ThreadKey, message_ids: Sequence[str]) -> int:
        """See `MessageLog.delete`."""
        server = self._use(key)
        return await server.run(
            lambda call: edits.delete_messages(call, key, message_ids, clock=self._now), write=True
        )

    async def pop_last(self, key: ThreadKey) -> Entry | None:
        """See `MessageLog.pop_last`."""
        server = self._use(key)
        return await server.run(lambda call: edits.pop_last(call, key, clock=self._now), write=True)

    async def clear(self, key: ThreadKey) -> int:
        """See `MessageLog.clear`."""
        server = self._use(key)
        return await server.run(lambda call: edits.clear(call, key, clock=self._now), write=True)

    async def rewrite(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """See `MessageLog.rewrite`."""
        server = self._use(key)
        check_sizes(records, MAX_MESSAGE_BYTES)
        return await server.run(
            lambda call: rewrites.rewrite(
                call,
                key,
                records,
                batch_id=batch_id,
                expected_position=expected_position,
                ttl=ttl,
                clock=self._now,
            ),
            write=True,
        )

    async def stats(self, key: ThreadKey) -> ThreadStats | None:
        """See `MessageLog.stats`."""
        server = self._use(key)
        return await server.run(lambda call: reads.stats(call, key, now_us=self._now()))

    async def set_ttl(self, key: ThreadKey, ttl: TimeToLive) -> bool:
        """See `MessageLog.set_ttl`."""
        server = self._use(key)
        return await server.run(lambda call: edits.set_ttl(call, key, ttl, clock=self._now), write=True)

    async def fork(self, key: ThreadKey, new_key: ThreadKey, *, at: int | None = None) -> int:
        """See `MessageLog.fork`; the thread is read as of one moment, and the copy comes into being whole."""
        server = self._use(key)
        self._use(new_key)
        return await server.run(
            lambda call: forks.fork(call, key, new_key, at=at, clock=self._now), write=True
        )

    async def delete_thread(self, key: ThreadKey) -> bool:
        """See `MessageLog.delete_thread`."""
        server = self._use(key)
        return await server.run(lambda call: removals.delete_thread(call, key, clock=self._now), write=True)

    async def list_threads(
        self, tenant: str | None, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> ThreadPage:
        """See `MessageLog.list_threads`."""
        server = self._use()
        return await server.run(
            lambda call: listing.list_threads(
                call, tenant, prefix=prefix, limit=limit, cursor=cursor, clock=self._now
            )
        )

    async def purge_expired(self, *, limit: int = 1000) -> int:
        """See `MessageLog.purge_expired`."""
        server = self._use()
        return await server.run(
            lambda call: removals.purge_expired(call, limit=limit, clock=self._now), write=True
        )

    async def aclose(self) -> None:
        """Close the connections, if no other log of this process uses them."""
        if not self._closed:
            self._closed = True
            await _registry.release(self._server, self._finalizer)

    def __repr__(self) -> str:
        return f"AzureTableMessageLog({self.location!r})"

    def _use(self, key: ThreadKey | None = None) -> AzureTableServer:
        if self._closed:
            raise StoreClosedError(f"this log of {self.location} is closed")
        for what, text in () if key is None else (("tenant", key.tenant), ("thread_id", key.thread_id)):
            if text is not None and len(text) > _LONGEST_NAME:
                raise ArgumentError(
                    f"{what} is {len(text)} characters long; this store accepts up to {_LONGEST_NAME}"
                )
        return self._server

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)


_registry: ServerRegistry[AzureTableServer] = ServerRegistry()
