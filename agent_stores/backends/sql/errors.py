"""What a database driver's errors mean to the caller, dialect by dialect."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from agent_stores import errors
from agent_stores.errors import StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from agent_stores.backends.sql.config import Config


class Failure(Enum):
    """Kinds of failure, by what the caller can do next: what the error says, and its class."""

    TRANSIENT = "the database asked to try again too often", StoreUnavailableError
    UNAVAILABLE = "the database cannot be reached", StoreUnavailableError
    REJECTED = "the database rejects the operation", errors.StoreRejectedError
    TOO_LARGE = "the message is larger than the database takes", errors.MessageTooLargeError
    DUPLICATE = "a row exists already", StoreError
    OTHER = "the database failed", StoreError


class PoolTimeout(Exception):
    """No connection became free in time."""


def _codes(**kinds: str) -> dict[str, Failure]:
    return {code: Failure[kind] for kind, codes in kinds.items() for code in codes.split(", ")}


_CODES = {
    # SQLSTATE classes and codes: PostgreSQL manual, appendix A.
    "postgresql": _codes(
        TRANSIENT="40001, 40P01",
        DUPLICATE="23505",
        UNAVAILABLE="08, 53, 57",
        REJECTED="53100, 25006, 42501, 28, 3D000",
        TOO_LARGE="54",
    ),
    # Error numbers: MariaDB's "Error Codes"; from 2000 up they are the client's. 1317: it was interrupted.
    "mariadb": _codes(
        TRANSIENT="1020, 1205, 1213, 1317",
        DUPLICATE="1062",
        UNAVAILABLE="1040, 1053, 1203, 2002, 2003, 2006, 2013, 2014, 4031",
        REJECTED="1021, 1044, 1045, 1049, 1114, 1142, 1290, 1370, 1698, 1792",
        TOO_LARGE="1153",
    ),
    # SQLite's messages: their numbers come with the exception only from Python 3.11 on.
    "sqlite": _codes(
        DUPLICATE="unique constraint",
        UNAVAILABLE="is locked, unable to open database file, interrupted",
        REJECTED="readonly, disk is full, disk i/o error, access permission, not a database, malformed",
        TOO_LARGE="too big",
    ),
}
_BRIEF = ("too many", "remaining connection slots", "starting up", "shutting down", "recovery")


def classify(error: BaseException, dialect: str) -> Failure:
    """The kind of failure of a driver's error."""
    cause: Any = _driver_error(error)
    codes, text = _CODES[dialect], str(cause)
    found: Failure | None = None
    if dialect == "sqlite":
        found = next((kind for words, kind in codes.items() if words in text.lower()), None)
    elif dialect == "mariadb":
        found = codes.get(str(cause.args[0])) if cause.args else None
    elif state := str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""):
        found = codes.get(state) or codes.get(state[:2])
    else:
        names = {base.__name__ for base in type(cause).__mro__}
        if "OperationalError" in names:
            # Where the server answered, the user, the password or the database is wrong.
            is_wrong = "FATAL" in text and not any(words in text for words in _BRIEF)
            return Failure.REJECTED if is_wrong else Failure.UNAVAILABLE
        if names & {"InterfaceError", "ConnectionDoesNotExistError"}:  # asyncpg, of a lost connection
            return Failure.UNAVAILABLE
    is_lost = getattr(error, "connection_invalidated", False) or "TimeoutError" in type(error).__name__
    if is_lost or isinstance(cause, (PoolTimeout, OSError, EOFError, asyncio.TimeoutError)):
        found = found or Failure.UNAVAILABLE
    return found or Failure.OTHER


def translate_error(
    error: BaseException, failure: Failure, config: Config, *, write: bool = False
) -> StoreError:
    """Our error for a driver's, when nothing was written; `write`: whether to say so."""
    text, kind = cast("tuple[str, type[StoreError]]", failure.value)
    detail = describe(error, config)
    return kind(f"{text} at {config.location}: {detail}{'; nothing was written' if write else ''}")


def describe(error: BaseException, config: Config) -> str:
    """What a driver's error says, without secrets."""
    cause = _driver_error(error)
    if isinstance(cause, (UnicodeError, TypeError)):  # they quote what they were given
        return f"an argument cannot be encoded, or is unknown to the driver ({type(cause).__name__})"
    return errors.redact(str(cause) or type(cause).__name__, config.secrets)


def _driver_error(error: BaseException) -> BaseException:
    """The driver's own error inside one of SQLAlchemy's."""
    cause = getattr(error, "orig", None)
    return cause if isinstance(cause, BaseException) else error
