"""Azure Table Storage, and Cosmos DB's API for Table, as a table of `agent_stores.backends.tables.table`."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import Any, ClassVar, TypeVar

from agent_stores.backends.tables.azure_config import AzureConfig
from agent_stores.backends.tables.azure_errors import (
    AzureError,
    MatchConditions,
    TableClient,
    TableServiceClient,
    UpdateMode,
    error_code,
    explain,
    is_failed_condition,
    status_of,
)
from agent_stores.backends.tables.service import Failure, ServiceTable, close_session
from agent_stores.backends.tables.table import (
    NEW,
    ConditionFailed,
    Item,
    ItemKey,
    Operation,
    Page,
    TableLimits,
    gather,
)
from agent_stores.connection_pool import ServerRegistry

T = TypeVar("T")

PROPERTY_UNITS = 32 * 1024
"""The longest text of a property, in units of UTF-16, as the service counts: 64 KiB."""

_NO_RETRY: Mapping[str, Any] = {"retry_total": 0}  # `ServiceTable` does it, knowing what may be repeated
_REPLACE: Mapping[str, Any] = {"mode": UpdateMode.REPLACE}


class AzureClient:
    """A client of the service on one event loop; the caller's is used as it is and never closed.

    Attributes:
        table: the client of the table.
        loop_close_hook: what closes it with its loop.
    """

    def __init__(self, config: AzureConfig, options: Mapping[str, Any]) -> None:
        self.loop_close_hook: AsyncGenerator[None, None] | None = None
        self._credential: Any = None
        if config.client is not None:
            self._service = config.client
        else:
            credential, is_ours = config.make_credential()
            self._credential = credential if is_ours else None
            self._service = TableServiceClient(config.endpoint, credential=credential, **options)
        self.table: TableClient = self._service.get_table_client(config.table)

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        await self._service.close()
        if self._credential is not None:
            await self._credential.close()
        await asyncio.sleep(0)  # aiohttp's transports end in the loop's next turn

    def close_sockets(self) -> None:
        """Close the sockets, when their loop is gone."""
        found: Any = self._service
        for name in ("_client", "_client", "_pipeline", "_transport", "session"):
            found = getattr(found, name, None)
        close_session(found)


class AzureTable(ServiceTable[AzureClient]):
    """A table of an account.

    Args:
        config: the table, and how to connect to it.
        timeout: seconds that a request may take, attempts and pauses included.
        client_options: further arguments of the service's client.
    """

    registry: ClassVar[ServerRegistry[Any]] = ServerRegistry()
    _platform: ClassVar[str] = ""
    errors = (AzureError, OSError, HTTPException, asyncio.TimeoutError)
    # JSON on the wire takes up to three times the bytes of UTF-8; a transaction may have 4 MiB, and a row
    # 1 MiB, in at most 15 properties of text.
    limits = TableLimits(
        operations=100, transaction_bytes=1_300_000, item_bytes=300_000, body_bytes=16 * 1024 * 1024
    )

    def __init__(self, config: AzureConfig, *, timeout: float, client_options: Mapping[str, Any]) -> None:
        options = sorted((name, repr(value)) for name, value in client_options.items())
        super().__init__(
            config.location,
            (config.endpoint, config.table.lower(), config.login, timeout, tuple(options)),
            lambda: AzureClient(config, client_options),
            are_ours=config.client is None,
            timeout=timeout,
            secrets=config.secrets,
        )

    async def get(self, keys: Sequence[ItemKey], *, bodies: bool = True) -> dict[ItemKey, Item]:
        """See `Table.get`; one request each."""

        async def read(key: ItemKey) -> Item | None:
            async def ask(client: AzureClient) -> Item | None:
                select = None if bodies else ["PartitionKey", "RowKey", "meta"]
                try:
                    entity = await client.table.get_entity(*key, select=select, **_NO_RETRY)
                except AzureError as error:
                    if status_of(error) == 404:  # the row, or the table
                        return None
                    raise
                return _item(entity)

            return await self._request(ask)

        found = [await read(keys[0])] if len(keys) == 1 else await gather(map(read, keys))
        return {item.key: item for item in found if item is not None}

    async def query(
        self, partition: str, first: str, end: str, *, limit: int | None = None, bodies: bool = True
    ) -> Page:
        """See `Table.query`."""

        async def ask(client: AzureClient) -> Page:
            pages = client.table.query_entities(
                "PartitionKey eq @partition and RowKey ge @first and RowKey lt @end",
                parameters={"partition": partition, "first": first, "end": end},
                results_per_page=None if limit is None else max(1, min(limit, 1000)),
                select=None if bodies else ["PartitionKey", "RowKey", "meta"],
                **_NO_RETRY,
            ).by_page()
            try:
                async for page in pages:
                    items = [_item(entity) async for entity in page]
                    is_last = not getattr(pages, "continuation_token", None)
                    if items or is_last:  # a page may be empty, and not the last
                        return Page(items, is_last)
            except AzureError as error:
                if error_code(error) != "TableNotFound":
                    raise
            return Page([], True)

        return await self._request(ask)

    async def transact(self, operations: Sequence[Operation]) -> list[str]:
        """See `Table.transact`; creates a missing table."""
        request = [_request_of(operation) for operation in operations]

        async def ask(client: AzureClient) -> list[str] | None:
            try:
                results = await client.table.submit_transaction(request, **_NO_RETRY)
            except AzureError as error:
                if error_code(error) == "TableNotFound":
                    return None
                if is_failed_condition(error):
                    raise ConditionFailed(getattr(error, "index", 0) or 0) from error
                raise
            return [str(result.get("etag", "")) for result in results]

        versions = await self._request(ask, write=True)
        if versions is None:
            await self._request(_create_table, write=True, repeatable=True)
            versions = await self._request(ask, write=True)
        return versions or []

    async def _request(
        self, ask: Callable[[AzureClient], Awaitable[T]], *, write: bool = False, repeatable: bool = False
    ) -> T:
        if not AzureTable._platform:
            # The SDK asks for this when it makes a client, and Python may run a program to know it.
            AzureTable._platform = await asyncio.to_thread(platform.platform)
        return await super()._request(ask, write=write, repeatable=repeatable)

    def _explain(self, error: BaseException) -> Failure:
        return explain(error, self._redact)


async def _create_table(client: AzureClient) -> None:
    try:
        await client.table.create_table(**_NO_RETRY)
    except AzureError as error:
        if status_of(error) != 409 or "BeingDeleted" in str(error):
            raise


def _item(entity: Any) -> Item:
    body = entity.get("body", "")
    number = 1
    while (piece := entity.get(f"body{number}")) is not None:
        body += piece
        number += 1
    version = str(entity.metadata.get("etag", ""))
    return Item(entity["PartitionKey"], entity["RowKey"], entity.get("meta") or "", body or "", None, version)


def _request_of(operation: Operation) -> tuple[Any, ...]:
    kind, item, condition = operation
    entity = {"PartitionKey": item.partition, "RowKey": item.sort}
    match = {"etag": condition, "match_condition": MatchConditions.IfNotModified}
    if kind == "delete":
        return ("delete", entity, match if condition else {})
    entity["meta"] = item.meta
    for number, piece in enumerate(pieces(item.body)):
        entity[f"body{number or ''}"] = piece
    if condition == NEW and condition is not None:
        return ("create", entity)
    return ("update", entity, {**_REPLACE, **match}) if condition else ("upsert", entity, dict(_REPLACE))


def pieces(text: str) -> Iterator[str]:
    """A text in pieces that each fit into a property; no character is divided. None for an empty text."""
    if 2 * len(text) <= PROPERTY_UNITS or (text.isascii() and len(text) <= PROPERTY_UNITS):
        yield from filter(None, (text,))
        return
    data = text.encode("utf-16-le", "surrogatepass")
    start = 0
    while start < len(data):
        end = min(start + 2 * PROPERTY_UNITS, len(data))
        if end < len(data) and 0xDC <= data[end + 1] <= 0xDF and 0xD8 <= data[end - 1] <= 0xDB:
            end -= 2  # between the halves of one character
        yield data[start:end].decode("utf-16-le", "surrogatepass")
        start = end
