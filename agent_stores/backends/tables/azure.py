"""Azure Table Storage, and Cosmos DB's API for Table, as a table of `agent_stores.backends.tables.table`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

from agent_stores import _checks
from agent_stores._concurrency import gather_or_cancel
from agent_stores.backends.tables.service import Failure, Kind, ServiceConfig, ServiceTable
from agent_stores.backends.tables.table import NEW, ConditionFailed, Item, ItemKey, Operation, TableLimits
from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:
    import aiohttp  # what the asynchronous client sends with
    from azure.core import MatchConditions, exceptions
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.core.pipeline.policies import AsyncRetryPolicy
    from azure.core.utils import parse_connection_string
    from azure.data.tables import UpdateMode
    from azure.data.tables.aio import TableClient, TableServiceClient
except ImportError as error:
    package = "aiohttp" if error.name == "aiohttp" else "azure-data-tables"
    raise MissingDependencyError.of(package, extra="azure", purpose="the Azure Tables store") from None

PROPERTY_UNITS = 32 * 1024  # of UTF-16, as the service counts, in the longest text of a property: 64 KiB

_LOGINS = {"connection_string", "account_key", "sas_token", "credential", "table_service_client"}
_TABLE = re.compile(r"(?!tables$)[a-z][a-z0-9]{2,62}", re.IGNORECASE | re.ASCII)
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_SUFFIX = "core.windows.net"
_DEVELOPMENT = (  # how Azurite is reached, as its documentation says
    "AccountName=devstoreaccount1;TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;AccountKey="
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

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

_KINDS: dict[str | int, Kind] = {code: kind for kind, codes in _CODES.items() for code in codes}
_NO_CONNECTION = (exceptions.ServiceRequestTimeoutError, aiohttp.ClientConnectorError, ConnectionRefusedError)
_KEYS_AND_META = ["PartitionKey", "RowKey", "meta"]
_NO_RETRY: Mapping[str, Any] = {"retry_total": 0}  # `ServiceTable` does it, knowing what may be repeated
_PARALLEL_READS = 16  # of rows


@dataclass(frozen=True, kw_only=True)
class AzureConfig(ServiceConfig):
    """A table of an account, and how to connect to it.

    Attributes:
        endpoint: the account's URL for tables, without a query.
        credential: who signs in; a class for an instance on each event loop, which is closed with it.
        client_options: further arguments of the service's client.
        loop_independent: whether nothing that the caller lent belongs to one event loop.
    """

    endpoint: str
    credential: Any = field(repr=False)
    client_options: Mapping[str, Any] = field(repr=False)
    loop_independent: bool

    async def connect(self, stack: contextlib.AsyncExitStack, timeout: float) -> TableClient:
        """See `ServiceConfig.connect`; on a thread, as the SDK asks for the platform, maybe by a program."""
        if self.client is not None:
            return await asyncio.to_thread(self.client.get_table_client, self.table)
        credential = self.credential
        if isinstance(credential, type):
            credential = await stack.enter_async_context(credential())
        client = await asyncio.to_thread(
            TableClient, self.endpoint, self.table, credential=credential, **self.client_options
        )
        return await stack.enter_async_context(client)


def parse_config(
    table_name: str, *, client_options: Mapping[str, Any] | None = None, **arguments: Any
) -> AzureConfig:
    """Read the connection arguments of `AzureTableMessageLog`, which must name one way of connecting.

    Raises:
        ArgumentError: when they do not; never repeats an argument that may hold a secret.
        ArgumentTypeError: for values of other types.
        MissingDependencyError: when azure-identity is needed and not installed.
    """
    check_table_name(table_name)
    given = {name: value for name, value in arguments.items() if value is not None}
    for name, value in given.items():
        if name not in ("credential", "table_service_client"):
            _checks.name(value, name)
    logins, client = given.keys() & _LOGINS, given.get("table_service_client")
    if len(logins) > 1 or (("connection_string" in given or client is not None) and len(given) > 1):
        raise ArgumentError(f"{' and '.join(sorted(given))} must not be given together")
    query = ""
    if "connection_string" in given:
        given = parse_connection_fields(given["connection_string"])
    elif client is not None:
        if not isinstance(client, TableServiceClient):
            raise ArgumentTypeError(
                "table_service_client must be an azure.data.tables.aio.TableServiceClient, got "
                f"{type(client).__module__}.{type(client).__name__}"
            )
        given["endpoint"], _, query = client.url.partition("?")
    elif "account_name" not in given and not logins & {"sas_token", "credential"}:
        raise ArgumentError("connection_string, account_name, sas_token or credential must be given")
    endpoint, credential = _endpoint(given), client.credential if client else _credential(given)
    secrets = tuple(filter(None, (*_secrets_of(credential), query)))
    if not secrets and not endpoint.startswith("https://"):
        raise ArgumentError(f"endpoint must begin with https:// if a token is sent, got {endpoint!r}")
    lent = client or given.get("credential")
    fingerprint = hashlib.sha256(repr((given.get("account_name"), secrets)).encode()).hexdigest()
    options, location = client_options or {}, f"{endpoint}/{table_name.lower()}"  # names ignore case
    return AzureConfig(
        table=table_name,
        location=location,
        identity=(location, fingerprint if lent is None else id(lent), repr(sorted(options.items()))),
        client=client,
        secrets=secrets,
        endpoint=endpoint,
        credential=credential,
        client_options=options,
        # A client and a token credential have connections of their own.
        loop_independent=client is None and (lent is None or bool(secrets)),
    )


def check_table_name(table_name: Any) -> str:
    """A name by Azure's rules for tables; raises `ArgumentError` or `ArgumentTypeError` when it is not."""
    if not _TABLE.fullmatch(_checks.text(table_name, "table_name")):
        raise ArgumentError(
            "table_name must have 3 to 63 letters and digits (A-Z, a-z, 0-9), begin with a letter and not be "
            f"'tables', got {table_name!r}"
        )
    return str(table_name)


