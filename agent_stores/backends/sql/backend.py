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
from agent_stores.backends.sql.append import AT_ONCE, HotPath
from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Database
from agent_stores.backends.sql.names import NAME_COLUMNS, thread_digest, thread_names
from agent_stores.backends.sql.search import SearchIndex
from agent_stores.backends.sql.sqlite import SQLiteDatabase
from agent_stores.backends.sql.statements import (
    BEGIN,
    LARGEST,
    Abort,
    Steps,
    row_values,
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

_AT_ONCE = 500  # ids in one statement


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

    A version is the number of the thread's row, and how often the thread was written.

    Args:
        config: the database.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.database, self._finalizer = registry.acquire(config.identity, lambda: connect(config), user=self)
        self.supports_inline = self.database.supports_inline
        self.loop_independent = self.database.loop_independent
        self._statements = self.database.statements
        self._hot = HotPath(self._statements)
        calls = {"postgresql": self._hot.function, "mariadb": self._hot.compound}
        self._in_one_trip = calls.get(config.dialect)
        """Makes the one statement of an append; on SQLite it is a transaction of several."""
        self._run = self.database.run
        self._index = None if config.dialect == "mariadb" else SearchIndex(self.database)
        if self._index is not None:
            self.search = self._index.search
            """See `SearchableBackend.search`; there is none on MariaDB."""
        if config.notify:
            database = cast("PostgresDatabase", self.database)
            self.subscribe = lambda key: database.subscribe(thread_digest(key))
            """See `ChangeNotifier.subscribe`."""

    @property
    def location(self) -> str:
        """See `Backend.location`."""
        return self._config.location

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
        sql = self._statements.rows(newest=newest, bodies=bodies, staged=staged)
        before = LARGEST if before is None else before
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
        found: dict[str, Row] = {}
        ids = [names.index_id(names.to_text(each)) for each in dict.fromkeys(message_ids)]
        for start in range(0, len(ids), _AT_ONCE):
            part = {f"id_{n}": each for n, each in enumerate(ids[start : start + _AT_ONCE])}
            rows = await self._run(self._statements.find(len(part))(key=thread_digest(key), **part))
            found.update((row.message_id, row) for row in map(to_row, rows))
        return found

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
            statement = self._statements.expired(before=expired_before, limit=limit)
        else:
            column = names.to_text(prefix)
            low = column[: names.PREFIX_LENGTH]
            high = names.next_text(low)
            statement = self._statements.threads(
                recent=order == "recent",
                prefix=bool(prefix),
                bounded=high is not None,
                after=after is not None,
            )(
                tenant_key=names.tenant_digest(tenant),
                low=low,
                high=high,
                prefix=column,
                length=len(column),
                updated_us=after.updated_us if after else 0,
                cursor=names.sort_key(names.to_text(after.thread_id)) if after else "",
                skip=limit - 1,
                limit=limit,
            )
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

        Known ids, expired threads, calls that are retried and the like are left to the general path.
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
        values = (
            *(digest, names.to_line(request_id), now_us, expected_position, max_messages),
            *(seconds, refresh, create, *owner),
            *(added, unpinned, added - unpinned, size, tokens, rows[0].created_us, rows[-1].created_us),
        )
        # A retry is safe: a call that took effect is left to the general path, by its request id.
        try:
            if self._in_one_trip is not None:
                if self._config.dialect == "mariadb" and (
                    added > AT_ONCE or size > (self.limits.body_bytes or 0)
                ):
                    return None  # more than a packet
                call = self._in_one_trip(values, rows)
                return cast("int | None", (await self._run(call, write=True, repeatable=True))[0][0])
            steps = self._hot.steps
            return cast("int", await self._run(steps=lambda: steps(values, rows), repeatable=True))
        except Abort:
            return None

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
            row_id = values["id"]
            yield BEGIN
            if thread is None:
                if _changed((yield s.delete_thread(**values))) != 1:
                    raise Abort
                yield s.delete_rows(**values)
                return None
            if expected is None:
                [(row_id,)] = yield s.insert_thread(**values)
            else:
                if clear:
                    rows = yield s.lock(**values)
                    if not rows:
                        raise Abort
                    yield s.clear(id=row_id, last_position=rows[0][0])
                if _changed((yield s.update_thread(**values))) != 1:
                    raise Abort
            for start in range(0, len(delete), _AT_ONCE):
                yield s.delete([row.position for row in delete[start : start + _AT_ONCE]])(id=row_id)
            if put:
                yield s.put, [(row_id, *row_values(row, row.position)) for row in put]
            return row_id, version + 1

        try:
            return cast("Version | None", await self._run(steps=steps))
        except Abort:
            raise VersionConflict from None

    async def build_search_index(self) -> int:
        """See `DatabaseMessageLog.build_search_index`."""
        if self._index is None:
            raise StoreRejectedError(f"{self.location} has no full-text search; SQLite and PostgreSQL do")
        return await self._index.build()

    async def aclose(self) -> None:
        """Close the connections, if no other backend of this process uses them."""
        await registry.release(self.database, self._finalizer)


def _code_points(name: str | None) -> bytes:
    """What names are ordered by; None comes first, as no name is empty."""
    return (name or "").encode(errors="surrogatepass")


def _changed(result: Any) -> int:
    """How many rows a statement changed, of their number or of what it returned of them."""
    return result if isinstance(result, int) else len(result)
