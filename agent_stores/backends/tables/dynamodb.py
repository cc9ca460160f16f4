"""Amazon DynamoDB as a table of `agent_stores.backends.tables.table`.

Items have the attributes ``pk`` and ``sk`` (the keys), ``meta``, ``body``, ``v`` (the version) and
``expires`` (seconds since 1970, the service's own time-to-live).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from agent_stores import _checks
from agent_stores.backends.tables.service import Failure, Kind, ServiceConfig, ServiceTable
from agent_stores.backends.tables.table import NEW, Item, ItemKey, Operation, TableLimits
from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:
    from aiobotocore.client import AioBaseClient
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession, get_session
    from botocore import exceptions as botocore
except ImportError:
    raise MissingDependencyError.of("aiobotocore", extra="dynamodb", purpose="the DynamoDB store") from None

_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_NO_RETRY = {"total_max_attempts": 1}  # `ServiceTable` does it
_BATCH = 100  # keys of a BatchGetItem
_NO_BODY = {"ProjectionExpression": "pk, sk, meta, v"}
_CODES: Mapping[Kind, str] = {
    "busy": "LimitExceeded ProvisionedThroughputExceeded ReplicatedWriteConflict RequestLimitExceeded "
    "ThrottlingError Throttling TransactionConflict",
    "lost": "TransactionInProgress",
    "no table": "ResourceNotFound",
    "condition": "ConditionalCheckFailed",
    "forbidden": "AccessDenied ExpiredToken IncompleteSignature InvalidSignature MissingAuthenticationToken "
    "UnrecognizedClient",
}
"""What the service's codes mean, without "Exception", also as reasons of a cancelled transaction."""

_MAY_BE_TOO_LARGE = ("ValidationException", "TransactionCanceledException")
_KINDS: dict[str, Kind] = {code: kind for kind, codes in _CODES.items() for code in codes.split()}


@dataclass(frozen=True, kw_only=True)
class DynamoDBConfig(ServiceConfig):
    """A table, and how to connect to it.

    Attributes:
        region: its region.
        endpoint: the URL of another endpoint than the region's; None for that.
    """

    region: str
    endpoint: str | None

    async def connect(self, stack: contextlib.AsyncExitStack, timeout: float) -> Any:
        """See `ServiceConfig.connect`."""
        if self.client is not None:
            return self.client
        options = AioConfig(
            connect_timeout=timeout, read_timeout=timeout, max_pool_connections=50, retries=_NO_RETRY
        )

        def make_client() -> AioBaseClient:
            session = sdk_session()
            return asyncio.run(
                session._create_client(
                    "dynamodb", region_name=self.region, endpoint_url=self.endpoint, config=options
                )
            )

        # The SDK reads files meanwhile: on a thread, not on the event loop.
        return await stack.enter_async_context(await asyncio.to_thread(make_client))