def _endpoint(given: Mapping[str, Any]) -> str:
    """An account's URL, without a slash at its end. A part that may be a secret is rejected unseen."""
    account, endpoint = given.get("account_name", ""), given.get("endpoint")
    if endpoint is None and not _ACCOUNT.fullmatch(account):
        raise ArgumentError(f"account_name must be 3 to 24 of a-z, 0-9 without an endpoint, got {account!r}")
    try:
        parts = urlsplit(endpoint or f"https://{account}.table.{_SUFFIX}")
        is_valid = bool(parts.hostname and parts.port != 0) and parts.scheme in ("http", "https")
        if not is_valid or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError
    except ValueError:
        raise ArgumentError(
            "endpoint must be a URL such as https://account.table.core.windows.net, or "
            "http://127.0.0.1:10002/devstoreaccount1 for Azurite, without a token; give that as sas_token"
        ) from None
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def parse_connection_fields(connection_string: str) -> dict[str, str]:
    """The arguments of `parse_config` that say the same as a connection string; raises `ArgumentError`."""
    try:
        fields = parse_connection_string("".join(connection_string.split()))
        if fields.get("usedevelopmentstorage", "").lower() == "true":
            fields = parse_connection_string(_DEVELOPMENT)
        account, suffix = fields.get("accountname"), fields.get("endpointsuffix", _SUFFIX)
        default = f"{fields.get('defaultendpointsprotocol', 'https')}://{account}.table.{suffix}"
        given = {
            "account_name": account,
            "account_key": fields.get("accountkey"),
            "sas_token": fields.get("sharedaccesssignature"),
            "endpoint": fields.get("tableendpoint", default if account else None),
        }
        if not given["endpoint"] or not (given["account_key"] or given["sas_token"]):
            raise ValueError
    except ValueError:
        raise ArgumentError(
            "connection_string must be as the portal shows it (AccountName=…;AccountKey=… or TableEndpoint=…;"
            "SharedAccessSignature=…), or UseDevelopmentStorage=true for Azurite"
        ) from None
    return {name: value for name, value in given.items() if value}


def _credential(given: Mapping[str, Any]) -> Any:
    """The credential of the arguments, or the class of the one that finds a login."""
    account, credential = given.get("account_name"), given.get("credential")
    if account is not None and "account_key" in given:
        try:
            base64.b64decode(given["account_key"], validate=True)
        except binascii.Error:
            raise ArgumentError("account_key must be base64") from None
        return AzureNamedKeyCredential(account, given["account_key"])
    if "sas_token" in given:
        if "sig=" not in given["sas_token"]:
            raise ArgumentError("sas_token must be a query with sig=…, as Azure makes it")
        return AzureSasCredential(given["sas_token"].strip().lstrip("?"))
    if credential is not None:
        is_asynchronous = inspect.iscoroutinefunction(getattr(credential, "get_token", None))
        if not is_asynchronous and not _secrets_of(credential):
            raise ArgumentTypeError(
                "credential must be an AzureNamedKeyCredential, an AzureSasCredential or an asynchronous "
                f"token credential, such as those of azure.identity.aio, got {type(credential).__name__}"
            )
        return credential
    try:
        from azure.identity.aio import DefaultAzureCredential
    except ImportError:
        raise MissingDependencyError.of(
            "azure-identity", extra="azure", purpose="the default credential of an Azure account"
        ) from None
    return DefaultAzureCredential


