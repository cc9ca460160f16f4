"""Putting other messages in the place of all that a thread holds, in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent_stores.log import Record, ThreadKey, TimeToLive
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.appends import STAGED_FOR_US, begin, mark_cuts, staged_head
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.cleaning import make_way, sweep
from agent_stores.stores.azure_tables.commits import change, write_parts
from agent_stores.stores.azure_tables.failures import TakenError
from agent_stores.stores.azure_tables.heads import Stored, ThreadHead, head_entity, new_token
from agent_stores.stores.azure_tables.ids import Seen, look
from agent_stores.stores.azure_tables.rows import (
    META,
    message_entities,
    message_rows,
    unique_entity,
    with_short_links,
)
from agent_stores.stores.azure_tables.timers import announce, note_remains
from agent_stores.stores.azure_tables.transactions import Operation, pack
from agent_stores.stores.planning import Row, plan_rewrite


async def rewrite(
    call: Call,
    key: ThreadKey,
    records: Sequence[Record],
    *,
    batch_id: str,
    expected_position: int | None,
    ttl: TimeToLive | None,
    clock: Callable[[], int],
) -> int:
    """See `MessageLog.rewrite`.

    The new messages are added behind the old ones, which are gone when the head says so.
    """
    rewriting = _Rewrite(call, key, [with_short_links(record) for record in records])

    async def attempt(stored: Stored | None) -> tuple[int, bool]:
        now = clock()
        is_new = stored is None or not stored.head.is_live(now)
        if stored is not None and not is_new:
            await make_way(call, key, stored)
        head = begin(stored, is_new=is_new)
        before = ThreadHead() if stored is None or is_new else stored.head
        plan = plan_rewrite(head, rewriting.records, batch_id=batch_id, expected_position=expected_position)
        if plan is None or not (records or before.messages):
            return head.last_position, False
        _empty(head, before)
        mark_cuts(head, plan.rows, plan.closed)
        head.top = max(head.top, head.offset + head.last_position)
        if ttl is not None:
            head.set_ttl(ttl, now, by_hand=False)
        head.written(now)
        await announce(call, key, head, now, is_new=is_new)
        await rewriting.write(stored, head, plan.rows, now, is_new=is_new)
        return head.last_position, head.dirty

    position, is_dirty = await change(call, key, attempt)
    if is_dirty:
        await sweep(call, key)
    return position


class _Rewrite:
    """The attempts of one call."""

    def __init__(self, call: Call, key: ThreadKey, records: Sequence[Record]) -> None:
        self.call = call
        self.key = key
        self.partition = keys.thread_partition(key)
        self.records = records
        self.digests = {record.message_id: keys.digest(record.message_id) for record in records}
        self.tag = new_token()
        self.must_look = False  # some ids that no message has are noted

    async def write(
        self, stored: Stored | None, head: ThreadHead, rows: Sequence[Row], now: int, *, is_new: bool
    ) -> None:
        """Write the messages and the head."""
        kept = set() if stored is None or is_new else await self._ids_of(stored.head)
        seen: dict[str, Seen] = {}
        if self.must_look:
            others = {name: one for name, one in self.digests.items() if one not in kept}
            seen = await look(self.call, self.key, head, others)
        added: list[Operation] = []
        # The rows of ids that stay are those of messages still to be seen: they change with the head only.
        final: list[Operation] = []
        for row in rows:
            id_digest = self.digests[row.record.message_id]
            entities = message_entities(
                self.partition,
                head.offset + row.position,
                row.record,
                cut=row.cut,
                id_digest=id_digest,
                tag=self.tag,
            )
            added += [Operation("upsert", entity) for entity in entities]
            entity = unique_entity(self.partition, id_digest, entities[0]["RowKey"])
            known = seen.get(row.record.message_id)
            if id_digest in kept:
                final.append(Operation("upsert", entity))
            else:
                added.append(Operation("upsert" if known and known.is_noted else "create", entity))
        first = Operation("create", head_entity(self.key, head))
        if len(pack(final, first)) > 1:
            final, head.unsettled = [], [(rows[0].position, rows[-1].position)]
        if is_new and len(pack(added, first)) > 1:
            await note_remains(self.call, self.key, now + STAGED_FOR_US)
        staged = staged_head(stored, head, is_new=is_new)
        try:
            await write_parts(self.call, self.key, stored, head, added, staged=staged, final=final)
        except TakenError:
            self.must_look = True
            raise

    async def _ids_of(self, head: ThreadHead) -> set[str]:
        """The digests of the ids that the thread holds."""
        if not head.messages:
            return set()
        entities = await self.call.query_all(self.partition, keys.PINNED, keys.AFTER_MESSAGES, select=META)
        return {row.id_digest for row in message_rows(head, entities)}


def _empty(head: ThreadHead, before: ThreadHead) -> None:
    """Let go of all messages of before."""
    head.base = head.pins_base = head.group = head.front_to = before.last_position
    head.dead, head.closed, head.front, head.unsettled = [], [], [], []
    head.dirty = head.dirty or before.messages > 0
    head.edits += 1
