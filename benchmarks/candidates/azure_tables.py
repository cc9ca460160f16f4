"""agent-stores on Azure Tables, and the lower bounds: the same rows without what a store promises.

Azurite looks through all rows of a table for each query, so each thread has a table of its own.
"""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

import json
import os
from typing import Any

from azure.core import MatchConditions
from azure.data.tables import UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient

from agent_stores import AzureTableChatMessageStore, ChatMessage
from agent_stores.message_format import encode_message
from agent_stores.store import ChatMessageStore
from candidates.base import LAST, Candidate, messages

_DAY = 86_400.0
_LAST = 10**16 - 1
_AT_ONCE = 45
_THREAD = "thread"
_HEAD = "x" * 600  # about what a head holds

Turn = list[dict[str, str]]


def _table(thread: str) -> str:
    return f"t{thread.replace('_', '')[:60]}"


class Raw(Candidate):
    """One transaction of two messages, their ids and the head under its version; one query by row key."""

    with_ids = True
    service: TableServiceClient | None = None
    table: TableClient

    async def open(self, thread: str) -> None:
        if self.service is None:
            self.service = TableServiceClient.from_connection_string(self.url)
        self.table = await self.service.create_table(_table(thread))
        self.version: str | None = None
        self.number = 0

    async def fill(self) -> None:
        rows = [{"role": role, "content": text} for role, text in messages(self.length)]
        for first in range(0, len(rows), _AT_ONCE):
            await self.add(rows[first : first + _AT_ONCE])

    def turn(self, question: str, answer: str) -> Turn:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    async def add(self, turn: Turn) -> None:
        head = {"PartitionKey": _THREAD, "RowKey": "head", "head": _HEAD}
        operations: list[Any] = [("create", head)]
        if self.version is not None:
            condition = {"etag": self.version, "match_condition": MatchConditions.IfNotModified}
            operations = [("update", head, {"mode": UpdateMode.REPLACE, **condition})]
        for message in turn:
            self.number += 1
            row = f"m{_LAST - self.number:016d}"
            body = {"PartitionKey": _THREAD, "RowKey": row, "body": json.dumps(message)}
            operations.append(("upsert", body, {"mode": UpdateMode.REPLACE}))
            if self.with_ids:
                name = f"u{os.urandom(14).hex()}"
                operations.append(("create", {"PartitionKey": _THREAD, "RowKey": name, "row": row}))
        done = await self.table.submit_transaction(operations)
        self.version = done[0]["etag"]

    async def read(self) -> list[Any]:
        query = "PartitionKey eq 'thread' and RowKey ge 'm' and RowKey lt 'n'"
        async for page in self.table.query_entities(query, results_per_page=LAST).by_page():
            return [json.loads(row["body"]) async for row in page][::-1]
        return []

    async def read_all(self) -> list[Any]:
        query = "PartitionKey eq 'thread' and RowKey ge 'm' and RowKey lt 'n'"
        return [json.loads(row["body"]) async for row in self.table.query_entities(query)][::-1]

    def document(self, turn: Turn) -> list[str | bytes]:
        return [json.dumps(message) for message in turn]


class RawWithoutIds(Raw):
    """The same without the rows that keep an id from being added twice."""

    with_ids = False


class Ours(Candidate):
    """AzureTableChatMessageStore as it comes."""

    limited = False
    store: ChatMessageStore

    async def open(self, thread: str) -> None:
        limits: dict[str, Any] = {"max_messages": self.length, "ttl": _DAY} if self.limited else {}
        self.store = AzureTableChatMessageStore.from_connection_string(
            self.url, table_name=_table(thread), thread_id=thread, **limits
        )

    async def fill(self) -> None:
        batch = [ChatMessage(role, text) for role, text in messages(self.length)]
        for first in range(0, len(batch), _AT_ONCE):
            await self.store.add_messages(batch[first : first + _AT_ONCE])

    def turn(self, question: str, answer: str) -> list[ChatMessage]:
        return [ChatMessage("user", question), ChatMessage("assistant", answer)]

    def add(self, turn: list[ChatMessage]) -> Any:
        return self.store.add_messages(turn)

    def read(self) -> Any:
        return self.store.list_messages(last=LAST)

    def read_all(self) -> Any:
        return self.store.list_messages()

    def document(self, turn: list[ChatMessage]) -> list[str | bytes]:
        return [encode_message(message) for message in turn]


class OursLimited(Ours):
    """AzureTableChatMessageStore that trims, and lets threads expire."""

    limited = True


CANDIDATES = {
    "raw-azure": Raw,
    "raw-azure-without-ids": RawWithoutIds,
    "ours-azure": Ours,
    "ours-azure-limited": OursLimited,
}
