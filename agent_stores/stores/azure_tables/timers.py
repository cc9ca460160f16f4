"""What is written beside a thread so that it is found: its row in the tenant's list, and when it ends.

Both are written before the thread itself, so that none is missing after a crash; what turns out to name no
thread is removed by those who come across it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.heads import ThreadHead
from agent_stores.stores.azure_tables.text import names

_MARGIN = 8  # the time noted is later than the thread's end by this part of its time-to-live


async def announce(call: Call, key: ThreadKey, head: ThreadHead, now_us: int, *, is_new: bool) -> None:
    """Note a thread that is about to be written, and when it ends where that is not known yet.

    Args:
        call: the operation.
        key: the thread.
        head: the head that is about to be written; updated.
        now_us: the time.
        is_new: whether there was no such thread.
    """
    rows: list[dict[str, Any]] = []
    if is_new:
        rows.append(index_entity(key, now_us))
    if head.expires_us is None:
        head.known_us = None
    else:
        margin = round((head.ttl or 0.0) * 1_000_000) // _MARGIN
        known = head.known_us
        if known is None or not head.expires_us <= known <= head.expires_us + 2 * margin:
            head.known_us = head.expires_us + margin
            rows.append(timer_entity(key, head.known_us))
    await _write(call, rows)


async def note_remains(call: Call, key: ThreadKey, at_us: int) -> None:
    """Note that from then on rows of a thread are to be removed."""
    await _write(call, [timer_entity(key, at_us)])


def index_entity(key: ThreadKey, now_us: int) -> dict[str, Any]:
    """A thread's row in the list of its tenant's; the time says how long it may be without a thread."""
    return {
        "PartitionKey": keys.index_partition(key.tenant),
        "RowKey": keys.index_row(key.thread_id),
        "written": str(now_us),
        **names(key),
    }


def timer_entity(key: ThreadKey, at_us: int) -> dict[str, Any]:
    """The row that says that a thread ends."""
    return {
        "PartitionKey": keys.timer_partition(key),
        "RowKey": keys.timer_row(key, at_us),
        **names(key),
    }


async def _write(call: Call, rows: list[dict[str, Any]]) -> None:
    def writer(row: dict[str, Any]) -> Callable[[], Awaitable[None]]:
        return lambda: call.upsert(row)

    if len(rows) == 1:
        await call.upsert(rows[0])
    elif rows:
        await call.gather([writer(row) for row in rows])
