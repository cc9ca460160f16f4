"""A database as the backend uses it: statements and transactions, with time-outs and retries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from agent_stores.attempts import Attempts, FailedAttempt
from agent_stores.backend import Limits
from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.errors import Failure, PoolTimeout, classify, describe, translate_error
from agent_stores.backends.sql.schema import check_tables, create_tables
from agent_stores.backends.sql.statements import Abort, Statements, Steps, Style, Work
from agent_stores.connection_pool import SharedConnection
from agent_stores.errors import AgentStoresError

T = TypeVar("T")

_LARGEST_BODY = 500_000_000  # bytes; SQLite and PostgreSQL hold values up to about twice that
_ATTEMPTS = 8  # of what the database asks to try again, or of which the connection is found lost
_UNKNOWN = (Failure.UNAVAILABLE, Failure.OTHER)  # a write may have taken effect


class Call:
    """A statement or a transaction, and how far its present attempt is.

    Attributes:
        committing: whether the write may have taken effect.
        connection: what is interrupted when the time is up; changed and used under the lock.
        stepwise: whether it runs in a transaction of several statements, or is a statement that needs one.
    """

    __slots__ = ("committing", "connection", "lock", "stepwise", "work", "write")

    def __init__(self, work: Work, write: bool) -> None:
        self.work, self.write = work, write
        self.stepwise: bool = callable(work)
        self.committing = False
        self.connection: Any = None
        self.lock = threading.Lock()

    def steps(self, begin: str, deadline: float, *, ends: bool = True) -> Steps[Any]:
        """The steps of an attempt, with those that begin and, where it `ends` here, end its transaction."""
        if self.write:
            yield begin, ()
        result = (yield from self.work()) if callable(self.work) else (yield self.work)
        self.commit(deadline)
        if self.write and ends:
            yield "COMMIT", ()
        return result

    def commit(self, deadline: float) -> None:
        """Note that the write may take effect from now on, unless the time is up.

        It is noted before the time is read: who is called when the time is up reads the note.
        """
        self.committing = self.write
        if time.monotonic() >= deadline:
            self.committing = False
            raise PoolTimeout("the time was up")


class Database(SharedConnection, ABC):
    """A database and our connections to it; shared by the backends of a process that name it alike.

    Attributes:
        supports_inline, loop_independent: see `agent_stores.backend.Backend`.
        limits: what it can store; for MariaDB that of its default settings, until the first connection.
        ready: whether the tables are known to exist.
        sql: makes its statements.
    """

    supports_inline = False
    loop_independent = True

    def __init__(self, config: Config, style: Style) -> None:
        self.config, self.dialect = config, config.dialect
        self.users = 0
        self.attempts = Attempts(config.location, timeout=config.timeout, limit=_ATTEMPTS, first_pause=0.01)
        self.sql = Statements(config.dialect, config.table_prefix, style)
        self.limits = Limits(body_bytes=_body_bytes(2**24) if config.dialect == "mariadb" else _LARGEST_BODY)
        self.ready = False

    def run(self, work: Work, *, write: bool = False, repeatable: bool = False) -> Coroutine[Any, Any, Any]:
        """Run a statement, or a transaction that writes, and return its result.

        `write`: whether a statement writes. `repeatable`: whether it may be tried again when it may have
        taken effect.

        Raises:
            Abort: when the steps raise it, and when a unique index rejects a row.
            StoreError: nothing was written.
            OutcomeUnknownError: it may or may not have taken effect.
        """
        call = Call(work, write or callable(work))
        attempt = partial(self.attempt if self.ready else self._first_attempt, call)
        explain = partial(self._explain, call)
        return self.attempts.run(attempt, explain, write=call.write, repeatable=repeatable)

    def _explain(self, call: Call, error: Exception) -> FailedAttempt | None:
        """What an error means; for the next attempt, the call is as at its begin."""
        if isinstance(error, (Abort, AgentStoresError)):
            return None
        if isinstance(error, asyncio.TimeoutError):
            with call.lock:
                interrupt(call.connection)
        failure, was_committing = classify(error, self.dialect), call.committing
        if failure is Failure.DUPLICATE:
            raise Abort from None
        call.committing = False
        # Serialization failures end with the isolation level of our transactions.
        call.stepwise |= failure is Failure.TRANSIENT
        is_lost = failure is Failure.UNAVAILABLE and getattr(error, "connection_invalidated", False)
        return FailedAttempt(
            translate_error(error, self.config, write=call.write),
            describe(error, self.config),
            may_retry=is_lost or failure is Failure.TRANSIENT,
            may_have_applied=was_committing and failure in _UNKNOWN,
        )

    async def _first_attempt(self, call: Call, deadline: float) -> Any:
        """Before the call, check that the tables are ours and of our version, or create them."""
        if not self.ready:
            arguments = self.sql, self.config.location, self.config.notify
            if not await self.attempt(Call(partial(check_tables, *arguments), False), deadline):
                await self.attempt(Call(partial(create_tables, *arguments), True), deadline)
            if self.dialect == "mariadb":
                packet = self.sql("SELECT @@max_allowed_packet")
                [(size,)] = await self.attempt(Call(packet, False), deadline)
                self.limits = Limits(body_bytes=_body_bytes(int(size)))
            self.ready = True
        return await self.attempt(call, deadline)

    @abstractmethod
    async def attempt(self, call: Call, deadline: float) -> Any:
        """Run a call once; raises the driver's errors, and `asyncio.TimeoutError` after the deadline.

        An error of a connection that was lost has a true attribute ``connection_invalidated``.
        """


def drive(steps: Steps[T], execute: Callable[..., Any], conn: Any) -> T:
    """Run the steps of a transaction on a connection."""
    result: Any = None
    try:
        while True:
            result = execute(conn, *steps.send(result))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def interrupt(connection: Any) -> None:
    """Wake who waits for a connection's server: shut its socket down, or interrupt SQLite."""
    connection = getattr(connection, "driver_connection", connection)
    with contextlib.suppress(Exception):
        if hasattr(connection, "interrupt"):
            connection.interrupt()
        elif hasattr(connection, "fileno"):
            with socket.socket(fileno=os.dup(connection.fileno())) as raw:
                raw.shutdown(socket.SHUT_RDWR)
        elif (own := getattr(connection, "_sock", None)) is not None:
            own.shutdown(socket.SHUT_RDWR)


def _body_bytes(packet: int) -> int:
    """The largest body in a packet of MariaDB: quotes are escaped on the way, which at worst doubles it."""
    return packet // 2 - 65536
