"""Which table is meant, and who signs in: connection strings and arguments."""

from __future__ import annotations

import base64
import binascii
import hashlib
import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:
    import aiohttp  # noqa: F401 - what the asynchronous client sends with
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.core.utils import parse_connection_string
    from azure.data.tables.aio import TableServiceClient
except ImportError as error:
    package = "aiohttp" if error.name == "aiohttp" else "azure-data-tables"
    raise MissingDependencyError.of(package, extra="azure", purpose="the Azure Tables store") from None

_COMPANIONS: Mapping[str, set[str]] = {
    "table_service_client": set(),
    "connection_string": set(),
    "account_key": {"account_name", "endpoint"},
    "sas_token": {"account_name", "endpoint"},
    "credential": {"account_name", "endpoint"},
}
"""The arguments that each login may be combined with."""

_TABLE = re.compile(r"(?!tables$)[a-z][a-z0-9]{2,62}", re.IGNORECASE | re.ASCII)
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_SUFFIX = "core.windows.net"
_DEVELOPMENT = (  # how Azurite is reached, as its documentation says
    "AccountName=devstoreaccount1;TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;AccountKey="
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@dataclass(frozen=True)
class AzureConfig:
    """A table of an account, and how to connect to it.

    Attributes:
        endpoint: the account's URL for tables, without a query.
        table: the table's name.
        credential: who signs in; a class for an instance on each event loop, which is closed with it.
        client: the caller's client.
        login: equal for logins whose connections may be shared; does not hold them.
        secrets: text that must never show.
        loop_independent: whether nothing that the caller lent belongs to one event loop.
    """

    endpoint: str
    table: str
    credential: Any = field(repr=False)
    client: TableServiceClient | None = field(repr=False)
    login: object = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    loop_independent: bool

    @property
    def location(self) -> str:
        """The endpoint and the table, without secrets; names of tables do not depend on case."""
        return f"{self.endpoint}/{self.table.lower()}"


def parse_config(table_name: str, **arguments: Any) -> AzureConfig:
    """Read the connection arguments of `AzureTableMessageLog`, which must name one way of connecting.

    Raises:
        ArgumentError: when they do not; never repeats an argument that may hold a secret.
        ArgumentTypeError: for values of other types.
        MissingDependencyError: when azure-identity is needed and not installed.
    """
    check_table_name(table_name)
    given = {name: value for name, value in arguments.items() if value is not None}
    for name, value in given.items():
        if name not in ("credential", "table_service_client") and not isinstance(value, str):
            raise ArgumentTypeError(f"{name} must be a str, got {type(value).__name__}")
        if isinstance(value, str) and not value.strip():
            raise ArgumentError(f"{name} must not be empty")
    for name, companions in _COMPANIONS.items():
        others = sorted(given.keys() - companions - {name})
        if name in given and others:
            raise ArgumentError(f"{name} cannot be combined with {' or '.join(others)}")
    if "connection_string" in given:
        given = _from_connection_string(given["connection_string"])
    client, query = given.get("table_service_client"), ""
    if client is not None:
        if not isinstance(client, TableServiceClient):
            raise ArgumentTypeError(
                "table_service_client must be an azure.data.tables.aio.TableServiceClient, got "
                f"{type(client).__module__}.{type(client).__name__}"
            )
        given["endpoint"], _, query = client.url.partition("?")
    elif "account_name" not in given and not given.keys() & {"sas_token", "credential"}:
        raise ArgumentError("connection_string, account_name, sas_token or credential must be given")
    endpoint, credential = _endpoint(given), client.credential if client else _credential(given)
    secrets = tuple(filter(None, (*_secrets_of(credential), query)))
    if not secrets and not endpoint.startswith("https://"):
        raise ArgumentError(f"endpoint must begin with https:// if a token is sent, got {endpoint!r}")
    lent = client or given.get("credential")
    fingerprint = hashlib.sha256(repr((given.get("account_name"), secrets)).encode()).hexdigest()
    return AzureConfig(
        endpoint,
        table_name,
        credential,
        client,
        login=fingerprint if lent is None else id(lent),
        secrets=secrets,
        # A client and a token credential have connections of their own.
        loop_independent=client is None and (lent is None or bool(secrets)),
    )


def arguments_from_url(url: str, table_name: str | None = None) -> dict[str, Any]:
    """The connection arguments of a URL.

    Args:
        url: a connection string, or ``azure-tables://account/table``; without the account, it is that of the
            environment's ``AZURE_STORAGE_CONNECTION_STRING``, and without the table the default one.
        table_name: the table, where the URL names none.

    Raises:
        ArgumentError: when it is malformed, or the environment has no login.
    """
    arguments = {"table_name": table_name} if table_name else {}
    if not url.startswith("azure-tables:"):
        return {**arguments, "connection_string": url}
    parts = urlsplit(url)
    account, table = parts.netloc, parts.path.strip("/")
    if "@" in account or parts.query or parts.fragment or ":" in account or "/" in table:
        raise ArgumentError(
            "the store's URL must be azure-tables://account/table, with the login in the environment"
        )
    if table and arguments.setdefault("table_name", table) != table:
        raise ArgumentError(f"table_name is {table_name!r}, but the store's URL names the table {table!r}")
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if text and (not account or _from_connection_string(text).get("account_name") == account):
        return {**arguments, "connection_string": text}
    if not account:
        raise ArgumentError("the store's URL must name an account without AZURE_STORAGE_CONNECTION_STRING")
    arguments["account_name"] = account
    if key := os.environ.get("AZURE_STORAGE_KEY"):
        arguments["account_key"] = key
    elif token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        arguments["sas_token"] = token
    return arguments


def check_table_name(table_name: Any) -> str:
    """A name by Azure's rules for tables.

    Raises:
        ArgumentError, ArgumentTypeError: when it is not.
    """
    if not isinstance(table_name, str):
        raise ArgumentTypeError(f"table_name must be a str, got {type(table_name).__name__}")
    if not _TABLE.fullmatch(table_name):
        raise ArgumentError(
            "table_name must have 3 to 63 letters and digits (A-Z, a-z, 0-9), begin with a letter and not be "
            f"'tables', got {table_name!r}"
        )
    return table_name


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


def _from_connection_string(connection_string: str) -> dict[str, str]:
    """The other arguments that say the same."""
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
