"""Databases whose drivers block and speak the DB-API: calls run on worker threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from abc import abstractmethod
from functools import partial
from typing import Any, TypeVar

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call, Database, drive
from agent_stores.backends.sql.statements import Style
from agent_stores.inline import may_block
from agent_stores.thread_pool import ThreadPool

T = TypeVar("T")


class ThreadedDatabase(Database):
    """Calls run on `readers` and `writers` worker threads, or on the caller's where that may block.

    Without writers, the readers write. `is_autocommit`: whether a statement is a transaction of its own.
    """

    is_autocommit = True

    def __init__(self, config: Config, style: Style, *, readers: int, writers: int | None = None) -> None:
        super().__init__(config, style)
        self._sizes = readers, writers
        self.reset_after_fork()

    @abstractmethod
    def _checkout(self, call: Call, deadline: float) -> Any: ...

    @abstractmethod
    def _checkin(self, call: Call, conn: Any) -> None: ...

    @abstractmethod
    def _execute(self, conn: Any, text: str, values: Any) -> Any: ...

    @abstractmethod
    def _disconnect(self) -> None: ...

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
            if self.ready:
                return self._use(conn, call)
            with self.ready_lock:
                self._prepare(conn, deadline)
            return self._use(conn, call)
        finally:
            self._checkin(call, conn)

    def _prepare(self, conn: Any, deadline: float) -> None:
        """Create the tables, unless that was done."""
        if not self.ready:
            try:
                if self.dialect == "sqlite":
                    _use_wal(conn, deadline)
                drive(self.prepare_steps(), partial(self._execute, conn))
                conn.commit()
            except BaseException as error:
                self._roll_back(conn, error)
                raise
            self.ready = True

    def _use(self, conn: Any, call: Call) -> Any:
        """Run a call on a connection."""
        execute, steps = self._execute, call.steps
        call.connection = conn if self.loop_independent else None
        try:
            if steps is None:
                call.commit()
                result = execute(conn, *call.statement)
                if self.is_autocommit:
                    return result
            else:
                result = drive(steps(), partial(execute, conn))
                call.commit()
            conn.commit()
            return result
        except BaseException as error:
            self._roll_back(conn, error)
            raise
        finally:
            call.end()

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
        if may_block():
            self.close_at_exit()
            return
        try:
            closing = asyncio.get_running_loop().run_in_executor(None, self.close_at_exit)
        except RuntimeError:  # the process ends, and no thread begins any more
            self.close_at_exit()
        else:
            await closing

    def close_at_exit(self) -> None:
        """Wait for what is running, and close the connections."""
        for threads in {self._reading, self._writing}:
            threads.close(self.config.timeout)
        self._disconnect()

    close_unused = close_at_exit

    def reset_after_fork(self) -> None:
        """Begin with threads and locks of this process's own."""
        readers, writers = self._sizes
        self.ready_lock = threading.Lock()
        self._reading = ThreadPool(readers, "agent-stores-read")
        self._writing = self._reading if writers is None else ThreadPool(writers, "agent-stores-write")


def _use_wal(conn: Any, deadline: float) -> None:
    """Switch an SQLite file to write-ahead logging, so that readers and a writer do not wait for each other.

    The mode stays with the file. Switching does not wait for locks by itself, so it is tried again.
    """
    while True:
        cursor = conn.cursor()
        try:
            cursor.execute("PRAGMA journal_mode")
            if cursor.fetchone()[0] not in ("wal", "memory"):
                cursor.execute("PRAGMA journal_mode=WAL")
            return
        except Exception as error:
            if "readonly" in str(error):
                return  # reading works without it
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        finally:
            cursor.close()
        time.sleep(0.01)
