"""Databases by SQLAlchemy's engines: the caller's, and ours for MariaDB and further drivers.

Statements go to the driver's connection as they are; the engine is a pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError as SQLAlchemyArgumentError
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import StaticPool

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call, Database, close_in_thread, drive
from agent_stores.backends.sql.errors import Failure, classify
from agent_stores.backends.sql.sqlite import use_wal
from agent_stores.backends.sql.statements import BEGIN_WRITE, Style, Values
from agent_stores.errors import ArgumentError
from agent_stores.inline import may_block
from agent_stores.thread_pool import ThreadPool

_STYLES: dict[str, Style] = {"qmark": "?", "numeric_dollar": "$"}
_BEGIN = {"sqlite": "BEGIN IMMEDIATE", "mariadb": "START TRANSACTION"}


class EngineDatabase(Database):
    """A database by an engine: on worker threads, or on the event loop where the engine is asynchronous."""

    def __init__(self, config: Config) -> None:
        self._engine: Any = config.engine or _make_engine(config)
        self._sync: Any = getattr(self._engine, "sync_engine", self._engine)
        self._is_ours = config.engine is None
        super().__init__(config, _STYLES.get(self._sync.dialect.paramstyle, "%s"))
        self.loop_independent = not isinstance(self._engine, AsyncEngine)
        # Our driver is told to wait no longer than a call may.
        self.supports_inline = self._is_ours
        self._threads: ThreadPool | None = None
        self._lock = threading.Lock()

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        if isinstance(self._engine, AsyncEngine):
            return await asyncio.wait_for(self._perform_async(call, deadline), deadline - time.monotonic())
        if self.supports_inline and may_block():
            return self._perform(call, deadline)
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPool(self.config.max_connections, "agent-stores-database")
        return await self._threads.run(deadline - time.monotonic(), self._perform, call, deadline)

    async def _perform_async(self, call: Call, deadline: float) -> Any:
        async with self._engine.connect() as conn:
            return await conn.run_sync(lambda sync: self._use(sync.connection, call, deadline))

    def _perform(self, call: Call, deadline: float) -> Any:
        conn = self._engine.raw_connection()
        try:
            with contextlib.nullcontext() if self.ready else self.ready_lock:
                return self._use(conn, call, deadline)
        finally:
            conn.close()

    def _use(self, conn: Any, call: Call, deadline: float) -> Any:
        """Run a call on a pool's connection, which speaks the DB-API."""
        is_prepared = self.ready
        try:
            call.begin(partial(_interrupt, conn.driver_connection) if self.loop_independent else None)
            if not is_prepared:
                if self.dialect == "sqlite":
                    use_wal(conn, deadline)
                end = self._begin(conn, force=True)
                drive(self.prepare_steps(), partial(self._step, conn))
                end()
                self.ready = is_prepared = True
            if call.steps is None and not call.attempt:
                call.committing = call.write
                result = _execute(conn, *call.statement)
                if not self._is_ours:
                    conn.commit()
            else:
                end = self._begin(conn, force=call.attempt > 0)
                if call.steps is None:
                    result = _execute(conn, *call.statement)
                else:
                    result = drive(call.steps(), partial(self._step, conn))
                call.commit()
                end()
            return result
        except BaseException as error:
            is_lost = isinstance(error, Exception) and classify(error, self.dialect) is Failure.UNAVAILABLE
            with contextlib.suppress(Exception):
                if is_lost or not is_prepared or not isinstance(error, Exception):
                    conn.invalidate()  # with it go its transaction and its locks
                elif self._is_ours:
                    _execute(conn, "ROLLBACK", ())
                else:
                    conn.rollback()
            if is_lost and is_prepared:
                error.connection_invalidated = True  # type: ignore[attr-defined]
                if self._is_ours:  # idle ones may be lost, too: the server was restarted, or a proxy
                    self._engine.dispose()
            raise
        finally:
            call.begin(None)

    def _begin(self, conn: Any, *, force: bool) -> Callable[[], Any]:
        """Begin a transaction that writes; returns what commits it."""
        if self.dialect != "postgresql":
            self._step(conn, BEGIN_WRITE, ())
        elif getattr(conn.driver_connection, "autocommit", False) is True:
            _execute(conn, "BEGIN ISOLATION LEVEL READ COMMITTED", ())
        else:  # the driver begins by itself
            if (
                force
            ):  # serialization failures, the one reason for another attempt, end with this isolation level
                _execute(conn, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", ())
            return conn.commit  # type: ignore[no-any-return]
        return lambda: _execute(conn, "COMMIT", ())

    def _step(self, conn: Any, text: str, values: Values) -> Any:
        if text is not BEGIN_WRITE:
            return _execute(conn, text, values)
        begin = _BEGIN.get(self.dialect)
        if begin and not getattr(conn.driver_connection, "in_transaction", False):
            _execute(conn, begin, ())
        return None

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        await close_in_thread(self.close_at_exit)

    def close_at_exit(self) -> None:
        """See `Database.close_at_exit`; waits for what is running."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.close(self.config.timeout)
        if self._is_ours:
            self._engine.dispose()

    def reset_after_fork(self) -> None:
        """See `Database.reset_after_fork`."""
        self._lock, self.ready_lock = threading.Lock(), threading.Lock()
        self._threads = None
        if self._is_ours:
            self._engine.dispose(close=False)


def _execute(conn: Any, text: str, values: Values) -> Any:
    cursor = conn.cursor()
    try:
        if values:
            cursor.execute(text, values)
        else:
            cursor.execute(text)
        return cursor.rowcount if cursor.description is None else list(cursor.fetchall())
    finally:
        cursor.close()


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


def _make_engine(config: Config) -> Any:
    """An engine of ours, whose connections are in autocommit mode: one statement is one round trip.

    Raises:
        ArgumentError: for options that SQLAlchemy does not know; their values are not repeated.
    """
    seconds = max(1, math.ceil(config.timeout))
    names = (
        ("connect_timeout", "read_timeout", "write_timeout")
        if config.driver == "pymysql"
        else ("connect_timeout",)
    )
    arguments: dict[str, Any] = {name: seconds for name in names if name not in config.url.query}
    if config.driver == "pymysql":  # fewer deadlocks
        arguments["init_command"] = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    options: dict[str, Any] = {
        "hide_parameters": True,
        "pool_size": config.max_connections,
        "max_overflow": 0,
        "pool_timeout": config.timeout,
        "pool_reset_on_return": None,  # which would be a round trip
        "isolation_level": "AUTOCOMMIT",
    }
    if config.is_memory:
        options = {"poolclass": StaticPool}
    options.update(config.engine_options)
    options["connect_args"] = {**arguments, **config.engine_options.get("connect_args", {})}
    try:
        return create_engine(config.url, **options)
    except (TypeError, SQLAlchemyArgumentError, NoSuchModuleError):
        given = ", ".join(sorted(config.engine_options))
        raise ArgumentError(
            f"engine_options must be options of SQLAlchemy's create_engine, got {given}"
        ) from None
