"""Amazon DynamoDB as a table of `agent_stores.backends.tables.table`.

Items have the attributes ``pk`` and ``sk`` (the keys), ``meta``, ``body``, ``v`` (the version) and
``expires`` (seconds since 1970, the service's own time-to-live).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from agent_stores.backends.tables.dynamodb_config import (
    AioConfig,
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    DynamoDBConfig,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    sdk_session,
)
from agent_stores.backends.tables.service import Failure, Kind, ServiceTable, TableServer
from agent_stores.backends.tables.table import NEW, Item, ItemKey, Operation, Page, TableLimits
from agent_stores.connection_pool import ServerRegistry

_BATCH = 100  # keys of a BatchGetItem
_NO_BODY = {"ProjectionExpression": "pk, sk, meta, v"}
_CODES: Mapping[Kind, Sequence[str]] = {
    "busy": (
        "LimitExceededException",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "ReplicatedWriteConflictException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ThrottlingException",
        "TransactionConflict",
        "TransactionConflictException",
    ),
    "lost": ("TransactionInProgressException",),
    "no table": ("ResourceNotFoundException",),
    "condition": ("ConditionalCheckFailed", "ConditionalCheckFailedException"),
    "forbidden": (
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    ),
}
"""What the service's codes mean, those of the reasons of a cancelled transaction included."""

_KINDS: dict[str, Kind] = {code: kind for kind, codes in _CODES.items() for code in codes}


