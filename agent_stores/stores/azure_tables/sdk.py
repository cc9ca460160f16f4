"""The service's packages, imported in one place, so that what is missing is named."""

from __future__ import annotations

from agent_stores.errors import MissingDependencyError

try:
    import aiohttp  # noqa: F401 - what the asynchronous client sends with
    from azure.core import MatchConditions
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.core.exceptions import (
        AzureError,
        ClientAuthenticationError,
        HttpResponseError,
        ServiceRequestTimeoutError,
    )
    from azure.data.tables import UpdateMode
    from azure.data.tables.aio import TableClient, TableServiceClient
except ImportError as error:
    raise MissingDependencyError.of(
        "aiohttp" if error.name == "aiohttp" else "azure-data-tables",
        extra="azure",
        purpose="the Azure Tables store",
    ) from None

__all__ = [
    "AzureError",
    "AzureNamedKeyCredential",
    "AzureSasCredential",
    "ClientAuthenticationError",
    "HttpResponseError",
    "MatchConditions",
    "ServiceRequestTimeoutError",
    "TableClient",
    "TableServiceClient",
    "UpdateMode",
]
