"""Which table is meant, and who signs in: connection strings and arguments."""

from __future__ import annotations

import base64
import binascii
import hashlib
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from agent_stores.backends.tables.azure_errors import (
    AzureNamedKeyCredential,
    AzureSasCredential,
    TableServiceClient,
)
from agent_stores.backends.tables.azure_names import check_table_name, is_connection_string
from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

_FORMAT = (
    "a connection string as the portal shows it (AccountName=…;AccountKey=… or TableEndpoint=…;"
    "SharedAccessSignature=…), or UseDevelopmentStorage=true for Azurite"
)
_ACCOUNT = re.compile(r"[a-z0-9]{3,44}")
_SUFFIX = "core.windows.net"
_DEVELOPMENT = {  # how Azurite is reached, as its documentation says
    "tableendpoint": "http://127.0.0.1:10002/devstoreaccount1",
    "accountname": "devstoreaccount1",
    "accountkey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
}


@dataclass(frozen=True)
class AzureConfig:
    """A table of an account, and how to connect to it.

    Attributes:
        endpoint: the account's URL for tables, without a query.
        table: the table's name.
        make_credential: makes the client's credential, and says whether to close it.
        login: equal for logins whose connections may be shared; does not hold them.
        client: the caller's client.
        secrets: text that must never show.
        loop_independent: whether nothing that the caller lent belongs to one event loop.
    """

    endpoint: str
    table: str
    make_credential: Callable[[], tuple[Any, bool]] = field(default=lambda: (None, False), repr=False)
    login: object = field(default=None, repr=False)
    client: TableServiceClient | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    loop_independent: bool = True

    @property
    def location(self) -> str:
        """The endpoint and the table, without secrets; names of tables do not depend on case."""
        return f"{self.endpoint}/{self.table.lower()}"


def parse_config(
    *,
    connection_string: str | None,
    endpoint: str | None,
    account_name: str | None,
    account_key: str | None,
    sas_token: str | None,
    credential: AzureNamedKeyCredential | AzureSasCredential | AsyncTokenCredential | None,
    table_service_client: TableServiceClient | None,
    table_name: str,
) -> AzureConfig:
    """Read the connection arguments, which must name exactly one way of connecting.

    Raises:
        ArgumentError: when they do not; never repeats an argument that may hold a secret.
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
            raise ArgumentTypeError(f"{name} must be a str, got {type(value).__name__}")
        if value is not None and not value.strip():
            raise ArgumentError(f"{name} must not be empty")
    given = [name for name, value in text.items() if value is not None]
    given += ["credential"] * (credential is not None)
    if table_service_client is not None:
        _reject_combination("table_service_client", given)
        return _from_client(table_service_client, table)
    if connection_string is not None:
        _reject_combination("connection_string", given[1:])
        return _from_connection_string(connection_string, table)
    if endpoint is None and account_name is None:
        raise ArgumentError(
            "one of connection_string, endpoint, account_name, table_service_client is needed"
        )
    logins = [name for name in given if name in ("account_key", "sas_token", "credential")]
    if len(logins) > 1:
        raise ArgumentError(f"only one of {' and '.join(logins)} can be given")
    url = _account_endpoint(account_name or "") if endpoint is None else _check_endpoint(endpoint)
    if account_key is not None:
        if account_name is None:
            raise ArgumentError("account_key needs account_name")
        return _with_key(url, account_name, account_key, table)
    if sas_token is not None:
        return _with_sas(url, sas_token, table)
    if credential is not None:
        return _with_credential(url, credential, table)
    if account_name is None:
        raise ArgumentError("endpoint needs one of credential, sas_token and account_name")
    return _with_default_credential(url, table)


def arguments_from_url(url: str, table_name: str | None = None) -> dict[str, Any]:
    """The connection arguments of a URL.

    Args:
        url: a connection string, or ``azure-tables://account/table``; without the account, it is that of the
            environment's ``AZURE_STORAGE_CONNECTION_STRING``, and without the table the default one.
        table_name: the table, where the URL names none.

    Raises:
        ArgumentError: when it is malformed, or the environment has no login.
    """
    named = {"table_name": table_name} if table_name else {}
    if is_connection_string(url):
        return {"connection_string": url, **named}
    parts = urlsplit(url)
    account, table = parts.netloc, parts.path.strip("/")
    if "@" in account or parts.query or parts.fragment or ":" in account or "/" in table:
        raise ArgumentError(
            "the store's URL must be azure-tables://account/table, with the login in the environment"
        )
    if table and table_name and table != table_name:
        raise ArgumentError(f"table_name is {table_name!r}, but the store's URL names the table {table!r}")
    options = {"table_name": table} if table else named
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if text and (not account or _account_of(text) == account):
        return {"connection_string": text, **options}
    if not account:
        raise ArgumentError(
            "the store's URL must name an account if AZURE_STORAGE_CONNECTION_STRING is not set"
        )
    if key := os.environ.get("AZURE_STORAGE_KEY"):
        return {"account_name": account, "account_key": key, **options}
    if token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        return {"account_name": account, "sas_token": token, **options}
    return {"account_name": account, **options}


def _check_endpoint(endpoint: str) -> str:
    """An account's URL, without a slash at its end. A part that may be a secret is rejected unseen."""
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if not host or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise ArgumentError(
            "endpoint must be a URL such as https://account.table.core.windows.net, or "
            "http://127.0.0.1:10002/devstoreaccount1 for Azurite"
        )
    if parts.query or parts.fragment:
        raise ArgumentError("endpoint must not have a query; give a token as sas_token")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _reject_combination(name: str, others: list[str]) -> None:
    if others:
        raise ArgumentError(f"{name} cannot be combined with {' or '.join(others)}")


