"""PostgreSQL by psycopg's asynchronous connections, on the caller's event loop.

The pool is our own: `psycopg_pool` reports a server that cannot be reached, or a wrong password, as a time-out
of its own at the end of the time allowed, and connects in tasks of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import BEGIN_WRITE, Call, Database
from agent_stores.backends.sql.errors import PoolTimeout
from agent_stores.connection_registry import LoopClients
from agent_stores.errors import ArgumentError

_READ_COMMITTED = "BEGIN ISOLATION LEVEL READ COMMITTED"
_IDLE = TransactionStatus.IDLE

Cursor = psycopg.AsyncRawCursor[Any]
"""Stands for its connection, which has no other one: making a cursor costs as much as a short statement."""


class PostgresDatabase(Database):
    """A PostgreSQL database, with a pool for each event loop.

    Every statement is a transaction of its own, without prepared statements on the server, so that a proxy
    may give each of them another connection.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, "$")
        self.arguments = _connect_arguments(config)
        self._pools = LoopClients(lambda: Pool(self), are_ours=True, timeout=config.timeout)

    async def _attempt(self, call: Call[Any], deadline: float) -> Any:
        pool = self._pools.get()
        cursor = await pool.acquire(deadline)
        # Instead of a task that waits for another: when time is up, the socket is shut down.
        timer = pool.loop.call_later(deadline - time.monotonic(), call.time_out)
        try:
            call.uses(cursor, _shut_down)
            if not self.ready:
                await self._prepare(cursor)
            if call.steps is None and call.attempt == 0:
                call.committing = call.write
                result = await _execute(cursor, *call.statement)
            else:
                # Serialization failures, the one reason for another attempt, end with this isolation level.
                await _execute(cursor, _READ_COMMITTED, ())
                result = await self._drive(cursor, call)
                call.commits()
                await _execute(cursor, "COMMIT", ())
            call.committing = False
        except psycopg.Error as error:
            if call.timed_out:
                raise asyncio.TimeoutError from error
            raise
        finally:
            timer.cancel()
            call.ends()
            if cursor.connection.pgconn.transaction_status != _IDLE:
                await pool.discard(cursor)
            else:
                pool.release(cursor)
        return result

    async def _drive(self, cursor: Cursor, call: Call[Any]) -> Any:
        if call.steps is None:
            return await _execute(cursor, *call.statement)
        steps = call.steps()
        result: Any = None
        try:
            while True:
                text, values = steps.send(result)
                result = None if text is BEGIN_WRITE else await _execute(cursor, text, values)
        except StopIteration as end:
            return end.value

    async def _prepare(self, cursor: Cursor) -> None:
        call: Call[None] = Call(("", ()), self.prepare_steps, write=True, attempt=0)
        await _execute(cursor, _READ_COMMITTED, ())
        await self._drive(cursor, call)
        await _execute(cursor, "COMMIT", ())
        self.ready = True

    def _is_broken(self, error: Exception) -> bool:
        return getattr(error, "agent_stores_used", False)

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        await self._pools.aclose()

    def close_unused(self) -> None:
        """See `Database.close_unused`."""
        self._pools.close_unused()

    def close_at_exit(self) -> None:
        """See `Database.close_at_exit`."""
        self._pools.close_at_exit()

    def reset_after_fork(self) -> None:
        """See `Database.reset_after_fork`."""
        self._pools.reset_after_fork()


class Pool:
    """The connections of one event loop.

    Args:
        database: whose they are.
    """

    def __init__(self, database: PostgresDatabase) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop_close_hook: AsyncGenerator[None, None] | None = None
        self._arguments = database.arguments
        self._limit = database.config.max_connections
        self._idle: list[Cursor] = []
        self._open: set[Cursor] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, deadline: float) -> Cursor:
        """A connection that no other call uses.

        Raises:
            PoolTimeout: when none becomes free before the deadline.
            psycopg.Error: when the server cannot be connected to.
        """
        while not self._idle:
            if len(self._open) + self._connecting < self._limit:
                return await self._connect(deadline)
            waiter = self.loop.create_future()
            self._waiting.append(waiter)
            try:
                await asyncio.wait_for(waiter, max(0.0, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                raise PoolTimeout(f"all {self._limit} connections are in use") from None
            except asyncio.CancelledError:
                self._wake()
                raise
        return self._idle.pop()

    def release(self, cursor: Cursor) -> None:
        """Let another call use a connection."""
        self._idle.append(cursor)
        if self._waiting:
            self._wake()

    async def discard(self, cursor: Cursor) -> None:
        """Close a connection that is broken or in the middle of something."""
        closed = [cursor]
        if cursor.connection.broken:  # then idle ones may be, too: the server was restarted, or a proxy
            closed += self._idle
            self._idle = []
        await self._close(closed)
        self._wake()

    async def aclose(self) -> None:
        """Close all connections."""
        self._idle = []
        await self._close(list(self._open))

    def close_sockets(self) -> None:
        """Close all connections, when their loop is gone."""
        for cursor in self._open:
            cursor.connection.pgconn.finish()
        self._open.clear()
        self._idle = []

    async def _close(self, cursors: list[Cursor]) -> None:
        for cursor in cursors:
            self._open.discard(cursor)
            with contextlib.suppress(Exception):
                await cursor.connection.close()

    async def _connect(self, deadline: float) -> Cursor:
        self._connecting += 1
        try:
            conn = await asyncio.wait_for(
                psycopg.AsyncConnection.connect(**self._arguments), max(0.0, deadline - time.monotonic())
            )
        finally:
            self._connecting -= 1
            self._wake()
        cursor = psycopg.AsyncRawCursor(conn)
        self._open.add(cursor)
        return cursor

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


async def _execute(cursor: Cursor, text: str, values: tuple[Any, ...]) -> Any:
    try:
        await cursor.execute(text, values)
    except psycopg.OperationalError as error:
        error.agent_stores_used = True  # type: ignore[attr-defined] - unlike one of connecting
        raise
    result = cursor.pgresult
    if result is None or not result.nfields:  # cursor.description would make objects of all columns
        return cursor.rowcount
    rows = await cursor.fetchall()
    result.clear()  # the cursor stays, and with it the memory
    return rows


def _shut_down(cursor: Cursor) -> None:
    """Wake whoever waits for the server."""
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(cursor.connection.fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)


def _connect_arguments(config: Config) -> dict[str, Any]:
    """The arguments of `psycopg.AsyncConnection.connect`.

    Raises:
        ArgumentError: for an option that psycopg does not know.
    """
    url = config.url
    arguments: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": None if url.password is None else str(url.password),
        "dbname": url.database,
        "connect_timeout": max(2, math.ceil(config.timeout)),
    }
    arguments = {name: value for name, value in arguments.items() if value is not None}
    for name, value in url.query.items():
        arguments[name] = value if isinstance(value, str) else ",".join(value)
    arguments.update(config.engine_options.get("connect_args", {}))
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    unknown = set(arguments) - known - {"prepare_threshold"}
    if unknown:
        raise ArgumentError(f"the options of psycopg must be known to it, got {', '.join(sorted(unknown))}")
    threshold = arguments.get("prepare_threshold")
    try:
        arguments["prepare_threshold"] = None if threshold in (None, "") else int(threshold)
    except (TypeError, ValueError):
        raise ArgumentError("the option prepare_threshold of psycopg must be a number") from None
    return {**arguments, "autocommit": True}
