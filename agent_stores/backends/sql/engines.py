"""Databases with drivers that block: calls run on worker threads, or on the caller's where that may block.

SQLite has a few connections of its own, which stay open: one call writes and others read at the same time.
Other databases have those of an SQLAlchemy engine, the caller's or ours; statements go to the driver's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import time
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError as SQLAlchemyArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_stores.attempts import time_limit
from agent_stores.backends.sql.config import Config, driver_options
from agent_stores.backends.sql.database import Call, Database, drive
from agent_stores.backends.sql.errors import Failure, PoolTimeout, classify
from agent_stores.backends.sql.statements import Style
from agent_stores.connection_pool import of_the_parent
from agent_stores.errors import ArgumentError
from agent_stores.inline import may_block
from agent_stores.thread_pool import ThreadPool

_READERS = 4  # connections that read one file at the same time
_OPTIONS = {"timeout", "detect_types", "cached_statements", "factory"}
_STYLES: dict[str, Style] = {"qmark": "?", "numeric_dollar": "$"}
_BEGIN = {
    "sqlite": "BEGIN IMMEDIATE",  # a transaction that reads first cannot wait for the lock
    "postgresql": "BEGIN ISOLATION LEVEL READ COMMITTED",
    "mariadb": "BEGIN",
}


class _Threads(ThreadPool):
    """Threads of calls that read, or write, and as many tokens, which callers that may block take, too."""

    def __init__(self, count: int, kind: str) -> None:
        super().__init__(count, f"agent-stores-{kind}")
        self.tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self.tokens.put(None)


class EngineDatabase(Database):
    """A database by an engine: on threads, or on the event loop where the engine is asynchronous.

    Args:
        config: the database.
        engine: the engine; None for a subclass that has connections of its own.
        readers: how many threads read.
        writers: how many threads write; 0 where those that read do.
    """

    def __init__(self, config: Config, engine: Any, *, readers: int, writers: int = 0) -> None:
        self._engine, self._sizes = engine, (readers, writers)
        # Our driver is told to wait no longer than a call may, and commits each statement by itself.
        self._is_ours = self.supports_inline = config.engine is None
        self.loop_independent = not isinstance(engine, AsyncEngine)
        super().__init__(config, _STYLES.get(engine.dialect.paramstyle, "%s") if engine else "?")
        self.reset_after_fork()

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        if self.supports_inline and may_block():
            return self._perform(call, deadline)
        if self.loop_independent:
            return await self._threads[call.write].run(deadline, self._perform, call, deadline)
        async with time_limit(deadline), self._engine.connect() as conn:
            return await conn.run_sync(lambda sync: self._use(sync.connection, call, deadline))

    def _perform(self, call: Call, deadline: float) -> Any:
        """Run a call on this thread."""
        with contextlib.closing(self._engine.raw_connection()) as conn:
            return self._use(conn, call, deadline)

    def _use(self, conn: Any, call: Call, deadline: float) -> Any:
        """Run a call on a connection."""
        # Whether the driver leaves transactions to us; a caller's engine may be set so, too.
        is_manual = self._is_ours or getattr(conn, "autocommit", False) is True
        try:
            if not self.ready and self.dialect == "sqlite":
                self._write_ahead(conn, deadline)
            call.connection = conn
            if call.stepwise:
                begin = _BEGIN[self.dialect]
                if not is_manual and self.dialect != "mariadb":  # whose BEGIN ends what was begun before
                    conn.commit()
                    # The driver of PostgreSQL begins by itself, with the first statement.
                    begin = begin.replace("BEGIN ISO", "SET TRANSACTION ISO")
                result = drive(call.steps(begin, deadline, ends=is_manual), self._execute, conn)
            else:
                call.commit(deadline)
                result = self._execute(conn, *call.work)  # type: ignore[misc]
            if not is_manual:
                conn.commit()
            return result
        except BaseException as error:
            self._roll_back(conn, is_manual, error)
            raise
        finally:
            with call.lock:
                call.connection = None

    def _write_ahead(self, conn: Any, deadline: float) -> None:
        """Let readers and a writer of an SQLite file not wait for each other; the mode stays with it."""
        is_locked = True  # switching does not wait for locks by itself
        while is_locked and time.monotonic() < deadline:
            try:
                self._execute(conn, "PRAGMA journal_mode=WAL", ())
                return
            except Exception as error:  # the next statement fails, too, or does without
                is_locked = "locked" in str(error)
            time.sleep(0.01)

    def _roll_back(self, conn: Any, is_manual: bool, error: BaseException) -> None:
        is_lost = not isinstance(error, Exception) or classify(error, self.dialect) is Failure.UNAVAILABLE
        with contextlib.suppress(Exception):
            if is_lost:
                conn.invalidate()  # with it go its transaction and its locks
            elif is_manual:
                self._execute(conn, "ROLLBACK", ())
            else:
                conn.rollback()
        if is_lost and self.ready:
            error.connection_invalidated = True  # type: ignore[attr-defined]
            if self._is_ours:  # idle ones may be lost, too: the server was restarted, or a proxy
                self._engine.dispose()

    def _execute(self, conn: Any, text: str, values: Any) -> Any:
        """The rows of a statement, or how many it changed."""
        cursor = conn.cursor()
        try:
            if type(values) is list:
                cursor.executemany(text, values)
            else:
                cursor.execute(text, *([values] if values else ()))
            return cursor.rowcount if cursor.description is None else list(cursor.fetchall())
        finally:
            cursor.close()

    async def aclose(self) -> None:
        """Wait for what is running, and close the connections, on a thread unless this one may block."""
        if not may_block():
            with contextlib.suppress(RuntimeError):  # no thread begins any more when the process ends
                return await asyncio.to_thread(self.close_at_exit)
        self.close_at_exit()

    def close_at_exit(self) -> None:
        """Wait for what is running, and close the connections."""
        for threads in set(self._threads.values()):
            threads.close(self.config.timeout)
        self._disconnect()

    def _disconnect(self, *, close: bool = True) -> None:
        if self._is_ours:
            self._engine.dispose(close=close)

    def reset_after_fork(self) -> None:
        """Begin with threads of this process's own, and without the parent's connections."""
        readers, writers = self._sizes
        reading = _Threads(readers, "read")
        self._threads = {False: reading, True: _Threads(writers, "write") if writers else reading}
        self._disconnect(close=False)


def open_engine(config: Config) -> EngineDatabase:
    """A database by an engine of ours.

    Raises:
        ArgumentError: for options that SQLAlchemy does not know; their values are not repeated.
    """
    seconds = str(max(1, math.ceil(config.timeout)))
    defaults = {"connect_timeout": seconds}
    if config.url.get_driver_name() == "pymysql":
        defaults |= {"read_timeout": seconds, "write_timeout": seconds}
        # Fewer deadlocks.
        defaults["init_command"] = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    options = {
        "hide_parameters": True,
        "pool_size": config.max_connections,
        "max_overflow": 0,
        "pool_timeout": config.timeout,
        "pool_reset_on_return": None,  # which would be a round trip
        "isolation_level": "AUTOCOMMIT",
        **config.engine_options,
    }
    url = config.url.set(query={**defaults, **config.url.query})
    try:
        return EngineDatabase(config, create_engine(url, **options), readers=config.max_connections)
    except (TypeError, SQLAlchemyArgumentError):
        given = ", ".join(sorted(config.engine_options))
        raise ArgumentError(
            f"engine_options must be options of SQLAlchemy's create_engine, got {given}"
        ) from None


class SQLiteDatabase(EngineDatabase):
    """An SQLite file, or a database in memory, which has one connection only."""

    def __init__(self, config: Config) -> None:
        self._path, self._arguments = _connect_arguments(config)
        self._idle: list[sqlite3.Connection] = []  # the one that was used last is used next
        size = min(config.engine_options.get("pool_size") or config.max_connections, config.max_connections)
        readers = 0 if config.is_memory else max(0, min(_READERS, size - 1))
        super().__init__(config, None, readers=readers or 1, writers=min(readers, 1))

    def _perform(self, call: Call, deadline: float) -> Any:
        tokens = self._threads[call.write].tokens
        try:
            tokens.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise PoolTimeout("other calls of this process use the file") from None
        try:
            try:
                conn = self._idle.pop()
            except IndexError:
                conn = sqlite3.connect(self._path, **self._arguments)
            try:
                return self._use(conn, call, deadline)
            finally:
                try:
                    conn.rollback()
                    self._idle.append(conn)
                except sqlite3.Error:  # whatever it is, the next call gets another connection
                    conn.close()
        finally:
            tokens.put(None)

    def _roll_back(self, conn: Any, is_manual: bool, error: BaseException) -> None:
        """Nothing: `_perform` does it."""

    def _execute(self, conn: sqlite3.Connection, text: str, values: Any) -> Any:
        if type(values) is list:
            return conn.executemany(text, values).rowcount
        cursor = conn.execute(text, values)
        return cursor.rowcount if cursor.description is None else cursor.fetchall()

    def _disconnect(self, *, close: bool = True) -> None:
        idle, self._idle = self._idle, []
        if not close:
            of_the_parent.extend(idle)  # closing them would disturb its locks on the file
            return
        for conn in idle:
            conn.close()


def _connect_arguments(config: Config) -> tuple[str, dict[str, Any]]:
    """The name of the file, and the further arguments of `sqlite3.connect`."""
    name, query = str(config.url.database), dict(config.url.query)
    is_uri = name.startswith("file:")
    arguments: dict[str, Any] = {"check_same_thread": False, "isolation_level": None, "uri": is_uri}
    # SQLite's time-out is shorter than ours, as SQLite says what it waited for.
    arguments["timeout"] = config.timeout * 0.8
    with contextlib.suppress(KeyError, TypeError, ValueError):
        arguments["timeout"] = float(query.pop("timeout"))  # type: ignore[arg-type]
    query.pop("uri", None)
    if is_uri:
        name += f"{'&' if '?' in name else '?'}{urlencode(query, doseq=True)}"
    return name, {**arguments, **driver_options(config, {} if is_uri else query, _OPTIONS)}
