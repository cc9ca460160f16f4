"""SQLite by the standard library: one call writes and a few read at the same time; connections stay open."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlencode

from agent_stores.backends.sql.config import Config, check_options
from agent_stores.backends.sql.database import Call
from agent_stores.backends.sql.engines import EngineDatabase
from agent_stores.backends.sql.errors import PoolTimeout

_READERS = 4  # connections that read one file at the same time
_OPTIONS = {"timeout", "detect_types", "cached_statements", "factory"}
_of_the_parent: list[object] = []
"""Connections that a forked child has of its parent: closing them would disturb the parent's locks."""


class SQLiteDatabase(EngineDatabase):
    """An SQLite file, or a database in memory, which has one connection only."""

    def __init__(self, config: Config) -> None:
        self._path, self._arguments = _connect_arguments(config)
        size = min(config.engine_options.get("pool_size") or config.max_connections, config.max_connections)
        self._readers = 0 if config.is_memory else max(0, min(_READERS, size - 1))
        self._idle: list[sqlite3.Connection] = []  # the one that was used last is used next
        super().__init__(config, None, readers=self._readers or 1, writers=1 if self._readers else None)

    def _checkout(self, call: Call, deadline: float) -> Any:
        try:
            self._tokens[call.write].get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise PoolTimeout("other calls of this process use the file") from None
        try:
            return self._idle.pop() if self._idle else sqlite3.connect(self._path, **self._arguments)
        except BaseException:
            self._tokens[call.write].put(None)
            raise

    def _checkin(self, call: Call, conn: sqlite3.Connection) -> None:
        try:
            if conn.in_transaction:
                conn.rollback()
            self._idle.append(conn)
        except sqlite3.Error:  # whatever it is, the next call gets another connection
            conn.close()
        self._tokens[call.write].put(None)

    def _roll_back(self, conn: sqlite3.Connection, error: BaseException) -> None:
        """Nothing: `_checkin` does it."""

    def _execute(self, conn: sqlite3.Connection, text: str, values: Any) -> Any:
        if type(values) is list:
            return conn.executemany(text, values).rowcount
        cursor = conn.execute(text, values)
        return cursor.rowcount if cursor.description is None else cursor.fetchall()

    def _disconnect(self, *, close: bool = True) -> None:
        idle, self._idle = self._idle, []
        if close:
            for conn in idle:
                conn.close()
            return
        _of_the_parent.extend(idle)
        # Queues from which a call takes a token before it takes a connection; by whether it writes.
        writing: SimpleQueue[None] = SimpleQueue()
        reading: SimpleQueue[None] = SimpleQueue() if self._readers else writing
        for tokens in (writing, *[reading] * self._readers):
            tokens.put(None)
        self._tokens = {False: reading, True: writing}


def _connect_arguments(config: Config) -> tuple[str, dict[str, Any]]:
    """The name of the file, and the further arguments of `sqlite3.connect`."""
    name, query = config.url.database or ":memory:", dict(config.url.query)
    # SQLite's time-out is shorter than ours, as SQLite says what it waited for.
    arguments: dict[str, Any] = {"timeout": config.timeout * 0.8}
    with contextlib.suppress(KeyError, TypeError, ValueError):
        arguments["timeout"] = float(query.pop("timeout"))  # type: ignore[arg-type]
    query.pop("uri", None)
    options = config.engine_options.get("connect_args", {})
    is_uri = name.startswith("file:")
    check_options(options if is_uri else {**options, **query}, _OPTIONS, "sqlite3")
    if is_uri and query:
        name += ("&" if "?" in name else "?") + urlencode(query, doseq=True)
    arguments |= {"check_same_thread": False, "isolation_level": None, "uri": is_uri}
    return name, {**arguments, **options}
