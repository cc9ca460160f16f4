"""Running operations on a database server: connections, threads, time-outs, retries and the schema.

An operation runs whole, as one synchronous function: on a worker thread for drivers that block (one hop, not
one a statement), or inside an async engine's `run_sync` for drivers that run on the event loop.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_stores.errors import OutcomeUnknownError, StoreUnavailableError
from agent_stores.event_loops import LoopThread, may_block
from agent_stores.stores.database.address import Address
from agent_stores.stores.database.calls import Call, Operation
from agent_stores.stores.database.engines import Settings, count_readers, make_async_engine, make_engine
from agent_stores.stores.database.failures import Failure, classify, store_error
from agent_stores.stores.database.files import FileConnections
from agent_stores.stores.database.reads import Reads
from agent_stores.stores.database.schema import make_schema
from agent_stores.stores.database.search import SearchIndex
from agent_stores.stores.database.setup import prepare
from agent_stores.stores.database.statements import Transaction
from agent_stores.stores.database.workers import Workers
from agent_stores.stores.database.writes import Writes

T = TypeVar("T")

_LARGEST = 500_000_000  # bytes; SQLite and PostgreSQL hold values up to about twice that
_ATTEMPTS = 6  # of a transaction that the database asks to try again
_FIRST_PAUSE = 0.01  # seconds before the second attempt; doubles, with jitter


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
        self.search = SearchIndex(self.schema, address.dialect)
        self._timeout = timeout
        self._settings = Settings(address, timeout, max_connections, engine_options)
        self._borrowed = engine
        self.supports_inline = engine is None and address.dialect == "sqlite"
        """Whether operations can also run on the caller's own thread, where that may block."""
        self.loop_independent = not isinstance(engine, AsyncEngine)
        """Whether they may come from any event loop."""
        self._ready = False
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        # Connections of an async driver belong to one loop: theirs, so that callers may be on any.
        self._loop_thread = LoopThread("agent-stores-database")
        self._files: FileConnections | None = None
        self._workers: dict[bool, Workers] = {}  # those that write, and those that read

    async def run(self, operation: Operation[T], *, write: bool = False, repeatable: bool = False) -> T:
        """Run an operation in a transaction of its own.

        Args:
            operation: a synchronous function of a transaction; it may be run more than once.
            write: whether it writes.
            repeatable: whether it may run again after it may have been committed.

        Raises:
            StoreUnavailableError, StoreRejectedError, MessageTooLargeError, StoreError: nothing was written.
            OutcomeUnknownError: it may or may not be stored.
        """
        deadline = time.monotonic() + self._timeout
        unknown = False
        lost = 0
        for attempt in range(_ATTEMPTS):
            call = Call(write=write)
            try:
                if self.supports_inline and may_block():
                    return self._run_file(operation, call, deadline)
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
            pause = _FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311
            if may_block():
                time.sleep(pause)  # noqa: ASYNC251 - there is no loop to block
            else:
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def prepare(self) -> None:
        """Make sure that the schema is there and is ours to use; costs nothing once it is."""
        if not self._ready:
            await self.run(lambda transaction: None)

    async def aclose(self) -> None:
        """Wait for what is running, and close our connections."""
        if may_block():
            self.close_at_exit()
            return
        try:
            closing = asyncio.get_running_loop().run_in_executor(None, self.close_at_exit)
        except RuntimeError:  # no thread begins any more: the process ends
            self.close_at_exit()
        else:
            await closing

    def close_unused(self) -> None:
        """Close the connections when no log uses them any more."""
        self.close_at_exit()

    def close_at_exit(self) -> None:
        """Wait for what is running, and close our connections; from any thread, without an event loop."""
        with self._lock:
            workers, self._workers = set(self._workers.values()), {}
        for each in workers:
            each.close(self._timeout)
        with self._lock:
            files, self._files = self._files, None
            engine, self._engine = self._engine, None
            async_engine, self._async_engine = self._async_engine, None
        if files is not None:
            files.close(self._timeout)
        if engine is not None:
            engine.dispose()
        if async_engine is not None:
            self._loop_thread.submit(async_engine.dispose()).result(self._timeout)
        self._loop_thread.close()

    def reset_after_fork(self) -> None:
        """After a fork: threads are gone, and connections belong to the parent."""
        self._lock = threading.Lock()
        self._workers = {}
        if self._files is not None:
            self._files.abandon()
            self._files = None
        if self._engine is not None:
            self._engine.dispose(close=False)
        self._async_engine = None
        self._loop_thread = LoopThread("agent-stores-database")

    # -- one attempt ----------------------------------------------------------------------------------

    async def _attempt(self, operation: Operation[T], call: Call, deadline: float) -> T:
        left = max(0.0, deadline - time.monotonic())
        if isinstance(self._borrowed, AsyncEngine):
            return await asyncio.wait_for(self._run_async(self._borrowed, operation, call), left)
        if self._borrowed is None and self.address.is_async:
            return await self._loop_thread.run(
                asyncio.wait_for(self._run_async(self._own_async_engine(), operation, call), left)
            )
        work = (
            partial(self._run_file, operation, call, deadline)
            if self.supports_inline
            else partial(self._run_sync, operation, call)
        )
        workers = self._workers.get(call.write) or self._start_workers(write=call.write)
        return await workers.run(work, left)

    def _run_file(self, operation: Operation[T], call: Call, deadline: float) -> T:
        files = self._files or self._open_files()
        transaction = files.take(write=call.write, timeout=max(0.0, deadline - time.monotonic()))
        try:
            self._prepare(transaction.conn)
            return call.transact(transaction, operation)
        finally:
            files.give_back(transaction)

    def _run_sync(self, operation: Operation[T], call: Call) -> T:
        with self._sync_engine().connect() as conn:
            self._prepare(conn)
            if not call.write and self.address.dialect == "postgresql":
                # A single statement needs no transaction, whose begin and end are round trips.
                conn = conn.execution_options(isolation_level="AUTOCOMMIT")
            return call.transact(Transaction(conn), operation)

    async def _run_async(self, engine: AsyncEngine, operation: Operation[T], call: Call) -> T:
        def whole(conn: Connection) -> T:
            self._prepare(conn)
            return call.transact(Transaction(conn), operation)

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

    # -- connections and threads ------------------------------------------------------------------------

    def _sync_engine(self) -> Engine:
        if isinstance(self._borrowed, Engine):
            return self._borrowed
        with self._lock:
            if self._engine is None:
                self._engine = make_engine(self._settings)
            return self._engine

    def _own_async_engine(self) -> AsyncEngine:
        with self._lock:
            if self._async_engine is None:
                self._async_engine = make_async_engine(self._settings)
            return self._async_engine

    def _open_files(self) -> FileConnections:
        with self._lock:
            if self._files is None:
                engine = make_engine(self._settings)
                self._files = FileConnections(engine, count_readers(engine, self._settings))
            return self._files

    def _start_workers(self, *, write: bool) -> Workers:
        readers = self._open_files().readers if self.supports_inline else 0
        with self._lock:
            if not self._workers and readers:
                writing = Workers(1, "agent-stores-write")
                self._workers = {True: writing, False: Workers(readers, "agent-stores-read")}
            elif not self._workers:
                threads = 1 if self.supports_inline else self._settings.max_connections
                self._workers = dict.fromkeys((True, False), Workers(threads, "agent-stores-database"))
            return self._workers[write]


def _is_broken(error: BaseException) -> bool:
    """Whether a connection that once worked is gone, so that a new one may work."""
    return isinstance(error, DBAPIError) and bool(error.connection_invalidated)
