"""A database as the backend uses it: statements and transactions, with time-outs and retries.

Subclasses connect: `sqlite.SQLiteDatabase`, `postgresql.PostgresDatabase`, `engines.EngineDatabase`.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from agent_stores.backend import Limits
from agent_stores.backends.sql.append_sql import FUNCTIONS
from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.errors import Failure, PoolTimeout, classify, driver_error, translate_error
from agent_stores.backends.sql.schema import Schema
from agent_stores.backends.sql.statements import Statements, Style, Values
from agent_stores.errors import AgentStoresError, OutcomeUnknownError, StoreError, StoreUnavailableError
from agent_stores.event_loops import may_block

T = TypeVar("T")

Steps = Generator[tuple[str, Values], Any, T]
"""The statements of a transaction: yields texts with values; is sent the rows, or the number of rows changed."""

BEGIN_WRITE = "BEGIN"
"""Yielded where a transaction begins to write; SQLite then takes its lock, and others have begun already."""

_LARGEST_BODY = 500_000_000  # bytes; SQLite and PostgreSQL hold values up to about twice that
_ATTEMPTS = 8  # of a transaction that the database asks to try again
_FIRST_PAUSE = 0.005  # seconds before the second attempt; doubles, with jitter


class Abort(Exception):
    """Rolls a transaction back; raised by its steps."""


class DuplicateRow(Exception):
    """A row exists already; nothing was written."""


class Call(Generic[T]):
    """One run of a statement or a transaction, which its caller may give up on.

    Attributes:
        statement: the text of the statement, and its values.
        steps: makes the steps of the transaction instead.
        write: whether it writes.
        committing: whether the write may have taken effect.
        attempt: how often it was tried before.
        timed_out: whether `time_out` was called.
    """

    __slots__ = (
        "_connection",
        "_interrupt",
        "_lock",
        "abandoned",
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
        steps: Callable[[], Steps[T]] | None,
        *,
        write: bool,
        attempt: int,
    ) -> None:
        self.statement = statement
        self.steps = steps
        self.write = write
        self.attempt = attempt
        self.committing = False
        self.abandoned = False
        self.timed_out = False
        self._connection: Any = None
        self._interrupt: Callable[[Any], None] | None = None
        self._lock = threading.Lock()

    def uses(self, connection: Any, interrupt: Callable[[Any], None]) -> None:
        """Note the connection, and what wakes a thread that waits for it."""
        with self._lock:
            self._connection, self._interrupt = connection, interrupt
            if self.abandoned:
                raise PoolTimeout("the caller gave up")

    def commits(self) -> None:
        """Note that the write may take effect from now on, unless the caller gave up."""
        with self._lock:
            if self.abandoned:
                raise PoolTimeout("the caller gave up")
            self.committing = self.write

    def ends(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._connection = None

    def abandon(self, *, hung: bool = False) -> None:
        """Give up: nothing is written from now on, unless it is being committed already.

        A commit in progress is left to end by itself, unless the server hangs.
        """
        with self._lock:
            self.abandoned = self.abandoned or not self.committing
            if self._connection is not None and self._interrupt is not None and (self.abandoned or hung):
                self._interrupt(self._connection)

    def time_out(self) -> None:
        """Give up because the time is up."""
        self.timed_out = True
        self.abandon(hung=True)


class Database(ABC):
    """A database and our connections to it; shared by the logs of a process that name it alike.

    Args:
        config: the database.
        style: how the driver marks values.

    Attributes:
        supports_inline: see `agent_stores.backend.Backend`.
        loop_independent: see `agent_stores.backend.Backend`.
        users: how many logs use it.
        limits: what it can store; for MariaDB known from the first connection on.
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
        self._ready_lock = threading.Lock()

    async def rows(self, text: str, values: Values = (), *, write: bool = False) -> Any:
        """Run a statement in a transaction of its own; returns its rows, or how many it changed."""
        return await self._run((text, values), None, write=write)

    async def transact(self, steps: Callable[[], Steps[T]], *, write: bool = True) -> T:
        """Run a transaction; its steps may be made more than once.

        Raises:
            Abort: when the steps raise it.
            DuplicateRow: when a unique index rejects a row.
            StoreError: nothing was written.
            OutcomeUnknownError: it may or may not have taken effect.
        """
        result: T = await self._run(("", ()), steps, write=write)
        return result

    async def _run(
        self, statement: tuple[str, Values], steps: Callable[[], Steps[Any]] | None, *, write: bool
    ) -> Any:
        deadline = time.monotonic() + self.config.timeout
        lost = attempt = 0
        while True:
            call: Call[Any] = Call(statement, steps, write=write, attempt=attempt)
            try:
                return await self._attempt(call, deadline)
            except asyncio.CancelledError:
                call.abandon()
                raise
            except (Abort, AgentStoresError):
                raise
            except asyncio.TimeoutError as error:
                call.abandon(hung=True)
                raise self._timed_out(call) from error
            except Exception as error:
                failure = classify(error, self.dialect)
                if failure is Failure.DUPLICATE:
                    raise DuplicateRow from error
                unknown = call.committing and failure in (Failure.UNAVAILABLE, Failure.OTHER)
                broken = failure is Failure.UNAVAILABLE and self._is_broken(error)
                lost += broken
                attempt += 1
                again = failure is Failure.TRANSIENT or (broken and lost == 1 and not unknown)
                if not again or attempt == _ATTEMPTS or time.monotonic() > deadline:
                    raise self._translate(failure, error, write=write, may_have_applied=unknown) from _cause(
                        error
                    )
            pause = min(_FIRST_PAUSE * 2**attempt, 0.2) * random.uniform(0.5, 1.5)  # noqa: S311
            if may_block():
                time.sleep(pause)  # noqa: ASYNC251 - there is no loop to block
            else:
                await asyncio.sleep(pause)

    def _translate(
        self, failure: Failure, error: BaseException, *, write: bool, may_have_applied: bool
    ) -> StoreError:
        return translate_error(
            Failure.UNAVAILABLE if failure is Failure.TRANSIENT else failure,
            error,
            place=self.config.place,
            secrets=self.config.secrets,
            write=write,
            may_have_applied=may_have_applied,
        )

    def _timed_out(self, call: Call[Any]) -> StoreError:
        text = f"{self.config.place} did not answer within {self.config.timeout:g} seconds"
        if call.committing:
            return OutcomeUnknownError(f"{text}, while a write was confirmed: it may or may not be stored")
        return StoreUnavailableError(f"{text}; nothing was written" if call.write else text)

    # -- the schema -------------------------------------------------------------------------------------

    def prepare_steps(self) -> Steps[None]:
        """Creates the tables unless they exist, and checks that they are ours and of our version."""
        for _ in range(2):
            if self.schema.check_columns((yield self.schema.columns, ())):
                version = yield self.schema.version, ()
                if version:
                    self.schema.check_version(version[0][0])
                    break
            # One client at a time: creating a table twice at once is an error.
            lock = f"'agent_stores:{self.schema.prefix}'"
            yield BEGIN_WRITE, ()
            if self.dialect == "postgresql":
                yield f"SELECT pg_advisory_xact_lock(hashtext({lock}))", ()
            elif self.dialect == "mariadb":
                yield f"SELECT GET_LOCK({lock}, {self.config.timeout:.0f})", ()
            if not self.schema.check_columns((yield self.schema.columns, ())) or not (
                yield self.schema.version, ()
            ):
                for text in self.schema.create():
                    yield text, ()
                for text in FUNCTIONS if self.dialect == "postgresql" else ():
                    yield self.statements.named(text), ()
            if self.dialect == "mariadb":
                yield f"SELECT RELEASE_LOCK({lock})", ()
        if self.dialect == "mariadb":
            packet = yield "SELECT @@max_allowed_packet", ()
            # Quotes and backslashes are escaped on the way, which at worst doubles a message.
            self.limits = Limits(body_bytes=int(packet[0][0]) // 2 - 65536)

    # -- connections ------------------------------------------------------------------------------------

    @abstractmethod
    async def _attempt(self, call: Call[Any], deadline: float) -> Any:
        """Run a call once; raises the driver's errors, and `asyncio.TimeoutError` after the deadline."""

    def _is_broken(self, error: Exception) -> bool:
        """Whether a connection that once worked is lost, so that a new one may work."""
        return bool(getattr(error, "connection_invalidated", False))

    @abstractmethod
    async def aclose(self) -> None:
        """Wait for what is running, and close our connections."""

    @abstractmethod
    def close_unused(self) -> None:
        """Close the connections when no log uses them any more; called on a thread without an event loop."""

    @abstractmethod
    def close_at_exit(self) -> None:
        """Close the connections at the end of the process."""

    @abstractmethod
    def reset_after_fork(self) -> None:
        """After a fork: connections, threads and locks belong to the parent."""


def _cause(error: BaseException) -> BaseException | None:
    """The cause to show with our error; none whose text or arguments may hold an argument of a connection."""
    return None if isinstance(driver_error(error), (UnicodeError, TypeError, ValueError)) else error
