"""A database as the backend uses it: statements and transactions, with time-outs and retries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from agent_stores.backend import Limits
from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.errors import Failure, PoolTimeout, classify, translate_error
from agent_stores.backends.sql.notifications import create_trigger, has_trigger
from agent_stores.backends.sql.schema import Schema
from agent_stores.backends.sql.statements import BEGIN, Abort, Statement, Statements, Steps, Style
from agent_stores.connection_pool import SharedConnection
from agent_stores.errors import AgentStoresError
from agent_stores.inline import may_block
from agent_stores.thread_pool import ThreadPool

T = TypeVar("T")

_LARGEST_BODY = 500_000_000  # bytes; SQLite and PostgreSQL hold values up to about twice that
_ATTEMPTS = 8  # of a transaction that the database asks to try again
_LOST = 3  # connections that are found lost, of a caller's pool, before a call gives up
_FIRST_PAUSE = 0.005  # seconds before the second attempt; doubles, with jitter
_UNKNOWN = (Failure.UNAVAILABLE, Failure.TIMED_OUT, Failure.OTHER)  # a write may have taken effect


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
        limits: what it can store; for MariaDB that of its default settings, until the first connection.
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
        self.limits = Limits(body_bytes=_body_bytes(2**24) if config.dialect == "mariadb" else _LARGEST_BODY)
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
            Abort: when the steps raise it, and when a unique index rejects a row.
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
                    raise Abort from None
                unknown = call.committing and failure in _UNKNOWN
                is_lost = failure is Failure.UNAVAILABLE and getattr(error, "connection_invalidated", False)
                lost += is_lost
                attempt += 1
                is_transient = failure is Failure.TRANSIENT
                again = is_transient or (is_lost and lost <= _LOST and (repeatable or not unknown))
                if not again or attempt == _ATTEMPTS or time.monotonic() > deadline:
                    raise translate_error(error, failure, self.config, write, unknown) from None
                if is_transient:  # serialization failures end with the isolation level of our transactions
                    steps = steps or (lambda: _transaction(statement))
            pause = min(_FIRST_PAUSE * 2**attempt, 0.2) * random.uniform(0.5, 1.5)  # noqa: S311
            if may_block():
                time.sleep(pause)  # noqa: ASYNC251 - there is no loop to block
            else:
                await asyncio.sleep(pause)

    def prepare_steps(self) -> Steps[None]:
        """Creates the tables unless they exist, and checks that they are ours and of our version."""
        schema, notify = self.schema, self.config.notify
        if not (yield from schema.check()) or (notify and not (yield from has_trigger(schema.prefix))):
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
            if notify and not (yield from has_trigger(schema.prefix)):
                yield from create_trigger(schema.prefix)
            if self.dialect == "mariadb":
                yield f"SELECT RELEASE_LOCK({lock})", ()
        if self.dialect == "mariadb":
            [(packet,)] = yield "SELECT @@max_allowed_packet", ()
            self.limits = Limits(body_bytes=_body_bytes(int(packet)))

    @staticmethod
    @abstractmethod
    def _interrupt(connection: Any) -> None: ...

    @abstractmethod
    async def attempt(self, call: Call, deadline: float) -> Any:
        """Run a call once; raises the driver's errors, and `asyncio.TimeoutError` after the deadline.

        An error of a connection that was lost has a true attribute ``connection_invalidated``.
        """


class ThreadedDatabase(Database):
    """Calls run on `readers` and `writers` worker threads, or on the caller's where that may block.

    Without writers, the readers write.
    """

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
                drive(self.prepare_steps(), self._execute, conn)
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
                result = drive(steps(), execute, conn)
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


def _transaction(statement: Statement) -> Steps[Any]:
    yield BEGIN
    return (yield statement)


def drive(steps: Steps[T], execute: Callable[..., Any], conn: Any) -> T:
    """Run the steps of a transaction on a connection."""
    result: Any = None
    try:
        while True:
            result = execute(conn, *steps.send(result))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _body_bytes(packet: int) -> int:
    """The largest body in a packet of MariaDB: quotes are escaped on the way, which at worst doubles it."""
    return packet // 2 - 65536
