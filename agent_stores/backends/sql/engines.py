"""Databases by SQLAlchemy's engines: the caller's, and ours for MariaDB and further drivers.

Statements go to the driver's connection as they are; the engine is a pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import time
from functools import partial
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError as SQLAlchemyArgumentError
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call, ThreadedDatabase, drive
from agent_stores.backends.sql.errors import Failure, classify
from agent_stores.backends.sql.sqlite import use_wal
from agent_stores.backends.sql.statements import Style
from agent_stores.errors import ArgumentError

_READ_COMMITTED = "ISOLATION LEVEL READ COMMITTED"
_STYLES: dict[str, Style] = {"qmark": "?", "numeric_dollar": "$"}


class EngineDatabase(ThreadedDatabase):
    """A database by an engine: on worker threads, or on the event loop where the engine is asynchronous."""

    def __init__(self, config: Config) -> None:
        self._engine: Any = config.engine or _make_engine(config)
        self._is_ours = config.engine is None
        self._is_autocommit = _is_autocommit(config)
        dialect = getattr(self._engine, "sync_engine", self._engine).dialect
        style = _STYLES.get(dialect.paramstyle, "%s")
        super().__init__(config, style, readers=config.max_connections)
        self.loop_independent = not isinstance(self._engine, AsyncEngine)
        # Our driver is told to wait no longer than a call may.
        self.supports_inline = self._is_ours

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        if self.loop_independent:
            return await super().attempt(call, deadline)
        return await asyncio.wait_for(self._perform_async(call, deadline), deadline - time.monotonic())

    async def _perform_async(self, call: Call, deadline: float) -> Any:
        async with self._engine.connect() as conn:
            return await conn.run_sync(lambda sync: self._use(sync.connection, call, deadline))

    def perform(self, call: Call, deadline: float) -> Any:
        """See `ThreadedDatabase.perform`."""
        conn = self._engine.raw_connection()
        try:
            with contextlib.nullcontext() if self.ready else self.ready_lock:
                return self._use(conn, call, deadline)
        finally:
            conn.close()

    def _use(self, conn: Any, call: Call, deadline: float) -> Any:
        """Run a call on a pool's connection, which speaks the DB-API."""
        is_prepared = self.ready
        execute = partial(self._execute, conn)
        try:
            if self.loop_independent:
                call.interrupt = partial(_interrupt, conn.driver_connection)
            if not is_prepared:
                if self.dialect == "sqlite":
                    use_wal(conn, deadline)
                drive(self.prepare_steps(), execute)
                conn.commit()
                self.ready = is_prepared = True
            if call.steps is None:
                call.commit()
                result = execute(*call.statement)
                if self._is_autocommit:
                    return result
            else:
                result = drive(call.steps(), execute)
                call.commit()
            conn.commit()
            return result
        except BaseException as error:
            is_lost = isinstance(error, Exception) and classify(error, self.dialect) is Failure.UNAVAILABLE
            with contextlib.suppress(Exception):
                if is_lost or not is_prepared or not isinstance(error, Exception):
                    conn.invalidate()  # with it go its transaction and its locks
                else:
                    conn.rollback()
            if is_lost and is_prepared:
                error.connection_invalidated = True  # type: ignore[attr-defined]
                if self._is_ours:  # idle ones may be lost, too: the server was restarted, or a proxy
                    self._engine.dispose()
            raise
        finally:
            call.end()

    def _execute(self, conn: Any, text: str, values: Any) -> Any:
        if text == "BEGIN":
            if self.dialect == "sqlite":
                if getattr(conn.driver_connection, "in_transaction", False):
                    return None
                text = "BEGIN IMMEDIATE"
            elif self.dialect == "postgresql":
                if not self._is_autocommit:
                    conn.commit()  # the driver begins by itself with the next statement
                text = f"{'BEGIN' if self._is_autocommit else 'SET TRANSACTION'} {_READ_COMMITTED}"
        cursor = conn.cursor()
        try:
            if type(values) is list:
                cursor.executemany(text, values)
                return cursor.rowcount
            cursor.execute(text, values) if values else cursor.execute(text)
            return cursor.rowcount if cursor.description is None else list(cursor.fetchall())
        finally:
            cursor.close()

    def disconnect(self) -> None:
        """See `ThreadedDatabase.disconnect`; the caller's engine stays as it is."""
        if self._is_ours:
            self._engine.dispose()

    def reset_after_fork(self) -> None:
        """See `ThreadedDatabase.reset_after_fork`."""
        super().reset_after_fork()
        if self._is_ours:
            self._engine.dispose(close=False)


def _interrupt(connection: Any) -> None:
    """Wake a thread that waits for a server: shut the socket down, or interrupt SQLite."""
    with contextlib.suppress(Exception):
        if hasattr(connection, "interrupt"):
            connection.interrupt()
        elif hasattr(connection, "fileno"):
            with socket.socket(fileno=os.dup(connection.fileno())) as raw:
                raw.shutdown(socket.SHUT_RDWR)
        elif (own := getattr(connection, "_sock", None)) is not None:
            own.shutdown(socket.SHUT_RDWR)


def _is_autocommit(config: Config) -> bool:
    """Whether each statement is a transaction, and a round trip, unless one was begun by hand."""
    return config.engine is None and config.driver != "psycopg2"  # which does not commit what we began


def _make_engine(config: Config) -> Any:
    """An engine of ours.

    Raises:
        ArgumentError: for options that SQLAlchemy does not know; their values are not repeated.
    """
    arguments: dict[str, Any] = {"connect_timeout": max(1, math.ceil(config.timeout))}
    if config.driver == "pymysql":
        arguments |= dict.fromkeys(("read_timeout", "write_timeout"), arguments["connect_timeout"])
        # Fewer deadlocks.
        arguments["init_command"] = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    options: dict[str, Any] = {
        "hide_parameters": True,
        "pool_size": config.max_connections,
        "max_overflow": 0,
        "pool_timeout": config.timeout,
        "pool_reset_on_return": None,  # which would be a round trip
        **({"isolation_level": "AUTOCOMMIT"} if _is_autocommit(config) else {}),
    }
    options.update(config.engine_options)
    arguments = {name: value for name, value in arguments.items() if name not in config.url.query}
    options["connect_args"] = {**arguments, **config.engine_options.get("connect_args", {})}
    try:
        return create_engine(config.url, **options)
    except (TypeError, SQLAlchemyArgumentError, NoSuchModuleError):
        given = ", ".join(sorted(config.engine_options))
        raise ArgumentError(
            f"engine_options must be options of SQLAlchemy's create_engine, got {given}"
        ) from None
