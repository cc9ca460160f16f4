"""Databases by SQLAlchemy's engines: a caller's, and ours for MariaDB and further drivers of PostgreSQL.

Statements go to the driver as they are. Engines of ours are in autocommit mode, so that one statement is one
round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ArgumentError as SQLAlchemyArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from agent_stores.backends.sql.config import ASYNC_DRIVERS, Config
from agent_stores.backends.sql.database import BEGIN_WRITE, Call, Database
from agent_stores.backends.sql.sqlite import use_wal
from agent_stores.backends.sql.statements import Style
from agent_stores.backends.sql.thread_pool import ThreadPool
from agent_stores.connection_registry import LoopClients
from agent_stores.errors import ArgumentError
from agent_stores.event_loops import may_block

_READ_COMMITTED = "ISOLATION LEVEL READ COMMITTED"
_DISCONNECTED = ("ConnectionDoesNotExistError", "InterfaceError", "ConnectionResetError")


def make_database(config: Config) -> Database:
    """The database of a configuration, by SQLAlchemy."""
    is_async = isinstance(config.engine, AsyncEngine) if config.engine else config.driver in ASYNC_DRIVERS
    return AsyncEngineDatabase(config) if is_async else EngineDatabase(config)


class _Session:
    """One call on a connection of a synchronous engine, or of an asynchronous one inside `run_sync`."""

    def __init__(self, database: Database, conn: Connection, call: Call[Any], deadline: float) -> None:
        self._database = database
        self._conn = conn
        self._call = call
        self._deadline = deadline
        self._driver_connection: Any = conn.connection.driver_connection
        self._is_ours = database.config.engine is None
        self._in_transaction = False

    def perform(self) -> Any:
        """Run the call, and commit."""
        call, database = self._call, self._database
        call.uses(None if self._conn.dialect.is_async else self._driver_connection, _interrupt)
        try:
            if not database.ready:
                self._prepare()
            if call.steps is None and call.attempt == 0:
                if not self._is_ours and call.write:
                    self._begin(write=True)
                call.committing = call.write and self._is_ours
                result = self._execute(*call.statement)
            else:
                self._begin(write=call.write)
                result = self._execute(*call.statement) if call.steps is None else self._drive(call.steps())
            if self._in_transaction or (call.write and not self._is_ours):
                call.commits()
                self._commit()
            call.committing = False
            return result
        except BaseException:
            if self._in_transaction:
                with contextlib.suppress(Exception):
                    self._execute("ROLLBACK", ())
            raise
        finally:
            call.ends()

    def _execute(self, text: str, values: tuple[Any, ...]) -> Any:
        result = self._conn.exec_driver_sql(text, values or None)
        return [tuple(row) for row in result] if result.returns_rows else result.rowcount

    def _drive(self, steps: Any) -> Any:
        result: Any = None
        try:
            while True:
                text, values = steps.send(result)
                if text is BEGIN_WRITE:
                    result = None if self._in_transaction else self._begin(write=True)
                else:
                    result = self._execute(text, values)
        except StopIteration as end:
            return end.value

    def _begin(self, *, write: bool) -> None:
        """Begin a transaction, unless SQLAlchemy or the driver has."""
        dialect = self._database.dialect
        if self._is_ours:
            if dialect == "postgresql":
                self._execute(f"BEGIN {_READ_COMMITTED}", ())
            else:
                self._execute("START TRANSACTION", ())
            self._in_transaction = True
            return
        if not self._conn.in_transaction():
            self._conn.begin()  # which a listener of the caller's may turn into a BEGIN
        if dialect == "postgresql" and self._call.attempt:
            self._execute(f"SET TRANSACTION {_READ_COMMITTED}", ())
        elif dialect == "sqlite" and write and not self._driver_connection.in_transaction:
            self._execute("BEGIN IMMEDIATE", ())

    def _commit(self) -> None:
        if self._in_transaction:
            self._execute("COMMIT", ())
            self._in_transaction = False
        else:
            self._conn.commit()

    def _prepare(self) -> None:
        database = self._database
        if database.dialect == "sqlite":
            use_wal(self._conn.connection.dbapi_connection, self._deadline)
        try:
            if database.dialect == "postgresql":
                if self._is_ours:
                    self._begin(write=True)
                else:
                    self._conn.begin()
                    self._execute(f"SET TRANSACTION {_READ_COMMITTED}", ())
            self._drive(database.prepare_steps())
            self._commit()
        except BaseException:
            with contextlib.suppress(Exception):
                self._conn.invalidate()  # with it go its locks
            raise
        database.ready = True


class EngineDatabase(Database):
    """A database by a synchronous engine, on worker threads."""

    def __init__(self, config: Config) -> None:
        self._borrowed = config.engine if isinstance(config.engine, Engine) else None
        super().__init__(config, _style(self._borrowed, config))
        self._engine = self._borrowed or _make(create_engine, config)
        # The driver is told to wait no longer than the call may; a caller's engine may not be.
        self.supports_inline = self._borrowed is None
        self._threads: ThreadPool | None = None
        self._lock = threading.Lock()

    async def _attempt(self, call: Call[Any], deadline: float) -> Any:
        if self.supports_inline and may_block():
            return self._perform(call, deadline)
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPool(self.config.max_connections, "agent-stores-database")
            threads = self._threads
        return await threads.run(lambda: self._perform(call, deadline), deadline - time.monotonic())

    def _perform(self, call: Call[Any], deadline: float) -> Any:
        with self._engine.connect() as conn:
            if self.ready:
                return _Session(self, conn, call, deadline).perform()
            with self._ready_lock:
                return _Session(self, conn, call, deadline).perform()

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        if may_block():
            self.close_at_exit()
        else:
            try:
                await asyncio.get_running_loop().run_in_executor(None, self.close_at_exit)
            except RuntimeError:  # no thread begins any more: the process ends
                self.close_at_exit()

    def close_unused(self) -> None:
        """See `Database.close_unused`."""
        self.close_at_exit()

    def close_at_exit(self) -> None:
        """See `Database.close_at_exit`."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.close(self.config.timeout)
        if self._borrowed is None:
            self._engine.dispose()

    def reset_after_fork(self) -> None:
        """See `Database.reset_after_fork`."""
        self._lock = threading.Lock()
        self._ready_lock = threading.Lock()
        self._threads = None
        if self._borrowed is None:
            self._engine.dispose(close=False)


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


def _make(create: Any, config: Config) -> Any:
    """An engine of ours.

    Raises:
        ArgumentError: for options that SQLAlchemy does not know; their values are not repeated.
    """
    given = dict(config.engine_options)
    options: dict[str, Any] = {
        "hide_parameters": True,
        "pool_size": config.max_connections,
        "max_overflow": 0,
        "pool_timeout": config.timeout,
        "pool_reset_on_return": None,
        "isolation_level": "AUTOCOMMIT",
    }
    if config.is_memory:
        options = {"hide_parameters": True, "poolclass": StaticPool}
    if "skip_autocommit_rollback" in inspect.signature(DefaultDialect.__init__).parameters:
        options["skip_autocommit_rollback"] = True  # which would be a round trip
    given["connect_args"] = {**_connect_arguments(config), **given.get("connect_args", {})}
    try:
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
