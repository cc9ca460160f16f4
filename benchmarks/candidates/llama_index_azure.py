"""The chat store of LlamaIndex for Azure Tables."""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

from typing import Any

from azure.data.tables.aio import TableServiceClient
from llama_index.core.llms import ChatMessage
from llama_index.storage.chat_store.azure import AzureChatStore
from llama_index.utils.azure import ServiceMode, serialize

from candidates.base import Candidate, messages

_AT_ONCE = 100
_KEY = "thread"


class Azure(Candidate):
    """AzureChatStore, asynchronous methods; it takes one message a call, and knows no limit."""

    reads_all = True
    service: TableServiceClient | None = None
    store: Any = None
    table = ""

    async def open(self, thread: str) -> None:
        if self.service is None:
            self.service = TableServiceClient.from_connection_string(self.url)
        self.table = f"l{thread.replace('_', '')[:50]}"
        self.store = AzureChatStore(None, self.service, self.table, f"m{self.table}")

    async def fill(self) -> None:
        assert self.service is not None
        table = await self.service.create_table(self.table)
        about = await self.service.create_table(f"m{self.table}")
        rows = [
            serialize(
                ServiceMode.STORAGE,
                {
                    "PartitionKey": _KEY,
                    "RowKey": self.store._to_row_key(number),
                    **ChatMessage(role=role, content=text).model_dump(),
                },
            )
            for number, (role, text) in enumerate(messages(self.length))
        ]
        for first in range(0, len(rows), _AT_ONCE):
            await table.submit_transaction([("create", row) for row in rows[first : first + _AT_ONCE]])
        await about.upsert_entity(
            {
                "PartitionKey": self.store.metadata_partition_key,
                "RowKey": _KEY,
                "LastMessageRowKey": self.store._to_row_key(self.length - 1),
                "MessageCount": self.length,
            }
        )

    def turn(self, question: str, answer: str) -> list[ChatMessage]:
        return [ChatMessage(role="user", content=question), ChatMessage(role="assistant", content=answer)]

    async def add(self, turn: list[ChatMessage]) -> None:
        for message in turn:
            await self.store.async_add_message(_KEY, message)

    async def read(self) -> Any:
        return await self.read_all()

    async def read_all(self) -> Any:
        return await self.store.aget_messages(_KEY)

    def document(self, turn: list[ChatMessage]) -> list[str | bytes]:
        return [message.model_dump_json() for message in turn]


CANDIDATES = {"llama-azure": Azure}
