"""Which DynamoDB table is meant, by arguments or a URL; the packages of the SDK, imported in one place."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:
    from aiobotocore.client import AioBaseClient
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession, get_session
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        NoCredentialsError,
        PartialCredentialsError,
    )
except ImportError:
    raise MissingDependencyError.of("aiobotocore", extra="dynamodb", purpose="the DynamoDB store") from None

__all__ = [
    "AioConfig",
    "BotoCoreError",
    "ClientError",
    "ConnectTimeoutError",
    "DynamoDBConfig",
    "EndpointConnectionError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "arguments_from_url",
    "parse_config",
    "sdk_session",
]

_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_REGION = re.compile(r"[a-z0-9-]{1,64}")


class DynamoDBConfig(NamedTuple):
    """A table, and how to connect to it.

    Attributes:
        table: its name.
        region: its region.
        endpoint: the URL of another endpoint than the region's; None for that.
        client: the caller's client.
    """

    table: str
    region: str
    endpoint: str | None
    client: AioBaseClient | None

    @property
    def location(self) -> str:
        """The endpoint or the region, and the table."""
        where = f"dynamodb://{self.region}" if self.endpoint is None else self.endpoint.rstrip("/")
        return f"{where}/{self.table}"


def parse_config(
    table_name: Any, region_name: Any, endpoint_url: Any, client: AioBaseClient | None
) -> DynamoDBConfig:
    """Check the connection arguments; credentials are those that the SDK finds.

    Raises:
        ArgumentError, ArgumentTypeError: when they are invalid or cannot be combined.
    """
    for name, value in (("region_name", region_name), ("endpoint_url", endpoint_url)):
        if value is not None and not isinstance(value, str):
            raise ArgumentTypeError(f"{name} must be a str, got {type(value).__name__}")
        if value is not None and client is not None:
            raise ArgumentError(f"client cannot be combined with {name}")
    if not isinstance(table_name, str):
        raise ArgumentTypeError(f"table_name must be a str, got {type(table_name).__name__}")
    if not _TABLE_NAME.fullmatch(table_name):
        raise ArgumentError(f"table_name must have 3 to 255 of A-Z, a-z, 0-9, _ . -, got {table_name!r}")
    if client is not None:
        if not isinstance(client, AioBaseClient) or client.meta.service_model.service_name != "dynamodb":
            raise ArgumentTypeError(
                f"client must be aiobotocore's client of dynamodb, got {type(client).__name__}"
            )
        region_name, url = client.meta.region_name, client.meta.endpoint_url
        endpoint_url = None if url.endswith((".amazonaws.com", ".amazonaws.com.cn")) else url
    elif region_name is None:
        names = ("AWS_DEFAULT_REGION", "AWS_REGION")
        region_name = next((os.environ[name] for name in names if os.environ.get(name)), None)
        region_name = region_name or sdk_session().get_config_variable("region")  # a profile's
    if region_name is None:
        raise ArgumentError("region_name must be given, as neither AWS_DEFAULT_REGION nor a profile has one")
    if not _REGION.fullmatch(region_name):
        raise ArgumentError(f"region_name must be a region such as eu-central-1, got {region_name!r}")
    if endpoint_url is not None:
        parts = urlsplit(endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ArgumentError("endpoint_url must be a URL such as http://127.0.0.1:8000, without a login")
    return DynamoDBConfig(table_name, region_name, endpoint_url, client)


def arguments_from_url(url: str) -> dict[str, Any]:
    """The connection arguments of ``dynamodb://region/table``; both may be empty.

    Raises:
        ArgumentError: when it is malformed.
    """
    parts = urlsplit(url)
    region, table = parts.netloc, parts.path.strip("/")
    if "@" in region or ":" in region or parts.query or parts.fragment or "/" in table:
        raise ArgumentError(
            "the store's URL must be dynamodb://region/table, with the login in the environment"
        )
    options = {"region_name": region or None, "table_name": table or None}
    return {name: value for name, value in options.items() if value is not None}


@lru_cache(maxsize=1)
def sdk_session() -> AioSession:
    """The session of all our clients, which finds the credentials."""
    return get_session()
