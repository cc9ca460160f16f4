"""One run of an operation in a transaction, which its caller may give up on."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from agent_stores.stores.database.statements import Transaction

T = TypeVar("T")

Operation = Callable[[Transaction], T]
"""A function that does its work in a transaction; it may be run more than once."""


class Call:
    """One run of an operation: lets the caller give up on it without leaving it half done."""

    def __init__(self, *, write: bool) -> None:
        self.write = write
        self.committing = False
        self._abandoned = False
        self._connection: Any = None
        self._lock = threading.Lock()

    def transact(self, transaction: Transaction, operation: Operation[T]) -> T:
        """Run the operation in a transaction, and commit unless the caller gave up."""
        with self._lock:
            self._connection = transaction.dbapi_connection
            if self._abandoned:
                raise AbandonedError
        try:
            transaction.begin(write=self.write)
            result = operation(transaction)
            if self.write:
                with self._lock:
                    if self._abandoned:
                        raise AbandonedError
                    self.committing = True
                transaction.commit()
                self.committing = False
            return result
        finally:
            with self._lock:
                self._connection = None

    def abandon(self, *, hung: bool = False) -> bool:
        """Give up: nothing is written from now on. False when it is being committed already.

        A commit in progress is left to end by itself, unless the server hangs.
        """
        with self._lock:
            if not self.committing:
                self._abandoned = True
            if self._abandoned or hung:
                _interrupt(self._connection)
            return self._abandoned


class AbandonedError(Exception):
    """The caller does not wait any more."""


def _interrupt(connection: Any) -> None:
    """Wake a thread that waits for a server: shut the socket down, or interrupt SQLite."""
    if connection is None:
        return
    try:
        if hasattr(connection, "interrupt"):
            connection.interrupt()
        elif hasattr(connection, "fileno"):
            with socket.socket(fileno=os.dup(connection.fileno())) as raw:
                raw.shutdown(socket.SHUT_RDWR)
        elif (own := getattr(connection, "_sock", None)) is not None:
            own.shutdown(socket.SHUT_RDWR)
    except Exception:  # noqa: S110 - it is closed already, or the driver has no socket to show
        pass
