"""`TablesBackend`: threads in a table, by the contract of `agent_stores.backend`."""

from __future__ import annotations

import time
from collections.abc import Callable

from agent_stores.backend import Limits, ListCursor, ListedThread, ThreadOrder
from agent_stores.backends.tables.appender import Appender
from agent_stores.backends.tables.cache import ThreadCache
from agent_stores.backends.tables.committer import Committer
from agent_stores.backends.tables.index import Index
from agent_stores.backends.tables.reader import Reader
from agent_stores.backends.tables.sweeper import TableSweeper
from agent_stores.backends.tables.table import Table


class TablesBackend:
    """Threads in a table of a service; an `Appender`, `LatestReader`, `TenantLister` and `Sweeper`, too.

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
        def now_us() -> int:
            return int(clock() * 1_000_000)

        cache = ThreadCache() if cache is None else cache
        index = Index(table, now_us)
        reader = Reader(table, cache)
        committer = Committer(table, cache, reader, index, now_us)
        appender = Appender(committer)
        self._sweeper = TableSweeper(table, index, now_us)
        self._index = index
        self.table = table
        self.loop_independent = loop_independent
        self.location = table.location
        limits = table.limits
        # A commit writes the head, and two items for a message: itself and its id; one more where a message
        # is no longer pinned.
        self.limits = Limits(
            body_bytes=limits.body_bytes,
            commit_rows=(limits.operations - 2) // 2,
            commit_bytes=limits.transaction_bytes // 2,
        )
        self.load = reader.load
        self.rows = reader.rows
        self.find = reader.find
        self.latest = reader.latest
        self.commit = committer.commit
        self.append = appender.append
        self.tenants = index.tenants
        self.sweep = self._sweeper.sweep
        self.scrub = self._sweeper.scrub
        self.aclose = table.aclose

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
        return await read(tenant, prefix, after, limit)
