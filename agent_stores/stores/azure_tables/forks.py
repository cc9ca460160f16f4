"""Copying a thread to a new one, which comes into being whole."""

from __future__ import annotations

from collections.abc import Callable

from agent_stores.errors import NotFoundError, ThreadExistsError
from agent_stores.log import Record, ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.cleaning import sweep
from agent_stores.stores.azure_tables.commits import change, write_parts
from agent_stores.stores.azure_tables.heads import Stored, ThreadHead, new_token
from agent_stores.stores.azure_tables.reads import Part, read_all
from agent_stores.stores.azure_tables.rows import body_of, message_entities, unique_entity
from agent_stores.stores.azure_tables.timers import announce, note_remains
from agent_stores.stores.azure_tables.transactions import Operation
from agent_stores.stores.planning import fork_head, recut

_LEFT_FOR_US = 3600 * 1_000_000  # what is left of a copy whose writer died is removed then


async def fork(
    call: Call, key: ThreadKey, new_key: ThreadKey, *, at: int | None, clock: Callable[[], int]
) -> int:
    """See `MessageLog.fork`."""
    source = await read_all(call, key, clock())
    if source is None:
        raise NotFoundError(f"there is no thread {key.thread_id!r} to fork")
    call.progress()
    stored_source, part = source
    copy = _Copy(new_key, stored_source.head, part, at)

    async def attempt(stored: Stored | None) -> bool:
        now = clock()
        if stored is not None and stored.head.is_live(now):
            raise ThreadExistsError(f"there is a thread {new_key.thread_id!r} already")
        head, operations = copy.place(ThreadHead() if stored is None else stored.head.restarted())
        staged = ThreadHead(offset=head.offset, top=head.top, dirty=True, deleted=True, edits=head.edits)
        await announce(call, new_key, head, now, is_new=True)
        await note_remains(call, new_key, now + _LEFT_FOR_US)
        await write_parts(call, new_key, stored, head, operations, staged=staged)
        return head.dirty

    if await change(call, new_key, attempt):
        await sweep(call, new_key)
    return len(copy.records)


class _Copy:
    """A copy of a thread: its records, and where cuts may fall among them."""

    def __init__(self, new_key: ThreadKey, source: ThreadHead, part: Part, at: int | None) -> None:
        self.partition = keys.thread_partition(new_key)
        self.source = source
        self.at = at
        rows = [row for row in part.rows if at is None or row.position <= at]
        cuts, self.open_calls = recut((row.position, *row.links) for row in rows)
        self.records = [
            (
                row,
                cuts[row.position],
                Record(
                    row.id_digest,
                    body_of(row, part.further),
                    row.created_us,
                    row.tokens,
                    row.pinned,
                    *row.links,
                ),
            )
            for row in rows
        ]

    def place(self, start: ThreadHead) -> tuple[ThreadHead, list[Operation]]:
        """The copy's head in the place of another one, and the operations that write its messages."""
        common = fork_head(self.source, self.at)
        head = ThreadHead(
            **{name: getattr(common, name) for name in common.__struct_fields__},
            offset=start.offset,
            top=start.offset + common.last_position,
            dirty=start.dirty,
            edits=start.edits,
        )
        head.open_calls = dict(self.open_calls)
        head.base = head.front_to = min(self.source.base, head.last_position)
        tag = new_token()
        operations = []
        for row, cut, record in self.records:
            head.add(record)
            head.last_us = record.created_us
            if cut:
                head.group = row.position
            entities = message_entities(
                self.partition,
                head.offset + row.position,
                record,
                cut=cut,
                id_digest=row.id_digest,
                tag=tag,
            )
            operations += [Operation("upsert", entity) for entity in entities]
            operations.append(
                Operation("upsert", unique_entity(self.partition, row.id_digest, entities[0]["RowKey"]))
            )
        return head, operations