def _secrets_of(credential: Any) -> tuple[str, ...]:
    if isinstance(credential, AzureNamedKeyCredential):
        return (credential.named_key.key,)
    if not isinstance(credential, AzureSasCredential):
        return ()
    signature = credential.signature.partition("sig=")[2].partition("&")[0]
    return credential.signature, signature, unquote(signature)


class AzureTable(ServiceTable):
    """A table of an account."""

    errors = (exceptions.AzureError, HTTPException)
    # JSON on the wire takes up to three times the bytes of UTF-8; a transaction may have 4 MiB, and a row
    # 1 MiB, in at most 255 properties.
    limits = TableLimits(
        operations=100, transaction_bytes=1_300_000, item_bytes=300_000, body_bytes=16 * 1024 * 1024
    )

    async def get(self, keys: Sequence[ItemKey], *, bodies: bool = True) -> dict[ItemKey, Item]:
        """See `Table.get`; one request each."""
        select = None if bodies else _KEYS_AND_META

        async def get_one(key: ItemKey) -> Item | None:
            return await self.request(lambda client: client.get_entity(*key, select=select, **_NO_RETRY))

        found: list[Any] = []
        for start in range(0, len(keys), _PARALLEL_READS):
            found += await gather_or_cancel(map(get_one, keys[start : start + _PARALLEL_READS]))
        return {item.key: item for item in map(_item, filter(None, found))}

    async def query(
        self, partition: str, first: str, end: str, *, limit: int | None = None, bodies: bool = True
    ) -> list[Item]:
        """See `Table.query`; one request for each 1,000."""
        found: list[Item] = []
        token: Any = None

        async def ask(client: TableClient) -> tuple[list[Item], Any]:
            pages = client.query_entities(
                "PartitionKey eq @partition and RowKey ge @first and RowKey lt @end",
                parameters={"partition": partition, "first": first, "end": end},
                results_per_page=None if limit is None else max(1, min(limit - len(found), 1000)),
                select=None if bodies else _KEYS_AND_META,
                **_NO_RETRY,
            ).by_page(token)
            async for page in pages:
                return [_item(entity) async for entity in page], getattr(pages, "continuation_token", None)
            return [], None

        while limit is None or len(found) < limit:
            items, token = await self.request(ask) or ([], None)
            found += items
            if not token:  # a page may be empty, and not the last
                break
        return found

    async def transact(self, operations: Sequence[Operation]) -> str:
        """See `Table.transact`; the service rejects a transaction that deletes a missing row."""
        batch = [_batch_operation(operation) for operation in operations]
        try:
            results: Any = await self.request(
                lambda client: client.submit_transaction(batch, **_NO_RETRY), write=True
            )
            return str(results[0].get("etag", ""))
        except ConditionFailed as error:
            rest = [*operations]
            missing = rest.pop(error.index)
            if missing.condition is not None or not missing.is_delete:
                raise
        return await self.transact(rest) if rest else ""

    async def create_table(self, sdk: TableClient) -> None:
        """See `ServiceTable.create_table`."""
        with contextlib.suppress(exceptions.ResourceExistsError):
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
        elif any(isinstance(each, _NO_CONNECTION) for each in (error, getattr(error, "inner_exception", 0))):
            kind = "busy"
        if isinstance(error, exceptions.ClientAuthenticationError):
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
    item, condition, is_delete = operation
    entity = {"PartitionKey": item.partition, "RowKey": item.sort}
    match = {"etag": condition, "match_condition": MatchConditions.IfNotModified} if condition else {}
    if is_delete:
        return "delete", entity, match
    entity["meta"] = item.meta
    for number, piece in enumerate(pieces(item.body)):
        entity[f"body{number or ''}"] = piece
    if condition == NEW:
        return "create", entity
    return "update" if condition else "upsert", entity, {"mode": UpdateMode.REPLACE, **match}


def pieces(text: str) -> list[str]:
    """A text in pieces that each fit into a property; none for an empty text."""
    is_narrow = 2 * len(text) <= PROPERTY_UNITS or text.isascii() or max(text) <= "\uffff"
    step = PROPERTY_UNITS if is_narrow else PROPERTY_UNITS // 2  # a character may take two units
    return [text[start : start + step] for start in range(0, len(text), step)]
