"""What went wrong on the way to a table, as the library's errors and as what the operations act upon."""

from __future__ import annotations

import asyncio
import email.utils
import re
import time
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from agent_stores.errors import (
    MessageTooLargeError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
)
from agent_stores.stores.azure_tables.sdk import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestTimeoutError,
)

CLIENT_ERRORS: tuple[type[BaseException], ...] = (AzureError, OSError, HTTPException, asyncio.TimeoutError)
"""What the client raises when a request fails; HTTPException for an answer that makes no sense."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)
_UNTOUCHED = (429, 503)  # the service was too busy to begin
_CODE = re.compile(r"[A-Za-z]{1,60}")
_TOO_LARGE = ("RequestBodyTooLarge", "EntityTooLarge", "PropertyValueTooLarge")


class ChangedError(Exception):
    """Somebody else changed the row in the meantime; nothing was written."""


class TakenError(Exception):
    """A row that was to be new is there already; nothing was written.

    Attributes:
        index: which operation of the transaction it was.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class MissingError(Exception):
    """A row that was to be there is not; nothing was written.

    Attributes:
        index: which operation of the transaction it was.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class NoTableError(Exception):
    """There is no such table yet."""


class LostError(Exception):
    """The answer to a write was lost: it may or may not be stored."""


def code_of(error: BaseException) -> str:
    """The service's word for an error; empty when there is none."""
    code: Any = getattr(error, "error_code", None) or ""
    text = str(getattr(code, "value", code))
    return text if _CODE.fullmatch(text) else ""


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; 0 when there was no answer."""
    status = getattr(error, "status_code", None)
    return status if isinstance(error, HttpResponseError) and isinstance(status, int) else 0


def told(error: BaseException) -> Exception | None:
    """An error that operations act upon, for what the service said; None for all others."""
    status, code = status_of(error), code_of(error)
    index = getattr(error, "index", 0) or 0
    if status == 412:
        return ChangedError()
    if code == "TableNotFound":
        return NoTableError()
    if status == 404:
        return MissingError(index)
    if status == 409 and code == "EntityAlreadyExists":
        return TakenError(index)
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed later."""
    if isinstance(error, ClientAuthenticationError):
        return False
    status = status_of(error)
    return status in _TRANSIENT or status == 0 or code_of(error) == "TableBeingDeleted"


def may_be_done(error: BaseException) -> bool:
    """Whether the service may have carried out a request all the same."""
    if isinstance(error, ClientAuthenticationError):
        return False
    status = status_of(error)
    if status:
        return status in _TRANSIENT and status not in _UNTOUCHED
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionRefusedError, ServiceRequestTimeoutError)):
            return False
        if type(cause).__name__ in ("ClientConnectorError", "ClientConnectorDNSError"):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def retry_after(error: BaseException) -> float | None:
    """How many seconds the service asks to wait; None where it does not."""
    response: Any = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or {}
    for header, unit in (("x-ms-retry-after-ms", 1000.0), ("retry-after-ms", 1000.0), ("retry-after", 1.0)):
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


def store_error(error: BaseException, *, place: str, secrets: Sequence[str], write: bool) -> StoreError:
    """The library's error for one of the client's or the service's; says where, and what was written.

    Args:
        error: what was raised.
        place: the table, without secrets.
        secrets: text that must not show.
        write: whether it was on the way to write.
    """
    detail = clean(error, secrets)
    nothing = "; nothing was written" if write else ""
    status, code = status_of(error), code_of(error)
    if isinstance(error, ClientAuthenticationError) or status in (401, 403):
        return StoreRejectedError(f"the service at {place} does not permit this: {detail}{nothing}")
    if code in _TOO_LARGE or status == 413:
        return MessageTooLargeError(f"more than the service at {place} takes: {detail}{nothing}")
    if is_transient(error):
        return StoreUnavailableError(f"no answer from {place}: {detail}{nothing}")
    if status in (405, 409, 507):
        return StoreRejectedError(f"the service at {place} refuses: {detail}{nothing}")
    return StoreError(f"{place} could not do what it was asked: {detail}{nothing}")


def unknown_error(place: str) -> OutcomeUnknownError:
    """The error for a write of which it could not be found out whether it is stored."""
    return OutcomeUnknownError(
        f"the connection to {place} was lost while a write was confirmed: it may or may not be stored"
    )


def clean(error: BaseException, secrets: Sequence[str]) -> str:
    """What an error says, on one line and without secrets."""
    code, status = code_of(error), status_of(error)
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    if status:  # the first line says it; then come the request's id and the whole answer
        first = str(text).splitlines()[0] if str(text).strip() else ""
        text = f"{status} {code}: {first}".strip()
    text = " ".join(str(text).split())
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
