"""PostgreSQL by psycopg's or asyncpg's connections, on the caller's event loop.

The pool is our own: that of `psycopg_pool` reports a server that cannot be reached, or a wrong password, as a
time-out of its own at the end of the time allowed, and connects in tasks of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Call, Database
from agent_stores.backends.sql.errors import PoolTimeout
from agent_stores.backends.sql.statements import BEGIN_WRITE, Values
from agent_stores.connection_pool import LoopClients
from agent_stores.errors import ArgumentError

_READ_COMMITTED = "BEGIN ISOLATION LEVEL READ COMMITTED"

# No statement is prepared on the server: a proxy may give each of them another connection.


class _Psycopg:
    """psycopg 3. A connection is represented by its one cursor: making one costs as much as a statement."""

    def __init__(self) -> None:
        import psycopg

        self._psycopg = psycopg

    def arguments(self, config: Config) -> dict[str, Any]:
        arguments = _arguments(config, "dbname")
        arguments.setdefault("connect_timeout", max(2, math.ceil(config.timeout)))
        known = {option.keyword.decode() for option in self._psycopg.pq.Conninfo.get_defaults()}
        _check_known(arguments, {*known, "prepare_threshold"})
        return {"prepare_threshold": None, **arguments, "autocommit": True}

    async def connect(self, arguments: dict[str, Any]) -> Any:
        return self._psycopg.AsyncRawCursor(await self._psycopg.AsyncConnection.connect(**arguments))

    async def execute(self, conn: Any, text: str, values: Values) -> Any:
        await conn.execute(text, values)
        result = conn.pgresult
        if not result.nfields:  # conn.description would make objects of all columns
            return conn.rowcount
        rows = await conn.fetchall()
        result.clear()  # the cursor stays, and with it the memory
        return rows

    def is_idle(self, conn: Any) -> bool:
        return bool(conn.connection.pgconn.transaction_status == 0)

    def is_closed(self, conn: Any) -> bool:
        return bool(conn.connection.closed)

    def interrupt(self, conn: Any) -> None:
        with contextlib.suppress(Exception), socket.socket(fileno=os.dup(conn.connection.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)

    def close(self, conn: Any) -> None:
        conn.connection.pgconn.finish()


class _Asyncpg:
    """asyncpg, which takes two round trips for a statement that is not prepared."""

    def __init__(self) -> None:
        import asyncpg  # type: ignore[import-untyped, unused-ignore]

        self._connect = asyncpg.connect

    def arguments(self, config: Config) -> dict[str, Any]:
        arguments = {"statement_cache_size": 0, "timeout": config.timeout, **_arguments(config, "database")}
        _check_known(arguments, set(inspect.signature(self._connect).parameters))
        return arguments

    async def connect(self, arguments: dict[str, Any]) -> Any:
        return await self._connect(**arguments)

    async def execute(self, conn: Any, text: str, values: Values) -> Any:
        return await conn.fetch(text, *values)

    def is_idle(self, conn: Any) -> bool:
        return not conn.is_closed() and not conn.is_in_transaction()

    def is_closed(self, conn: Any) -> bool:
        return bool(conn.is_closed())

    def interrupt(self, conn: Any) -> None:
        self.close(conn)

    def close(self, conn: Any) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            conn.terminate()


class PostgresDatabase(Database):
    """A PostgreSQL database, with a pool for each event loop. A statement is a transaction of its own."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, "$")
        self.driver = _Asyncpg() if config.driver == "asyncpg" else _Psycopg()
        self.arguments = self.driver.arguments(config)
        self._pools = LoopClients(lambda: _Pool(self), are_ours=True, timeout=config.timeout)

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        pool, execute = self._pools.get(), self.driver.execute
        conn = await pool.acquire(deadline)
        # Instead of a task that waits for another: when the time is up, the connection is interrupted.
        timer = pool.loop.call_later(deadline - time.monotonic(), call.time_out)
        try:
            call.begin(lambda: self.driver.interrupt(conn))
            if not self.ready:
                await execute(conn, _READ_COMMITTED, ())
                await self._drive(conn, Call(("", ()), self.prepare_steps, write=True))
                await execute(conn, "COMMIT", ())
                self.ready = True
            if call.steps is None and not call.attempt:
                call.committing = call.write
                return await execute(conn, *call.statement)
            # Serialization failures, the one reason for another attempt, end with this isolation level.
            await execute(conn, _READ_COMMITTED, ())
            result = await self._drive(conn, call)
            call.commit()
            await execute(conn, "COMMIT", ())
            return result
        except Exception as error:
            if self.driver.is_closed(conn):
                error.connection_invalidated = True  # type: ignore[attr-defined]
            raise
        finally:
            timer.cancel()
            call.begin(None)
            pool.release(conn)

    async def _drive(self, conn: Any, call: Call) -> Any:
        execute = self.driver.execute
        if call.steps is None:
            return await execute(conn, *call.statement)
        steps, result = call.steps(), None
        try:
            while True:
                text, values = steps.send(result)
                result = None if text is BEGIN_WRITE else await execute(conn, text, values)
        except StopIteration as end:
            return end.value

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


