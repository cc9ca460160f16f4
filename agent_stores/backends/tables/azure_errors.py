"""The packages of Azure, imported in one place, and what their errors mean."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable
from typing import Any

from agent_stores.backends.tables.service import Failure
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
    "MatchConditions",
    "TableClient",
    "TableServiceClient",
    "UpdateMode",
    "error_code",
    "explain",
    "is_failed_condition",
    "status_of",
]

_TRANSIENT = (408, 429, 500, 502, 503, 504)
_TOO_BUSY_TO_BEGIN = (429, 503)
_CODE = re.compile(r"[A-Za-z]{1,60}")
_TOO_LARGE = ("RequestBodyTooLarge", "EntityTooLarge", "PropertyValueTooLarge")
_WAIT_HEADERS = (("x-ms-retry-after-ms", 1000.0), ("retry-after-ms", 1000.0), ("retry-after", 1.0))


def error_code(error: BaseException) -> str:
    """The service's code for an error; empty if there is none."""
    code: Any = getattr(error, "error_code", None) or ""
    text = str(getattr(code, "value", code))
    return text if _CODE.fullmatch(text) else ""


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; 0 if there was no answer."""
    status = getattr(error, "status_code", None)
    return status if isinstance(error, HttpResponseError) and isinstance(status, int) else 0


def is_failed_condition(error: BaseException) -> bool:
    """Whether the condition of an operation does not hold."""
    status = status_of(error)
    return status in (404, 412) or (status == 409 and error_code(error) == "EntityAlreadyExists")


def explain(error: BaseException, redact: Callable[[str], str]) -> Failure:
    """What an error of the client or the service means.

    Args:
        error: what was raised.
        redact: removes secrets from a text.
    """
    status, code = status_of(error), error_code(error)
    text = str(getattr(error, "message", None) or error or type(error).__name__)
    if status:  # the first line is the service's; then come the request's id and the whole answer
        text = f"{status} {code}: {text.strip().partition(chr(10))[0]}"
    detail = redact(text)
    if isinstance(error, ClientAuthenticationError) or status in (401, 403):
        return Failure("rejected", f"this login does not permit it: {detail}")
    if code in _TOO_LARGE or status == 413:
        return Failure("too large", detail)
    if status in _TRANSIENT or status == 0 or code == "TableBeingDeleted":
        may_have_applied = status not in _TOO_BUSY_TO_BEGIN if status else not _is_connect_error(error)
        return Failure("transient", detail, may_have_applied and status != 409, _retry_after(error))
    return Failure("rejected" if status in (405, 409, 507) else "other", detail)


def _is_connect_error(error: BaseException) -> bool:
    """Whether a request was never sent."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionRefusedError, ServiceRequestTimeoutError)):
            return True
        if type(cause).__name__ in ("ClientConnectorError", "ClientConnectorDNSError"):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    for header, unit in _WAIT_HEADERS:
        value = headers.get(header) or headers.get(header.title())
        if not value:
            continue
        try:
            return max(0.0, float(value) / unit)
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError):
            pass
    return None
