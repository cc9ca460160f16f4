"""Opening a log by its URL, as the command line and applications name one."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

from agent_stores._checks import HOST_AND_PORT
from agent_stores.errors import ArgumentError
from agent_stores.log import MessageLog

SCHEMES = (
    "sqlite:///file (or a file's name), postgresql://…, mariadb://…, redis://…, rediss://…, unix:///socket, "
    "redis+sentinel://…, redis+cluster://…, azure-tables://account/table or a connection string of an Azure "
    "storage account, dynamodb://region/table"
)
_CONNECTION_STRING = re.compile(
    r"\s*(AccountKey|AccountName|BlobEndpoint|DefaultEndpointsProtocol|EndpointSuffix|FileEndpoint|QueueEndpoint"
    r"|SharedAccessSignature|TableEndpoint|TableSecondaryEndpoint|UseDevelopmentStorage)\s*=",
    re.IGNORECASE,
)
_REDIS = ("redis", "rediss", "valkey", "valkeys", "unix")


def open_log(url: str | os.PathLike[str], **options: Any) -> MessageLog:
    """The log of a URL. Nothing connects before the first operation.

    Args:
        url: ``sqlite:///chat.db`` or a file's name, ``postgresql://user:password@host/database``,
            ``mariadb://…``, ``redis://…`` and what else `RedisChatMessageStore` accepts, a connection string
            of an Azure storage account, ``azure-tables://account/table`` with the login in the environment
            (``AZURE_STORAGE_CONNECTION_STRING``, ``AZURE_STORAGE_KEY``, ``AZURE_STORAGE_SAS_TOKEN``, or what
            azure-identity finds), ``dynamodb://region/table`` with the login that the SDK finds (an empty
            region is that of the SDK's configuration), or ``memory:`` for an empty one in this process.
        options: those of the backend's log.

    Raises:
        ArgumentError: when the URL has an unknown scheme.
        MissingDependencyError: when the backend's packages are not installed; names the extra.
    """
    if isinstance(url, str) and url.rstrip("/") == "memory:":
        from agent_stores.memory import InMemoryMessageLog

        return InMemoryMessageLog(**options)
    if isinstance(url, str) and is_azure_url(url):
        from agent_stores.azure import AzureTableMessageLog

        return AzureTableMessageLog(**{**azure_arguments(url), **options})
    if isinstance(url, str) and url.startswith("dynamodb:"):
        from agent_stores.dynamodb import DynamoDBMessageLog

        return DynamoDBMessageLog(**{**dynamodb_arguments(url), **options})
    if isinstance(url, str) and HOST_AND_PORT.fullmatch(url):
        raise ArgumentError(f"the store's URL must be {SCHEMES}; got {url!r}: for Redis, write redis://{url}")
    scheme = url.partition("://")[0].partition("+")[0] if isinstance(url, str) and "://" in url else "sqlite"
    if isinstance(url, str) and scheme in _REDIS:
        from agent_stores.redis import RedisMessageLog

        return RedisMessageLog(url, **options)
    if scheme not in ("sqlite", "postgresql", "postgres", "mariadb", "mysql"):
        raise ArgumentError(f"the store's URL must be {SCHEMES}; got one that begins with {scheme!r}")
    from agent_stores.database import DatabaseMessageLog

    return DatabaseMessageLog(url, **options)


def is_azure_url(url: object) -> bool:
    """Whether a text for `open_log` means Azure Tables: a URL, or what looks like a connection string."""
    return isinstance(url, str) and (
        url.startswith("azure-tables:") or _CONNECTION_STRING.match(url) is not None
    )


def azure_arguments(url: str) -> dict[str, Any]:
    """The connection arguments of a connection string, or of ``azure-tables://account/table``.

    Without the account, it is that of the environment's ``AZURE_STORAGE_CONNECTION_STRING``.

    Raises:
        ArgumentError: when the URL is malformed, or the environment has no login.
    """
    from agent_stores.backends.tables.azure import parse_connection_fields

    if not url.startswith("azure-tables:"):
        return {"connection_string": url}
    arguments = _table_arguments(url, "azure-tables://account/table", "account_name")
    account, text = arguments.get("account_name"), os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    if text and account in (None, parse_connection_fields(text).get("account_name")):
        return {**arguments, "account_name": None, "connection_string": text}
    if account is None:
        raise ArgumentError("the store's URL must name an account without AZURE_STORAGE_CONNECTION_STRING")
    if key := os.environ.get("AZURE_STORAGE_KEY"):
        arguments["account_key"] = key
    elif token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        arguments["sas_token"] = token
    return arguments


def dynamodb_arguments(url: str) -> dict[str, Any]:
    """The connection arguments of ``dynamodb://region/table``; both may be empty.

    Raises:
        ArgumentError: when it is malformed.
    """
    return _table_arguments(url, "dynamodb://region/table", "region_name")


def _table_arguments(url: str, form: str, host: str) -> dict[str, Any]:
    """The arguments that a URL of a table names: `host`, and ``table_name``."""
    parts = urlsplit(url)
    name = parts.path.strip("/")
    if "@" in parts.netloc or ":" in parts.netloc or parts.query or parts.fragment or "/" in name:
        raise ArgumentError(f"the store's URL must be {form}, with the login in the environment")
    given = {host: parts.netloc, "table_name": name}
    return {argument: value for argument, value in given.items() if value}