class _Pool:
    """The connections of one event loop."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop_close_hook: AsyncGenerator[None, None] | None = None
        self._driver, self._arguments = database.driver, database.arguments
        self._limit = database.config.max_connections
        self._idle: list[Any] = []
        self._open: set[Any] = set()
        self._connecting = 0
        self._closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, deadline: float) -> Any:
        """A connection that no other call uses; raises PoolTimeout, or the driver's error of connecting."""
        while not self._idle:
            left = max(0.0, deadline - time.monotonic())
            if len(self._open) + self._connecting < self._limit:
                self._connecting += 1
                try:
                    conn = await asyncio.wait_for(self._driver.connect(self._arguments), left)
                    self._open.add(conn)
                    return conn
                finally:
                    self._connecting -= 1
                    self._wake()
            waiter = self.loop.create_future()
            self._waiting.append(waiter)
            try:
                await asyncio.wait_for(waiter, left)
            except asyncio.TimeoutError:
                raise PoolTimeout(f"all {self._limit} connections are in use") from None
            except asyncio.CancelledError:
                self._wake()
                raise
        return self._idle.pop()

    def release(self, conn: Any) -> None:
        """Let another call use a connection; closes one that is lost, or in a transaction."""
        if self._driver.is_idle(conn) and not self._closed:
            self._idle.append(conn)
        else:
            if self._driver.is_closed(
                conn
            ):  # then idle ones may be, too: the server was restarted, or a proxy
                idle, self._idle = self._idle, []
                self._close(idle)
            self._close([conn])
        if self._waiting:
            self._wake()

    async def aclose(self) -> None:
        """Close the connections that no call uses; the others are closed when they are released."""
        self._closed = True
        idle, self._idle = self._idle, []
        self._close(idle)

    def close_sockets(self) -> None:
        """Close all connections, when their loop is gone."""
        self._idle = []
        self._close(list(self._open))

    def _close(self, connections: list[Any]) -> None:
        for conn in connections:
            self._open.discard(conn)
            self._driver.close(conn)

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


def _arguments(config: Config, database: str) -> dict[str, Any]:
    url = config.url
    arguments: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        database: url.database,
    }
    arguments["password"] = None if url.password is None else str(url.password)
    for name, value in url.query.items():
        text = value if isinstance(value, str) else ",".join(value)
        arguments[name] = int(text) if text.isdecimal() and name != "password" else text
    arguments.update(config.engine_options.get("connect_args", {}))
    return {name: value for name, value in arguments.items() if value is not None}


def _check_known(arguments: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(arguments) - known):
        raise ArgumentError(
            f"options of the connection must be known to its driver, got {', '.join(unknown)}"
        )