class DynamoDBTable(ServiceTable):
    """A table of a region.

    Args:
        config: the table, and how to connect to it.
        timeout: seconds that a request may take, attempts and pauses included.
    """

    registry: ClassVar[ServerRegistry[TableServer]] = ServerRegistry()
    session_path = "_endpoint.http_session._sessions"
    errors = (ClientError, BotoCoreError)
    # An item may have 400 KB with its keys, and a transaction 4 MB.
    limits = TableLimits(
        operations=100,
        transaction_bytes=3_600_000,
        item_bytes=350_000,
        body_bytes=16 * 1024 * 1024,
        snapshot_pages=False,
    )

    def __init__(self, config: DynamoDBConfig, *, timeout: float) -> None:
        async def connect(stack: contextlib.AsyncExitStack) -> Any:
            if config.client is not None:
                return config.client
            options = AioConfig(
                connect_timeout=timeout,
                read_timeout=timeout,
                retries={"total_max_attempts": 1},  # `ServiceTable` tries again
                max_pool_connections=50,
            )
            made = sdk_session()._create_client(
                "dynamodb", region_name=config.region, endpoint_url=config.endpoint, config=options
            )
            # The SDK reads files meanwhile: on a thread, not on the event loop.
            return await stack.enter_async_context(await asyncio.to_thread(asyncio.run, made))

        super().__init__(
            config.location,
            (config._replace(client=None), id(config.client), timeout),
            connect,
            are_ours=config.client is None,
            timeout=timeout,
        )
        self._name = config.table

    async def get(self, keys: Sequence[ItemKey], *, bodies: bool = True) -> dict[ItemKey, Item]:
        """See `Table.get`; one request for each 100."""
        options = {} if bodies else _NO_BODY
        found: list[Item] = []
        if len(keys) == 1:
            arguments = {"TableName": self._name, "Key": _key(*keys[0]), "ConsistentRead": True, **options}
            answer = await self.call("get_item", arguments)
            found = _items([answer["Item"]] if answer.get("Item") else [])
        for start in range(0, len(keys) if len(keys) > 1 else 0, _BATCH):
            wanted: Any = [_key(*key) for key in dict.fromkeys(keys[start : start + _BATCH])]
            attempt = 0
            while wanted:
                asked = {self._name: {"Keys": wanted, "ConsistentRead": True, **options}}
                answer = await self.call("batch_get_item", {"RequestItems": asked})
                found += _items(answer.get("Responses", {}).get(self._name, ()))
                wanted = answer.get("UnprocessedKeys", {}).get(self._name, {}).get("Keys")
                if wanted:
                    attempt += 1
                    await asyncio.sleep(min(1.0, 0.01 * 2**attempt))
        return {item.key: item for item in found}

    async def query(
        self, partition: str, first: str, end: str, *, limit: int | None = None, bodies: bool = True
    ) -> Page:
        """See `Table.query`."""
        arguments: dict[str, Any] = {
            "TableName": self._name,
            "KeyConditionExpression": "pk = :p AND sk BETWEEN :first AND :end",
            "ExpressionAttributeValues": {
                ":p": {"S": partition},
                ":first": {"S": first},
                ":end": {"S": end},
            },
            "ConsistentRead": True,
            **({} if bodies else _NO_BODY),
            **({} if limit is None else {"Limit": max(1, limit)}),
        }
        while True:
            answer = await self.call("query", arguments)
            items = [item for item in _items(answer.get("Items", ())) if item.sort != end]
            start = answer.get("LastEvaluatedKey")
            if items or not start:
                return Page(items, not start)
            arguments["ExclusiveStartKey"] = start

    async def transact(self, operations: Sequence[Operation]) -> list[str]:
        """See `Table.transact`; a single operation is no transaction, as it costs half of one."""
        version = secrets.token_hex(6)
        actions = [self._action(operation, version) for operation in operations]
        if len(actions) == 1:
            ((name, arguments),) = actions[0].items()
            is_repeatable = name == "Put" and operations[0].condition is None
            await self.call(f"{name.lower()}_item", arguments, write=True, repeatable=is_repeatable)
        else:
            request = {"TransactItems": actions, "ClientRequestToken": str(uuid.uuid4())}
            await self.call("transact_write_items", request, write=True, repeatable=True)
        return [version] * len(operations)

    def _action(self, operation: Operation, version: str) -> dict[str, Any]:
        kind, item, condition = operation
        action: dict[str, Any] = {"TableName": self._name}
        if kind == "put":
            action["Item"] = {**_key(*item.key), "v": {"S": version}}
            for name, text in (("meta", item.meta), ("body", item.body)):
                if text:
                    action["Item"][name] = {"S": text}
            if item.expires_at is not None:
                action["Item"]["expires"] = {"N": str(item.expires_at)}
        else:
            action["Key"] = _key(*item.key)
        if condition == NEW and condition is not None:
            action["ConditionExpression"] = "attribute_not_exists(pk)"
        elif condition is not None:
            action["ConditionExpression"] = "v = :v"
            action["ExpressionAttributeValues"] = {":v": {"S": condition}}
        elif kind == "delete":
            action["ConditionExpression"] = "attribute_exists(pk)"
        return {kind.title(): action}

    async def call(
        self, method: str, arguments: Mapping[str, Any], *, write: bool = False, repeatable: bool = False
    ) -> Any:
        """Call the SDK; a missing table has no items, and is created by a write."""

        async def ask(sdk: Any) -> Any:
            return await getattr(sdk, method)(**arguments)

        return await self.request(ask, write=write, repeatable=repeatable) or {}

    async def create_table(self, sdk: Any) -> None:
        """See `ServiceTable.create_table`; the table is billed on demand."""
        with contextlib.suppress(sdk.exceptions.ResourceInUseException):  # it exists, or is being made
            await sdk.create_table(
                TableName=self._name,
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
                KeySchema=[
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "sk", "KeyType": "RANGE"},
                ],
                BillingMode="PAY_PER_REQUEST",
            )
        deadline = time.monotonic() + 0.9 * self._timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(sdk.exceptions.ResourceNotFoundException):  # it was created just now
                if (await sdk.describe_table(TableName=self._name))["Table"]["TableStatus"] == "ACTIVE":
                    break
            await asyncio.sleep(0.2)
        with contextlib.suppress(ClientError):  # it is enabled, or this login may not; sweeps do without it
            await sdk.update_time_to_live(
                TableName=self._name,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"},
            )

    @staticmethod
    def explain(error: Any) -> Failure:
        """See `ServiceTable.explain`."""
        if not isinstance(error, ClientError):
            if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
                return Failure("rejected", str(error))
            is_unsent = isinstance(error, (EndpointConnectionError, ConnectTimeoutError))
            return Failure("busy" if is_unsent else "lost", str(error) or type(error).__name__)
        code = str(error.response["Error"].get("Code", ""))
        message = str(error.response["Error"].get("Message", "")).partition("\n")[0]
        detail = f"{code}: {message}"
        reasons = [str(reason.get("Code")) for reason in error.response.get("CancellationReasons", ())]
        kinds: list[Kind] = [_KINDS.get(each, "other") for each in reasons or [code]]
        if "condition" in kinds:
            return Failure("condition", detail, operation=kinds.index("condition"))
        for kind in kinds:
            if kind != "other":
                return Failure(kind, detail)
        if "size" in message.lower() and code in ("ValidationException", "TransactionCanceledException"):
            return Failure("too large", detail)
        is_failure = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
        return Failure("lost" if is_failure else "other", detail)


def _key(partition: str, sort: str) -> dict[str, Any]:
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def _items(found: Iterable[Mapping[str, Any]]) -> list[Item]:
    return [
        Item(
            each["pk"]["S"],
            each["sk"]["S"],
            each["meta"]["S"] if "meta" in each else "",
            each["body"]["S"] if "body" in each else "",
            int(each["expires"]["N"]) if "expires" in each else None,
            each["v"]["S"],
        )
        for each in found
    ]
