"""PostgreSQL by psycopg's or asyncpg's connections, on the caller's event loop.

The pool is our own: that of `psycopg_pool` reports a server that cannot be reached, or a wrong password, as a
time-out of its own at the end of the time allowed, and connects in tasks of its own. No statement is prepared
on the server: a proxy that pools transactions may route each statement to another connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import math
import time
from collections.abc import Collection, Iterator
from typing import Any

from agent_stores.attempts import time_limit
from agent_stores.backends.sql.config import Config, driver_options
from agent_stores.backends.sql.database import Call, Database, interrupt
from agent_stores.backends.sql.errors import PoolTimeout, translate_error
from agent_stores.connection_pool import LoopClient, LoopClients


class _Psycopg:
    """A connection of psycopg 3, with its one cursor: making one costs as much as a statement."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._connection = cursor.connection
        self.fileno = self._connection.fileno

    @staticmethod
    def arguments(config: Config) -> dict[str, Any]:
        import psycopg

        known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
        arguments = _arguments(config, {*known, "prepare_threshold"})
        arguments.setdefault("connect_timeout", max(2, math.ceil(config.timeout)))
        return {"prepare_threshold": None, **arguments, "autocommit": True}

    @classmethod
    async def connect(cls, arguments: dict[str, Any]) -> _Psycopg:
        import psycopg
        from psycopg.types.numeric import Int8Dumper

        connection = await psycopg.AsyncConnection.connect(**arguments)
        connection.adapters.register_dumper(int, Int8Dumper)
        return cls(psycopg.AsyncRawCursor(connection))

    async def execute(self, text: str, values: Any) -> Any:
        cursor = self._cursor
        if type(values) is list:
            return await cursor.executemany(text, values)
        await cursor.execute(text, values)
        result = cursor.pgresult
        if not result.nfields:  # cursor.description would make objects of all columns
            return cursor.rowcount
        rows = await cursor.fetchall()
        result.clear()  # the cursor stays, and with it the memory
        return rows

    async def listen(self, channel: str) -> None:
        await self.execute(f"LISTEN {channel}", ())

    async def wait_for_notification(self, seconds: float) -> None:
        async for _ in self._connection.notifies(timeout=seconds, stop_after=1):
            pass

    def is_idle(self) -> bool:
        return bool(self._connection.pgconn.transaction_status == 0)

    def is_closed(self) -> bool:
        return bool(self._connection.closed)

    def close(self) -> None:
        self._connection.pgconn.finish()


