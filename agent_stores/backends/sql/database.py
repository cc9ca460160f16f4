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
from agent_stores.backends.sql.statements import BEGIN_WRITE, Abort, Statements, Steps, Style, Values
from agent_stores.errors import AgentStoresError
from agent_stores.inline import may_block

T = TypeVar("T")

_LARGEST_BODY = 500_000_000  # bytes; SQLite and PostgreSQL hold values up to about twice that
_ATTEMPTS = 8  # of a transaction that the database asks to try again
_LOST = 3  # connections that are found lost, of a caller's pool, before a call gives up
_FIRST_PAUSE = 0.005  # seconds before the second attempt; doubles, with jitter


class DuplicateRow(Exception):
    """A row exists already; nothing was written."""


class Call:
    """One attempt of a statement or a transaction, which its caller may give up on.

    Attributes:
        statement: the text of the statement, and its values.
        steps: makes the steps of the transaction instead.
        write: whether it writes.
        attempt: how often it was tried before.
        committing: whether the write may have taken effect.
        timed_out: whether the time was up.
    """

    __slots__ = (
        "_abandoned",
        "_interrupt",
        "_lock",
        "attempt",
        "committing",
        "statement",
        "steps",
        "timed_out",
        "write",
    )

    def __init__(
        self,
        statement: tuple[str, Values],
        steps: Callable[[], Steps[Any]] | None,
        write: bool,
        attempt: int = 0,
    ) -> None:
        self.statement = statement
        self.steps = steps
        self.write = write
        self.attempt = attempt
        self.committing = self.timed_out = self._abandoned = False
        self._interrupt: Callable[[], Any] | None = None
        self._lock = threading.Lock()

    def begin(self, interrupt: Callable[[], Any] | None) -> None:
        """Note what wakes a thread that waits for the connection; None when the call ends."""
        with self._lock:
            self._interrupt = interrupt
            if self._abandoned and interrupt is not None:
                raise PoolTimeout("the caller gave up")

    def commit(self) -> None:
        """Note that the write may take effect from now on, unless the caller gave up."""
        with self._lock:
            if self._abandoned:
                raise PoolTimeout("the caller gave up")
            self.committing = self.write

    def abandon(self) -> None:
        """Give up: nothing is written from now on. A commit in progress is left to end by itself."""
        with self._lock:
            self._abandoned = not self.committing
            if self._interrupt is not None and (self._abandoned or self.timed_out):
                self._interrupt()

    def time_out(self) -> None:
        """Give up because the time is up, and on a commit in progress, too."""
        self.timed_out = True
        self.abandon()


class Database(ABC):
    """A database and our connections to it; shared by the backends of a process that name it alike.

    Args:
        config: the database.
        style: how the driver marks values.

    Attributes:
        supports_inline, loop_independent: see `agent_stores.backend.Backend`.
        users: how many backends use it.
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
        self.ready_lock = threading.Lock()

    async def run(
        self,
        statement: tuple[str, Values] = ("", ()),
        *,
        steps: Callable[[], Steps[Any]] | None = None,
        write: bool = False,
        repeatable: bool = False,
    ) -> Any:
        """Run a statement, or a transaction, whose steps may be made more than once.

        Args:
            statement: its text and values.
            steps: makes the steps of a transaction instead.
            write: whether it writes.
            repeatable: whether it may be tried again when it may have taken effect.

        Returns:
            The rows of the statement, or how many it changed; what the steps return.

        Raises:
            Abort: when the steps raise it.
            DuplicateRow: when a unique index rejects a row.
            StoreError: nothing was written.
            OutcomeUnknownError: it may or may not have taken effect.
        """
        deadline = time.monotonic() + self.config.timeout
        lost = attempt = 0
        while True:
            call = Call(statement, steps, write, attempt)
            try:
                return await self.attempt(call, deadline)
            except (Abort, AgentStoresError):
                raise
            except asyncio.CancelledError:
                call.abandon()
                raise
            except Exception as error:
                if isinstance(error, asyncio.TimeoutError):
                    call.time_out()
                failure = Failure.TIMED_OUT if call.timed_out else classify(error, self.dialect)
                if failure is Failure.DUPLICATE:
                    raise DuplicateRow from None
                unknown = call.committing and failure in (
                    Failure.UNAVAILABLE,
                    Failure.TIMED_OUT,
                    Failure.OTHER,
                )
                is_broken = failure is Failure.UNAVAILABLE and getattr(error, "connection_invalidated", False)
                lost += is_broken
                attempt += 1
                again = is_broken and lost <= _LOST and (repeatable or not unknown)
                again = again or failure is Failure.TRANSIENT
                if not again or attempt == _ATTEMPTS or time.monotonic() > deadline:
                    raise translate_error(
                        failure, error, self.config, write=write, may_have_applied=unknown
                    ) from None
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
            yield BEGIN_WRITE, ()
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
            packet = yield "SELECT @@max_allowed_packet", ()
            # Quotes and backslashes are escaped on the way, which at worst doubles a message.
            self.limits = Limits(body_bytes=int(packet[0][0]) // 2 - 65536)

    @abstractmethod
    async def attempt(self, call: Call, deadline: float) -> Any:
        """Run a call once; raises the driver's errors, and `asyncio.TimeoutError` after the deadline.

        An error of a connection that was lost has a true attribute ``connection_invalidated``.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Wait for what is running, and close our connections."""

    @abstractmethod
    def close_at_exit(self) -> None:
        """Close the connections at the end of the process, without an event loop."""

    def close_unused(self) -> None:
        """Close the connections when no backend uses them any more; on a thread without an event loop."""
        self.close_at_exit()

    @abstractmethod
    def reset_after_fork(self) -> None:
        """After a fork: connections, threads and locks belong to the parent."""


def drive(steps: Steps[T], execute: Callable[[str, Values], Any]) -> T:
    """Run the steps of a transaction; `execute` returns the rows of a statement, or how many it changed."""
    result: Any = None
    try:
        while True:
            text, values = steps.send(result)
            result = execute(text, values)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def close_in_thread(close: Callable[[], None]) -> None:
    """Close connections on a thread, unless this one may block or no thread begins any more."""
    if may_block():
        close()
        return
    try:
        closing = asyncio.get_running_loop().run_in_executor(None, close)
    except RuntimeError:  # the process ends
        close()
    else:
        await closing
