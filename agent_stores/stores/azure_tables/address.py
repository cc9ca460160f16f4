"""Which table is meant, and who asks: connection strings and arguments, and what may be said of them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError
from agent_stores.stores.azure_tables.names import check_table_name, is_connection_string
from agent_stores.stores.azure_tables.sdk import (
    AzureNamedKeyCredential,
    AzureSasCredential,
    TableServiceClient,
)

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

ACCEPTED = (
    "a connection string as the portal shows it (AccountName=…;AccountKey=… or TableEndpoint=…;"
    "SharedAccessSignature=…), or UseDevelopmentStorage=true for Azurite"
)

_ACCOUNT = re.compile(r"[a-z0-9]{3,44}")  # up to 24 for Table Storage, up to 44 with dashes for Cosmos DB
_SUFFIX = "core.windows.net"
_DEVELOPMENT = {  # what Azurite is reached with, as its documentation says
    "tableendpoint": "http://127.0.0.1:10002/devstoreaccount1",
    "accountname": "devstoreaccount1",
    "accountkey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
}


@dataclass(frozen=True)
class Address:
    """A table of an account, and how to connect to it.

    Attributes:
        endpoint: the account's URL for tables, without a query.
        table: the table's name.
        location: both, without secrets; goes into states.
        make_credential: makes what the client signs its requests with, and says whether to close it after.
        login: tells logins apart without holding them: equal for those whose connections may be shared.
        client: the caller's client.
        secrets: text that must never show.
        loop_independent: whether nothing that the caller lent belongs to one event loop.
    """

    endpoint: str
    table: str
    location: str
    make_credential: Callable[[], tuple[Any, bool]] | None = field(default=None, repr=False)
    login: object = field(default=None, repr=False)
    client: TableServiceClient | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    loop_independent: bool = True

    @property
    def identity(self) -> object:
        """Equal for addresses whose connections may be shared."""
        return (self.endpoint, self.table.lower(), self.login)


def make_address(
    *,
    connection_string: str | None,
    endpoint: str | None,
    account_name: str | None,
    account_key: str | None,
    sas_token: str | None,
    credential: AzureNamedKeyCredential | AzureSasCredential | AsyncTokenCredential | None,
    table_service_client: TableServiceClient | None,
    table_name: str,
) -> Address:
    """Read the connection arguments, of which exactly one way of connecting is accepted.

    Raises:
        ArgumentError: when they do not say one way; never repeats a secret.
        ArgumentTypeError: for values of other types.
        MissingDependencyError: when azure-identity is needed and not installed.
    """
    table = check_table_name(table_name)
    text = {
        "connection_string": connection_string,
        "endpoint": endpoint,
        "account_name": account_name,
        "account_key": account_key,
        "sas_token": sas_token,
    }
    for name, value in text.items():
        if value is not None and not isinstance(value, str):
            raise ArgumentTypeError(f"{name} is of type {type(value).__name__}; accepted is str")
        if value is not None and not value.strip():
            raise ArgumentError(f"{name} is empty")
    given = [name for name, value in text.items() if value is not None]
    given += ["credential"] * (credential is not None)
    if table_service_client is not None:
        _nothing_beside("table_service_client", given)
        return _borrowed(table_service_client, table)
    if connection_string is not None:
        _nothing_beside("connection_string", [name for name in given if name != "connection_string"])
        return _from_connection_string(connection_string, table)
    if endpoint is None and account_name is None:
        raise ArgumentError(
            "nothing says where the account is: accepted is one of connection_string, endpoint, "
            "account_name and table_service_client"
        )
    logins = [name for name in given if name in ("account_key", "sas_token", "credential")]
    if len(logins) > 1:
        raise ArgumentError(f"{' and '.join(logins)} are given; accepted is one of them")
    url = _account_endpoint(account_name or "") if endpoint is None else check_endpoint(endpoint)
    if account_key is not None:
        if account_name is None:
            raise ArgumentError("account_key is given without account_name, whose key it is")
        return _with_key(url, account_name, account_key, table)
    if sas_token is not None:
        return _with_sas(url, sas_token, table)
    if credential is not None:
        return _with_credential(url, credential, table)
    if endpoint is not None and account_name is None:
        raise ArgumentError(
            "nothing says who asks: accepted beside endpoint is one of credential, sas_token, and "
            "account_name (with account_key, or with azure-identity's default credential)"
        )
    return _with_default_credential(url, table)


def address_from_url(url: str, table_name: str | None = None) -> dict[str, Any]:
    """The connection arguments that a text for `open_log` stands for.

    Args:
        url: a connection string, or ``azure-tables://account/table``; without the account, it is that of the
            environment's ``AZURE_STORAGE_CONNECTION_STRING``, and without the table the default one.
        table_name: the table, where the text names none.

    Raises:
        ArgumentError: when it is malformed, or the environment does not say who asks.
    """
    if is_connection_string(url):
        return {"connection_string": url, **_named(table_name)}
    parts = urlsplit(url)
    account, table = parts.netloc, parts.path.strip("/")
    accepted = "azure-tables://account/table, whose login is in the environment"
    if "@" in account or parts.query or parts.fragment or ":" in account or "/" in table:
        raise ArgumentError(f"the store's URL has more than an account and a table; accepted is {accepted}")
    if table and table_name and table != table_name:
        raise ArgumentError(f"the store's URL names the table {table!r}, and table_name is {table_name!r}")
    options = _named(table or table_name)
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if text and (not account or _account_of(text) == account):
        return {"connection_string": text, **options}
    if not account:
        raise ArgumentError(
            "the store's URL names no account, and AZURE_STORAGE_CONNECTION_STRING is not set; accepted is "
            f"{accepted}"
        )
    options["account_name"] = account
    if key := os.environ.get("AZURE_STORAGE_KEY"):
        return {"account_key": key, **options}
    if token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        return {"sas_token": token, **options}
    return options


def check_endpoint(endpoint: str) -> str:
    """An account's URL, without a slash at its end; a part that may be a secret is refused unseen."""
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if not host or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise ArgumentError(
            "endpoint is malformed; accepted is https://account.table.core.windows.net, or "
            "http://127.0.0.1:10002/devstoreaccount1 for Azurite"
        )
    if parts.query or parts.fragment:
        raise ArgumentError("endpoint has a query; accepted is none: a token is given as sas_token")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _nothing_beside(way: str, others: list[str]) -> None:
    if others:
        raise ArgumentError(f"{way} says all of it: accepted is no {' or '.join(others)} beside it")


