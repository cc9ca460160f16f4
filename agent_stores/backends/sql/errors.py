"""What a database driver's errors mean to the caller, dialect by dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Any

from agent_stores.errors import (
    MessageTooLargeError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
)


class Failure(Enum):
    """Kinds of failure, by what the caller can do next."""

    TRANSIENT = "the database asks to try again"
    UNAVAILABLE = "the database cannot be reached"
    REJECTED = "the database rejects the operation"
    TOO_LARGE = "the message is larger than the database takes"
    DUPLICATE = "a row exists already"
    OTHER = "the database failed"


class PoolTimeout(Exception):
    """No connection became free in time."""


# SQLSTATE classes and codes: PostgreSQL manual, appendix A.
_POSTGRESQL = {
    "40001": Failure.TRANSIENT,
    "40P01": Failure.TRANSIENT,
    "23505": Failure.DUPLICATE,
    "08": Failure.UNAVAILABLE,
    "57": Failure.UNAVAILABLE,
    "53": Failure.UNAVAILABLE,
    "53100": Failure.REJECTED,
    "25006": Failure.REJECTED,
    "42501": Failure.REJECTED,
    "28": Failure.REJECTED,
    "3D000": Failure.REJECTED,
    "54": Failure.TOO_LARGE,
}

# Error numbers: MariaDB's "Error Codes"; from 2000 up they are the client's.
_MARIADB = {
    1205: Failure.TRANSIENT,
    1213: Failure.TRANSIENT,
    1020: Failure.TRANSIENT,
    1317: Failure.TRANSIENT,  # the query was interrupted
    1062: Failure.DUPLICATE,
    **dict.fromkeys((1040, 1053, 1203, 2002, 2003, 2006, 2013, 4031), Failure.UNAVAILABLE),
    **dict.fromkeys((1021, 1044, 1045, 1049, 1114, 1142, 1290, 1370, 1698, 1792), Failure.REJECTED),
    1153: Failure.TOO_LARGE,
}

# SQLite's messages: their numbers come with the exception only from Python 3.11 on.
_SQLITE = {
    "unique constraint": Failure.DUPLICATE,
    "database is locked": Failure.UNAVAILABLE,
    "database table is locked": Failure.UNAVAILABLE,
    "unable to open database file": Failure.UNAVAILABLE,
    "interrupted": Failure.UNAVAILABLE,
    "readonly database": Failure.REJECTED,
    "database or disk is full": Failure.REJECTED,
    "disk i/o error": Failure.REJECTED,
    "access permission denied": Failure.REJECTED,
    "not a database": Failure.REJECTED,
    "malformed": Failure.REJECTED,
    "too big": Failure.TOO_LARGE,
}
_BRIEF = ("too many", "remaining connection slots", "starting up", "shutting down", "recovery")
_BROKEN = ("connection is closed", "connection was closed", "connection is lost", "closed in the middle")


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error inside one of SQLAlchemy's."""
    cause: Any = getattr(error, "orig", None) or error
    return cause if isinstance(cause, BaseException) else error


def classify(error: BaseException, dialect: str) -> Failure:
    """The kind of failure that a driver's error stands for."""
    if isinstance(error, PoolTimeout) or (
        type(error).__module__ == "sqlalchemy.exc" and "Timeout" in repr(type(error))
    ):
        return Failure.UNAVAILABLE
    cause: Any = driver_error(error)
    found: Failure | None = None
    if dialect == "postgresql":
        state = str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")
        found = _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2])
        if found is None and not state:
            found = _connection_failure(cause)
    elif dialect == "sqlite":
        text = str(cause).lower()
        found = next((kind for words, kind in _SQLITE.items() if words in text), None)
    else:
        number = cause.args[0] if cause.args else None
        found = _MARIADB.get(number) if isinstance(number, int) else None
    if found is None and (
        getattr(error, "connection_invalidated", False)
        or isinstance(cause, (OSError, EOFError, asyncio.TimeoutError))
    ):
        return Failure.UNAVAILABLE
    return found or Failure.OTHER


def _connection_failure(cause: BaseException) -> Failure | None:
    """What PostgreSQL's drivers mean by an error without an SQLSTATE."""
    names = {base.__name__ for base in type(cause).__mro__}
    text = str(cause)
    if "OperationalError" in names:
        if "FATAL" in text and not any(words in text for words in _BRIEF):
            return Failure.REJECTED  # the server answered: the user, the password or the database is wrong
        return Failure.UNAVAILABLE
    if "InterfaceError" in names and (not text or any(words in text for words in _BROKEN)):
        return Failure.UNAVAILABLE
    return None


def redact(error: BaseException, secrets: Sequence[str]) -> str:
    """A driver's error as one line, without secrets, as drivers may repeat what they were given."""
    if isinstance(driver_error(error), UnicodeError):
        return "an argument of the connection, or a text, cannot be encoded"  # it quotes its text
    detail = " ".join(str(driver_error(error)).split()) or type(driver_error(error)).__name__
    for secret in secrets:
        detail = detail.replace(secret, "***")
    return detail


def translate_error(
    failure: Failure,
    error: BaseException,
    *,
    place: str,
    secrets: Sequence[str] = (),
    write: bool,
    may_have_applied: bool = False,
) -> StoreError:
    """Our error for a driver's; says where, what, and whether anything was written.

    Args:
        failure: its kind.
        error: the driver's error.
        place: the server, without secrets.
        secrets: texts that must not be shown.
        write: whether the operation writes.
        may_have_applied: whether the connection was lost while a write was confirmed.
    """
    detail = redact(error, secrets)
    if may_have_applied:
        return OutcomeUnknownError(
            f"the connection to {place} was lost while a write was confirmed ({detail}): it may or may not "
            "be stored; calling again with the same messages is safe"
        )
    text = f"{failure.value} at {place}: {detail}{'; nothing was written' if write else ''}"
    if failure is Failure.REJECTED:
        return StoreRejectedError(text)
    if failure is Failure.TOO_LARGE:
        return MessageTooLargeError(text)
    if failure in (Failure.OTHER, Failure.DUPLICATE):
        return StoreError(text)
    return StoreUnavailableError(text)
