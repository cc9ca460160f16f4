"""Databases by SQLAlchemy's engines: the caller's, and ours for MariaDB and further drivers.

Statements go to the driver's connection as they are; the engine is a pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError as SQLAlchemyArgumentError
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call
from agent_stores.backends.sql.errors import Failure, classify
from agent_stores.backends.sql.statements import Style
from agent_stores.backends.sql.threaded import ThreadedDatabase
from agent_stores.errors import ArgumentError

_PSYCOPG2 = "psycopg2"  # in autocommit mode, it does not commit what was begun by a statement
_STYLES: dict[str, Style] = {"qmark": "?", "numeric_dollar": "$"}


class EngineDatabase(ThreadedDatabase):
    """A database by an engine: on worker threads, or on the event loop where the engine is asynchronous."""

    def __init__(self, config: Config) -> None:
        self._engine: Any = config.engine or _make_engine(config)
        # Our driver is told to wait no longer than a call may.
        self._is_ours = self.supports_inline = config.engine is None
        self.is_autocommit = self._is_ours and config.driver != _PSYCOPG2
        dialect = getattr(self._engine, "sync_engine", self._engine).dialect
        if config.dialect == "mariadb":
            self.begin = "BEGIN"
        elif config.dialect == "postgresql":
            self.begin = (
                f"{'BEGIN' if self.is_autocommit else 'SET TRANSACTION'} ISOLATION LEVEL READ COMMITTED"
            )
        super().__init__(config, _STYLES.get(dialect.paramstyle, "%s"), readers=config.max_connections)
        self.loop_independent = not isinstance(self._engine, AsyncEngine)

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        if self.loop_independent:
            return await super().attempt(call, deadline)

        async def use() -> Any:
            async with self._engine.connect() as conn:
                return await conn.run_sync(lambda sync: self._use(sync.connection, call, deadline))

        return await asyncio.wait_for(use(), deadline - time.monotonic())

    def _checkout(self, call: Call, deadline: float) -> Any:
        return self._engine.raw_connection()

    def _checkin(self, call: Call, conn: Any) -> None:
        conn.close()

    def _roll_back(self, conn: Any, error: BaseException) -> None:
        is_lost = isinstance(error, Exception) and classify(error, self.dialect) is Failure.UNAVAILABLE
        with contextlib.suppress(Exception):
            if is_lost or not self.ready or not isinstance(error, Exception):
                conn.invalidate()  # with it go its transaction and its locks
            else:
                conn.rollback()
        if is_lost and self.ready:
            error.connection_invalidated = True  # type: ignore[attr-defined]
            if self._is_ours:  # idle ones may be lost, too: the server was restarted, or a proxy
                self._engine.dispose()

    def _begin(self, conn: Any) -> None:
        if self.dialect == "sqlite" and getattr(conn.driver_connection, "in_transaction", False):
            return
        if self.dialect == "postgresql" and not self.is_autocommit:
            conn.commit()  # the driver begins by itself with the next statement
        super()._begin(conn)

    def _execute(self, conn: Any, text: str, values: Any) -> Any:
        with contextlib.closing(conn.cursor()) as cursor:
            if type(values) is list:
                cursor.executemany(text, values)
            else:
                cursor.execute(text, *([values] if values else ()))
            return cursor.rowcount if cursor.description is None else list(cursor.fetchall())

    def _disconnect(self) -> None:
        if self._is_ours:
            self._engine.dispose()

    def reset_after_fork(self) -> None:
        """See `ThreadedDatabase.reset_after_fork`."""
        super().reset_after_fork()
        if self._is_ours:
            self._engine.dispose(close=False)


def _make_engine(config: Config) -> Any:
    """An engine of ours.

    Raises:
        ArgumentError: for options that SQLAlchemy does not know; their values are not repeated.
    """
    seconds = max(1, math.ceil(config.timeout))
    arguments: dict[str, Any] = {"connect_timeout": seconds}
    if config.driver == "pymysql":
        arguments |= {"read_timeout": seconds, "write_timeout": seconds}
        # Fewer deadlocks.
        arguments["init_command"] = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    arguments = {name: value for name, value in arguments.items() if name not in config.url.query}
    options = {
        "hide_parameters": True,
        "pool_size": config.max_connections,
        "max_overflow": 0,
        "pool_timeout": config.timeout,
        "pool_reset_on_return": None,  # which would be a round trip
        **({} if config.driver == _PSYCOPG2 else {"isolation_level": "AUTOCOMMIT"}),
        **config.engine_options,
        "connect_args": {**arguments, **config.engine_options.get("connect_args", {})},
    }
    try:
        return create_engine(config.url, **options)
    except (TypeError, SQLAlchemyArgumentError, NoSuchModuleError):
        given = ", ".join(sorted(config.engine_options))
        raise ArgumentError(
            f"engine_options must be options of SQLAlchemy's create_engine, got {given}"
        ) from None
