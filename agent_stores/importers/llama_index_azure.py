"""LlamaIndex's chat store in Azure Tables: an entity for each message, and a table of the keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from agent_stores.backends.tables.azure import AzureTable, check_table_name, parse_config
from agent_stores.backends.tables.service import store_error
from agent_stores.errors import StoreClosedError
from agent_stores.importers.parsers.decoding import read_data
from agent_stores.importers.parsers.llama_index import llama_index_message
from agent_stores.importers.source import SourceMessage, SourceThread
from agent_stores.urls import azure_arguments

from azure.core.exceptions import AzureError, ResourceNotFoundError  # isort: skip - after what names the extra
from azure.data.tables.aio import TableServiceClient  # isort: skip

_PAGE = 50  # entities, of up to 1 MiB
_PART = "_part_"


class LlamaIndexAzureTable:
    """Reads the tables of ``llama_index.storage.chat_store.azure.AzureChatStore``.

    Args:
        url: a connection string, or ``azure-tables://account`` with the login in the environment.
        chat_table_name: what the chat store was given as such.
        metadata_table_name: likewise.
        metadata_partition_key: likewise; the name of the chat table by default.

    Raises:
        ArgumentError: when one of them is not accepted; never repeats a secret.
        MissingDependencyError: when the packages of the service are not installed.
    """

    name = "llama-index"
    unrecognized = 0

    def __init__(
        self,
        url: str,
        *,
        chat_table_name: str = "ChatMessages",
        metadata_table_name: str = "ChatMetadata",
        metadata_partition_key: str | None = None,
    ) -> None:
        self._table = check_table_name(chat_table_name)
        self._metadata_table = check_table_name(metadata_table_name)
        self._partition = chat_table_name if metadata_partition_key is None else metadata_partition_key
        self._config = parse_config(**{**azure_arguments(url), "table_name": chat_table_name})
        self._service: TableServiceClient | None = None
        self._credential: Any = None
        self._closed = False

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._config.location

    async def count(self) -> int | None:
        """None: a table does not say how many entities it holds."""
        return None

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`."""
        async for page in self._entities(self._metadata_table, self._partition):
            for entity in page:
                count = entity.get("MessageCount")
                yield SourceThread(
                    thread_id=str(entity["RowKey"]),
                    location=str(entity["RowKey"]),
                    messages=count if isinstance(count, int) else None,
                )

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`."""
        async for page in self._entities(self._table, thread.thread_id):
            yield [_read(entity) for entity in page]

    async def aclose(self) -> None:
        """See `Source.aclose`."""
        self._closed = True
        if self._service is not None:
            await self._service.close()
        if self._credential is not None:
            await self._credential.close()

    async def _entities(self, table: str, partition: str) -> AsyncGenerator[list[Any], None]:
        """The entities of a partition in the order of their row keys; none where there is no such table."""
        client = (await self._open_client()).get_table_client(table)
        found = client.query_entities(
            "PartitionKey eq @partition", parameters={"partition": partition}, results_per_page=_PAGE
        )
        try:
            async for page in found.by_page():
                yield [entity async for entity in page]
        except ResourceNotFoundError:
            return
        except (AzureError, OSError) as error:
            raise store_error(AzureTable.explain(error), self._config) from error

    async def _open_client(self) -> TableServiceClient:
        if self._closed:
            raise StoreClosedError("this source is closed")
        if self._service is None:
            credential = self._config.credential
            if isinstance(credential, type):
                credential = self._credential = credential()
            # On a thread: the SDK asks for the platform, and Python may run a program to know it.
            self._service = await asyncio.to_thread(
                TableServiceClient, self._config.endpoint, credential=credential
            )
        return self._service


def _read(entity: Any) -> SourceMessage:
    row = str(entity["RowKey"])
    data = _assembled(entity)
    raw = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str).encode()
    found = read_data(data, raw, llama_index_message, location=f"row {row}", stable_id=row)
    written_at = (entity.metadata or {}).get("timestamp")
    if found.message is None or written_at is None or found.message.created_at is not None:
        return found
    return SourceMessage(found.location, raw, found.message.replace(created_at=written_at), None, row)


def _assembled(entity: Mapping[str, Any]) -> dict[str, Any]:
    """The message of an entity: each field is JSON in a text, and a long one is in several."""
    fields: dict[str, Any] = {}
    parts: dict[str, list[tuple[int, str]]] = {}
    for name, value in entity.items():
        base, found, number = name.rpartition(_PART)
        if name in ("PartitionKey", "RowKey"):
            continue
        if not isinstance(value, str):
            fields[name] = value
        elif found and number.isdecimal():
            parts.setdefault(base, []).append((int(number), value))
        else:
            fields[name] = _decoded(value)
    for name, pieces in parts.items():
        fields[name] = _decoded("".join(piece for _, piece in sorted(pieces)))
    return fields


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
