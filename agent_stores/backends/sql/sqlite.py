"""SQLite by the standard library: one call writes and a few read at the same time; connections stay open."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from functools import partial
from typing import Any, cast
from urllib.parse import urlencode

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call, Database, close_in_thread, drive
from agent_stores.backends.sql.errors import PoolTimeout
from agent_stores.backends.sql.statements import BEGIN_WRITE, Values
from agent_stores.errors import ArgumentError
from agent_stores.inline import may_block
from agent_stores.thread_pool import ThreadPool

_READERS = 4  # connections that read one file at the same time
_PAUSE = 0.01  # seconds between two attempts to change a file's mode
_OPTIONS = {"timeout", "detect_types", "cached_statements", "factory"}
_of_the_parent: list[object] = []
"""Connections that a forked child has of its parent: closing them would disturb the parent's locks."""


class SQLiteDatabase(Database):
    """An SQLite file, or a database in memory, which has one connection only."""

    supports_inline = True

    def __init__(self, config: Config) -> None:
        super().__init__(config, "?")
        self._path, self._arguments = _connect_arguments(config)
        size = config.engine_options.get("pool_size") or config.max_connections
        self._readers = 0 if config.is_memory else max(0, min(_READERS, size - 1, config.max_connections - 1))
        self._reset()

    def _reset(self) -> None:
        self._idle: list[sqlite3.Connection] = []  # the one that was used last is used next
        self._writing = threading.Lock()
        self._reading = threading.Semaphore(self._readers) if self._readers else self._writing
        self._threads: dict[bool, ThreadPool] = {}
        self._lock = threading.Lock()

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        if may_block():
            return self._perform(call, deadline)
        threads = self._threads.get(call.write) or self._start_threads(call.write)
        return await threads.run(deadline - time.monotonic(), self._perform, call, deadline)

    def _perform(self, call: Call, deadline: float) -> Any:
        """Run a call on this thread."""
        if not self.ready:
            self._prepare(deadline)
        gate = self._writing if call.write else self._reading
        if not gate.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise PoolTimeout("other calls of this process use the file")
        conn = None
        try:
            conn = self._connect()
            call.begin(conn.interrupt)
            if call.steps is None:
                call.committing = call.write
                result = _execute(conn, *call.statement)
            else:
                conn.execute("BEGIN IMMEDIATE" if call.write else "BEGIN")
                result = drive(call.steps(), partial(_execute, conn))
                call.commit()
                conn.execute("COMMIT")
            call.committing = False
            return result
        finally:
            call.begin(None)
            self._release(conn)
            gate.release()

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            conn: sqlite3.Connection = sqlite3.connect(self._path, **self._arguments)
            return conn

    def _release(self, conn: sqlite3.Connection | None) -> None:
        """Let another call use a connection, after undoing what was not committed."""
        if conn is None:
            return
        try:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            self._idle.append(conn)
        except sqlite3.Error:  # whatever it is, the next call gets another connection
            conn.close()

    def _prepare(self, deadline: float) -> None:
        with self.ready_lock, self._writing:
            if self.ready:
                return
            conn = self._connect()
            try:
                use_wal(conn, deadline, read_only="mode=ro" in self._path)
                drive(self.prepare_steps(), partial(_execute, conn))
                if conn.in_transaction:
                    conn.execute("COMMIT")
                self.ready = True
            finally:
                self._release(conn)

    def _start_threads(self, write: bool) -> ThreadPool:
        with self._lock:
            if not self._threads:
                writing = ThreadPool(1, "agent-stores-write")
                reading = ThreadPool(self._readers, "agent-stores-read") if self._readers else writing
                self._threads = {True: writing, False: reading}
            return self._threads[write]

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        await close_in_thread(self.close_at_exit)

    def close_at_exit(self) -> None:
        """See `Database.close_at_exit`; waits for what is running."""
        with self._lock:
            threads, self._threads = set(self._threads.values()), {}
        for each in threads:
            each.close(self.config.timeout)
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def reset_after_fork(self) -> None:
        """See `Database.reset_after_fork`."""
        _of_the_parent.append(self._idle)
        self.ready_lock = threading.Lock()
        self._reset()


def use_wal(conn: Any, deadline: float, *, read_only: bool = False) -> None:
    """Switch an SQLite file to write-ahead logging, so that readers and a writer do not wait for each other.

    The mode stays with the file. Switching does not wait for locks by itself, so it is tried again.

    Args:
        conn: the driver's connection, in no transaction.
        deadline: when to give up, by `time.monotonic`.
        read_only: whether the file cannot be written.
    """
    while True:
        cursor = conn.cursor()
        try:
            cursor.execute("PRAGMA journal_mode")
            if read_only or cursor.fetchone()[0] in ("wal", "memory"):
                return
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "readonly" in str(error):
                return  # reading works without it
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        finally:
            cursor.close()
        time.sleep(_PAUSE)


def _execute(conn: sqlite3.Connection, text: str, values: Values) -> Any:
    if text is BEGIN_WRITE:
        return None if conn.in_transaction else conn.execute("BEGIN IMMEDIATE")
    cursor = conn.execute(text, values)
    return cursor.rowcount if cursor.description is None else cursor.fetchall()


def _connect_arguments(config: Config) -> tuple[str, dict[str, Any]]:
    """The name of the file, and the further arguments of `sqlite3.connect`.

    Raises:
        ArgumentError: for an option that it does not have.
    """
    # Transactions are begun by hand: BEGIN IMMEDIATE waits for the lock, an upgrade cannot. SQLite's time-out
    # is shorter than ours, as SQLite says what it waited for.
    arguments = {"timeout": config.timeout * 0.8, "check_same_thread": False, "isolation_level": None}
    name, query = config.url.database or ":memory:", dict(config.url.query)
    given = {key: query.pop(key) for key in tuple(query) if key in ("timeout", "uri")}
    if name.startswith("file:"):
        arguments["uri"] = True
        name += ("&" if "?" in name else "?") + urlencode(query, doseq=True) if query else ""
    options = config.engine_options.get("connect_args", {})
    unknown = {*({} if name.startswith("file:") else query), *set(options) - _OPTIONS}
    if unknown:
        raise ArgumentError(
            f"options of the connection must be known to sqlite3, got {', '.join(sorted(unknown))}"
        )
    with contextlib.suppress(ValueError):
        arguments["timeout"] = float(cast("str", given.get("timeout", arguments["timeout"])))
    return name, {**arguments, **options}