def parse_config(
    table_name: Any, region_name: Any, endpoint_url: Any, client: AioBaseClient | None
) -> DynamoDBConfig:
    """Check the connection arguments; credentials are those that the SDK finds.

    Raises:
        ArgumentError, ArgumentTypeError: when they are invalid or exclude each other.
    """
    for name, value in (("region_name", region_name), ("endpoint_url", endpoint_url)):
        _checks.optional(_checks.text)(value, name)
        if value is not None and client is not None:
            raise ArgumentError(f"client must not be given together with {name}")
    if not _TABLE_NAME.fullmatch(_checks.text(table_name, "table_name")):
        raise ArgumentError(f"table_name must have 3 to 255 of A-Z, a-z, 0-9, _ . -, got {table_name!r}")
    if client is not None:
        if not isinstance(client, AioBaseClient) or client.meta.service_model.service_name != "dynamodb":
            raise ArgumentTypeError(
                f"client must be aiobotocore's client of dynamodb, got {type(client).__name__}"
            )
        region_name, url = client.meta.region_name, client.meta.endpoint_url
        endpoint_url = None if url.endswith((".amazonaws.com", ".amazonaws.com.cn")) else url
    elif region_name is None:
        region_name = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
        region_name = region_name or sdk_session().get_config_variable("region")  # a profile's
    if region_name is None:
        raise ArgumentError("region_name must be given, as neither AWS_DEFAULT_REGION nor a profile has one")
    if not _REGION.fullmatch(region_name):
        raise ArgumentError(f"region_name must be a region such as eu-central-1, got {region_name!r}")
    if endpoint_url is not None:
        parts = urlsplit(endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ArgumentError("endpoint_url must be a URL such as http://127.0.0.1:8000, without a login")
    where = f"dynamodb://{region_name}" if endpoint_url is None else endpoint_url.rstrip("/")
    return DynamoDBConfig(
        table=table_name,
        location=f"{where}/{table_name}",
        identity=(where, region_name, table_name, id(client)),
        client=client,
        region=region_name,
        endpoint=endpoint_url,
    )


sdk_session: Callable[[], AioSession] = lru_cache(maxsize=1)(get_session)
"""The session of all our clients, which finds the credentials."""


class DynamoDBTable(ServiceTable):
    """A table of a region."""

    errors = (botocore.ClientError, botocore.BotoCoreError)
    # An item may have 400 KB with its keys, and a transaction 4 MB.
    limits = TableLimits(
        operations=100, transaction_bytes=3_600_000, item_bytes=350_000, body_bytes=16 * 1024 * 1024
    )

    async def get(self, keys: Sequence[ItemKey], *, bodies: bool = True) -> dict[ItemKey, Item]:
        """See `Table.get`; one request for each 100."""
        found: list[Item] = []
        for start in range(0, len(keys), _BATCH):
            names = [_key(*key) for key in dict.fromkeys(keys[start : start + _BATCH])]
            options = {"ConsistentRead": True, **({} if bodies else _NO_BODY)}
            wanted: Any = {self.config.table: {"Keys": names, **options}}
            while wanted:  # an answer without any item is an error
                answer = await self.call("batch_get_item", {"RequestItems": wanted})
                found += map(_item, answer.get("Responses", {}).get(self.config.table, ()))
                wanted = answer.get("UnprocessedKeys")
        return {item.key: item for item in found}

    async def query(
        self, partition: str, first: str, end: str, *, limit: int | None = None, bodies: bool = True
    ) -> list[Item]:
        """See `Table.query`; one request for each MB."""
        values = {":p": partition, ":first": first, ":end": end}
        arguments: dict[str, Any] = {
            "TableName": self.config.table,
            "KeyConditionExpression": "pk = :p AND sk BETWEEN :first AND :end",
            "ExpressionAttributeValues": {name: {"S": text} for name, text in values.items()},
            "ConsistentRead": True,
            **({} if bodies else _NO_BODY),
            **({} if limit is None else {"Limit": max(1, limit)}),
        }
        found: list[Item] = []
        while first < end and (limit is None or len(found) < limit):
            answer = await self.call("query", arguments)
            found += (item for item in map(_item, answer.get("Items", ())) if item.sort != end)
            if (start := answer.get("LastEvaluatedKey")) is None:
                break
            arguments["ExclusiveStartKey"] = start
        return found[:limit]

    async def transact(self, operations: Sequence[Operation]) -> str:
        """See `Table.transact`; a single operation is no transaction, as it costs half of one."""
        version = secrets.token_hex(6)
        actions = [self._action(operation, version) for operation in operations]
        if len(actions) == 1:
            ((name, arguments),) = actions[0].items()
            is_repeatable = operations[0].condition is None
            await self.call(f"{name.lower()}_item", arguments, write=True, repeatable=is_repeatable)
        else:
            request = {"TransactItems": actions, "ClientRequestToken": str(uuid.uuid4())}
            await self.call("transact_write_items", request, write=True, repeatable=True)
        return version

    def _action(self, operation: Operation, version: str) -> dict[str, Any]:
        item, condition, is_delete = operation
        action: dict[str, Any] = {"TableName": self.config.table}
        if is_delete:
            action["Key"] = _key(*item.key)
        else:
            action["Item"] = {**_key(*item.key), "v": {"S": version}}
            for name, text in (("meta", item.meta), ("body", item.body)):
                if text:
                    action["Item"][name] = {"S": text}
            if item.expires_at is not None:
                action["Item"]["expires"] = {"N": str(item.expires_at)}
        if condition == NEW:
            action["ConditionExpression"] = "attribute_not_exists(pk)"
        elif condition is not None:
            action["ConditionExpression"] = "v = :v"
            action["ExpressionAttributeValues"] = {":v": {"S": condition}}
        return {"Delete" if is_delete else "Put": action}

    async def call(
        self, method: str, arguments: Mapping[str, Any], *, write: bool = False, repeatable: bool = False
    ) -> Any:
        """Call the SDK; a missing table has no items, and is created by a write."""

        async def ask(sdk: Any) -> Any:
            return await getattr(sdk, method)(**arguments)

        return await self.request(ask, write=write, repeatable=repeatable) or {}

    async def create_table(self, sdk: Any) -> None:
        """See `ServiceTable.create_table`; the table is billed on demand."""
        keys = {"pk": "HASH", "sk": "RANGE"}
        with contextlib.suppress(sdk.exceptions.ResourceInUseException):  # it exists, or is being made
            await sdk.create_table(
                TableName=self.config.table,
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
                BillingMode="PAY_PER_REQUEST",
            )
        waiter = await asyncio.to_thread(sdk.get_waiter, "table_exists")  # which reads a file
        pauses = {"Delay": 0.2, "MaxAttempts": max(1, int(4.5 * self.attempts.timeout))}
        await waiter.wait(TableName=self.config.table, WaiterConfig=pauses)
        # It may be enabled, or this login may not do so; sweeps work without it.
        with contextlib.suppress(botocore.ClientError):
            await sdk.update_time_to_live(
                TableName=self.config.table,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"},
            )

    @staticmethod
    def explain(error: Any) -> Failure:
        """See `ServiceTable.explain`."""
        if not isinstance(error, botocore.ClientError):
            if isinstance(error, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
                return Failure("rejected", str(error))
            is_unsent = isinstance(error, (botocore.EndpointConnectionError, botocore.ConnectTimeoutError))
            return Failure("busy" if is_unsent else "lost", str(error) or type(error).__name__)
        code, message = (str(error.response["Error"].get(name, "")) for name in ("Code", "Message"))
        reasons = error.response.get("CancellationReasons") or [{"Code": code}]
        names = [str(reason.get("Code")).removesuffix("Exception") for reason in reasons]
        kinds: list[Kind] = [_KINDS.get(each, "other") for each in names]
        known: list[Kind] = [each for each in kinds if each != "other"]
        kind: Kind = "condition" if "condition" in kinds else known[0] if known else "other"
        operation = kinds.index(kind)
        if kind == "other" and error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            kind = "lost"
        elif kind == "other" and "size" in message.lower() and code in _MAY_BE_TOO_LARGE:
            kind = "too large"
        return Failure(kind, f"{code}: {message.partition(chr(10))[0]}", operation=operation)


def _key(partition: str, sort: str) -> dict[str, Any]:
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def _item(found: Mapping[str, Mapping[str, str]]) -> Item:
    texts = {name: text for name, value in found.items() for text in value.values()}
    expires = int(texts["expires"]) if "expires" in texts else None
    return Item(texts["pk"], texts["sk"], texts.get("meta", ""), texts.get("body", ""), expires, texts["v"])
