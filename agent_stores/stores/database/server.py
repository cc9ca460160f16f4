"""Running operations on a database server: connections, threads, time-outs, retries and the schema.

An operation runs whole, as one synchronous function: on a worker thread for drivers that block (one hop, not
one a statement), or inside an async engine's `run_sync` for drivers that run on the event loop.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from agent_stores._loops import LoopThread
from agent_stores.errors import OutcomeUnknownError, StoreUnavailableError
from agent_stores.stores.database.address import Address
from agent_stores.stores.database.calls import Call
from agent_stores.stores.database.failures import Failure, classify, store_error
from agent_stores.stores.database.reads import Reads
from agent_stores.stores.database.schema import make_schema
from agent_stores.stores.database.setup import prepare
from agent_stores.stores.database.writes import Writes

T = TypeVar("T")

_LARGEST = 500_000_000  # bytes; SQLite and PostgreSQL hold values up to about twice that
_ATTEMPTS = 6  # of a transaction that the database asks to try again
_FIRST_PAUSE = 0.01  # seconds before the second attempt; doubles, with jitter
_READERS = 4  # threads that read one SQLite file at once; one more writes, as SQLite lets only one write


class DatabaseServer:
    """A database and our connections to it; shared by all the stores of a process that name it alike.

    Args:
        address: the database.
        engine: the caller's engine, never disposed of; one is made without it.
        timeout: seconds that an operation may take, waiting for a connection included.
        max_connections: how many connections at most.
        table_prefix: what the tables' names begin with.
        engine_options: further options for SQLAlchemy's `create_engine`.
    """

    def __init__(
        self,
        address: Address,
        *,
        engine: Engine | AsyncEngine | None,
        timeout: float,
        max_connections: int,
        table_prefix: str,
        engine_options: Mapping[str, Any],
    ) -> None:
        self.address = address
        self.users = 0
        self.max_message_bytes: int | None = None if address.dialect == "mariadb" else _LARGEST
        self.schema = make_schema(table_prefix)
        self.reads = Reads(self.schema)
        self.writes = Writes(self.schema)
        self._timeout = timeout
        self._max_connections = max_connections
        self._engine_options = engine_options
        self._borrowed = engine
        self._ready = False
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        # Connections of an async driver belong to one loop: theirs, so that callers may be on any.
        self._loop_thread = LoopThread("agent-stores-database")
        self._executors: dict[str, ThreadPoolExecutor] = {}

    async def run(
        self, operation: Callable[[Connection], T], *, write: bool = False, repeatable: bool = False
    ) -> T:
        """Run an operation in a transaction of its own.

        Args:
            operation: a synchronous function of a connection; it may be run more than once.
            write: whether it writes.
            repeatable: whether it may run again after it may have been committed.

        Raises:
            StoreUnavailableError, StoreRefusedError, MessageTooLargeError, StoreError: nothing was written.
            OutcomeUnknownError: it may or may not be stored.
        """
        deadline = time.monotonic() + self._timeout
        unknown = False
        lost = 0
        for attempt in range(_ATTEMPTS):
            call = Call(write=write)
            try:
                return await self._attempt(operation, call, deadline)
            except asyncio.CancelledError:
                call.abandon()
                raise
            except asyncio.TimeoutError as error:
                unknown = not call.abandon(hung=True) or unknown
                raise self._timed_out(write=write, unknown=unknown) from error
            except (SQLAlchemyError, OSError) as error:
                failure = classify(error, self.address.dialect)
                unknown = unknown or (call.committing and failure in (Failure.UNAVAILABLE, Failure.OTHER))
                broken = failure is Failure.UNAVAILABLE and _is_broken(error)
                lost += broken
                again = failure is Failure.TRANSIENT or (broken and lost == 1)
                if not again or attempt == _ATTEMPTS - 1 or (unknown and not repeatable):
                    if failure is Failure.TRANSIENT:
                        failure = Failure.UNAVAILABLE
                    raise store_error(
                        failure,
                        error,
                        place=self.address.place,
                        secrets=self.address.secrets,
                        write=write,
                        may_be_written=unknown,
                        repeatable=repeatable,
                    ) from error
            await asyncio.sleep(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
        raise AssertionError("unreachable")

    async def prepare(self) -> None:
        """Make sure that the schema is there and is ours to use; costs nothing once it is."""
        if not self._ready:
            await self.run(lambda conn: None)

    async def aclose(self) -> None:
        """Wait for what is running, and close our connections."""
        await asyncio.to_thread(self._close, wait=True)

    def close_at_exit(self) -> None:
        """Close our connections, from any thread and without an event loop."""
        self._close(wait=False)

    def _close(self, *, wait: bool) -> None:
        with self._lock:
            executors = list(self._executors.values())
            self._executors = {}
        for executor in executors:
            executor.shutdown(wait=wait)
        with self._lock:
            engine, self._engine = self._engine, None
            async_engine, self._async_engine = self._async_engine, None
        if engine is not None:
            engine.dispose()
        if async_engine is not None:
            self._loop_thread.submit(async_engine.dispose()).result(self._timeout)
        self._loop_thread.close()

    def forget_in_child(self) -> None:
        """After a fork: threads are gone, and connections belong to the parent."""
        self._lock = threading.Lock()
        self._executors = {}
        if self._engine is not None:
            self._engine.dispose(close=False)
        self._async_engine = None
        self._loop_thread = LoopThread("agent-stores-database")

    # -- one attempt ----------------------------------------------------------------------------------

    async def _attempt(self, operation: Callable[[Connection], T], call: Call, deadline: float) -> T:
        left = max(0.0, deadline - time.monotonic())
        if isinstance(self._borrowed, AsyncEngine):
            return await asyncio.wait_for(self._run_async(self._borrowed, operation, call), left)
        if self._borrowed is None and self.address.is_async:
            return await self._loop_thread.run(
                asyncio.wait_for(self._run_async(self._own_async_engine(), operation, call), left)
            )
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor(write=call.write), self._run_sync, operation, call)
        future.add_done_callback(_consume)
        try:
            done, _ = await asyncio.wait({future}, timeout=left)
        except asyncio.CancelledError:
            future.cancel()  # if it has not begun; otherwise the call is abandoned
            raise
        if not done:
            future.cancel()
            raise asyncio.TimeoutError
        return future.result()

    def _run_sync(self, operation: Callable[[Connection], T], call: Call) -> T:
        with self._sync_engine().connect() as conn:
            self._prepare(conn)
            if not call.write and self.address.dialect == "postgresql":
                # A single statement needs no transaction, whose begin and end are round trips.
                conn = conn.execution_options(isolation_level="AUTOCOMMIT")
            return call.transact(conn, operation)

    async def _run_async(self, engine: AsyncEngine, operation: Callable[[Connection], T], call: Call) -> T:
        def whole(conn: Connection) -> T:
            self._prepare(conn)
            return call.transact(conn, operation)

        async with engine.connect() as conn:
            return await conn.run_sync(whole)

    def _timed_out(self, *, write: bool, unknown: bool) -> StoreUnavailableError | OutcomeUnknownError:
        text = f"{self.address.place} did not answer within {self._timeout:g} seconds"
        if unknown:
            return OutcomeUnknownError(f"{text}, while a write was confirmed: it may or may not be stored")
        return StoreUnavailableError(f"{text}; nothing was written" if write else text)

    def _prepare(self, conn: Connection) -> None:
        """Make sure that the tables are there; done once."""
        if self._ready:
            return
        dialect = self.address.dialect
        prepare(conn, self.schema, dialect=dialect, place=self.address.place, timeout=self._timeout)
        if dialect == "mariadb":
            packet = conn.execute(text("SELECT @@max_allowed_packet")).scalar_one()
            # Quotes and backslashes are escaped on the way, which at worst doubles a message.
            self.max_message_bytes = int(packet) // 2 - 65536
            conn.rollback()
        self._ready = True

    # -- engines and threads --------------------------------------------------------------------------

    def _sync_engine(self) -> Engine:
        if isinstance(self._borrowed, Engine):
            return self._borrowed
        with self._lock:
            if self._engine is None:
                self._engine = self._make_engine()
            return self._engine

    def _make_engine(self) -> Engine:
        dialect = self.address.dialect
        options: dict[str, Any] = {"hide_parameters": True, **self._pool_options()}
        if dialect == "sqlite":
            # Transactions are begun by hand: BEGIN IMMEDIATE waits for the lock, an upgrade cannot.
            options["connect_args"] = {
                "timeout": self._timeout * 0.8,  # before ours, as SQLite says what it waited for
                "check_same_thread": False,
                "isolation_level": None,
            }
        else:
            options["connect_args"] = self._connect_args()
        return create_engine(self.address.url, **self._with_callers(options))

    def _own_async_engine(self) -> AsyncEngine:
        with self._lock:
            if self._async_engine is None:
                options = {
                    "hide_parameters": True,
                    "connect_args": self._connect_args(),
                    **self._pool_options(),
                }
                self._async_engine = create_async_engine(self.address.url, **self._with_callers(options))
            return self._async_engine

    def _with_callers(self, options: dict[str, Any]) -> dict[str, Any]:
        given = dict(self._engine_options)
        given["connect_args"] = {**options["connect_args"], **given.get("connect_args", {})}
        return {**options, **given}

    def _pool_options(self) -> dict[str, Any]:
        if self.address.is_memory:
            return {"poolclass": StaticPool}  # a second connection would be another database
        options: dict[str, Any] = {
            "pool_size": self._max_connections,
            "max_overflow": 0,
            "pool_timeout": self._timeout,
        }
        if self.address.dialect == "mariadb":
            options["isolation_level"] = "READ COMMITTED"  # no gap locks, hence fewer deadlocks
        return options

    def _connect_args(self) -> dict[str, Any]:
        seconds = max(1, math.ceil(self._timeout))
        names = {
            "psycopg": ("connect_timeout",),
            "psycopg2": ("connect_timeout",),
            "asyncpg": ("timeout", "command_timeout"),
            "pymysql": ("connect_timeout", "read_timeout", "write_timeout"),
        }.get(self.address.url.get_driver_name(), ("connect_timeout",))
        return {name: seconds for name in names if name not in self.address.url.query}

    def _executor(self, *, write: bool) -> ThreadPoolExecutor:
        is_sqlite = self.address.dialect == "sqlite"
        name, threads = "both", self._max_connections
        if is_sqlite and self.address.is_memory:
            threads = 1
        elif is_sqlite:
            name, threads = ("write", 1) if write else ("read", _READERS)
        with self._lock:
            if name not in self._executors:
                self._executors[name] = ThreadPoolExecutor(threads, f"agent-stores-{name}")
            return self._executors[name]


def _consume(future: asyncio.Future[Any]) -> None:
    """Take note of the error of a call that nobody waits for, so that it is not reported as lost."""
    if not future.cancelled():
        future.exception()


def _is_broken(error: BaseException) -> bool:
    """Whether a connection that once worked is gone, so that a new one may work."""
    return isinstance(error, DBAPIError) and bool(error.connection_invalidated)
