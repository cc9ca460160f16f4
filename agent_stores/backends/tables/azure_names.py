"""What can be said of tables and connection strings without the service's packages."""

from __future__ import annotations

import re
from typing import Any

from agent_stores.errors import ArgumentError, ArgumentTypeError

_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9]{2,62}")
_FIELDS = (
    "AccountKey|AccountName|BlobEndpoint|DefaultEndpointsProtocol|EndpointSuffix|FileEndpoint|QueueEndpoint|"
    "SharedAccessSignature|TableEndpoint|TableSecondaryEndpoint|UseDevelopmentStorage"
)
_CONNECTION_STRING = re.compile(rf"\s*({_FIELDS})\s*=", re.IGNORECASE)


def check_table_name(table_name: Any) -> str:
    """A name by Azure's rules for tables.

    Raises:
        ArgumentError, ArgumentTypeError: when it is not.
    """
    if not isinstance(table_name, str):
        raise ArgumentTypeError(f"table_name must be a str, got {type(table_name).__name__}")
    if not _TABLE.fullmatch(table_name) or table_name.lower() == "tables":
        raise ArgumentError(
            "table_name must have 3 to 63 letters and digits (A-Z, a-z, 0-9), begin with a letter and not be "
            f"'tables', got {table_name!r}"
        )
    return table_name


def is_connection_string(text: object) -> bool:
    """Whether a text looks like a connection string of a storage account."""
    return isinstance(text, str) and _CONNECTION_STRING.match(text) is not None


def is_azure_url(text: object) -> bool:
    """Whether a text for `open_log` means Azure Tables."""
    return is_connection_string(text) or (isinstance(text, str) and text.startswith("azure-tables:"))
