"""Removing rows that belong to no message any more: of what was trimmed, cleared, deleted, or expired.

Readers do not see such rows, so they are removed at leisure, by whoever comes first: in transactions of up to
100 rows, each on the condition that nobody changed the thread's head meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from agent_stores.errors import StoreError
from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.commits import load, write, write_parts
from agent_stores.stores.azure_tables.failures import ChangedError, LostError, MissingError, TakenError
from agent_stores.stores.azure_tables.heads import Stored, ThreadHead
from agent_stores.stores.azure_tables.ids import read_unsettled
from agent_stores.stores.azure_tables.rows import META, read_row, unique_entity
from agent_stores.stores.azure_tables.transactions import MAX_OPERATIONS, Operation, delete

_FEW = 2  # messages whose ids are looked at one by one, and one more for each page of ids
_PAGE = 1000
_TRIES = 3  # after others came in between; they, or later ones, do the rest
_UNIQUE = ("RowKey", "row")


async def sweep(call: Call, key: ThreadKey) -> None:
    """Remove the rows of a thread that belong to no message; what fails is left to the next one."""
    for _ in range(_TRIES):
        with contextlib.suppress(ChangedError, TakenError, MissingError):
            with contextlib.suppress(StoreError, LostError):
                call.progress()
                stored = await load(call, key)
                if stored is not None and stored.head.dirty and not stored.head.deleted:
                    await _sweep(call, key, stored)
            return


async def make_way(call: Call, key: ThreadKey, stored: Stored) -> None:
    """Remove what a writer that died left behind the end of a thread, before new rows take these places.

    A row of the other kind, pinned or not, would stay there, and show as soon as the head says so.

    Raises:
        ChangedError: when there was something, so that the thread is to be looked at again.
    """
    head = stored.head
    if head.dirty and head.top > head.offset + head.last_position:
        await sweep(call, key)
        raise ChangedError


async def remove_thread(call: Call, key: ThreadKey, stored: Stored) -> bool:
    """Remove all rows of a thread that expired or is to be deleted; False when somebody changed it meanwhile.

    A short thread is removed in one transaction. A long one is marked as deleted first.
    """
    partition = keys.thread_partition(key)
    listed = await _index_row(call, key)
    page = await call.query(partition, keys.HEAD, keys.AFTER_ALL, select=("RowKey",))
    rows = [row["RowKey"] for row in page.rows if row["RowKey"] != keys.HEAD]
    if page.more is None and len(rows) < MAX_OPERATIONS:
        if not await _delete_head(call, key, stored, rows):
            return False
    else:
        if not stored.head.deleted:
            head = stored.head.copy()
            head.deleted = True
            try:
                stored = await write(call, key, stored, head, [])
            except ChangedError:
                return False
        await _remove_marked(call, key, stored)
    await _unlist(call, listed)
    return True


async def remove_marked(call: Call, key: ThreadKey, stored: Stored) -> None:
    """Remove the rows of a thread that is marked as deleted, and its head at last."""
    listed = await _index_row(call, key)
    await _remove_marked(call, key, stored)
    await _unlist(call, listed)


async def _sweep(call: Call, key: ThreadKey, stored: Stored) -> None:
    partition = keys.thread_partition(key)
    noted: dict[str, str] | None = None
    if stored.head.unsettled:
        stored = await _settle(call, key, stored)
    while True:
        head = stored.head
        garbage, is_all = await _garbage(call, partition, head)
        if noted is None:
            noted = await _noted(call, partition, head, garbage, is_all=is_all)
        doomed: list[str] = []
        for entity in garbage:
            row_key = entity["RowKey"]
            doomed.append(row_key)
            if not keys.is_continuation(row_key):
                id_digest = read_row(head, entity).id_digest
                if noted.get(id_digest) == row_key:
                    doomed.append(keys.unique_row(id_digest))
        parts = _parts(doomed) or [[]]
        for part in parts:
            now = stored.head.copy()
            if is_all and part is parts[-1]:
                now.dirty, now.dead = False, []
            stored = await write(call, key, stored, now, delete(partition, part))
            call.progress()
        if is_all:
            return


async def _settle(call: Call, key: ThreadKey, stored: Stored) -> Stored:
    """Let the rows of ids name the messages that have them now."""
    partition = keys.thread_partition(key)
    noted = await _all_noted(call, partition)
    operations = [
        Operation("upsert", unique_entity(partition, row.id_digest, row.key))
        for row in await read_unsettled(call, key, stored.head)
        if noted.get(row.id_digest) != row.key
    ]
    now = stored.head.copy()
    now.unsettled = []
    return await write_parts(call, key, stored, now, operations, staged=stored.head)


async def _all_noted(call: Call, partition: str) -> dict[str, str]:
    rows = await call.query_all(partition, keys.UNIQUE, keys.AFTER_ALL, select=_UNIQUE)
    return {row["RowKey"][len(keys.UNIQUE) :]: row["row"] for row in rows}


async def _garbage(call: Call, partition: str, head: ThreadHead) -> tuple[list[Any], bool]:
    """Rows of messages that the thread does not hold, some thousand at once, and whether these are all."""
    first = head.offset
    rows = [
        row
        for row in await call.query_all(partition, keys.PINNED, keys.MESSAGE, select=META)
        if _is_garbage(head, row)
    ]
    ranges = [
        (keys.MESSAGE, keys.message_row(first + head.last_position)),
        (keys.message_row(first + head.base), keys.AFTER_MESSAGES),
    ]
    for low, high in head.dead:
        if high > head.base:
            after = max(low - 1, head.base)
            ranges.append((keys.message_row(first + high), keys.message_row(first + after)))
    for start, end in ranges:
        page = await call.query(partition, start, end, select=META)
        rows += page.rows
        if page.more is not None:
            return rows, False
    return rows, True


def _is_garbage(head: ThreadHead, entity: Any) -> bool:
    row_key = entity["RowKey"]
    return not head.holds(keys.message_number(row_key) - head.offset, pinned=row_key[0] == keys.PINNED)


async def _noted(
    call: Call, partition: str, head: ThreadHead, garbage: Sequence[Any], *, is_all: bool
) -> dict[str, str]:
    """Which rows the ids of messages belong to: those of the garbage, or all of the thread's."""
    digests = [
        read_row(head, entity).id_digest for entity in garbage if not keys.is_continuation(entity["RowKey"])
    ]
    if not is_all or len(digests) > _FEW + head.messages // _PAGE:
        return await _all_noted(call, partition)

    def reader(id_digest: str) -> Callable[[], Awaitable[Any]]:
        return lambda: call.get(partition, keys.unique_row(id_digest))

    found = await call.gather([reader(id_digest) for id_digest in digests if id_digest])
    return {row["RowKey"][len(keys.UNIQUE) :]: row["row"] for row in found if row is not None}


