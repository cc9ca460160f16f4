"""Databases with drivers that block: calls run on worker threads, or on the caller's where that may block."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from abc import abstractmethod
from functools import partial
from typing import Any

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call, Database, drive
from agent_stores.backends.sql.statements import Style
from agent_stores.inline import may_block
from agent_stores.thread_pool import ThreadPool


class ThreadedDatabase(Database):
    """Calls run on `readers` and `writers` threads; without writers, the readers write."""

    begin = "BEGIN IMMEDIATE"
    """Begins a transaction. On SQLite at once, as one that reads first cannot wait for the lock."""

    is_autocommit = True
    """Whether a statement is a transaction, unless one was begun."""

    def __init__(self, config: Config, style: Style, *, readers: int, writers: int | None = None) -> None:
        super().__init__(config, style)
        self._sizes = readers, writers
        self.reset_after_fork()

    @abstractmethod
    def _checkout(self, call: Call, deadline: float) -> Any: ...

    @abstractmethod
    def _checkin(self, call: Call, conn: Any) -> None: ...

    @abstractmethod
    def _execute(self, conn: Any, text: str, values: Any) -> Any:
        """The rows of a statement, or how many it changed."""

    @abstractmethod
    def _disconnect(self) -> None: ...

    def _begin(self, conn: Any) -> None:
        self._execute(conn, self.begin, ())

    def _roll_back(self, conn: Any, error: BaseException) -> None:
        """What has to be done after an error, before the connection is checked in."""

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        if self.supports_inline and may_block():
            return self._perform(call, deadline)
        threads = self._writing if call.write else self._reading
        return await threads.run(deadline, self._perform, call, deadline)

    def _perform(self, call: Call, deadline: float) -> Any:
        """Run a call on this thread."""
        conn = self._checkout(call, deadline)
        try:
            return self._use(conn, call, deadline)
        finally:
            self._checkin(call, conn)

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
                if self.is_autocommit:
                    return result
            conn.commit()
            return result
        except BaseException as error:
            self._roll_back(conn, error)
            raise
        finally:
            call.end()

    def _write_ahead(self, conn: Any, deadline: float) -> None:
        """Switch a file to write-ahead logging: readers and a writer do not wait for each other then."""
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

    @staticmethod
    def _interrupt(connection: Any) -> None:
        """Wake a thread that waits for a server: shut the socket down, or interrupt SQLite."""
        connection = getattr(connection, "driver_connection", connection)
        with contextlib.suppress(Exception):
            if hasattr(connection, "interrupt"):
                connection.interrupt()
            elif hasattr(connection, "fileno"):
                with socket.socket(fileno=os.dup(connection.fileno())) as raw:
                    raw.shutdown(socket.SHUT_RDWR)
            elif (own := getattr(connection, "_sock", None)) is not None:
                own.shutdown(socket.SHUT_RDWR)

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

    def reset_after_fork(self) -> None:
        """Begin with threads of this process's own."""
        readers, writers = self._sizes
        self._reading = ThreadPool(readers, "agent-stores-read")
        self._writing = self._reading if writers is None else ThreadPool(writers, "agent-stores-write")