def _named(table_name: str | None) -> dict[str, Any]:
    return {"table_name": table_name} if table_name else {}


def _address(endpoint: str, table: str, **fields: Any) -> Address:
    # Names of tables do not depend on case.
    return Address(endpoint, table, f"{endpoint}/{table.lower()}", **fields)


def _account_endpoint(account_name: str) -> str:
    if not _ACCOUNT.fullmatch(account_name):
        raise ArgumentError(
            f"account_name is {account_name!r}; accepted are 3 to 24 lower-case letters and digits. For "
            "Cosmos DB and other clouds, give an endpoint"
        )
    return f"https://{account_name}.table.{_SUFFIX}"


def _fields(connection_string: str) -> dict[str, str]:
    fields = {}
    for part in connection_string.strip().split(";"):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"\s*[A-Za-z]+\s*", name):
            raise ArgumentError(f"connection_string is malformed; accepted is {ACCEPTED}")
        fields[name.strip().lower()] = value.strip()
    return fields


def _account_of(connection_string: str) -> str | None:
    fields = _fields(connection_string)
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        return _DEVELOPMENT["accountname"]
    return fields.get("accountname")


def _from_connection_string(connection_string: str, table: str) -> Address:
    fields = _fields(connection_string)
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        fields = {**_DEVELOPMENT, **fields}
    account = fields.get("accountname")
    url = fields.get("tableendpoint")
    if not url:
        if not account:
            raise ArgumentError(
                f"connection_string has neither TableEndpoint nor AccountName; accepted is {ACCEPTED}"
            )
        protocol = fields.get("defaultendpointsprotocol") or "https"
        url = f"{protocol}://{account}.table.{fields.get('endpointsuffix') or _SUFFIX}"
    try:
        endpoint = check_endpoint(url)
    except ArgumentError as error:
        raise ArgumentError(f"connection_string names no usable table endpoint: {error}") from None
    if key := fields.get("accountkey"):
        if not account:
            raise ArgumentError("connection_string has an AccountKey without an AccountName")
        return _with_key(endpoint, account, key, table)
    if token := fields.get("sharedaccesssignature"):
        return _with_sas(endpoint, token, table)
    raise ArgumentError(
        f"connection_string has neither AccountKey nor SharedAccessSignature; accepted is {ACCEPTED}"
    )


