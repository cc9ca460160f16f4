"""Reading other programs' tables in SQLite, PostgreSQL or MariaDB, in transactions that cannot write."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from agent_stores.backends.sql.config import Config, parse_config
from agent_stores.backends.sql.errors import translate_error
from agent_stores.errors import ArgumentError, MissingDependencyError, NotFoundError, StoreClosedError

from sqlalchemy import Connection, Engine, create_engine, event, inspect  # isort: skip - after what names the extra
from sqlalchemy.exc import SQLAlchemyError  # isort: skip
from sqlalchemy.pool import NullPool  # isort: skip

T = TypeVar("T")

_ASYNC_DRIVERS = ("asyncpg", "psycopg_async", "aiomysql", "asyncmy", "aiosqlite")  # need an event loop
_TIMEOUT = 30  # seconds that a locked SQLite file is waited for


class DatabaseReader:
    """Reads one database, on a thread of its own.

    Args:
        url: a file's name or a URL, as `DatabaseChatMessageStore` takes it; with any driver.

    Raises:
        ArgumentError: when it is malformed; never repeats it.
        MissingDependencyError: when no driver for it is installed that works without an event loop.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._config = _sync_config(parse_config(url))
        self._engine: Engine | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="agent-stores-source")
        self._lock = threading.Lock()
        self._closed = False

    @property
    def location(self) -> str:
        """The database, without secrets."""
        return self._config.location

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mariadb``."""
        return self._config.dialect

    async def run(self, operation: Callable[[Connection], T]) -> T:
        """Run an operation in a transaction.

        Raises:
            NotFoundError: when the SQLite file does not exist.
        ArgumentError: when it is a folder.
            StoreError: when the database cannot be reached or rejects.
        """
        if self._closed:
            raise StoreClosedError("this source is closed")
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._run, operation)

    async def has_table(self, name: str) -> bool:
        """Whether there is a table of a name; raises as `run` does."""
        return await self.run(lambda connection: inspect(connection).has_table(name))

    async def aclose(self) -> None:
        """Close the connection."""
        self._closed = True
        await asyncio.to_thread(self._worker.shutdown)
        if self._engine is not None:
            self._engine.dispose()

    def _run(self, operation: Callable[[Connection], T]) -> T:
        try:
            with self._open().connect() as connection:
                return operation(connection)
        except (SQLAlchemyError, OSError) as error:
            raise translate_error(error, self._config) from None

    def _open(self) -> Engine:
        if self._engine is None:
            self._engine = _engine(self._config)
        return self._engine


def _sync_config(config: Config) -> Config:
    """The same database with a driver that needs no event loop."""
    if config.url.get_driver_name() not in _ASYNC_DRIVERS:
        return config
    found = parse_config(config.url.set(drivername=config.dialect))
    if found.url.get_driver_name() in _ASYNC_DRIVERS:
        driver = {"postgresql": "psycopg", "mariadb": "pymysql"}[config.dialect]
        raise MissingDependencyError.of(
            driver, extra=config.dialect, purpose=f"reading from {config.dialect}://"
        )
    return found


def _engine(config: Config) -> Engine:
    if config.dialect == "sqlite":
        return create_engine(_read_only(config), connect_args={"timeout": _TIMEOUT}, poolclass=NullPool)
    if config.dialect == "postgresql":
        return create_engine(
            config.url, pool_size=1, pool_pre_ping=True, execution_options={"postgresql_readonly": True}
        )
    engine = create_engine(config.url, pool_size=1, pool_pre_ping=True)

    def read_only(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION READ ONLY")

    event.listen(engine, "connect", read_only)
    return engine


def _read_only(config: Config) -> Any:
    """The URL that opens an SQLite file only for reading."""
    name = config.url.database or ""
    if name.startswith("file:"):
        joined = "&" if "?" in name else "?"
        return config.url.set(database=f"{name}{joined}mode=ro").update_query_dict({"uri": "true"})
    if Path(name).is_dir():
        raise ArgumentError(f"the source must be an SQLite file, got the folder {name!r}")
    if not Path(name).exists():
        raise NotFoundError(f"there is no SQLite file {name!r}")
    uri = f"file:{quote(name)}?mode=ro"
    return config.url.set(database=uri).update_query_dict({"uri": "true"})