async def _remove_marked(call: Call, key: ThreadKey, stored: Stored) -> None:
    partition = keys.thread_partition(key)
    with contextlib.suppress(ChangedError, MissingError, TakenError):  # somebody else begins anew, or cleans
        while True:
            page = await call.query(partition, keys.PINNED, keys.AFTER_ALL, select=("RowKey",))
            if not page.rows:
                break
            for part in _parts([row["RowKey"] for row in page.rows]):
                stored = await write(call, key, stored, stored.head.copy(), delete(partition, part))
                call.progress()
        await _delete_head(call, key, stored, [])


async def _delete_head(call: Call, key: ThreadKey, stored: Stored, rows: Iterable[str]) -> bool:
    """Delete a head with the last rows; False when it is another one by now."""
    partition = keys.thread_partition(key)
    first = Operation("delete", {"PartitionKey": partition, "RowKey": keys.HEAD}, stored.version)
    while True:
        call.server.heads.drop(key)
        try:
            await call.submit([first, *delete(partition, rows)])
        except (ChangedError, MissingError):
            now = await load(call, key) if call.is_unknown else stored
        except LostError:
            call.is_unknown = True
            await call.pause()
            now = await load(call, key)
            if now is not None and now.version == stored.version:
                continue  # not done so far: the same again, of which only one can succeed
        else:
            now = None
        call.is_unknown = False
        # A head that began anew after ours was deleted does not remember what we wrote.
        return now is None or stored.head.writes[-1] not in now.head.writes


async def _index_row(call: Call, key: ThreadKey) -> Any:
    """A thread's row in the list of its tenant's, as it is now."""
    row_key = keys.index_row(key.thread_id)
    page = await call.query(keys.index_partition(key.tenant), row_key, f"{row_key}!")
    return page.rows[0] if page.rows else None


async def _unlist(call: Call, listed: Any) -> None:
    """Take a thread out of the list, unless somebody announced it anew."""
    if listed is not None:
        entity = {"PartitionKey": listed["PartitionKey"], "RowKey": listed["RowKey"]}
        with contextlib.suppress(ChangedError, MissingError, LostError, StoreError):
            await call.submit([Operation("delete", entity, listed.metadata["etag"])])


def _parts(rows: list[str]) -> list[list[str]]:
    """Rows to delete, as many at once as go into a transaction with the head."""
    return [rows[at : at + MAX_OPERATIONS - 1] for at in range(0, len(rows), MAX_OPERATIONS - 1)]