def _account_endpoint(account_name: str) -> str:
    if not _ACCOUNT.fullmatch(account_name):
        raise ArgumentError(
            f"account_name must have 3 to 24 lower-case letters and digits, got {account_name!r}; for Cosmos "
            "DB and other clouds, give an endpoint"
        )
    return f"https://{account_name}.table.{_SUFFIX}"


def _fields(connection_string: str) -> dict[str, str]:
    fields = {}
    for part in filter(str.strip, connection_string.strip().split(";")):
        name, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"\s*[A-Za-z]+\s*", name):
            raise ArgumentError(f"connection_string must be {_FORMAT}")
        fields[name.strip().lower()] = value.strip()
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        return {**_DEVELOPMENT, **fields}
    return fields


def _account_of(connection_string: str) -> str | None:
    return _fields(connection_string).get("accountname")


def _from_connection_string(connection_string: str, table: str) -> AzureConfig:
    fields = _fields(connection_string)
    account, url = fields.get("accountname"), fields.get("tableendpoint")
    if not url:
        if not account:
            raise ArgumentError(f"connection_string must be {_FORMAT}")
        protocol = fields.get("defaultendpointsprotocol") or "https"
        url = f"{protocol}://{account}.table.{fields.get('endpointsuffix') or _SUFFIX}"
    try:
        endpoint = _check_endpoint(url)
    except ArgumentError as error:
        raise ArgumentError(f"connection_string has no usable table endpoint: {error}") from None
    if account and (key := fields.get("accountkey")):
        return _with_key(endpoint, account, key, table)
    if token := fields.get("sharedaccesssignature"):
        return _with_sas(endpoint, token, table)
    raise ArgumentError(f"connection_string must be {_FORMAT}")


def _with_key(endpoint: str, account: str, key: str, table: str) -> AzureConfig:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ArgumentError("the account's key must be base64") from None
    login = ("key", account, _fingerprint(key))
    return AzureConfig(
        endpoint, table, lambda: (AzureNamedKeyCredential(account, key), False), login, secrets=(key,)
    )


def _with_sas(endpoint: str, sas_token: str, table: str) -> AzureConfig:
    token = sas_token.strip().lstrip("?")
    if "sig=" not in token:
        raise ArgumentError("sas_token must be a query with sig=…, as Azure makes it")
    signature = token.partition("sig=")[2].partition("&")[0]
    return AzureConfig(
        endpoint,
        table,
        lambda: (AzureSasCredential(token), False),
        ("sas", _fingerprint(token)),
        secrets=(token, signature, unquote(signature)),
    )


def _with_credential(endpoint: str, credential: Any, table: str) -> AzureConfig:
    secrets = _secrets_of(credential)
    if not secrets and not inspect.iscoroutinefunction(getattr(credential, "get_token", None)):
        raise ArgumentTypeError(
            "credential must be an AzureNamedKeyCredential, an AzureSasCredential or an asynchronous token "
            f"credential, such as those of azure.identity.aio, got {type(credential).__name__}"
        )
    if not secrets:
        _require_tls(endpoint)
    return AzureConfig(
        endpoint,
        table,
        lambda: (credential, False),
        ("credential", id(credential)),
        secrets=secrets,
        loop_independent=bool(secrets),  # a token credential has connections of its own
    )


def _with_default_credential(endpoint: str, table: str) -> AzureConfig:
    try:
        from azure.identity.aio import DefaultAzureCredential
    except ImportError:
        raise MissingDependencyError.of(
            "azure-identity", extra="azure", purpose="the default credential of an Azure account"
        ) from None
    _require_tls(endpoint)
    return AzureConfig(endpoint, table, lambda: (DefaultAzureCredential(), True), ("default",))


def _require_tls(endpoint: str) -> None:
    if not endpoint.startswith("https://"):
        raise ArgumentError(f"endpoint must begin with https:// if a token is sent, got {endpoint!r}")


def _from_client(client: Any, table: str) -> AzureConfig:
    if not isinstance(client, TableServiceClient):
        raise ArgumentTypeError(
            "table_service_client must be an azure.data.tables.aio.TableServiceClient, got "
            f"{type(client).__module__}.{type(client).__name__}"
        )
    url, _, query = client.url.partition("?")
    secrets = (*_secrets_of(getattr(client, "credential", None)), query)
    login = ("client", id(client))
    return AzureConfig(
        _check_endpoint(url), table, login=login, client=client, secrets=secrets, loop_independent=False
    )


def _secrets_of(credential: Any) -> tuple[str, ...]:
    if isinstance(credential, AzureNamedKeyCredential):
        return (credential.named_key.key,)
    return (credential.signature,) if isinstance(credential, AzureSasCredential) else ()


def _fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