class _Asyncpg:
    """A connection of asyncpg, which takes two round trips for a statement that is not prepared."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.is_closed = connection.is_closed

    @staticmethod
    def arguments(config: Config) -> dict[str, Any]:
        import asyncpg  # type: ignore[import-untyped, unused-ignore]

        arguments = _arguments(config, inspect.signature(asyncpg.connect).parameters)
        return {"statement_cache_size": 0, "timeout": config.timeout, **arguments}

    @classmethod
    async def connect(cls, arguments: dict[str, Any]) -> _Asyncpg:
        import asyncpg

        return cls(await asyncpg.connect(**arguments))

    async def execute(self, text: str, values: Any) -> Any:
        if type(values) is list:
            return await self._connection.executemany(text, values)
        return await self._connection.fetch(text, *values)

    async def listen(self, channel: str) -> None:
        self._notified = asyncio.Event()
        self._connection.add_termination_listener(lambda _: self._notified.set())
        await self._connection.add_listener(channel, lambda *_: self._notified.set())

    async def wait_for_notification(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            async with time_limit(time.monotonic() + seconds):
                await self._notified.wait()
        self._notified.clear()
        if self.is_closed():
            raise ConnectionError("the connection was lost")

    def is_idle(self) -> bool:
        return not self._connection.is_closed() and not self._connection.is_in_transaction()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._connection.terminate()

    interrupt = close


_Connection = _Psycopg | _Asyncpg


class PostgresDatabase(LoopClients["_Pool"], Database):
    """A PostgreSQL database, with a pool for each event loop. A statement is a transaction of its own."""

    def __init__(self, config: Config) -> None:
        Database.__init__(self, config, "$")
        LoopClients.__init__(self, lambda: _Pool(self), are_ours=True, timeout=config.timeout)
        self.driver = _Asyncpg if config.url.get_driver_name() == "asyncpg" else _Psycopg
        self.arguments = self.driver.arguments(config)

    @contextlib.contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Raise our errors for those of the driver."""
        try:
            yield
        except Exception as error:
            raise translate_error(error, self.config) from None

    async def connect(self, deadline: float) -> _Connection:
        """A new connection; raises the driver's errors, and `asyncio.TimeoutError` after the deadline."""
        async with time_limit(deadline):
            return await self.driver.connect(self.arguments)

    async def subscribe(self, thread_key: bytes) -> Listener:
        """See `ChangeNotifier.subscribe`."""
        name = f"{self.config.table_prefix}{thread_key.hex()}".encode()
        channel = f"agent_stores_{hashlib.md5(name, usedforsecurity=False).hexdigest()}"
        with self.translated_errors():
            connection = await self.connect(time.monotonic() + self.config.timeout)
            try:
                await connection.listen(channel)
            except BaseException:
                connection.close()
                raise
        return Listener(self, connection)

    async def attempt(self, call: Call, deadline: float) -> Any:
        """See `Database.attempt`."""
        pool = self.get()
        conn = await pool.acquire(deadline)
        # A timer interrupts the connection at the deadline: cheaper than a task that waits for another.
        timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), interrupt, conn)
        try:
            if call.stepwise:
                steps, result = call.steps("BEGIN ISOLATION LEVEL READ COMMITTED", deadline), None
                while True:
                    result = await conn.execute(*steps.send(result))
            call.commit(deadline)
            return await conn.execute(*call.work)  # type: ignore[misc]
        except StopIteration as end:
            return end.value
        except Exception as error:
            if conn.is_closed():
                error.connection_invalidated = True  # type: ignore[attr-defined]
            elif not conn.is_idle():
                with contextlib.suppress(Exception):
                    await conn.execute("ROLLBACK", ())
            if time.monotonic() >= deadline:
                raise asyncio.TimeoutError from None
            raise
        finally:
            timer.cancel()
            pool.release(conn)


class _Pool(LoopClient):
    """The connections of one event loop."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._connect, self._limit = database.connect, database.config.max_connections
        self._slots = asyncio.Semaphore(self._limit)
        self._idle: list[_Connection] = []  # the one that was used last is used next
        self._closed = False

    async def acquire(self, deadline: float) -> _Connection:
        """A connection that no other call uses; raises PoolTimeout, or the driver's error of connecting."""
        if self._slots.locked():
            try:
                async with time_limit(deadline):
                    await self._slots.acquire()
            except asyncio.TimeoutError:
                raise PoolTimeout(f"all {self._limit} connections are in use") from None
        else:
            await self._slots.acquire()
        try:
            return self._idle.pop() if self._idle else await self._connect(deadline)
        except BaseException:
            self._slots.release()
            raise

    def release(self, conn: _Connection) -> None:
        """Let another call use a connection; closes one that is lost, or in a transaction."""
        if conn.is_idle() and not self._closed:
            self._idle.append(conn)
        else:
            if conn.is_closed():  # idle ones may be lost, too: the server was restarted, or a proxy
                self._close_idle()
            conn.close()
        self._slots.release()

    def close_sockets(self) -> None:
        """Close the connections that no call uses; the others are closed when they are released."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


class Listener:
    """A `Subscription` over a connection of its own."""

    def __init__(self, database: PostgresDatabase, connection: _Connection) -> None:
        self._database, self._connection = database, connection

    async def wait(self, seconds: float) -> None:
        """See `Subscription.wait`."""
        with self._database.translated_errors():
            await self._connection.wait_for_notification(seconds)

    async def aclose(self) -> None:
        """See `Subscription.aclose`."""
        self._connection.close()


def _arguments(config: Config, known: Collection[str]) -> dict[str, Any]:
    """The driver's arguments, of the URL and of ``connect_args``; raises ArgumentError for unknown ones."""
    _, arguments = config.url.get_dialect()().create_connect_args(config.url)
    return driver_options(config, arguments, known)
