"""Finding messages by their ids: each id has a row that names the row of its message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.heads import ThreadHead
from agent_stores.stores.azure_tables.rows import META, MessageRow, message_rows, read_row


class Seen(NamedTuple):
    """What is known of a message id.

    Attributes:
        is_held: whether the thread holds a message with it.
        is_noted: whether there is a row for it.
        rows: rows of a message that had it and is held no more.
    """

    is_held: bool
    is_noted: bool
    rows: Sequence[str] = ()


async def look(call: Call, key: ThreadKey, head: ThreadHead, digests: Mapping[str, str]) -> dict[str, Seen]:
    """What there is under message ids.

    Args:
        call: the operation.
        key: the thread.
        head: its head.
        digests: the ids, and their digests.
    """
    unsettled = {row.id_digest for row in await read_unsettled(call, key, head)}

    def looker(message_id: str) -> Callable[[], Awaitable[tuple[str, Seen]]]:
        async def look_at() -> tuple[str, Seen]:
            id_digest = digests[message_id]
            if id_digest in unsettled:
                return message_id, Seen(is_held=True, is_noted=True)
            return message_id, await _look_at(call, key, head, id_digest)

        return look_at

    return dict(await call.gather([looker(message_id) for message_id in digests]))


async def find(call: Call, key: ThreadKey, head: ThreadHead, id_digest: str) -> MessageRow | None:
    """The row of the message with an id; without its text where its id's row is not settled yet."""
    for row in await read_unsettled(call, key, head):
        if row.id_digest == id_digest:
            return row
    return held(head, await follow(call, key, id_digest), id_digest)


async def follow(call: Call, key: ThreadKey, id_digest: str) -> Any:
    """The row that is noted for a message id, as it is stored; None when there is none."""
    partition = keys.thread_partition(key)
    noted = await call.get(partition, keys.unique_row(id_digest))
    return None if noted is None else await call.get(partition, noted["row"])


def held(head: ThreadHead, entity: Any, id_digest: str) -> MessageRow | None:
    """A row that is noted for an id, if it is that of a message which the thread holds."""
    if entity is None:
        return None
    row = read_row(head, entity)
    is_it = row.id_digest == id_digest and head.holds(row.position, pinned=row.pinned)
    return row if is_it else None


async def read_unsettled(call: Call, key: ThreadKey, head: ThreadHead) -> list[MessageRow]:
    """The messages whose ids' rows may name older ones, without their text."""
    if not head.unsettled:
        return []
    partition = keys.thread_partition(key)
    entities: list[Any] = await call.query_all(partition, keys.PINNED, keys.MESSAGE, select=META)
    for first, last in head.unsettled:
        begin, end = keys.message_row(head.offset + last), keys.message_row(head.offset + first - 1)
        entities += await call.query_all(partition, begin, end, select=META)
    return [
        row
        for row in message_rows(head, entities)
        if any(first <= row.position <= last for first, last in head.unsettled)
    ]


async def _look_at(call: Call, key: ThreadKey, head: ThreadHead, id_digest: str) -> Seen:
    partition = keys.thread_partition(key)
    noted = await call.get(partition, keys.unique_row(id_digest))
    if noted is None:
        return Seen(is_held=False, is_noted=False)
    entity: Any = await call.get(partition, noted["row"])
    row = None if entity is None else read_row(head, entity)
    if row is None or row.id_digest != id_digest:
        return Seen(is_held=False, is_noted=True)  # left over, and its row is another's now
    if head.holds(row.position, pinned=row.pinned):
        return Seen(is_held=True, is_noted=True)
    was_held = row.position <= head.last_position
    return Seen(is_held=False, is_noted=True, rows=row.row_keys if was_held else ())
