"""`TablesBackend`: threads in a table, by the contract of `agent_stores.backend`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

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
)
from agent_stores.backends.tables import keys, records
from agent_stores.backends.tables.appender import Appender
from agent_stores.backends.tables.cache import Known, ThreadCache
from agent_stores.backends.tables.committer import Committer
from agent_stores.backends.tables.index import Index
from agent_stores.backends.tables.reader import Reader
from agent_stores.backends.tables.records import Head, StoredHead
from agent_stores.backends.tables.sweeper import TableSweeper
from agent_stores.backends.tables.table import ConditionFailed, Table, put
from agent_stores.errors import OutcomeUnknownError
from agent_stores.thread_updates import expiry_after

_RENEWALS = 5  # attempts to renew a time-to-live after a read


class TablesBackend:
    """Threads in a table of a service.

    Args:
        table: the table; `aclose` closes it.
        cache: what the process knows of the table's threads; shared by the backends of a table.
        clock: returns seconds since 1970 UTC.
        loop_independent: whether the table may be used from any event loop.
    """

    def __init__(
        self,
        table: Table,
        cache: ThreadCache | None = None,
        *,
        clock: Callable[[], float] = time.time,
        loop_independent: bool = True,
    ) -> None:
        self.loop_independent = loop_independent
        self._table = table
        self._cache = ThreadCache() if cache is None else cache
        self._clock = clock
        self._reader = Reader(table, self._cache)
        self._index = Index(table)
        self._sweeper = TableSweeper(table, self._cache, self._index, self._now_us)
        self._appender = Appender(table, self._cache, self._reader, self._index)
        self._committer = Committer(
            table, self._cache, self._reader, self._index, self._sweeper, self._now_us
        )

    @property
    def location(self) -> str:
        """See `Backend.location`."""
        return self._table.location

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`."""
        limits = self._table.limits
        # A message and its id, and the head; and one more where a message that was pinned is replaced.
        return Limits(
            body_bytes=limits.body_bytes,
            commit_rows=(limits.operations - 2) // 2,
            commit_bytes=limits.transaction_bytes // 2,
        )

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        _check(key)
        stored = await self._reader.head(key)
        return None if stored is None else Snapshot(stored.thread, stored.version)

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
        """See `Backend.rows`."""
        _check(key)
        if after == 0 and before is None and (newest or limit is None) and bodies and not staged:
            found = await self._reader.latest(key, limit)
            return None if found is None else Snapshot(found[0].thread, found[0].version, found[1])
        last = None if before is None else before - 1
        return await self._reader.rows(
            key, first=after + 1, last=last, limit=limit, newest=newest, bodies=bodies, staged=staged
        )

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        _check(key)
        return await self._reader.find(key, message_ids)

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
        """See `Backend.commit`."""
        _check(key, put)
        if thread is None:
            await self._committer.delete(key, expected=expected)
            return None
        return await self._committer.commit(
            key, thread, expected=expected, puts=put, deletes=delete, clear=clear
        )

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
        """See `agent_stores.capabilities.Appender`."""
        _check(key, rows)
        return await self._appender.append(
            key,
            rows,
            request_id=request_id,
            now_us=now_us,
            expected_position=expected_position,
            max_messages=max_messages,
            ttl=ttl,
            create=create,
        )

    async def latest(self, key: ThreadKey, limit: int | None, *, now_us: int) -> list[Row]:
        """See `agent_stores.capabilities.LatestReader`."""
        _check(key)
        found = await self._reader.latest(key, limit)
        if found is None or found[0].thread.is_expired(now_us):
            return []
        stored, rows = found
        if stored.thread.ttl is not None and stored.thread.ttl_refresh == "read":
            await self._renew(key, stored, now_us)
        return rows

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
            return await self._sweeper.expired(expired_before, limit)
        read = self._index.by_id if order == "id" else self._index.by_recency
        return await read(tenant, prefix, after, limit, self._now_us())

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `agent_stores.capabilities.TenantLister`."""
        return await self._index.tenants(after, limit, self._now_us())

    async def sweep(self, *, limit: int) -> int:
        """See `agent_stores.capabilities.Sweeper`."""
        return await self._sweeper.sweep(limit)

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        await self._table.aclose()

    async def _renew(self, key: ThreadKey, stored: StoredHead | None, now_us: int) -> None:
        """Renew a time-to-live after a read, unless a write renews it meanwhile."""
        partition = keys.thread_partition(key)
        for _ in range(_RENEWALS):
            if stored is None or stored.thread.ttl is None:
                return
            expires_us = expiry_after(stored.thread.ttl, now_us) or 0
            if expires_us <= (stored.thread.expires_us or 0):
                return
            head: Head = replace(stored.head, thread=replace(stored.thread, expires_us=expires_us))
            with contextlib.suppress(ConditionFailed, OutcomeUnknownError):
                operations = [put(records.head_item(partition, head), stored.version)]
                version = (await self._table.transact(operations))[0]
                known = self._cache.get(key)
                if known is not None and known.stored.version == stored.version:
                    self._cache.put(key, known._replace(stored=StoredHead(head, version)))
                else:
                    self._cache.put(key, Known(StoredHead(head, version)))
                return
            stored = await self._reader.head(key)

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)


def _check(key: ThreadKey, rows: Sequence[Row] = ()) -> None:
    if key.tenant is not None:
        records.check_name("tenant", key.tenant)
    records.check_name("thread_id", key.thread_id)
    for row in rows:
        records.check_name("message_id", row.message_id)
