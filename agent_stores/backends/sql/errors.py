"""What a database driver's errors mean to the caller, dialect by dialect."""

from __future__ import annotations

import re
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


class PoolTimeout(OSError):
    """No connection became free in time."""


_BRIEF = "too many|connection slots|starting up|shutting down|recovery"
# What is looked for, in this order, in an error's code, its classes and its text, which one line holds.
_PATTERNS: dict[str, dict[str, Failure]] = {
    # SQLSTATE classes and codes: PostgreSQL manual, appendix A. psycopg has none of a connection that fails:
    # where the server answered, the user, the password or the database is wrong.
    "postgresql": {
        "^(40001|40P01)": Failure.TRANSIENT,
        "^23505": Failure.DUPLICATE,
        "^(25006|28|3D000|42501|53100)": Failure.REJECTED,
        "^(08|53|57)": Failure.UNAVAILABLE,
        "^54": Failure.TOO_LARGE,
        f"^ .*OperationalError(?!.*({_BRIEF})).*FATAL": Failure.REJECTED,
        "^ .*(OperationalError|InterfaceError|ConnectionDoesNotExistError)": Failure.UNAVAILABLE,
    },
    # Error numbers: MariaDB's "Error Codes"; from 2000 up they are the client's. 1317: it was interrupted.
    "mariadb": {
        "^(1020|1205|1213|1317) ": Failure.TRANSIENT,
        "^1062 ": Failure.DUPLICATE,
        "^(1040|1053|1203|2002|2003|2006|2013|2014|4031) ": Failure.UNAVAILABLE,
        "^(1021|1044|1045|1049|1114|1142|1290|1370|1698|1792) ": Failure.REJECTED,
        "^1153 ": Failure.TOO_LARGE,
    },
    # SQLite's numbers come with the exception only from Python 3.11 on.
    "sqlite": {
        "UNIQUE constraint": Failure.DUPLICATE,
        "is locked|unable to open database file|interrupted": Failure.UNAVAILABLE,
        "readonly|disk is full|disk I/O error|access permission|not a database|malformed": Failure.REJECTED,
        "too big": Failure.TOO_LARGE,
    },
}


def classify(error: BaseException, dialect: str) -> Failure:
    """The kind of failure of a driver's error."""
    cause: Any = _driver_error(error)
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""
    if dialect == "mariadb" and cause.args:
        code = cause.args[0]
    line = f"{code} {' '.join(base.__name__ for base in type(cause).__mro__)} {cause}".replace("\n", " ")
    for pattern, kind in _PATTERNS[dialect].items():
        if re.search(pattern, line, re.IGNORECASE):
            return kind
    is_lost = getattr(error, "connection_invalidated", False) or "TimeoutError" in type(error).__name__
    return Failure.UNAVAILABLE if is_lost or isinstance(cause, (OSError, EOFError)) else Failure.OTHER


def translate_error(error: BaseException, config: Config, *, write: bool = False) -> StoreError:
    """Our error for a driver's, when nothing was written; `write`: whether to say so."""
    text, kind = cast("tuple[str, type[StoreError]]", classify(error, config.dialect).value)
    detail = describe(error, config)
    return kind(f"{text} at {config.location}: {detail}{'; nothing was written' if write else ''}")


def describe(error: BaseException, config: Config) -> str:
    """What a driver's error says, without secrets."""
    cause = _driver_error(error)
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if not kinds.isdisjoint(("UnicodeError", "TypeError", "DataError")):  # they quote what they were given
        return f"an argument cannot be encoded, or is not what the driver takes ({type(cause).__name__})"
    return errors.redact(str(cause) or type(cause).__name__, config.secrets)


def _driver_error(error: BaseException) -> BaseException:
    """The driver's own error inside one of SQLAlchemy's."""
    cause = getattr(error, "orig", None)
    return cause if isinstance(cause, BaseException) else error
