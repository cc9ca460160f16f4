"""agent-stores on DynamoDB, and the lower bound: the same rows without what a store promises.

The emulator copies a table for each transaction, so each thread has a table of its own.
"""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, ClassVar

from aiobotocore.session import get_session

from agent_stores import ChatMessage, DynamoDBChatMessageStore
from agent_stores.message_format import encode_message
from agent_stores.store import ChatMessageStore
from candidates.base import LAST, Candidate, messages

_DAY = 86_400.0
_LAST = 10**16 - 1
_AT_ONCE = 45
_THREAD = {"S": "thread"}
_HEAD = "x" * 600  # about what a head holds


class Raw(Candidate):
    """One transaction of two messages, their ids and the head under its version; one query by sort key."""

    client: ClassVar[Any] = None
    table: str

    async def open(self, thread: str) -> None:
        if Raw.client is None:
            Raw.client = await _connect(self.url)
        self.table, self.number, self.version = thread, 0, ""
        await self.client.create_table(
            TableName=thread,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            BillingMode="PAY_PER_REQUEST",
        )

    async def fill(self) -> None:
        rows = [{"role": role, "content": text} for role, text in messages(self.length)]
        for first in range(0, len(rows), _AT_ONCE):
            await self.add(rows[first : first + _AT_ONCE])

    def turn(self, question: str, answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    async def add(self, turn: list[dict[str, str]]) -> None:
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        is_same = {"ConditionExpression": "v = :v", "ExpressionAttributeValues": {":v": {"S": self.version}}}
        version = os.urandom(6).hex()
        head = self._put("head", {"head": _HEAD, "v": version}, is_same if self.version else condition)
        operations = [head]
        for message in turn:
            self.number += 1
            row = f"m{_LAST - self.number:016d}"
            operations.append(self._put(row, {"body": json.dumps(message)}, {}))
            operations.append(self._put(f"u{os.urandom(14).hex()}", {"row": row}, condition))
        await self.client.transact_write_items(TransactItems=operations)
        self.version = version

    def _put(self, sort: str, values: dict[str, str], condition: dict[str, Any]) -> dict[str, Any]:
        item = {"pk": _THREAD, "sk": {"S": sort}, **{name: {"S": value} for name, value in values.items()}}
        return {"Put": {"TableName": self.table, "Item": item, **condition}}

    async def read(self) -> list[Any]:
        return (await self._query(Limit=LAST))[0]

    async def read_all(self) -> list[Any]:
        found, start = await self._query()
        while start:
            older, start = await self._query(ExclusiveStartKey=start)
            found = older + found
        return found

    async def _query(self, **options: Any) -> tuple[list[Any], Any]:
        page = await self.client.query(
            TableName=self.table,
            KeyConditionExpression="pk = :p AND sk BETWEEN :first AND :end",
            ExpressionAttributeValues={":p": _THREAD, ":first": {"S": "m"}, ":end": {"S": "n"}},
            ConsistentRead=True,
            **options,
        )
        found = [json.loads(item["body"]["S"]) for item in reversed(page["Items"])]
        return found, page.get("LastEvaluatedKey")

    def document(self, turn: list[dict[str, str]]) -> list[str | bytes]:
        return [json.dumps(message) for message in turn]


class Ours(Candidate):
    """DynamoDBChatMessageStore as it comes."""

    limited = False
    client: ClassVar[Any] = None
    store: ChatMessageStore

    async def open(self, thread: str) -> None:
        if Ours.client is None:
            Ours.client = await _connect(self.url)
        limits: dict[str, Any] = {"max_messages": self.length, "ttl": _DAY} if self.limited else {}
        self.store = DynamoDBChatMessageStore(thread, client=self.client, thread_id=thread, **limits)

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
    """DynamoDBChatMessageStore that trims, and lets threads expire."""

    limited = True


async def _connect(url: str) -> Any:
    """A client, which ends with the process."""
    return await contextlib.AsyncExitStack().enter_async_context(
        get_session().create_client("dynamodb", endpoint_url=url)
    )


CANDIDATES = {"raw-dynamodb": Raw, "ours-dynamodb": Ours, "ours-dynamodb-limited": OursLimited}
