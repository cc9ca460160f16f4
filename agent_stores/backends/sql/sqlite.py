"""SQLite by the standard library: one call writes and a few read at the same time; connections stay open."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlencode

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call, ThreadedDatabase, drive
from agent_stores.backends.sql.errors import PoolTimeout
from agent_stores.errors import ArgumentError

_READERS = 4  # connections that read one file at the same time
_PAUSE = 0.01  # seconds between two attempts to change a file's mode
_OPTIONS = {"timeout", "detect_types", "cached_statements", "factory"}
_of_the_parent: list[object] = []
"""Connections that a forked child has of its parent: closing them would disturb the parent's locks."""


class SQLiteDatabase(ThreadedDatabase):
    """An SQLite file, or a database in memory, which has one connection only."""

    supports_inline = True

    def __init__(self, config: Config) -> None:
        self._path, self._arguments = _connect_arguments(config)
        size = min(config.engine_options.get("pool_size") or config.max_connections, config.max_connections)
        readers = 0 if config.is_memory else max(0, min(_READERS, size - 1))
        super().__init__(config, "?", readers=readers or 1, writers=1 if readers else None)
        self._gates = {True: _tokens(1), False: _tokens(readers)}
        if not readers:
            self._gates[False] = self._gates[True]
        self._idle: list[sqlite3.Connection] = []  # the one that was used last is used next

    def perform(self, call: Call, deadline: float) -> Any:
        """See `ThreadedDatabase.perform`."""
        if not self.ready:
            self._prepare(deadline)
        gate = self._gates[call.write]
        try:
            gate.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise PoolTimeout("other calls of this process use the file") from None
        conn = None
        try:
            conn = self._connect()
            call.interrupt = conn.interrupt
            if call.steps is None:
                call.commit()
                return _execute(conn, *call.statement)
            result = drive(call.steps(), partial(_execute, conn))
            call.commit()
            conn.execute("COMMIT")
            return result
        finally:
            call.end()
            self._release(conn)
            gate.put(None)

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
        with self.ready_lock:
            if self.ready:
                return
            conn = self._connect()
            try:
                use_wal(conn, deadline)
                drive(self.prepare_steps(), partial(_execute, conn))
                conn.commit()
                self.ready = True
            finally:
                self._release(conn)

    def disconnect(self) -> None:
        """See `ThreadedDatabase.disconnect`."""
        while self._idle:
            self._idle.pop().close()

    def reset_after_fork(self) -> None:
        """See `ThreadedDatabase.reset_after_fork`."""
        _of_the_parent.append(getattr(self, "_idle", None))
        super().reset_after_fork()
        self._idle = []


def use_wal(conn: Any, deadline: float) -> None:
    """Switch an SQLite file to write-ahead logging, so that readers and a writer do not wait for each other.

    The mode stays with the file. Switching does not wait for locks by itself, so it is tried again.

    Args:
        conn: the driver's connection, in no transaction.
        deadline: when to give up, by `time.monotonic`.
    """
    while True:
        cursor = conn.cursor()
        try:
            cursor.execute("PRAGMA journal_mode")
            if cursor.fetchone()[0] not in ("wal", "memory"):
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


def _execute(conn: sqlite3.Connection, text: str, values: Any) -> Any:
    if type(values) is list:
        return conn.executemany(text, values).rowcount
    # BEGIN alone waits for the lock only when it writes, and then SQLite may not wait for it.
    cursor = conn.execute("BEGIN IMMEDIATE" if text == "BEGIN" else text, values)
    return cursor.rowcount if cursor.description is None else cursor.fetchall()


def _tokens(count: int) -> SimpleQueue[None]:
    """A queue from which as many calls may take a token at the same time."""
    tokens: SimpleQueue[None] = SimpleQueue()
    for _ in range(count):
        tokens.put(None)
    return tokens


def _connect_arguments(config: Config) -> tuple[str, dict[str, Any]]:
    """The name of the file, and the further arguments of `sqlite3.connect`.

    Raises:
        ArgumentError: for an option that it does not have.
    """
    # SQLite's time-out is shorter than ours, as SQLite says what it waited for.
    arguments = {"timeout": config.timeout * 0.8, "check_same_thread": False, "isolation_level": None}
    name, query = config.url.database or ":memory:", dict(config.url.query)
    given = {key: query.pop(key) for key in tuple(query) if key in ("timeout", "uri")}
    options = config.engine_options.get("connect_args", {})
    unknown = set(options) - _OPTIONS
    if name.startswith("file:"):
        arguments["uri"] = True
        name += ("&" if "?" in name else "?") + urlencode(query, doseq=True) if query else ""
    else:
        unknown |= set(query)
    if unknown:
        raise ArgumentError(
            f"options of the connection must be known to sqlite3, got {', '.join(sorted(unknown))}"
        )
    with contextlib.suppress(ValueError, TypeError):
        arguments["timeout"] = float(given.get("timeout", arguments["timeout"]))  # type: ignore[arg-type]
    return name, {**arguments, **options}
