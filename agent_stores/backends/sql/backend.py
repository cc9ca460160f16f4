"""The SQL backend: the contract of `agent_stores.backend` over one database."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from agent_stores.backend import (
    Limits,
    ListCursor,
    ListedThread,
    Row,
    Snapshot,
    Thread,
    ThreadKey,
    ThreadOrder,
    TimeToLive,
    Version,
    VersionConflict,
)
from agent_stores.backends.sql import names
from agent_stores.backends.sql.append import HotPath
from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Database
from agent_stores.backends.sql.names import NAME_COLUMNS, thread_digest, thread_names
from agent_stores.backends.sql.search import SearchIndex
from agent_stores.backends.sql.sqlite import SQLiteDatabase
from agent_stores.backends.sql.statements import (
    BEGIN,
    LARGEST,
    MINUTE,
    Abort,
    Steps,
    thread_values,
    to_row,
    to_thread,
)
from agent_stores.connection_pool import ServerRegistry
from agent_stores.errors import StoreRejectedError

if TYPE_CHECKING:
    from agent_stores.backends.sql.postgresql import PostgresDatabase

registry: ServerRegistry[Database] = ServerRegistry()
"""The databases in use in this process."""

_IDS_PER_STATEMENT = 500


def connect(config: Config) -> Database:
    """The database of a configuration; nothing connects before the first operation."""
    if config.engine is None and config.dialect == "sqlite":
        return SQLiteDatabase(config)
    # psycopg's asynchronous connections do not run on the default event loop of Windows.
    if config.engine is None and (
        config.driver == "asyncpg"
        or (config.driver in ("psycopg", "psycopg_async") and sys.platform != "win32")
    ):
        from agent_stores.backends.sql.postgresql import PostgresDatabase

        return PostgresDatabase(config)
    from agent_stores.backends.sql.engines import EngineDatabase

    return EngineDatabase(config)


class SQLBackend:
    """Threads in the tables of an SQLite, PostgreSQL or MariaDB database.

    A version is the pair of the thread's row id and its count of writes.

    Args:
        config: the database.
    """

    def __init__(self, config: Config) -> None:
        self.location = config.location
        database, self._finalizer = registry.acquire(config.identity, lambda: connect(config), user=self)
        self.database, self._run, self._statements = database, database.run, database.statements
        self.supports_inline, self.loop_independent = database.supports_inline, database.loop_independent
        self._hot = HotPath(self._statements, lambda: database.limits.body_bytes)
        self._index = None if config.dialect == "mariadb" else SearchIndex(database)
        if self._index is not None:
            self.search = self._index.search
            """See `SearchableBackend.search`; there is none on MariaDB."""
        if config.notify:
            database = cast("PostgresDatabase", self.database)
            self.subscribe = lambda key: database.subscribe(thread_digest(key))
            """See `ChangeNotifier.subscribe`."""

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`."""
        return self.database.limits

    # -- reading ----------------------------------------------------------------------------------------

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        rows = await self._run(self._statements.load(key=thread_digest(key)))
        return Snapshot(*to_thread(rows[0])) if rows else None

    async def rows(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        bodies: bool = True,
        staged: bool = False,
    ) -> Snapshot | None:
        """See `Backend.rows`; one statement."""
        sql = self._statements.rows(newest=newest, bodies=bodies)
        before = LARGEST if before is None else min(before, LARGEST)
        limit = LARGEST if limit is None else limit
        found = await self._run(sql(key=thread_digest(key), after=after, before=before, limit=limit))
        heads = [row for row in found if row[-1] is not None]
        rows = sorted((to_row(row) for row in found if row[-1] is None), key=attrgetter("position"))
        return Snapshot(*to_thread(heads[0]), rows) if heads else None

    async def latest(self, key: ThreadKey, limit: int | None, *, now_us: int, ids: bool = False) -> list[Row]:
        """See `LatestReader.latest`; one statement, and another one where reads renew the time-to-live."""
        digest = thread_digest(key)
        limit = LARGEST if limit is None else limit
        statement = self._hot.latest_with_ids if ids else self._hot.latest
        rows = await self._run(statement(key=digest, now=now_us, limit=limit))
        rows.sort()
        if rows and rows[0][0] == 0:
            del rows[0]
            await self._run(self._statements.renew(key=digest, now=now_us), write=True, repeatable=True)
        if ids:
            return [
                Row(names.from_text(message_id), body.encode(), position, boundary == 1, pinned == 1)
                for position, body, pinned, boundary, message_id in rows
            ]
        return [
            Row("", body.encode(), position, boundary == 1, pinned == 1)
            for position, body, pinned, boundary in rows
        ]

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        ids = [names.index_id(names.to_text(each)) for each in dict.fromkeys(message_ids)]
        found: list[Row] = []
        for start in range(0, len(ids), _IDS_PER_STATEMENT):
            part = {f"id_{n}": each for n, each in enumerate(ids[start : start + _IDS_PER_STATEMENT])}
            statement = self._statements.find(len(part))(key=thread_digest(key), **part)
            found += map(to_row, await self._run(statement))
        return {row.message_id: row for row in found}

    async def threads(
        self,
        tenant: str | None,
        *,
        prefix: str = "",
        after: ListCursor | None = None,
        limit: int = 100,
        order: ThreadOrder = "id",
        expired_before: int | None = None,
    ) -> list[ListedThread]:
        """See `Backend.threads`."""
        if expired_before is not None:
            minute = expired_before // MINUTE
            statement = self._statements.expired(before=expired_before, minute=minute, limit=limit)
        else:
            column = names.to_text(prefix)
            low = column[: names.PREFIX_LENGTH]
            high = names.next_text(low)
            cursor = after or ListCursor(0, "")
            make = self._statements.threads(
                recent=order == "recent",
                prefix=bool(prefix),
                bounded=high is not None,
                after=after is not None,
            )
            bounds = {"low": low, "high": high, "prefix": column, "length": len(column)}
            bounds |= {"updated_us": cursor.updated_us, "minute": cursor.updated_us // MINUTE}
            bounds |= {"cursor": names.sort_key(names.to_text(cursor.thread_id)), "skip": limit - 1}
            statement = make(tenant_key=names.tenant_digest(tenant), limit=limit, **bounds)
        listed = []
        for owner, thread_id, *columns in await self._run(statement):
            key = ThreadKey(None if owner is None else names.from_text(owner), names.from_text(thread_id))
            listed.append(ListedThread(key, *to_thread(tuple(columns))))
        return listed

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `TenantLister.tenants`; reads one row of the index for each tenant."""
        rows = await self._run(self._statements.tenants())
        found = [None if tenant is None else names.from_text(tenant) for (tenant,) in rows]
        found.sort(key=_code_points)
        return [name for name in found if after is None or _code_points(name) > _code_points(after)][:limit]

    # -- writing ----------------------------------------------------------------------------------------

    async def append(
        self,
        key: ThreadKey,
        rows: Sequence[Row],
        *,
        request_id: str,
        now_us: int,
        expected_position: int | None = None,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
        create: bool = True,
    ) -> int | None:
        """See `Appender.append`: one round trip to PostgreSQL and MariaDB; on SQLite, a transaction.

        Known ids, expired threads, retries and the like are left to the fallback (see `Appender.append`).
        """
        unpinned = size = tokens = 0
        for row in rows:
            unpinned += not row.pinned
            size += row.bytes
            tokens += row.tokens
        if max_messages is not None and max_messages < max(1, unpinned):
            return None
        seconds, refresh = (None, None) if ttl is None else (ttl.seconds, ttl.refresh)
        digest, *owner = thread_names(key)
        added = len(rows)
        work = self._hot.append(
            (
                *(digest, names.to_line(request_id), now_us, expected_position, max_messages),
                *(seconds, refresh, create, *owner),
                *(added, unpinned, added - unpinned, size, tokens, rows[0].created_us, rows[-1].created_us),
            ),
            rows,
        )
        if work is None:
            return None
        # A retry is safe: a call that took effect is left to the fallback, which knows its request id.
        try:
            [(position,)] = await self._run(work, write=True, repeatable=True)
        except Abort:
            return None
        return cast("int | None", position)

    async def commit(
        self,
        key: ThreadKey,
        thread: Thread | None,
        *,
        expected: Version | None,
        put: Sequence[Row] = (),
        delete: Sequence[Row] = (),
        clear: bool = False,
    ) -> Version | None:
        """See `Backend.commit`; one transaction."""
        if expected is None and thread is None:
            raise VersionConflict
        row_id, version = cast("tuple[int, int]", expected or (0, 0))
        columns: dict[str, Any] = dict(zip(NAME_COLUMNS, thread_names(key), strict=True))
        values = {**columns, "key": columns["thread_key"], "id": row_id, "version": version}
        values |= {} if thread is None else thread_values(thread)
        s = self._statements

        def steps() -> Steps[Version | None]:
            number = row_id
            yield BEGIN
            if expected is None:
                [(number,)] = yield s.insert_thread(**values)
            else:
                if not (yield (s.delete_thread if thread is None else s.update_thread)(**values)):
                    raise Abort
                if clear or thread is None:
                    yield s.delete_rows(**values)
            for start in range(0, len(delete), _IDS_PER_STATEMENT):
                yield s.delete([row.position for row in delete[start : start + _IDS_PER_STATEMENT]])(
                    id=number
                )
            if put:
                yield s.put, [s.values(number, row) for row in put]
            return None if thread is None else (number, version + 1)

        try:
            return cast("Version | None", await self._run(steps))
        except Abort:
            raise VersionConflict from None

    async def build_search_index(self) -> int:
        """See `DatabaseMessageLog.build_search_index`."""
        if self._index is None:
            raise StoreRejectedError(f"{self.location} has no full-text search; SQLite and PostgreSQL do")
        return await self._index.build()

    async def scrub(self, keys: Sequence[ThreadKey]) -> bool:
        """See `Scrubber.scrub`: SQLite's file is rewritten, and its write-ahead log emptied.

        The other servers keep dead rows until they are vacuumed or purged: False.
        """
        if self.database.dialect != "sqlite":
            return False
        if self._index is not None:
            await self._index.optimize()
        await self._run(("VACUUM", ()), write=True, repeatable=True)
        [(busy, *_)] = await self._run(("PRAGMA wal_checkpoint(TRUNCATE)", ()), write=True, repeatable=True)
        return bool(busy == 0)

    async def aclose(self) -> None:
        """Close the connections, if no other backend of this process uses them."""
        await registry.release(self.database, self._finalizer)


def _code_points(name: str | None) -> bytes:
    """What names are ordered by; None comes first, as no name is empty."""
    return (name or "").encode(errors="surrogatepass")
