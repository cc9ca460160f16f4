"""Our own connections to an SQLite file, which stay open."""

from __future__ import annotations

import contextlib
import threading
import time

from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent_stores.stores.database.statements import DirectTransaction

_abandoned: list[object] = []
"""Connections that a forked child has of its parent: to close them would disturb the parent's locks."""


class FileConnections:
    """One connection to write with, as SQLite lets only one write at a time, and some to read with.

    Args:
        engine: makes them.
        readers: how many to read with; with 0, the one to write with serves both.
    """

    def __init__(self, engine: Engine, readers: int) -> None:
        self.engine = engine
        self.readers = readers
        self._writer: DirectTransaction | None = None
        self._writing = threading.Lock()
        self._idle: list[DirectTransaction] = []
        self._made = 0
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, *, write: bool, timeout: float) -> DirectTransaction:
        """A connection that nobody else uses.

        Raises:
            sqlalchemy.exc.TimeoutError: when there is none within so many seconds.
            sqlalchemy.exc.DBAPIError: when the file cannot be opened.
        """
        if not write and self.readers:
            try:
                return self._idle.pop()
            except IndexError:
                return self._wait_for_reader(timeout)
        if not self._writing.acquire(timeout=timeout):
            raise PoolTimeoutError("another call of this process is writing")
        if self._writer is None:
            try:
                self._writer = DirectTransaction(self.engine.connect())
            except BaseException:
                self._writing.release()
                raise
        return self._writer

    def give_back(self, transaction: DirectTransaction) -> None:
        """Let others use a connection; what was begun and not committed is undone."""
        is_whole = _reset(transaction)
        if transaction is self._writer:
            if not is_whole:
                transaction.conn.close()
                self._writer = None
            self._writing.release()
            return
        if is_whole and not self._closed:
            self._idle.append(transaction)
        else:
            transaction.conn.close()
            with self._changed:
                self._made -= 1
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def close(self, timeout: float) -> None:
        """Close the connections; waits so many seconds for the one that writes."""
        self._closed = True
        if self._writing.acquire(timeout=timeout):
            if self._writer is not None:
                self._writer.conn.close()
                self._writer = None
            self._writing.release()
        while self._idle:
            self._idle.pop().conn.close()
        self.engine.dispose()

    def abandon(self) -> None:
        """After a fork: leave the connections as they are, to the parent."""
        _abandoned.extend((self._writer, self._idle))
        self.engine.dispose(close=False)

    def _wait_for_reader(self, timeout: float) -> DirectTransaction:
        deadline = time.monotonic() + timeout
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    with contextlib.suppress(IndexError):
                        return self._idle.pop()
                    if self._made < self.readers:
                        self._made += 1
                        break
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        raise PoolTimeoutError("other calls of this process are reading")
            finally:
                self._waiting -= 1
        try:
            return DirectTransaction(self.engine.connect())
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise


def _reset(transaction: DirectTransaction) -> bool:
    """Undo what is not committed; False when the connection had to be closed."""
    try:
        transaction.end()
    except Exception:  # whatever it is, the next call gets another connection
        transaction.conn.invalidate()
        return False
    return True
