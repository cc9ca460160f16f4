"""The SQL backend: the contract of `agent_stores.backend` over one database."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, cast

from agent_stores.backend import (
    Change,
    Limits,
    ListedThread,
    Row,
    RowRange,
    Snapshot,
    ThreadKey,
    ThreadQuery,
    Version,
    VersionConflict,
)
from agent_stores.backends.sql import names
from agent_stores.backends.sql.append import append_work, latest_text
from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Database
from agent_stores.backends.sql.engines import EngineDatabase, SQLiteDatabase, open_engine
from agent_stores.backends.sql.names import NAME_COLUMNS, thread_digest, thread_names
from agent_stores.backends.sql.search import SearchIndex
from agent_stores.backends.sql.statements import (
    FIND,
    HEAD,
    LARGEST,
    LOAD,
    MINUTE,
    STORED_COLUMNS,
    THREAD_COLUMNS,
    Abort,
    Statement,
    Steps,
    row_values,
    rows_text,
    thread_values,
    to_row,
    to_thread,
)
from agent_stores.capabilities import Append, tenants_after
from agent_stores.connection_pool import ServerRegistry
from agent_stores.errors import StoreRejectedError

registry: ServerRegistry[Database] = ServerRegistry()
"""The databases in use in this process."""

_IDS_PER_STATEMENT = 500
# Databases round differently: the minute may be one too small, which the index allows.
_RENEW = f"""UPDATE {{threads}} SET expires_us = :now + round(ttl * 1000000),
expires_minute = round((:now + ttl * 1000000) / {MINUTE}.0 - 0.5)
WHERE thread_key = :key AND ttl_refresh = 'read' AND expires_us > :now"""
_COLUMNS = (*THREAD_COLUMNS, "updated_minute", "expires_minute")
_INSERT_THREAD = f"""INSERT INTO {{threads}} (version, {", ".join((*NAME_COLUMNS, *_COLUMNS))})
VALUES (1, :{", :".join((*NAME_COLUMNS, *_COLUMNS))}) RETURNING id"""
_UPDATE_THREAD = f"UPDATE {{threads}} SET version = version + 1, {', '.join(f'{n} = :{n}' for n in _COLUMNS)}"


def connect(config: Config) -> Database:
    """The database of a configuration; nothing connects before the first operation."""
    if config.engine is not None:
        return EngineDatabase(config, config.engine, readers=config.max_connections)
    if config.dialect == "sqlite":
        return SQLiteDatabase(config)
    # psycopg's asynchronous connections do not run on the default event loop of Windows.
    of_psycopg = () if sys.platform == "win32" else ("psycopg", "psycopg_async")
    if config.url.get_driver_name() in ("asyncpg", *of_psycopg):
        from agent_stores.backends.sql.postgresql import PostgresDatabase

        return PostgresDatabase(config)
    return open_engine(config)


class SQLBackend:
    """Threads in the tables of an SQLite, PostgreSQL or MariaDB database.

    A version is the pair of the thread's row id and its count of writes.

    Args:
        config: the database.
    """

    def __init__(self, config: Config) -> None:
        self.location = config.location
        database, self._finalizer = registry.acquire(config.identity, lambda: connect(config), user=self)
        self.database, self._run, self._sql = database, database.run, database.sql
        self.supports_inline, self.loop_independent = database.supports_inline, database.loop_independent
        self._latest = {ids: latest_text(self._sql, ids=ids) for ids in (False, True)}
        if config.dialect != "mariadb":
            index = SearchIndex(database)
            self.search, self.build_search_index = index.search, index.build
            """See `SearchableBackend.search` and `SearchIndex.build`; there are none on MariaDB."""
        if config.notify:
            postgresql: Any = database
            self.subscribe = lambda key: postgresql.subscribe(thread_digest(key))
            """See `ChangeNotifier.subscribe`."""

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`."""
        return self.database.limits

    # -- reading ----------------------------------------------------------------------------------------

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        rows = await self._run(self._sql(LOAD, {"key": thread_digest(key)}))
        return Snapshot(*to_thread(rows[0])) if rows else None

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """See `Backend.rows`; one statement."""
        values = {
            "key": thread_digest(key),
            "after": wanted.after,
            "before": LARGEST if wanted.before is None else min(wanted.before, LARGEST),
            "limit": LARGEST if wanted.limit is None else wanted.limit,
        }
        text = rows_text(wanted.newest, wanted.bodies, self._sql.part)
        found = await self._run(self._sql(text, values))
        heads = [row for row in found if row[-1] is not None]
        rows = sorted((to_row(row) for row in found if row[-1] is None), key=attrgetter("position"))
        return Snapshot(*to_thread(heads[0]), rows) if heads else None

    async def latest(self, key: ThreadKey, limit: int | None, *, now_us: int, ids: bool = False) -> list[Row]:
        """See `LatestReader.latest`; one statement, and another one where reads renew the time-to-live."""
        values = {"key": thread_digest(key), "now": now_us, "limit": LARGEST if limit is None else limit}
        rows = await self._run(self._sql(self._latest[ids], values))
        rows.sort()
        if rows and rows[0][0] == 0:
            del rows[0]
            await self._run(self._sql(_RENEW, values), write=True, repeatable=True)
        encode: Callable[[Any], bytes] = bytes if self._sql.is_sqlite else str.encode
        # A mark is four times the position, and 2 for a pinned row, and 1 for one that is a boundary.
        if ids:
            return [
                Row(names.from_text(message_id), encode(body), mark >> 2, mark & 1 == 1, mark & 2 == 2)
                for mark, body, message_id in rows
            ]
        return [Row("", encode(body), mark >> 2, mark & 1 == 1, mark & 2 == 2) for mark, body in rows]

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        ids = [names.index_key(names.to_text(each)) for each in dict.fromkeys(message_ids)]
        found: list[Row] = []
        for start in range(0, len(ids), _IDS_PER_STATEMENT):
            part = {f"id_{n}": each for n, each in enumerate(ids[start : start + _IDS_PER_STATEMENT])}
            text = f"{FIND} AND m.message_id IN (:{', :'.join(part)})"
            found += map(to_row, await self._run(self._sql(text, {"key": thread_digest(key), **part})))
        return {row.message_id: row for row in found}

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        """See `Backend.threads`."""
        where, values = _page(query)
        text = f"SELECT t.tenant, t.thread_id, {HEAD} FROM {{threads}} t WHERE {where} LIMIT :limit"
        name_of = names.from_text
        return [
            ListedThread(ThreadKey(owner and name_of(owner), name_of(thread_id)), *to_thread(columns))
            for owner, thread_id, *columns in await self._run(self._sql(text, values))
        ]

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `TenantLister.tenants`; reads one row of the index for each tenant."""
        rows = await self._run(self._sql("SELECT DISTINCT tenant FROM {threads}"))
        return tenants_after([tenant and names.from_text(tenant) for (tenant,) in rows], after)[:limit]

    # -- writing ----------------------------------------------------------------------------------------

    async def append(self, key: ThreadKey, call: Append) -> int | None:
        """See `Appender.append`: one round trip to PostgreSQL and MariaDB; on SQLite, a transaction.

        Known ids, expired threads, retries and the like are left to the fallback (see `Appender.append`).
        """
        rows, ttl = call.rows, call.ttl
        pinned, size, tokens = call.totals()
        unpinned = len(rows) - pinned
        if call.max_messages is not None and call.max_messages < max(1, unpinned):
            return None
        seconds, refresh = (None, None) if ttl is None else (ttl.seconds, ttl.refresh)
        values = {
            **thread_names(key),
            **{"request": names.to_text(call.request_id), "now": call.now_us},
            **{"expected": call.expected_position, "most": call.max_messages},
            **{"ttl": seconds, "refresh": refresh, "may_create": call.create},
            **{"added": len(rows), "unpinned": unpinned, "pinned": pinned},
            **{"bytes": size, "tokens": tokens, "first": rows[0].created_us, "last": rows[-1].created_us},
        }
        work = append_work(self._sql, values, rows, self.database.limits.body_bytes)
        if work is None:
            return None
        # A retry is safe: a call that took effect is left to the fallback, which knows its request id.
        try:
            [(position,)] = await self._run(work, write=True, repeatable=True)
        except Abort:
            return None
        return cast("int | None", position)

    async def commit(self, key: ThreadKey, change: Change) -> Version | None:
        """See `Backend.commit`; one transaction."""
        thread, expected = change.thread, change.expected
        if expected is None and thread is None:
            raise VersionConflict
        row_id, version = cast("tuple[int, int]", expected or (0, 0))
        sql, values = self._sql, {**thread_names(key), "id": row_id, "version": version}
        if thread is not None:
            values |= thread_values(thread)
        of_version = "WHERE thread_key = :thread_key AND id = :id AND version = :version"
        if sql.dialect == "postgresql":  # asyncpg does not count changed rows
            of_version += " RETURNING id"

        def steps() -> Steps[Version | None]:
            number = row_id
            if expected is None:
                [(number,)] = yield sql(_INSERT_THREAD, values)
            else:
                text = "DELETE FROM {threads}" if thread is None else _UPDATE_THREAD
                if not (yield sql(f"{text} {of_version}", values)):
                    raise Abort
                if change.clear or thread is None:
                    bounds = {"low": number * LARGEST, "high": (number + 1) * LARGEST}
                    yield sql("DELETE FROM {messages} WHERE id > :low AND id < :high", bounds)
            places = [str(number * LARGEST + row.position) for row in change.delete]
            for start in range(0, len(places), _IDS_PER_STATEMENT):
                part = ", ".join(places[start : start + _IDS_PER_STATEMENT])
                yield sql(f"DELETE FROM {{messages}} WHERE id IN ({part})")
            if change.put:
                yield self._put(number, change.put)
            return None if thread is None else (number, version + 1)

        try:
            return cast("Version | None", await self._run(steps))
        except Abort:
            raise VersionConflict from None

    def _put(self, thread: int, rows: Sequence[Row]) -> Statement:
        """Insert rows, over those that have the same positions."""
        if (last := max(row.position for row in rows)) >= LARGEST:
            raise StoreRejectedError(f"a thread's positions must be below {LARGEST}, got {last}")
        conflict, change = "CONFLICT (id) DO UPDATE SET", "{0} = excluded.{0}"
        if self._sql.dialect == "mariadb":
            conflict, change = "DUPLICATE KEY UPDATE", "{0} = VALUES({0})"
        text, _ = self._sql.compile(
            f"INSERT INTO {{messages}} ({', '.join(STORED_COLUMNS)}) VALUES (:{', :'.join(STORED_COLUMNS)}) "
            f"ON {conflict} {', '.join(map(change.format, STORED_COLUMNS[3:-1]))}"
        )
        return text, [(*row_values(row, thread * LARGEST + row.position), thread) for row in rows]

    async def scrub(self, keys: Sequence[ThreadKey]) -> bool:
        """See `Scrubber.scrub`: SQLite's file is rewritten, and its write-ahead log emptied.

        The other servers keep dead rows until they are vacuumed or purged: False.
        """
        if self.database.dialect != "sqlite":
            return False
        await SearchIndex(self.database).optimize()
        await self._run(("VACUUM", ()), write=True, repeatable=True)
        [(busy, *_)] = await self._run(("PRAGMA wal_checkpoint(TRUNCATE)", ()), write=True, repeatable=True)
        return bool(busy == 0)

    async def aclose(self) -> None:
        """Close the connections, if no other backend of this process uses them."""
        await registry.release(self.database, self._finalizer)


def _page(query: ThreadQuery) -> tuple[str, dict[str, Any]]:
    """Which threads a query selects, in which order, and the values."""
    values: dict[str, Any] = {"limit": query.limit, "skip": query.limit - 1}
    if (expired := query.expired_before) is not None:
        values |= {"expired": expired, "minute": expired // MINUTE}
        return "t.expires_minute <= :minute AND t.expires_us < :expired ORDER BY t.expires_minute", values
    prefix, after = names.to_text(query.prefix), query.after
    values["tenant_key"] = names.tenant_digest(query.tenant)
    where = "t.tenant_key = :tenant_key"
    if prefix:
        low = prefix[: names.PREFIX_LENGTH]
        high = f"{low}{names.LAST * names.KEY_LENGTH}"[: names.KEY_LENGTH]
        values |= {"low": low, "high": high, "prefix": prefix, "length": len(prefix)}
        where += " AND t.sort_key BETWEEN :low AND :high"
        where += " AND substr(t.thread_id, 1, CAST(:length AS integer)) = :prefix"
    if after is not None:
        values |= {"cursor": names.index_key(names.to_text(after.thread_id)), "us": after.updated_us}
        values["minute"] = after.updated_us // MINUTE
    if query.order == "id":
        return where + (" AND t.sort_key > :cursor" if after else "") + " ORDER BY t.sort_key", values
    # The index gives the minute that ends the page: no more than the page and that minute are sorted.
    if after is not None:
        where += " AND t.updated_minute <= :minute AND "
        where += "(t.updated_us < :us OR t.updated_us = :us AND t.sort_key > :cursor)"
    last = f"SELECT o.updated_minute FROM {{threads}} o WHERE {where.replace('t.', 'o.')} "
    last += "ORDER BY o.updated_minute DESC LIMIT 1 OFFSET :skip"
    where += f" AND t.updated_minute >= coalesce(({last}), 0) "
    return f"{where}ORDER BY t.updated_minute DESC, t.updated_us DESC, t.sort_key", values
