"""A database as the backend uses it: statements and transactions, with time-outs and retries."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from agent_stores.backend import Limits
from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.errors import Failure, PoolTimeout, classify, translate_error
from agent_stores.backends.sql.schema import Schema
from agent_stores.backends.sql.statements import BEGIN, Abort, Statement, Statements, Steps, Style
from agent_stores.connection_registry import SharedConnection
from agent_stores.errors import AgentStoresError
from agent_stores.inline import may_block

T = TypeVar("T")

_LARGEST_BODY = 500_000_000  # bytes; SQLite and PostgreSQL hold values up to about twice that
_ATTEMPTS = 8  # of a transaction that the database asks to try again
_LOST = 3  # connections that are found lost, of a caller's pool, before a call gives up
_FIRST_PAUSE = 0.005  # seconds before the second attempt; doubles, with jitter
_UNKNOWN = (Failure.UNAVAILABLE, Failure.TIMED_OUT, Failure.OTHER)  # a write may have taken effect


class DuplicateRow(Exception):
    """A row exists already; nothing was written."""


class Call:
    """One attempt of a statement, or of the transaction whose steps `steps` makes.

    Attributes:
        committing: whether the write may have taken effect.
        connection: what is interrupted when the time is up.
        timed_out: whether the time was up; nothing is written from then on, unless that had begun.
    """

    __slots__ = ("_lock", "committing", "connection", "statement", "steps", "timed_out", "write")

    def __init__(self, statement: Statement, steps: Callable[[], Steps[Any]] | None, write: bool) -> None:
        self.statement = statement
        self.steps = steps
        self.write = write
        self.committing = self.timed_out = False
        self.connection: Any = None
        self._lock = threading.Lock()

    def commit(self) -> None:
        """Note that the write may take effect from now on, unless the time was up."""
        with self._lock:
            if self.timed_out:
                raise PoolTimeout("the time was up")
            self.committing = self.write

    def end(self) -> None:
        """Note that the connection is no longer this call's."""
        with self._lock:
            self.connection = None

    def time_out(self, interrupt: Callable[[Any], Any]) -> None:
        """Give up because the time is up; `interrupt` wakes who waits for a connection's server."""
        with self._lock:
            self.timed_out = True
            if self.connection is not None:
                interrupt(self.connection)


class Database(SharedConnection, ABC):
    """A database and our connections to it; shared by the backends of a process that name it alike.

    Attributes:
        supports_inline, loop_independent: see `agent_stores.backend.Backend`.
        limits: what it can store; for MariaDB known from the first connection on.
        ready: whether the tables are known to exist.
    """

    supports_inline = False
    loop_independent = True

    def __init__(self, config: Config, style: Style) -> None:
        self.config = config
        self.dialect = config.dialect
        self.users = 0
        self.schema = Schema(config.dialect, config.table_prefix, config.place)
        self.statements = Statements(config.dialect, config.table_prefix, style)
        self.limits = Limits(body_bytes=None if config.dialect == "mariadb" else _LARGEST_BODY)
        self.ready = False

    async def run(
        self,
        statement: Statement = ("", ()),
        *,
        steps: Callable[[], Steps[Any]] | None = None,
        write: bool = False,
        repeatable: bool = False,
    ) -> Any:
        """Run a statement, or a transaction that writes, whose steps may be made more than once.

        `write`: whether the statement writes. `repeatable`: whether it may be tried again when it may have
        taken effect. Returns the rows of the statement, or how many it changed; what the steps return.

        Raises:
            Abort: when the steps raise it.
            DuplicateRow: when a unique index rejects a row.
            StoreError: nothing was written.
            OutcomeUnknownError: it may or may not have taken effect.
        """
        deadline = time.monotonic() + self.config.timeout
        write = write or steps is not None
        lost = attempt = 0
        while True:
            call = Call(statement, steps, write)
            try:
                return await self.attempt(call, deadline)
            except (Abort, AgentStoresError):
                raise
            except Exception as error:
                if isinstance(error, asyncio.TimeoutError):
                    call.time_out(self._interrupt)
                failure = Failure.TIMED_OUT if call.timed_out else classify(error, self.dialect)
                if failure is Failure.DUPLICATE:
                    raise DuplicateRow from None
                unknown = call.committing and failure in _UNKNOWN
                is_lost = failure is Failure.UNAVAILABLE and getattr(error, "connection_invalidated", False)
                lost += is_lost
                attempt += 1
                again = is_lost and lost <= _LOST and (repeatable or not unknown)
                if (
                    not (again or failure is Failure.TRANSIENT)
                    or attempt == _ATTEMPTS
                    or time.monotonic() > deadline
                ):
                    raise translate_error(
                        error, failure, self.config, write=write, may_have_applied=unknown
                    ) from None
                if failure is Failure.TRANSIENT:
                    # Serialization failures end with the isolation level of our transactions.
                    steps = steps or (lambda: _transaction(statement))
            pause = min(_FIRST_PAUSE * 2**attempt, 0.2) * random.uniform(0.5, 1.5)  # noqa: S311
            if may_block():
                time.sleep(pause)  # noqa: ASYNC251 - there is no loop to block
            else:
                await asyncio.sleep(pause)

    def prepare_steps(self) -> Steps[None]:
        """Creates the tables unless they exist, and checks that they are ours and of our version."""
        schema = self.schema
        if not (yield from schema.check()):
            # One client at a time: creating a table twice at once is an error.
            lock = f"'agent_stores:{schema.prefix}'"
            yield BEGIN
            if self.dialect == "postgresql":
                yield f"SELECT pg_advisory_xact_lock(hashtext({lock}))", ()
            elif self.dialect == "mariadb":
                yield f"SELECT GET_LOCK({lock}, {self.config.timeout:.0f})", ()
            if not (yield from schema.check()):
                for text in schema.create():
                    yield self.statements.named(text), ()
            if self.dialect == "mariadb":
                yield f"SELECT RELEASE_LOCK({lock})", ()
        if self.dialect == "mariadb":
            [(packet,)] = yield "SELECT @@max_allowed_packet", ()
            # Quotes and backslashes are escaped on the way, which at worst doubles a message.
            self.limits = Limits(body_bytes=int(packet) // 2 - 65536)

    @staticmethod
    @abstractmethod
    def _interrupt(connection: Any) -> None: ...

    @abstractmethod
    async def attempt(self, call: Call, deadline: float) -> Any:
        """Run a call once; raises the driver's errors, and `asyncio.TimeoutError` after the deadline.

        An error of a connection that was lost has a true attribute ``connection_invalidated``.
        """


def _transaction(statement: Statement) -> Steps[Any]:
    yield BEGIN
    return (yield statement)


def drive(steps: Steps[T], execute: Callable[..., Any]) -> T:
    """Run the steps of a transaction; `execute` returns the rows of a statement, or how many it changed."""
    result: Any = None
    try:
        while True:
            result = execute(*steps.send(result))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
