"""Listing a tenant's threads: a partition of their own names them, in the order of their ids."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agent_stores.errors import ArgumentError, StoreError
from agent_stores.log import ThreadPage, ThreadStats
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.commits import load
from agent_stores.stores.azure_tables.failures import ChangedError, LostError, MissingError
from agent_stores.stores.azure_tables.text import read_names
from agent_stores.stores.azure_tables.transactions import Operation
from agent_stores.stores.planning import head_stats

_CURSOR = re.compile(r"after:[A-Za-z0-9:_~!-]{0,512}")
_ANNOUNCED_US = 3600 * 1_000_000  # a thread may be announced for so long before it is there


async def list_threads(
    call: Call, tenant: str | None, *, prefix: str, limit: int, cursor: str | None, clock: Callable[[], int]
) -> ThreadPage:
    """See `MessageLog.list_threads`; the cursor names the last row of the page before."""
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise ArgumentError("cursor is not one that list_threads returned")
    partition = keys.index_partition(tenant)
    begin = keys.index_prefix(prefix)
    first = begin if cursor is None else max(begin, f"{cursor[len('after:') :]}\x20")
    found: list[tuple[str, ThreadStats]] = []
    more: Any = None
    while True:
        wanted = limit + 1 - len(found)
        page = await call.query(partition, first, keys.after_prefix(begin), top=wanted, more=more)
        found += await _threads_of(call, page.rows, prefix, clock())
        if len(found) > limit:
            return ThreadPage([stats for _, stats in found[:limit]], f"after:{found[limit - 1][0]}")
        if page.more is None:
            return ThreadPage([stats for _, stats in found])
        more = page.more
        call.progress()


async def _threads_of(
    call: Call, rows: Sequence[Any], prefix: str, now: int
) -> list[tuple[str, ThreadStats]]:
    """The threads of rows, with their rows' keys; rows that name no thread for long are removed."""

    def reader(row: Any) -> Callable[[], Awaitable[tuple[str, ThreadStats] | None]]:
        async def read() -> tuple[str, ThreadStats] | None:
            key = read_names(row)
            if not key.thread_id.startswith(prefix):
                return None
            stored = await load(call, key)
            if stored is not None and stored.head.is_live(now):
                return row["RowKey"], head_stats(key, stored.head)
            if stored is None and int(row["written"]) + _ANNOUNCED_US < now:
                await _forget(call, row)
            return None

        return read

    found = await call.gather([reader(row) for row in rows])
    return [one for one in found if one is not None]


async def _forget(call: Call, row: Any) -> None:
    """Remove a row that names no thread, unless it was announced anew."""
    entity = {"PartitionKey": row["PartitionKey"], "RowKey": row["RowKey"]}
    with contextlib.suppress(ChangedError, MissingError, LostError, StoreError):  # as without the right to
        await call.submit([Operation("delete", entity, row.metadata["etag"])])