def _with_key(endpoint: str, account: str, key: str, table: str) -> Address:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ArgumentError("the account's key is malformed; accepted is base64") from None
    return _address(
        endpoint,
        table,
        make_credential=lambda: (AzureNamedKeyCredential(account, key), False),
        login=("key", account, _fingerprint(key)),
        secrets=(key,),
    )


def _with_sas(endpoint: str, sas_token: str, table: str) -> Address:
    token = sas_token.strip().lstrip("?")
    if "sig=" not in token:
        raise ArgumentError("sas_token is malformed; accepted is what Azure makes: a query with sig=…")
    signature = token.partition("sig=")[2].partition("&")[0]
    return _address(
        endpoint,
        table,
        make_credential=lambda: (AzureSasCredential(token), False),
        login=("sas", _fingerprint(token)),
        secrets=(token, signature, unquote(signature)),
    )


def _with_credential(endpoint: str, credential: Any, table: str) -> Address:
    if isinstance(credential, AzureNamedKeyCredential):
        secrets: tuple[str, ...] = (credential.named_key.key,)
    elif isinstance(credential, AzureSasCredential):
        secrets = (credential.signature,)
    elif inspect.iscoroutinefunction(getattr(credential, "get_token", None)):
        secrets = ()
        _require_tls(endpoint)
    else:
        raise ArgumentTypeError(
            f"credential is of type {type(credential).__name__}; accepted are AzureNamedKeyCredential, "
            "AzureSasCredential and asynchronous token credentials, as those of azure.identity.aio"
        )
    return _address(
        endpoint,
        table,
        make_credential=lambda: (credential, False),
        login=("credential", id(credential)),
        secrets=secrets,
        loop_independent=bool(secrets),  # a token's credential has connections of its own
    )


def _with_default_credential(endpoint: str, table: str) -> Address:
    try:
        from azure.identity.aio import DefaultAzureCredential
    except ImportError:
        raise MissingDependencyError.of(
            "azure-identity", extra="azure", purpose="the default credential of an Azure account"
        ) from None
    _require_tls(endpoint)
    return _address(
        endpoint, table, make_credential=lambda: (DefaultAzureCredential(), True), login=("default",)
    )


def _require_tls(endpoint: str) -> None:
    if not endpoint.startswith("https://"):
        raise ArgumentError(f"endpoint is {endpoint!r}; accepted with a token is https:// only")


def _borrowed(client: Any, table: str) -> Address:
    if not isinstance(client, TableServiceClient):
        raise ArgumentTypeError(
            f"table_service_client is of type {type(client).__module__}.{type(client).__name__}; accepted is "
            "azure.data.tables.aio.TableServiceClient"
        )
    endpoint = check_endpoint(client.url.partition("?")[0])
    return _address(
        endpoint,
        table,
        client=client,
        login=("client", id(client)),
        secrets=_secrets_of(client),
        loop_independent=False,
    )


def _secrets_of(client: TableServiceClient) -> tuple[str, ...]:
    credential = getattr(client, "credential", None)
    found = []
    if isinstance(credential, AzureNamedKeyCredential):
        found.append(credential.named_key.key)
    if isinstance(credential, AzureSasCredential):
        found.append(credential.signature)
    query = client.url.partition("?")[2]
    return tuple(secret for secret in [*found, query] if secret)


def _fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def describe(options: Mapping[str, Any] | None) -> str:
    """Options as part of an identity: equal for equal options."""
    return repr(sorted((name, repr(value)) for name, value in (options or {}).items()))
