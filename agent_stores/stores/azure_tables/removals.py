"""Doing away with whole threads: on request, and when their time is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call, Page
from agent_stores.stores.azure_tables.cleaning import remove_marked, remove_thread, sweep
from agent_stores.stores.azure_tables.commits import change, load
from agent_stores.stores.azure_tables.failures import ChangedError, LostError, MissingError
from agent_stores.stores.azure_tables.heads import Stored
from agent_stores.stores.azure_tables.text import read_names
from agent_stores.stores.azure_tables.timers import note_remains
from agent_stores.stores.azure_tables.transactions import MAX_OPERATIONS, Operation

_DUE = 100  # times of expiry that are read at once


async def delete_thread(call: Call, key: ThreadKey, *, clock: Callable[[], int]) -> bool:
    """See `MessageLog.delete_thread`."""

    async def attempt(stored: Stored | None) -> bool:
        now = clock()
        if stored is None or not stored.head.is_live(now):
            return False
        if stored.head.messages > MAX_OPERATIONS // 2 or stored.head.dirty:
            await note_remains(call, key, now)  # should this process end before all is removed
        if not await remove_thread(call, key, stored):
            raise ChangedError
        return True

    return await change(call, key, attempt)


async def purge_expired(call: Call, *, limit: int, clock: Callable[[], int]) -> int:
    """See `MessageLog.purge_expired`."""
    now = clock()
    count = 0

    def reader(partition: str) -> Callable[[], Awaitable[Page]]:
        return lambda: call.query(partition, "", keys.timer_time(now), top=_DUE)

    while True:
        pages = await call.gather([reader(partition) for partition in keys.timer_partitions()])
        for page in pages:
            done = []
            for row in page.rows:
                if count >= limit:
                    break
                call.progress()
                count += await _purge(call, read_names(row), now)
                done.append(row)
            await _forget(call, done)
        if count >= limit or all(page.more is None for page in pages):
            return count


async def _purge(call: Call, key: ThreadKey, now: int) -> bool:
    """Remove what is left of a thread; whether it had expired."""
    stored = await load(call, key)
    if stored is None:
        return False
    if stored.head.deleted:
        await remove_marked(call, key, stored)
        return False
    if stored.head.is_expired(now):
        return await remove_thread(call, key, stored)
    if stored.head.dirty:
        await sweep(call, key)
    return False


async def _forget(call: Call, rows: list[Any]) -> None:
    """Remove times that are over, of one partition; others may do the same at the same time."""
    operations = [
        Operation("delete", {"PartitionKey": row["PartitionKey"], "RowKey": row["RowKey"]}) for row in rows
    ]
    while operations:
        try:
            await call.submit(operations[:MAX_OPERATIONS])
            operations = operations[MAX_OPERATIONS:]
        except MissingError as error:
            del operations[error.index]
        except LostError:
            return  # they come up again
