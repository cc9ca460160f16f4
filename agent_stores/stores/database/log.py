"""The database backend's log: maps `MessageLog` onto operations, and shares servers within a process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_stores.connection_registry import ServerRegistry
from agent_stores.errors import ArgumentError, StoreClosedError
from agent_stores.log import Entry, Record, Slice, ThreadKey, ThreadPage, ThreadStats, TimeToLive
from agent_stores.retention import check_limit, check_seconds
from agent_stores.search import Found
from agent_stores.stores.database.address import parse_address
from agent_stores.stores.database.server import DatabaseServer
from agent_stores.stores.planning import check_sizes

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine


class DatabaseMessageLog:
    """Threads in the tables of an SQLite, PostgreSQL or MariaDB database.

    Logs of one process that name a database alike share its connections. Nothing connects before the first
    operation, which creates the tables where they are missing.

    Args:
        connection_string: an SQLite file's name, or a URL; see `DatabaseChatMessageStore`.
        engine: an SQLAlchemy engine of the caller's, sync or async, instead; it is never disposed of here.
        timeout: seconds that an operation may take.
        max_connections: how many connections at most; SQLite uses five.
        table_prefix: what the tables' names begin with.
        engine_options: further options for SQLAlchemy's `create_engine`.
        clock: seconds since 1970, for tests of expiry.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
        MissingDependencyError: when no driver for the database is installed.
    """

    def __init__(
        self,
        connection_string: str | os.PathLike[str] | URL | None = None,
        *,
        engine: Engine | AsyncEngine | None = None,
        timeout: float = 10.0,
        max_connections: int = 10,
        table_prefix: str = "agent_",
        engine_options: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if (connection_string is None) == (engine is None):
            raise ArgumentError("accepted is either a connection_string or an engine")
        if check_seconds("timeout", timeout, zero=False) is None:
            raise ArgumentError("timeout is None; accepted is a positive number of seconds")
        if not check_limit("max_connections", max_connections):
            raise ArgumentError(f"max_connections is {max_connections}; accepted is a positive number")
        if not table_prefix.isidentifier() or not table_prefix.isascii() or len(table_prefix) > 32:
            raise ArgumentError(
                f"table_prefix is {table_prefix!r}; accepted are up to 32 letters, digits and underscores"
            )
        address = parse_address(connection_string if engine is None else engine.url)  # type: ignore[arg-type]
        options: dict[str, Any] = {
            "timeout": float(timeout),
            "max_connections": max_connections,
            "table_prefix": table_prefix,
            "engine_options": dict(engine_options or {}),
        }
        name = address.url.render_as_string(hide_password=False) if engine is None else id(engine)
        self._server, self._finalizer = _registry.acquire(
            (name, repr(sorted(options.items()))),
            lambda: DatabaseServer(address, engine=engine, **options),
            user=self,
        )
        self._table_prefix = table_prefix
        self._clock = clock
        self._closed = False

    @property
    def location(self) -> str:
        """See `MessageLog.location`."""
        tables = "" if self._table_prefix == _PREFIX else f"?tables={self._table_prefix}"
        return f"{self._server.address.location}{tables}"

    @property
    def max_message_bytes(self) -> int | None:
        """See `MessageLog.max_message_bytes`; for MariaDB known from the first operation on."""
        return self._server.max_message_bytes

    @property
    def supports_inline(self) -> bool:
        """Whether its operations can run on the caller's thread, without an event loop; see `run_inline`."""
        return self._server.supports_inline

    @property
    def loop_independent(self) -> bool:
        """Whether its operations may come from any event loop, also one that runs for one call only."""
        return self._server.loop_independent

    async def append(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """See `MessageLog.append`."""
        server, now = self._use()
        await server.prepare()
        check_sizes(records, server.max_message_bytes)
        return await server.run(
            lambda tx: server.writes.append(
                tx,
                key,
                records,
                batch_id=batch_id,
                expected_position=expected_position,
                max_messages=max_messages,
                ttl=ttl,
                now=now,
            ),
            write=True,
            repeatable=True,
        )

    async def read(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        last: int | None = None,
        first: int | None = None,
    ) -> Slice:
        """See `MessageLog.read`."""
        server, now = self._use()
        part, renews = await server.run(
            lambda tx: server.reads.read(tx, key, after=after, before=before, last=last, first=first, now=now)
        )
        if renews:
            await server.run(lambda tx: server.writes.renew(tx, key, now=now), write=True, repeatable=True)
        return part

    async def get(self, key: ThreadKey, message_id: str) -> Entry | None:
        """See `MessageLog.get`."""
        server, now = self._use()
        return await server.run(lambda tx: server.reads.get(tx, key, message_id, now=now))

    async def replace(self, key: ThreadKey, record: Record) -> bool:
        """See `MessageLog.replace`."""
        server, now = self._use()
        await server.prepare()
        check_sizes([record], server.max_message_bytes)
        return await server.run(
            lambda tx: server.writes.replace(tx, key, record, now=now), write=True, repeatable=True
        )

    async def delete(self, key: ThreadKey, message_ids: Sequence[str]) -> int:
        """See `MessageLog.delete`."""
        server, now = self._use()
        return await server.run(lambda tx: server.writes.delete(tx, key, message_ids, now=now), write=True)

    async def pop_last(self, key: ThreadKey) -> Entry | None:
        """See `MessageLog.pop_last`."""
        server, now = self._use()
        return await server.run(lambda tx: server.writes.pop_last(tx, key, now=now), write=True)

    async def clear(self, key: ThreadKey) -> int:
        """See `MessageLog.clear`."""
        server, now = self._use()
        return await server.run(lambda tx: server.writes.clear(tx, key, now=now), write=True)

    async def rewrite(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """See `MessageLog.rewrite`."""
        server, now = self._use()
        await server.prepare()
        check_sizes(records, server.max_message_bytes)
        return await server.run(
            lambda conn: server.writes.rewrite(
                conn,
                key,
                records,
                batch_id=batch_id,
                expected_position=expected_position,
                ttl=ttl,
                now=now,
            ),
            write=True,
            repeatable=True,
        )

    async def stats(self, key: ThreadKey) -> ThreadStats | None:
        """See `MessageLog.stats`."""
        server, now = self._use()
        return await server.run(lambda tx: server.reads.stats(tx, key, now=now))

    async def set_ttl(self, key: ThreadKey, ttl: TimeToLive) -> bool:
        """See `MessageLog.set_ttl`."""
        server, now = self._use()
        return await server.run(
            lambda tx: server.writes.set_ttl(tx, key, ttl, now=now), write=True, repeatable=True
        )

    async def fork(self, key: ThreadKey, new_key: ThreadKey, *, at: int | None = None) -> int:
        """See `MessageLog.fork`."""
        server, now = self._use()
        return await server.run(lambda tx: server.writes.fork(tx, key, new_key, at=at, now=now), write=True)

    async def delete_thread(self, key: ThreadKey) -> bool:
        """See `MessageLog.delete_thread`."""
        server, now = self._use()
        return await server.run(lambda tx: server.writes.delete_thread(tx, key, now=now), write=True)

    async def list_threads(
        self, tenant: str | None, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> ThreadPage:
        """See `MessageLog.list_threads`."""
        server, now = self._use()
        return await server.run(
            lambda tx: server.reads.list_threads(
                tx, tenant, prefix=prefix, limit=limit, cursor=cursor, now=now
            )
        )

    async def purge_expired(self, *, limit: int = 1000) -> int:
        """See `MessageLog.purge_expired`."""
        server, now = self._use()
        return await server.run(
            lambda tx: server.writes.purge_expired(tx, limit=limit, now=now), write=True, repeatable=True
        )

    async def search(
        self,
        tenant: str | None,
        query: str,
        *,
        limit: int = 10,
        thread_id: str | None = None,
        before: tuple[str, int] | None = None,
    ) -> list[Found]:
        """See `SearchableLog.search`; the first one builds the index, if `build_search_index` did not."""
        check_limit("limit", limit)
        server, now = self._use()
        await server.search.build(server)
        return await server.run(
            lambda tx: server.search.find(
                tx, tenant, query, limit=limit, thread_id=thread_id, before=before, now=now
            )
        )

    async def build_search_index(self) -> int:
        """Index all messages for `search`, in batches; returns how many were looked at, 0 where it is done.

        The index is kept from then on: each message that is written costs its words.

        Raises:
            StoreRejectedError: on MariaDB, which is not searched; when the user may not create tables.
        """
        server, _ = self._use()
        return await server.search.build(server)

    async def aclose(self) -> None:
        """Close the connections, if no other log of this process uses them."""
        if not self._closed:
            self._closed = True
            await _registry.release(self._server, self._finalizer)

    def __repr__(self) -> str:
        return f"DatabaseMessageLog({self.location!r})"

    def _use(self) -> tuple[DatabaseServer, int]:
        if self._closed:
            raise StoreClosedError(f"this log of {self.location} is closed")
        return self._server, int(self._clock() * 1_000_000)


_PREFIX = "agent_"

_registry: ServerRegistry[DatabaseServer] = ServerRegistry()
