"""LangChain's histories in DynamoDB: an item for each session, with a list of its messages."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from agent_stores.backends.tables.dynamodb import DynamoDBTable, parse_config
from agent_stores.errors import StoreClosedError
from agent_stores.importers.parsers.decoding import read_data
from agent_stores.importers.parsers.langchain import langchain_message
from agent_stores.importers.source import SourceError, SourceMessage, SourceThread
from agent_stores.urls import dynamodb_arguments


class LangChainDynamoDBTable:
    """Reads a table of ``langchain_community.chat_message_histories.DynamoDBChatMessageHistory``.

    A table with a sort key, which the history's ``key`` names, has a thread for each item; the id is that of
    the session, a colon, and the sort key's value.

    Args:
        url: ``dynamodb://region/table``; the region may be empty. The SDK finds the credentials.
        primary_key_name: the attribute with the session's id.
        history_messages_key: the attribute with the messages.
        ttl_key_name: the attribute with the time of expiry, in seconds since 1970.
        endpoint_url: another endpoint than the region's.

    Raises:
        ArgumentError: when the URL is malformed.
        MissingDependencyError: when aiobotocore is not installed.
    """

    name = "langchain-dynamodb"
    unrecognized = 0

    def __init__(
        self,
        url: str,
        *,
        primary_key_name: str = "SessionId",
        history_messages_key: str = "History",
        ttl_key_name: str = "expireAt",
        endpoint_url: str | None = None,
    ) -> None:
        options = {"table_name": "SessionTable", "region_name": None, **dynamodb_arguments(url)}
        config = parse_config(**options, endpoint_url=endpoint_url, client=None)
        self._table = DynamoDBTable(config, timeout=30.0)
        self._name = config.table
        self._names = {"#id": primary_key_name, "#messages": history_messages_key, "#ttl": ttl_key_name}
        self._closed = False

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._table.location

    async def count(self) -> int | None:
        """None: the service counts the items of a table twice a day."""
        return None

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`."""
        schema = (await self._call("describe_table")).get("Table", {}).get("KeySchema", ())
        keys = [each["AttributeName"] for each in schema]
        names = {f"#k{number}": key for number, key in enumerate(keys)}
        names.update({name: key for name, key in self._names.items() if key not in keys and name == "#ttl"})
        more: dict[str, Any] = {}
        while schema:
            page = await self._call(
                "scan", ProjectionExpression=", ".join(names), ExpressionAttributeNames=names, **more
            )
            for item in page.get("Items", ()):
                values = {name: to_python(value) for name, value in item.items()}
                others = [str(values[key]) for key in keys if key != self._names["#id"]]
                expires = values.get(self._names["#ttl"])
                yield SourceThread(
                    thread_id=":".join([str(values.get(self._names["#id"])), *others]),
                    location=json.dumps([str(values[key]) for key in keys]),
                    expires_in=None if not isinstance(expires, (int, float)) else expires - time.time(),
                    handle={key: item[key] for key in keys},
                )
            if "LastEvaluatedKey" not in page:
                break
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`; an item has at most 400 KB, and so a thread has one page."""
        answer = await self._call("get_item", Key=thread.handle, ConsistentRead=True)
        history = to_python(answer.get("Item", {}).get(self._names["#messages"], {"L": []}))
        if not isinstance(history, list):
            raise SourceError(f"{thread.location}: its messages are not a list")
        found = []
        for number, data in enumerate(history, 1):
            raw = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str).encode()
            found.append(read_data(data, raw, langchain_message, location=f"item {number}"))
        if found:
            yield found

    async def aclose(self) -> None:
        """See `Source.aclose`."""
        if not self._closed:
            self._closed = True
            await self._table.aclose()

    async def _call(self, method: str, **arguments: Any) -> Mapping[str, Any]:
        if self._closed:
            raise StoreClosedError("this source is closed")
        answer: Mapping[str, Any] = await self._table.call(method, {"TableName": self._name, **arguments})
        return answer


def to_python(value: Mapping[str, Any]) -> Any:
    """An attribute's value: numbers are int where they are whole, and float otherwise."""
    ((kind, content),) = value.items()
    if kind == "N":
        number = Decimal(content)
        return int(number) if number == number.to_integral_value() else float(number)
    if kind == "L":
        return [to_python(each) for each in content]
    if kind == "M":
        return {name: to_python(each) for name, each in content.items()}
    return None if kind == "NULL" else content
