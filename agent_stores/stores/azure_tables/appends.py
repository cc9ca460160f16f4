"""Adding messages to a thread: one transaction, worked out from the head alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from agent_stores.errors import ConflictError
from agent_stores.log import Record, ThreadKey, TimeToLive
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.cleaning import make_way, sweep
from agent_stores.stores.azure_tables.commits import change, write, write_parts
from agent_stores.stores.azure_tables.failures import ChangedError, MissingError, TakenError
from agent_stores.stores.azure_tables.heads import Brief, Stored, ThreadHead, head_entity, new_token
from agent_stores.stores.azure_tables.ids import Seen, look
from agent_stores.stores.azure_tables.rows import (
    message_entities,
    row_keys,
    unique_entity,
    with_short_links,
)
from agent_stores.stores.azure_tables.timers import announce, note_remains
from agent_stores.stores.azure_tables.transactions import Operation, delete, pack
from agent_stores.stores.azure_tables.trimming import Trim, trim
from agent_stores.stores.planning import Row, plan_append

STAGED_FOR_US = 3600 * 1_000_000
"""When what is left of a new thread, whose writer died, is removed."""


async def append(
    call: Call,
    key: ThreadKey,
    records: Sequence[Record],
    *,
    batch_id: str,
    expected_position: int | None,
    max_messages: int | None,
    ttl: TimeToLive | None,
    clock: Callable[[], int],
) -> int:
    """See `MessageLog.append`."""
    attempt = _Append(
        call, key, [with_short_links(record) for record in records], batch_id, expected_position, max_messages
    )
    position, is_dirty = await change(call, key, partial(attempt.run, ttl=ttl, clock=clock), known=True)
    if is_dirty:
        await sweep(call, key)
    return position


class _Append:
    """The attempts of one call."""

    def __init__(
        self,
        call: Call,
        key: ThreadKey,
        records: Sequence[Record],
        batch_id: str,
        expected_position: int | None,
        max_messages: int | None,
    ) -> None:
        self.call = call
        self.key = key
        self.partition = keys.thread_partition(key)
        self.records = records
        self.batch_id = batch_id
        self.expected_position = expected_position
        self.max_messages = max_messages
        self.digests = {record.message_id: keys.digest(record.message_id) for record in records}
        self.tag = new_token()
        self.must_look = False  # some of the ids are taken
        self.deletes_rows = True  # what is trimmed is deleted in the same transaction

    async def run(
        self, stored: Stored | None, *, ttl: TimeToLive | None, clock: Callable[[], int]
    ) -> tuple[int, bool]:
        """Add the messages to the thread with this head.

        Returns:
            The last position, and whether rows are left to be removed.
        """
        now = clock()
        is_new = stored is None or not stored.head.is_live(now)
        if stored is not None and not is_new:
            await make_way(self.call, self.key, stored)
        head = begin(stored, is_new=is_new)
        seen = {}
        if self.must_look and stored is not None:
            seen = await look(self.call, self.key, head, self.digests)
        try:
            plan = plan_append(
                head,
                self.records,
                batch_id=self.batch_id,
                present=[name for name, one in seen.items() if one.is_held],
                expected_position=self.expected_position,
            )
        except ConflictError:
            if stored is None or (stored.is_fresh and self.must_look):
                raise
            self.must_look = self.must_look or stored.is_fresh
            raise ChangedError from None  # look at the head, and whether all is there, before saying so
        if not plan.rows:
            if stored is not None and not stored.is_fresh:
                raise ChangedError
            return head.last_position, False
        mark_cuts(head, plan.rows, plan.closed)
        head.top = max(head.top, head.offset + head.last_position)
        trimmed = await trim(self.call, self.key, head, plan.rows, self.max_messages)
        if stored is not None and not self.must_look and self._is_in_doubt(plan.rows, trimmed):
            self.must_look = True
            raise ChangedError
        if ttl is not None:
            head.set_ttl(ttl, now, by_hand=False)
        head.written(now)
        await announce(self.call, self.key, head, now, is_new=is_new)
        await self._write(stored, head, trimmed, seen, now, is_new=is_new)
        return head.last_position, head.dirty

    async def _write(
        self,
        stored: Stored | None,
        head: ThreadHead,
        trimmed: Trim,
        seen: Mapping[str, Seen],
        now: int,
        *,
        is_new: bool,
    ) -> None:
        added = self._row_operations(head, trimmed.kept, seen)
        gone = self._delete_operations(head, trimmed.gone) if self.deletes_rows else []
        first = Operation("create", head_entity(self.key, head))
        if len(pack([*added, *gone], first)) > 1 or (trimmed.gone and not self.deletes_rows):
            gone, head.dirty = [], head.dirty or bool(trimmed.gone)
        try:
            if len(pack([*added, *gone], first)) == 1:
                await write(self.call, self.key, stored, head, [*added, *gone])
                return
            staged = staged_head(stored, head, is_new=is_new)
            if is_new:
                await note_remains(self.call, self.key, now + STAGED_FOR_US)
            await write_parts(self.call, self.key, stored, head, added, staged=staged)
        except TakenError:
            self.must_look = True
            raise
        except MissingError:
            self.deletes_rows = False
            raise

    def _is_in_doubt(self, rows: Sequence[Row], trimmed: Trim) -> bool:
        """Whether writing would not show that an id is taken: of what is trimmed at once, or is what goes."""
        gone = {one.id_digest for one in trimmed.gone}
        return len(trimmed.kept) < len(rows) or any(
            self.digests[row.record.message_id] in gone for row in trimmed.kept
        )

    def _row_operations(
        self, head: ThreadHead, rows: Sequence[Row], seen: Mapping[str, Seen]
    ) -> list[Operation]:
        operations = []
        for row in rows:
            number = head.offset + row.position
            message_id = row.record.message_id
            id_digest = self.digests[message_id]
            entities = message_entities(
                self.partition, number, row.record, cut=row.cut, id_digest=id_digest, tag=self.tag
            )
            operations += [Operation("upsert", entity) for entity in entities]
            known = seen.get(message_id)
            operations.append(
                Operation(
                    "upsert" if known and known.is_noted else "create",
                    unique_entity(self.partition, id_digest, entities[0]["RowKey"]),
                )
            )
            if known:
                operations += delete(self.partition, known.rows)
        return operations

    def _delete_operations(self, head: ThreadHead, gone: Sequence[Brief]) -> list[Operation]:
        return delete(
            self.partition,
            [
                row
                for one in gone
                for row in (
                    *row_keys(keys.message_row(head.offset + one.position), one.parts, one.tag),
                    keys.unique_row(one.id_digest),
                )
            ],
        )


def begin(stored: Stored | None, *, is_new: bool) -> ThreadHead:
    """The head to change: a new one where there is no thread."""
    if stored is None:
        return ThreadHead()
    return stored.head.restarted() if is_new else stored.head.copy()


def staged_head(stored: Stored | None, head: ThreadHead, *, is_new: bool) -> ThreadHead:
    """The head while the rows of an append are being written: that of before."""
    if stored is None or is_new:
        return ThreadHead(
            offset=head.offset, top=head.top, dirty=True, deleted=True, edits=head.edits, ttl=head.ttl
        )
    staged = stored.head.copy()
    staged.top, staged.dirty = head.top, True
    return staged


def mark_cuts(head: ThreadHead, rows: Sequence[Row], closed: Sequence[tuple[int, int]]) -> None:
    """Note where cuts may no longer fall among older messages, and behind which message none may."""
    for first, last in closed:
        head.close(first, last)
    head.group = max((row.position for row in rows if row.cut), default=head.group)
