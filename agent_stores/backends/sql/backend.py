"""The SQL backend: the contract of `agent_stores.backend` over one database."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, cast

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
from agent_stores.backends.sql import append, names
from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.connect import connect, registry
from agent_stores.backends.sql.database import DuplicateRow
from agent_stores.backends.sql.names import new_thread, thread_names
from agent_stores.backends.sql.search import SearchIndex
from agent_stores.backends.sql.statements import (
    LARGEST,
    ROW_COLUMNS,
    Abort,
    Steps,
    Values,
    row_values,
    thread_values,
    to_row,
    to_thread,
)
from agent_stores.errors import MessageTooLargeError, StoreRejectedError

_CHUNK = 50  # rows or ids in one statement; old versions of SQLite allow 999 values
_STATEMENT_BYTES = 1_000_000  # bodies in one statement, unless one is larger


class SQLBackend:
    """Threads in the tables of an SQLite, PostgreSQL or MariaDB database.

    A version is the number of the thread's row, and how often the thread was written.

    Args:
        config: the database.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.database, self._finalizer = registry.acquire(config.identity, lambda: connect(config), user=self)
        database = self.database
        self.supports_inline = database.supports_inline
        self.loop_independent = database.loop_independent
        self._dialect = database.dialect
        self._is_postgresql = database.dialect == "postgresql"
        self._statements = s = database.statements
        self._latest = s.latest
        if self._is_postgresql:
            arguments = ", ".join(f":{name}" for name in append.VALUES)
            self._append = s.make(f"SELECT {{append_v2}}({arguments}, :rows)")
            self._latest = s.make("SELECT * FROM {latest_v2}(:key, :now, :limit)")
        self._sqlite = append.SQLiteAppend(s) if database.dialect == "sqlite" else None
        self._run = database.run
        self._index = None if database.dialect == "mariadb" else SearchIndex(database)
        if self._index is not None:
            self.search = self._index.search
            """See `SearchableBackend.search`; there is none on MariaDB."""

    @property
    def location(self) -> str:
        """See `Backend.location`."""
        return self._config.location

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`; for MariaDB known from the first operation on."""
        return self.database.limits

    # -- reading ----------------------------------------------------------------------------------------

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        rows = await self._run(self._statements.load.step(key=names.thread_digest(key)))
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
        found = await self._run(
            sql.step(
                key=names.thread_digest(key),
                after=after,
                before=LARGEST if before is None else before,
                limit=self._statements.no_limit if limit is None else limit,
            )
        )
        head, rows = None, []
        for row in found:
            if row[-1] is None:
                rows.append(to_row(row[: len(ROW_COLUMNS)]))
            else:
                head = to_thread(row)
        rows.sort(key=_position)
        return None if head is None else Snapshot(*head, rows)

    async def latest(self, key: ThreadKey, limit: int | None, *, now_us: int) -> list[Row]:
        """See `LatestReader.latest`; one statement, and another one where reads renew the time-to-live."""
        sql = self._latest
        digest = names.thread_digest(key)
        limit = self._statements.no_limit if limit is None else limit
        rows = await self._run((sql.text, sql.bind((digest, now_us, limit))))
        rows.sort()
        if rows and rows[0][0] == 0:
            del rows[0]
            await self._run(self._statements.renew.step(key=digest, now=now_us), write=True, repeatable=True)
        if self._is_postgresql:
            rows = [(position, body.encode(), *flags) for position, body, *flags in rows]
        return [
            Row("", body, position, boundary == 1, pinned == 1) for position, body, pinned, boundary in rows
        ]

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        found: dict[str, Row] = {}
        digest = names.thread_digest(key)
        ids = [names.index_id(names.to_text(each)) for each in dict.fromkeys(message_ids)]
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            sql = self._statements.find(len(part))
            rows = await self._run((sql.text, sql.bind((digest, *part))))
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
            rows = await self._run(self._statements.expired.step(before=expired_before, limit=limit))
        else:
            column = names.to_text(prefix)
            low = column[: names.PREFIX_LENGTH]
            high = names.next_text(low) if prefix else None
            recent = order == "recent"
            sql = self._statements.threads(
                recent=recent, prefix=bool(prefix), bounded=high is not None, after=after is not None
            )
            rows = await self._run(
                sql.step(
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
            )
        listed = []
        for owner, thread_id, *columns in rows:
            key = ThreadKey(None if owner is None else names.from_text(owner), names.from_text(thread_id))
            listed.append(ListedThread(key, *to_thread(tuple(columns))))
        return listed

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `TenantLister.tenants`; reads one row of the index for each tenant."""
        rows = await self._run(self._statements.tenants.step())
        found = [names.from_text(tenant) for (tenant,) in rows if tenant is not None]
        found.sort(key=_code_points)
        nameless = [None] if len(found) < len(rows) and after is None else []
        if after is not None:
            found = [name for name in found if _code_points(name) > _code_points(after)]
        return [*nameless, *found][:limit]

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
        """See `Appender.append`: one round trip to PostgreSQL and MariaDB, four statements to SQLite.

        Known ids, expired threads, calls that are retried and the like are left to the general path.
        """
        unpinned = size = tokens = 0
        for row in rows:
            unpinned += not row.pinned
            size += row.bytes
            tokens += row.tokens
        if max_messages is not None and max_messages < max(1, unpinned):
            return None
        added = len(rows)
        digest, *owner = thread_names(key)
        limits = (
            now_us,
            expected_position,
            max_messages,
            *((ttl.seconds, ttl.refresh) if ttl else (None, None)),
        )
        counts = (added, unpinned, added - unpinned, size, tokens, rows[0].created_us, rows[-1].created_us)
        values: Values = (digest, names.escape_line(request_id), *limits, create, *owner, *counts)
        sqlite = self._sqlite
        # A retry is safe: a call that took effect is left to the general path, by its request id.
        try:
            if sqlite is not None:
                position: int = await self._run(
                    steps=lambda: sqlite.steps(values, rows), write=True, repeatable=True
                )
                return position
            if self._is_postgresql:
                sql, values = self._append, (*values, append.to_json(rows))
            else:
                await self._check_sizes(rows)
                if added > _CHUNK or sum(len(row.body) for row in rows) > (self.limits.body_bytes or 0):
                    return None
                sql = append.append_mariadb(self._statements, added)
                values = (*values, *(v for at, row in enumerate(rows, 1) for v in row_values(row, at)))
            result = await self._run((sql.text, sql.bind(values)), write=True, repeatable=True)
            return cast("int | None", result[0][0])
        except (Abort, DuplicateRow):
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
        values: dict[str, Any] = {"key": names.thread_digest(key)}
        if expected is not None:
            values["id"], values["version"] = expected  # type: ignore[misc]
        elif thread is None:
            raise VersionConflict
        if thread is not None:
            values |= thread_values(thread)
            values |= new_thread(key) if expected is None else {}
        if put:
            await self._check_sizes(put)
        s = self._statements

        def steps() -> Steps[Version | None]:
            if thread is None:
                if _changed((yield s.delete_thread.step(**values))) != 1:
                    raise Abort
                yield s.delete_rows.step(**values)
                return None
            if expected is None:
                rows = yield s.insert_thread.step(**values)
                row_id, version = rows[0][0], 1
            else:
                row_id, version = values["id"], values["version"] + 1
                if clear:
                    rows = yield s.lock.step(**values)
                    if not rows:
                        raise Abort
                    yield s.clear.step(id=row_id, last_position=rows[0][0])
                if _changed((yield s.update_thread.step(**values))) != 1:
                    raise Abort
            for part in _chunks(delete):
                sql = s.delete(len(part))
                yield sql.text, sql.bind((row_id, *(row.position for row in part)))
            for part in _chunks(put):
                sql = s.insert(len(part), replace=True)
                rows = ((row_id, *row_values(row, row.position)) for row in part)
                yield sql.text, sql.bind(tuple(chain.from_iterable(rows)))
            return row_id, version

        try:
            new: Version | None = await self._run(steps=steps, write=True)
            return new
        except (Abort, DuplicateRow):
            raise VersionConflict from None

    async def copy(
        self, key: ThreadKey, new_key: ThreadKey, thread: Thread, *, expected: Version, at: int
    ) -> int | None:
        """See `ThreadCopier.copy`."""
        source: dict[str, Any] = {"key": names.thread_digest(key), "at": at}
        source["id"], source["version"] = expected  # type: ignore[misc]
        new = {"key": names.thread_digest(new_key), **thread_values(thread), **new_thread(new_key)}
        s = self._statements

        def steps() -> Steps[int]:
            rows = yield s.insert_thread.step(**new)
            row_id = rows[0][0]
            if not (yield s.lock.step(**source)):
                raise Abort
            yield s.copy_rows.step(**source, new_id=row_id)
            [(messages, *counters, last_us)] = yield s.count_rows.step(id=row_id)
            pinned, size, tokens = map(int, counters)
            counted = {"messages": messages, "pinned": pinned, "bytes": size, "tokens": tokens}
            yield s.set_counters.step(**counted, last_us=last_us, id=row_id)
            return int(messages)

        try:
            return cast("int", await self._run(steps=steps, write=True))
        except DuplicateRow:
            return None
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

    async def _check_sizes(self, rows: Sequence[Row]) -> None:
        """Check the sizes of bodies where the limit is known to the server alone."""
        if self._dialect != "mariadb":
            return
        if not self.database.ready:
            await self.load(ThreadKey(None, "-"))
        limit = self.limits.body_bytes or LARGEST
        for row in rows:
            if len(row.body) > limit:
                raise MessageTooLargeError(
                    f"message {row.message_id!r} has {len(row.body)} bytes, and {self.location} holds up to "
                    f"{limit} bytes; nothing was written",
                    size=len(row.body),
                    limit=limit,
                )


def _code_points(name: str) -> bytes:
    return name.encode(errors="surrogatepass")


def _position(row: Row) -> int:
    return row.position


def _changed(result: Any) -> int:
    """How many rows a statement changed, of their number or of what it returned of them."""
    return result if isinstance(result, int) else len(result)


def _chunks(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows as many statements take them."""
    chunks: list[list[Row]] = []
    room = count = 0
    for row in rows:
        if not chunks or count == _CHUNK or len(row.body) > room:
            chunks.append([])
            room, count = _STATEMENT_BYTES, 0
        chunks[-1].append(row)
        room -= len(row.body)
        count += 1
    return chunks
