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
from agent_stores.backends.sql.thread_pool import ThreadPool
from agent_stores.errors import ArgumentError
from agent_stores.event_loops import may_block

_STYLES: dict[str, Style] = {"qmark": "?", "numeric_dollar": "$"}
_BEGIN = {"sqlite": "BEGIN IMMEDIATE", "mariadb": "START TRANSACTION"}


class EngineDatabase(Database):
    """A database by an engine: on worker threads, or for an asynchronous engine on the caller's event loop."""

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
            if force:  # serialization failures, the one reason for another attempt, end with this isolation level
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


<<<<<<< HEAD
class AsyncEngineDatabase(Database):
    """A database by asynchronous engines: the caller's, or one of ours for each event loop."""

    def __init__(self, config: Config) -> None:
        self._borrowed = config.engine if isinstance(config.engine, AsyncEngine) else None
        self._is_asyncpg = (self._borrowed.dialect.driver if self._borrowed else config.driver) == "asyncpg"
        style: Style = (
            "$" if self._is_asyncpg else _style(self._borrowed and self._borrowed.sync_engine, config)
        )
        super().__init__(config, style)
        self.loop_independent = self._borrowed is None
        if self._borrowed is None:
            _make(create_async_engine, config)  # so that a bad option is noticed now
        self._clients = LoopClients(
            lambda: _LoopEngine(_make(create_async_engine, config)), are_ours=True, timeout=config.timeout
        )

    async def _attempt(self, call: Call[Any], deadline: float) -> Any:
        engine = self._borrowed or self._clients.get().engine
        perform = self._perform_asyncpg if self._is_asyncpg else self._perform
        return await asyncio.wait_for(perform(engine, call, deadline), max(0.0, deadline - time.monotonic()))

    async def _perform(self, engine: AsyncEngine, call: Call[Any], deadline: float) -> Any:
        async with engine.connect() as conn:
            return await conn.run_sync(lambda sync: _Session(self, sync, call, deadline).perform())

    async def _perform_asyncpg(self, engine: AsyncEngine, call: Call[Any], deadline: float) -> Any:
        """Run a call by asyncpg's own connection, which needs no transaction for a single statement."""
        async with engine.connect() as conn:
            raw: Any = (await conn.get_raw_connection()).driver_connection
            try:
                call.uses(None, _interrupt)
                if not self.ready:
                    await self._transact(raw, Call(("", ()), self.prepare_steps, write=False, attempt=0))
                    self.ready = True
                if call.steps is None and call.attempt == 0:
                    call.committing = call.write
                    result: Any = await raw.fetch(call.statement[0], *call.statement[1])
                else:
                    result = await self._transact(raw, call)
                call.committing = False
                return result
            except BaseException as error:
                if (
                    raw.is_closed()
                    or type(error).__name__ in _DISCONNECTED
                    or not isinstance(error, Exception)
                ):
                    await _invalidate(conn)
                    with contextlib.suppress(AttributeError):
                        error.connection_invalidated = True  # type: ignore[attr-defined]
                raise

    @staticmethod
    async def _transact(raw: Any, call: Call[Any]) -> Any:
        await raw.execute(f"BEGIN {_READ_COMMITTED}")
        try:
            result: Any = None
            if call.steps is None:
                result = await raw.fetch(call.statement[0], *call.statement[1])
            else:
                steps = call.steps()
                try:
                    while True:
                        text, values = steps.send(result)
                        result = None if text is BEGIN_WRITE else await raw.fetch(text, *values)
                except StopIteration as end:
                    result = end.value
            call.commits()
            await raw.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                await raw.execute("ROLLBACK")
            raise
        return result

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        await self._clients.aclose()

    def close_unused(self) -> None:
        """See `Database.close_unused`."""
        self._clients.close_unused()

    def close_at_exit(self) -> None:
        """See `Database.close_at_exit`."""
        self._clients.close_at_exit()

    def reset_after_fork(self) -> None:
        """See `Database.reset_after_fork`."""
        self._clients.reset_after_fork()


class _LoopEngine:
    """An engine of one event loop."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.loop_close_hook: AsyncGenerator[None, None] | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        await self.engine.dispose()

    def close_sockets(self) -> None:
        """Leave the connections, whose loop is gone, to the garbage collection."""
        self.engine.sync_engine.dispose(close=False)


async def _invalidate(conn: AsyncConnection) -> None:
    with contextlib.suppress(Exception):
        await conn.invalidate()


def _style(engine: Engine | None, config: Config) -> Style:
    if config.dialect == "sqlite":
        return "?"
    if engine is not None and engine.dialect.paramstyle.startswith("numeric"):
        return "$"
    return "%s"
=======
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
>>>>>>> 6536e97f95704f2795e320caede09d6b4cb5f5dd


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
    names = ("connect_timeout", "read_timeout", "write_timeout") if config.driver == "pymysql" else ("connect_timeout",)
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
<<<<<<< HEAD
        return create(config.url, **{**options, **given})
    except (TypeError, SQLAlchemyArgumentError):
        raise ArgumentError(
            f"engine_options must be options of SQLAlchemy's create_engine, got {', '.join(sorted(given))}"
        ) from None


def _connect_arguments(config: Config) -> dict[str, Any]:
    seconds = max(1, math.ceil(config.timeout))
    arguments: dict[str, Any] = {}
    if config.driver == "asyncpg":
        # A proxy may give each transaction another connection, which knows no prepared statement of ours.
        arguments = {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"agent_stores_{uuid.uuid4().hex}",
        }
    names = {
        "psycopg2": ("connect_timeout",),
        "asyncpg": ("timeout", "command_timeout"),
        "pymysql": ("connect_timeout", "read_timeout", "write_timeout"),
    }.get(config.driver, ("connect_timeout",))
    arguments.update(dict.fromkeys(names, seconds))
    if config.driver == "pymysql":
        arguments["init_command"] = (
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"  # fewer deadlocks
        )
    return {name: value for name, value in arguments.items() if name not in config.url.query}
=======
        return create_engine(config.url, **options)
    except (TypeError, SQLAlchemyArgumentError, NoSuchModuleError):
        given = ", ".join(sorted(config.engine_options))
        raise ArgumentError(f"engine_options must be options of SQLAlchemy's create_engine, got {given}") from None
>>>>>>> 6536e97f95704f2795e320caede09d6b4cb5f5dd
