"""Azure Table Storage, and Cosmos DB's API for Table, as a table of `agent_stores.backends.tables.table`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from http.client import HTTPException
from types import SimpleNamespace
from typing import Any, ClassVar

from agent_stores.backends.tables.azure_config import AzureConfig
from agent_stores.backends.tables.service import Failure, Kind, ServiceTable, TableServer
from agent_stores.backends.tables.table import NEW, Item, ItemKey, Operation, Page, TableLimits, gather
from agent_stores.connection_pool import ServerRegistry

# The modules above say which extra is missing.
# isort: split
import aiohttp
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestTimeoutError,
)
from azure.core.pipeline.policies import AsyncRetryPolicy
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient

PROPERTY_UNITS = 32 * 1024
"""The longest text of a property, in units of UTF-16, as the service counts: 64 KiB."""

_CODES: Mapping[Kind, Sequence[str | int]] = {
    "busy": ("TableBeingDeleted", 429, 503),
    "lost": (0, 408, 500, 502, 504),
    "no table": ("TableNotFound",),
    "condition": ("EntityAlreadyExists", 404, 412),
    "forbidden": (401, 403),
    "rejected": (405, 409, 507),
    "too large": ("EntityTooLarge", "PropertyValueTooLarge", "RequestBodyTooLarge", 413),
}
"""What the service's codes mean, and HTTP's; 0 is no answer."""

_NO_CONNECTION = (ServiceRequestTimeoutError, aiohttp.ClientConnectorError, ConnectionRefusedError)
_KINDS: dict[str | int, Kind] = {code: kind for kind, codes in _CODES.items() for code in codes}
_KEYS_AND_META = ["PartitionKey", "RowKey", "meta"]
_NO_RETRY: Mapping[str, Any] = {"retry_total": 0}  # `ServiceTable` does it, knowing what may be repeated


class AzureTable(ServiceTable):
    """A table of an account.

    Args:
        config: the table, and how to connect to it.
        timeout: seconds that a request may take, attempts and pauses included.
        client_options: further arguments of the service's client.
    """

    registry: ClassVar[ServerRegistry[TableServer]] = ServerRegistry()
    session_path = "_client._client._pipeline._transport.session"
    errors = (AzureError, HTTPException)
    # JSON on the wire takes up to three times the bytes of UTF-8; a transaction may have 4 MiB, and a row
    # 1 MiB, in at most 255 properties.
    limits = TableLimits(
        operations=100, transaction_bytes=1_300_000, item_bytes=300_000, body_bytes=16 * 1024 * 1024
    )

    def __init__(self, config: AzureConfig, *, timeout: float, client_options: Mapping[str, Any]) -> None:
        async def connect(stack: AsyncExitStack) -> TableClient:
            # On a thread: the SDK asks for the platform, and Python may run a program to know it.
            if config.client is not None:
                return await asyncio.to_thread(config.client.get_table_client, config.table)
            credential = config.credential
            if isinstance(credential, type):
                credential = await stack.enter_async_context(credential())
            client = await asyncio.to_thread(
                TableClient, config.endpoint, config.table, credential=credential, **client_options
            )
            return await stack.enter_async_context(client)

        options = sorted((name, repr(value)) for name, value in client_options.items())
        super().__init__(
            config.location,
            (config.endpoint, config.table.lower(), config.login, timeout, tuple(options)),
            connect,
            are_ours=config.client is None,
            timeout=timeout,
            secrets=config.secrets,
        )

    async def get(self, keys: Sequence[ItemKey], *, bodies: bool = True) -> dict[ItemKey, Item]:
        """See `Table.get`; one request each."""

        async def get_one(key: ItemKey) -> Item | None:
            async def ask(client: TableClient) -> Item | None:
                try:
                    return _item(await client.get_entity(*key, select=select, **_NO_RETRY))
                except ResourceNotFoundError:  # the row, or the table
                    return None

            return await self.request(ask)

        select = None if bodies else _KEYS_AND_META
        found = await gather(map(get_one, keys))
        return {item.key: item for item in found if item is not None}

    async def query(
        self, partition: str, first: str, end: str, *, limit: int | None = None, bodies: bool = True
    ) -> Page:
        """See `Table.query`."""

        async def ask(client: TableClient) -> Page:
            pages = client.query_entities(
                "PartitionKey eq @partition and RowKey ge @first and RowKey lt @end",
                parameters={"partition": partition, "first": first, "end": end},
                results_per_page=None if limit is None else max(1, min(limit, 1000)),
                select=None if bodies else _KEYS_AND_META,
                **_NO_RETRY,
            ).by_page()
            async for page in pages:
                items = [_item(entity) async for entity in page]
                is_last = not getattr(pages, "continuation_token", None)
                if items or is_last:  # a page may be empty, and not the last
                    return Page(items, is_last)
            return Page([], True)

        return await self.request(ask) or Page([], True)

    async def transact(self, operations: Sequence[Operation]) -> list[str]:
        """See `Table.transact`."""
        batch = [_batch_operation(operation) for operation in operations]

        async def ask(client: TableClient) -> list[str]:
            results = await client.submit_transaction(batch, **_NO_RETRY)
            return [str(result.get("etag", "")) for result in results]

        return await self.request(ask, write=True) or []

    async def create_table(self, sdk: TableClient) -> None:
        """See `ServiceTable.create_table`."""
        with suppress(ResourceExistsError):
            await sdk.create_table(**_NO_RETRY)

    @staticmethod
    def explain(error: Any) -> Failure:
        """See `ServiceTable.explain`."""
        status = getattr(error, "status_code", None) or 0
        code = getattr(error, "error_code", None) or ""
        code = getattr(code, "value", code)  # an enumeration's member has another hash than its text
        kind = _KINDS.get(code) or _KINDS.get(status, "other")
        detail = str(getattr(error, "message", "") or str(error) or type(error).__name__)
        if status:  # the first line is the service's; then come the request's id and the whole answer
            detail = f"{status} {code}: {detail.strip().partition(chr(10))[0]}"
        elif isinstance(error, _NO_CONNECTION) or isinstance(
            getattr(error, "inner_exception", 0), _NO_CONNECTION
        ):
            kind = "busy"
        if isinstance(error, ClientAuthenticationError):
            kind = "forbidden"
        return Failure(kind, detail, _retry_after(error), getattr(error, "index", None) or 0)


def _retry_after(error: Any) -> float:
    response: Any = SimpleNamespace(http_response=getattr(error, "response", None))
    try:
        return AsyncRetryPolicy().get_retry_after(response) or 0.0
    except (AttributeError, ValueError):  # no response, or a malformed header
        return 0.0


def _item(entity: Any) -> Item:
    body, number = entity.get("body", ""), 1
    while (piece := entity.get(f"body{number}")) is not None:
        body, number = body + piece, number + 1
    version = str(entity.metadata.get("etag", ""))
    return Item(entity["PartitionKey"], entity["RowKey"], entity.get("meta") or "", body or "", None, version)


def _batch_operation(operation: Operation) -> tuple[Any, ...]:
    kind, item, condition = operation
    entity = {"PartitionKey": item.partition, "RowKey": item.sort}
    match = {"etag": condition, "match_condition": MatchConditions.IfNotModified} if condition else {}
    if kind == "delete":
        return "delete", entity, match
    entity["meta"] = item.meta
    for number, piece in enumerate(pieces(item.body)):
        entity[f"body{number or ''}"] = piece
    if condition == NEW and condition is not None:
        return "create", entity
    return "update" if condition else "upsert", entity, {"mode": UpdateMode.REPLACE, **match}


def pieces(text: str) -> list[str]:
    """A text in pieces that each fit into a property; none for an empty text."""
    is_narrow = 2 * len(text) <= PROPERTY_UNITS or text.isascii() or max(text) <= "\uffff"
    step = PROPERTY_UNITS if is_narrow else PROPERTY_UNITS // 2  # a character may take two units
    return [text[start : start + step] for start in range(0, len(text), step)]
