"""Connection strings: which database they mean, with which driver, and what may be shown of them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Hashable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:  # the first import of SQLAlchemy on the way to the database store
    import sqlalchemy.ext.asyncio  # noqa: F401 - needs greenlet, which SQLAlchemy does not always bring
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError as UrlError
except ImportError:
    raise MissingDependencyError.of(
        "sqlalchemy[asyncio]", extra="database", purpose="the database store"
    ) from None

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

EXPECTED = "a file name, sqlite:///file, postgresql://user:password@host/database or mariadb://…"

_DIALECTS = {"postgres": "postgresql", "mysql": "mariadb"}
_DEFAULTS = {"sqlite": ("pysqlite", 0), "postgresql": ("psycopg", 5432), "mariadb": ("pymysql", 3306)}
"""The driver that the extra installs, and the server's port."""
_NO_FILE = re.compile(r"^[^:/]{2,}:|[=;@\0]")  # what begins with a scheme, or has characters of other formats
_TEXTS = ("user", "password", "database", "dbname")  # not numbers, whatever they look like
_MODULES = {"mysqldb": "MySQLdb", "psycopg_async": "psycopg", "mysqlconnector": "mysql"}


class Config(NamedTuple):
    """A database and how to connect to it.

    `location` names it without secrets, in states and errors. `url` holds the password, and `secrets` are
    texts that must never be shown. `engine` is the caller's; None for connections of our own. For the others
    see `agent_stores.database.DatabaseMessageLog`.
    """

    url: URL
    dialect: str
    location: str
    secrets: tuple[str, ...] = ()
    timeout: float = 10.0
    max_connections: int = 10
    engine_options: Mapping[str, Any] = {}
    engine: Engine | AsyncEngine | None = None
    table_prefix: str = "agent_stores_"
    notify: bool = False

    @property
    def identity(self) -> Hashable:
        """What is the same for connections that can be shared."""
        return self._replace(engine_options=repr(sorted(self.engine_options.items())))  # type: ignore[arg-type]

    @property
    def is_memory(self) -> bool:
        """Whether it is an SQLite database in memory."""
        name, mode = str(self.url.database), self.url.query.get("mode")
        return self.dialect == "sqlite" and (":memory:" in name or "mode=memory" in f"{name}?mode={mode}")


def parse_config(connection_string: str | os.PathLike[str] | URL) -> Config:
    """Read a connection string; a text without ``://`` is the name of an SQLite file.

    Raises:
        ArgumentError: when it is malformed; never repeats the text, which may hold a password.
        ArgumentTypeError: when it is not text, a path or an SQLAlchemy URL.
        MissingDependencyError: when the driver for it is not installed.
    """
    url = _parse_url(connection_string)
    dialect = _DIALECTS.get(url.get_backend_name(), url.get_backend_name())
    if dialect not in _DEFAULTS:
        raise ArgumentError(f"connection_string must be {EXPECTED}, got one of an unknown kind")
    default, port = _DEFAULTS[dialect]
    if dialect == "sqlite":
        name = url.database or ":memory:"
        if name != ":memory:" and not name.startswith("file:"):
            # Now, and not when the first operation connects. os.path.abspath asks for the folder by a
            # function that detectors of blocking calls forbid on event loops.
            name = os.path.normpath(os.path.join(os.fsdecode(os.getcwdb()), name))
        file = name.removeprefix("file:").partition("?")[0]
        return Config(url.set(drivername="sqlite+pysqlite", database=name), dialect, f"sqlite:///{file}")
    driver = url.drivername.partition("+")[2] or default
    url = url.set(drivername=f"{dialect}+{driver}")
    if find_spec(_MODULES.get(driver, driver)) is None:
        if driver == default:
            raise MissingDependencyError.of(driver, extra=dialect, purpose=f"{dialect}://")
        raise MissingDependencyError(
            f"{url.drivername}:// needs the package {driver!r}, which is not installed: "
            f"pip install 'agent-stores[database]' {driver}",
            name=driver,
        )
    query = {name: ",".join(values) for name, values in url.normalized_query.items()}
    host = url.host or query.get("host") or query.get("unix_socket") or "localhost"
    location = f"{dialect}://{host}:{url.port or query.get('port') or port}/{url.database or ''}"
    secrets = (str(url.password or ""), query.get("password", ""), query.get("passwd", ""))
    return Config(url, dialect, location, tuple(secret for secret in secrets if len(secret) > 3))


def _parse_url(given: str | os.PathLike[str] | URL) -> URL:
    if isinstance(given, URL):
        return given
    if isinstance(given, os.PathLike):
        return URL.create("sqlite", database=os.fspath(given))
    if not isinstance(given, str):
        raise ArgumentTypeError(f"connection_string must be {EXPECTED}, got {type(given).__name__}")
    if given.startswith("file:"):  # SQLite's own URIs
        given = f"sqlite:///{given}{'&' if '?' in given else '?'}uri=true"
    # What is refused is not shown, nor is the cause: a password with "@" or ":" ends up in the wrong place.
    problem = "an empty text"
    if "://" in given:
        with contextlib.suppress(UrlError, ValueError):
            return make_url(given)
        problem = "a malformed URL. Special characters in a password are written as %XX"
    elif _NO_FILE.search(given):
        problem = (
            "a text that is no plain file name; one with : = ; or @ is given as a path or sqlite:///name"
        )
    elif given.strip():
        return URL.create("sqlite", database=given)
    raise ArgumentError(f"connection_string must be {EXPECTED}, got {problem}")


def driver_options(config: Config, given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """A driver's options: those given and those of ``connect_args``, with numbers for texts of digits.

    Raises:
        ArgumentError: for one that the driver does not know; values are not repeated.
    """
    options = {**given, **config.engine_options.get("connect_args", {})}
    if unknown := ", ".join(sorted(set(options) - set(known))):
        driver = config.url.get_driver_name()
        raise ArgumentError(f"options of the connection must be known to {driver}, got {unknown}")
    return {
        name: int(value) if isinstance(value, str) and value.isdecimal() and name not in _TEXTS else value
        for name, value in options.items()
    }
