"""Databases with drivers that block: calls run on worker threads, or on the caller's where that may block.

Their connections are those of an SQLAlchemy engine, the caller's or ours. Statements go to the driver's
connection as they are; the engine is a pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from functools import partial
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError as SQLAlchemyArgumentError
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call, Database, drive
from agent_stores.backends.sql.errors import Failure, classify
from agent_stores.backends.sql.statements import Style
from agent_stores.errors import ArgumentError
from agent_stores.inline import may_block
from agent_stores.thread_pool import ThreadPool

_STYLES: dict[str, Style] = {"qmark": "?", "numeric_dollar": "$"}


class EngineDatabase(Database):
    """A database by an engine: on threads, or on the event loop where the engine is asynchronous.

    Args:
        config: the database.
        engine: the engine; None for a subclass that has connections of its own.
        readers: how many threads read.
        writers: how many threads write; None where those that read do.
    """

    def __init__(self, config: Config, engine: Any, *, readers: int, writers: int | None = None) -> None:
        self._engine, self._sizes = engine, (readers, writers)
        # Our driver is told to wait no longer than a call may, and commits each statement by itself.
        self._is_ours = self.supports_inline = config.engine is None
        self.loop_independent = not isinstance(engine, AsyncEngine)
        dialect = getattr(engine, "sync_engine", engine).dialect if engine else None
        super().__init__(config, _STYLES.get(dialect.paramstyle, "%s") if dialect else "?")
        self.reset_after_fork()

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        if self.supports_inline and may_block():
            return self._perform(call, deadline)
        if self.loop_independent:
            threads = self._writing if call.write else self._reading
            return await threads.run(deadline, self._perform, call, deadline)

        async def use() -> Any:
            async with self._engine.connect() as conn:
                return await conn.run_sync(lambda sync: self._use(sync.connection, call, deadline))

        return await asyncio.wait_for(use(), deadline - time.monotonic())

    def _perform(self, call: Call, deadline: float) -> Any:
        """Run a call on this thread."""
        conn = self._checkout(call, deadline)
        try:
            return self._use(conn, call, deadline)
        finally:
            self._checkin(call, conn)

    def _checkout(self, call: Call, deadline: float) -> Any:
        return self._engine.raw_connection()

    def _checkin(self, call: Call, conn: Any) -> None:
        conn.close()

    def _use(self, conn: Any, call: Call, deadline: float) -> Any:
        """Run a call on a connection."""
        try:
            if not self.ready and self.dialect == "sqlite":
                self._write_ahead(conn, deadline)
            call.connection = conn if self.loop_independent else None
            work = call.work
            if callable(work):
                if call.write:
                    self._begin(conn)
                result = drive(work(), partial(self._execute, conn))
                call.commit()
            else:
                call.commit()
                result = self._execute(conn, *work)
            if not self._is_ours:
                conn.commit()
            elif callable(work) and call.write:
                self._execute(conn, "COMMIT", ())
            return result
        except BaseException as error:
            self._roll_back(conn, error)
            raise
        finally:
            call.end()

    def _write_ahead(self, conn: Any, deadline: float) -> None:
        """Let readers and a writer of an SQLite file not wait for each other; the mode stays with it."""
        while True:
            try:
                self._execute(conn, "PRAGMA journal_mode=WAL", ())
                return
            except Exception as error:
                if "readonly" in str(error):  # reading works without it
                    return
                # Switching does not wait for locks by itself.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def _begin(self, conn: Any) -> None:
        text = "BEGIN"
        if self.dialect == "sqlite":
            if getattr(conn, "driver_connection", conn).in_transaction:
                return
            text = "BEGIN IMMEDIATE"  # a transaction that reads first cannot wait for the lock
        elif self.dialect == "postgresql":
            if not self._is_ours:
                conn.commit()  # the driver begins by itself with the next statement
            text = f"{'BEGIN' if self._is_ours else 'SET TRANSACTION'} ISOLATION LEVEL READ COMMITTED"
        self._execute(conn, text, ())

    def _roll_back(self, conn: Any, error: BaseException) -> None:
        is_lost = isinstance(error, Exception) and classify(error, self.dialect) is Failure.UNAVAILABLE
        with contextlib.suppress(Exception):
            if is_lost or not isinstance(error, Exception):
                conn.invalidate()  # with it go its transaction and its locks
            elif self._is_ours:
                self._execute(conn, "ROLLBACK", ())
            else:
                conn.rollback()
        if is_lost and self.ready:
            error.connection_invalidated = True  # type: ignore[attr-defined]
            if self._is_ours:  # idle ones may be lost, too: the server was restarted, or a proxy
                self._engine.dispose()

    def _execute(self, conn: Any, text: str, values: Any) -> Any:
        """The rows of a statement, or how many it changed."""
        with contextlib.closing(conn.cursor()) as cursor:
            if type(values) is list:
                cursor.executemany(text, values)
            else:
                cursor.execute(text, *([values] if values else ()))
            return cursor.rowcount if cursor.description is None else list(cursor.fetchall())

    async def aclose(self) -> None:
        """Wait for what is running, and close the connections, on a thread unless this one may block."""
        if not may_block():
            # No thread begins any more when the process ends.
            with contextlib.suppress(RuntimeError):
                await asyncio.get_running_loop().run_in_executor(None, self.close_at_exit)
                return
        self.close_at_exit()

    def close_at_exit(self) -> None:
        """Wait for what is running, and close the connections."""
        for threads in {self._reading, self._writing}:
            threads.close(self.config.timeout)
        self._disconnect()

    close_unused = close_at_exit

    def _disconnect(self, *, close: bool = True) -> None:
        if self._is_ours:
            self._engine.dispose(close=close)

    def reset_after_fork(self) -> None:
        """Begin with threads of this process's own, and without the parent's connections."""
        readers, writers = self._sizes
        self._reading = ThreadPool(readers, "agent-stores-read")
        self._writing = self._reading if writers is None else ThreadPool(writers, "agent-stores-write")
        self._disconnect(close=False)


def open_engine(config: Config) -> EngineDatabase:
    """A database by the caller's engine, or by one of ours.

    Raises:
        ArgumentError: for options that SQLAlchemy does not know; their values are not repeated.
    """
    if config.engine is not None:
        return EngineDatabase(config, config.engine, readers=config.max_connections)
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
        "isolation_level": "AUTOCOMMIT",
        **config.engine_options,
        "connect_args": {**arguments, **config.engine_options.get("connect_args", {})},
    }
    try:
        return EngineDatabase(config, create_engine(config.url, **options), readers=config.max_connections)
    except (TypeError, SQLAlchemyArgumentError, NoSuchModuleError):
        given = ", ".join(sorted(config.engine_options))
        raise ArgumentError(
            f"engine_options must be options of SQLAlchemy's create_engine, got {given}"
        ) from None
