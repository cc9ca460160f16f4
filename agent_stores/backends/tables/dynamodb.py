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
from collections.abc import AsyncGenerator, Hashable, Iterable, Mapping, Sequence
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
from agent_stores.backends.tables.service import Failure, ServiceTable, close_session
from agent_stores.backends.tables.table import (
    NEW,
    ConditionFailed,
    Item,
    ItemKey,
    Operation,
    Page,
    TableLimits,
)
from agent_stores.connection_pool import ServerRegistry
from agent_stores.errors import (
    StoreUnavailableError,
)

_BATCH = 100  # keys of a BatchGetItem
_NO_BODY = {"ProjectionExpression": "pk, sk, meta, v"}
_NOT_APPLIED = (
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
)
_REJECTED = (
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
)
_TRANSIENT_REASONS = ("ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict")


class DynamoDBClient:
    """A client of the service on one event loop; the caller's is used as it is and never closed.

    Attributes:
        loop_close_hook: what closes it with its loop.
    """

    def __init__(self, config: DynamoDBConfig, timeout: float) -> None:
        self.loop_close_hook: AsyncGenerator[None, None] | None = None
        self._config = config
        self._timeout = timeout
        self._client: Any = config.client
        self._stack = contextlib.AsyncExitStack()
        self._lock = asyncio.Lock()

    async def get(self) -> Any:
        """The SDK's client, made when it is first needed."""
        if self._client is None:
            async with self._lock:
                if self._client is None:
                    # The SDK reads files meanwhile: on a thread, not on the event loop.
                    client = await asyncio.to_thread(asyncio.run, self._create())
                    self._client = await self._stack.enter_async_context(client)
        return self._client

    def _create(self) -> Any:
        config = AioConfig(
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
            retries={"total_max_attempts": 1},  # `ServiceTable` tries again
            max_pool_connections=50,
        )
        return sdk_session()._create_client(
            "dynamodb",
            region_name=self._config.region,
            endpoint_url=self._config.endpoint,
            config=config,
        )

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        await self._stack.aclose()
        await asyncio.sleep(0)

    def close_sockets(self) -> None:
        """Close the sockets, when their loop is gone."""
        http: Any = getattr(getattr(self._client, "_endpoint", None), "http_session", None)
        for session in list(getattr(http, "_sessions", {}).values()):
            close_session(session)


class DynamoDBTable(ServiceTable[DynamoDBClient]):
    """A table of a region.

    Args:
        config: the table, and how to connect to it.
        timeout: seconds that a request may take, attempts and pauses included.
    """

    registry: ClassVar[ServerRegistry[Any]] = ServerRegistry()
    errors = (ClientError, BotoCoreError, OSError, asyncio.TimeoutError)
    # An item may have 400 KB with its keys, and a transaction 4 MB.
    limits = TableLimits(
        operations=100,
        transaction_bytes=3_600_000,
        item_bytes=350_000,
        body_bytes=16 * 1024 * 1024,
        snapshot_pages=False,
    )

    def __init__(self, config: DynamoDBConfig, *, timeout: float) -> None:
        identity: Hashable = (config._replace(client=None), id(config.client), timeout)
        super().__init__(
            config.location,
            identity,
            lambda: DynamoDBClient(config, timeout),
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

        async def ask(client: DynamoDBClient) -> Any:
            sdk = await client.get()
            try:
                return await getattr(sdk, method)(**arguments)
            except ClientError as error:
                if error.response["Error"].get("Code") == "ResourceNotFoundException":
                    return None
                if (index := _failed_index(error)) is not None:
                    raise ConditionFailed(index) from error
                raise

        answer = await self._request(ask, write=write, repeatable=repeatable)
        if answer is None and write:
            await self._request(self._create_table, write=True, repeatable=True)
            answer = await self._request(ask, write=write, repeatable=repeatable)
            if answer is None:
                raise StoreUnavailableError(f"{self.location} was created just now, and is not active yet")
        return answer or {}

    async def _create_table(self, client: DynamoDBClient) -> None:
        """Create the table, billed on demand, and wait until it is active."""
        sdk = await client.get()
        names = ("pk", "sk")
        try:
            await sdk.create_table(
                TableName=self._name,
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
                KeySchema=[
                    {"AttributeName": name, "KeyType": kind}
                    for name, kind in zip(names, ("HASH", "RANGE"), strict=True)
                ],
                BillingMode="PAY_PER_REQUEST",
            )
        except ClientError as error:
            if error.response["Error"].get("Code") != "ResourceInUseException":
                raise
        deadline = time.monotonic() + 0.9 * self._timeout
        while time.monotonic() < deadline:
            table = await sdk.describe_table(TableName=self._name)
            if table["Table"]["TableStatus"] == "ACTIVE":
                break
            await asyncio.sleep(0.2)
        with contextlib.suppress(ClientError):  # it is enabled, or this login may not; sweeps do without it
            await sdk.update_time_to_live(
                TableName=self._name,
                TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"},
            )

    def _explain(self, error: BaseException) -> Failure:
        if isinstance(error, ClientError):
            return self._explain_answer(error)
        detail = self._redact(str(error) or type(error).__name__)
        if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
            return Failure("rejected", detail)
        is_unsent = isinstance(error, (EndpointConnectionError, ConnectTimeoutError, ConnectionRefusedError))
        return Failure("transient", detail, may_have_applied=not is_unsent)

    def _explain_answer(self, error: ClientError) -> Failure:
        code = str(error.response["Error"].get("Code", ""))
        metadata = error.response.get("ResponseMetadata", {})
        message = str(error.response["Error"].get("Message", "")).partition("\n")[0]
        detail = self._redact(f"{code}: {message}")
        status = metadata.get("HTTPStatusCode", 0)
        wait = metadata.get("HTTPHeaders", {}).get("retry-after", "")
        seconds = float(wait) if wait.replace(".", "", 1).isdecimal() else None
        if code in _NOT_APPLIED or _reasons(error) & set(_TRANSIENT_REASONS):
            return Failure("transient", detail, wait=seconds)
        if code in _REJECTED:
            return Failure("rejected", f"this login does not permit it: {detail}")
        if "size" in message.lower() and code in ("ValidationException", "TransactionCanceledException"):
            return Failure("too large", detail)
        if status >= 500 or code == "TransactionInProgressException":
            return Failure("transient", detail, may_have_applied=True, wait=seconds)
        return Failure("other", detail)


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


def _failed_index(error: ClientError) -> int | None:
    """Which operation's condition does not hold; None for other errors."""
    if error.response["Error"].get("Code") == "ConditionalCheckFailedException":
        return 0
    for index, reason in enumerate(error.response.get("CancellationReasons", ())):
        if reason.get("Code") == "ConditionalCheckFailed":
            return index
    return None


def _reasons(error: ClientError) -> set[str]:
    return {str(reason.get("Code")) for reason in error.response.get("CancellationReasons", ())}
