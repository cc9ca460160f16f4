"""What a database driver's errors mean to the caller, dialect by dialect."""

from __future__ import annotations

from enum import Enum
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent_stores.errors import (
    MessageTooLargeError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
)


class Failure(Enum):
    """Kinds of failure, by what comes next."""

    TRANSIENT = "the database asks to try again"
    UNAVAILABLE = "the database cannot be reached"
    REFUSED = "the database refuses"
    TOO_LARGE = "the message is larger than the database takes"
    OTHER = "the database failed"


# SQLSTATE classes and codes: PostgreSQL manual, appendix A.
_POSTGRESQL = {
    "40001": Failure.TRANSIENT,
    "40P01": Failure.TRANSIENT,
    "08": Failure.UNAVAILABLE,
    "57": Failure.UNAVAILABLE,
    "53": Failure.UNAVAILABLE,
    "53100": Failure.REFUSED,
    "25006": Failure.REFUSED,
    "42501": Failure.REFUSED,
    "28": Failure.REFUSED,
    "3D000": Failure.REFUSED,
    "54": Failure.TOO_LARGE,
}

# Error numbers: MariaDB's "Error Codes"; from 2000 up they are the client's.
_MARIADB = {
    1205: Failure.TRANSIENT,
    1213: Failure.TRANSIENT,
    1020: Failure.TRANSIENT,
    1040: Failure.UNAVAILABLE,
    1053: Failure.UNAVAILABLE,
    1203: Failure.UNAVAILABLE,
    2002: Failure.UNAVAILABLE,
    2003: Failure.UNAVAILABLE,
    2006: Failure.UNAVAILABLE,
    2013: Failure.UNAVAILABLE,
    1021: Failure.REFUSED,
    1044: Failure.REFUSED,
    1045: Failure.REFUSED,
    1049: Failure.REFUSED,
    1114: Failure.REFUSED,
    1142: Failure.REFUSED,
    1290: Failure.REFUSED,
    1698: Failure.REFUSED,
    1792: Failure.REFUSED,
    1153: Failure.TOO_LARGE,
}

# SQLite's messages: their numbers come with the exception only from Python 3.11 on.
_SQLITE = {
    "database is locked": Failure.UNAVAILABLE,
    "database table is locked": Failure.UNAVAILABLE,
    "unable to open database file": Failure.UNAVAILABLE,
    "readonly database": Failure.REFUSED,
    "database or disk is full": Failure.REFUSED,
    "disk i/o error": Failure.REFUSED,
    "access permission denied": Failure.REFUSED,
    "not a database": Failure.REFUSED,
    "malformed": Failure.REFUSED,
    "too big": Failure.TOO_LARGE,
}


def classify(error: BaseException, dialect: str) -> Failure:
    """The kind of failure that a driver's error stands for."""
    if isinstance(error, PoolTimeoutError):
        return Failure.UNAVAILABLE
    if not isinstance(error, DBAPIError):
        return Failure.UNAVAILABLE if isinstance(error, (OSError, TimeoutError)) else Failure.OTHER
    cause: Any = error.orig
    found: Failure | None = None
    if dialect == "postgresql":
        state = str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")
        found = _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2])
        is_operational = "OperationalError" in {base.__name__ for base in type(cause).__mro__}
        if found is None and not state and is_operational:
            found = _connection_failure(str(cause))
    elif dialect == "sqlite":
        text = str(cause).lower()
        found = next((kind for words, kind in _SQLITE.items() if words in text), None)
    else:
        arguments = getattr(cause, "args", ())
        found = _MARIADB.get(arguments[0]) if arguments and isinstance(arguments[0], int) else None
    if found is None and (error.connection_invalidated or isinstance(cause, (OSError, TimeoutError))):
        return Failure.UNAVAILABLE
    return found or Failure.OTHER


def _connection_failure(text: str) -> Failure:
    """Why PostgreSQL could not be connected to; psycopg has no SQLSTATE for it."""
    passing = ("too many", "remaining connection slots", "starting up", "shutting down", "recovery")
    if "FATAL" in text and not any(words in text for words in passing):
        return Failure.REFUSED  # the server answered: the user, the password or the database is wrong
    return Failure.UNAVAILABLE


def store_error(
    failure: Failure,
    error: BaseException,
    *,
    place: str,
    secrets: tuple[str, ...],
    write: bool,
    may_be_written: bool,
    repeatable: bool,
) -> StoreError:
    """Our error for a driver's; says where, what, and whether anything was written.

    Args:
        failure: its kind.
        error: the driver's error.
        place: the server, without secrets.
        secrets: text that must not show, as drivers may repeat what they were given.
        write: whether the operation writes.
        may_be_written: whether the connection was lost while a write was confirmed.
        repeatable: whether the operation may be called again after that.
    """
    detail = " ".join(str(getattr(error, "orig", None) or error).split())
    for secret in secrets:
        detail = detail.replace(secret, "***")
    if may_be_written:
        advice = "calling again is safe" if repeatable else "read the thread before calling again"
        return OutcomeUnknownError(
            f"the connection to {place} was lost while a write was confirmed ({detail}): it may or may not "
            f"be stored; {advice}"
        )
    text = f"{failure.value} at {place}: {detail}{'; nothing was written' if write else ''}"
    if failure is Failure.REFUSED:
        return StoreRejectedError(text)
    if failure is Failure.TOO_LARGE:
        return MessageTooLargeError(text)
    if failure is Failure.OTHER:
        return StoreError(text)
    return StoreUnavailableError(text)
