"""Appending to a thread in one transaction, worked out from what the process remembers of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from agent_stores.backend import Row, Thread, ThreadKey, TimeToLive
from agent_stores.backends.tables import keys
from agent_stores.backends.tables.cache import MAX_OLDEST, Known
from agent_stores.backends.tables.committer import Committer
from agent_stores.backends.tables.operations import write_operations
from agent_stores.backends.tables.records import Head, StoredHead, StoredRow
from agent_stores.backends.tables.table import ConditionFailed
from agent_stores.errors import ConflictError, OutcomeUnknownError, StoreError
from agent_stores.thread_updates import (
    check_position,
    trim_index,
    with_request,
    with_rows,
    with_ttl,
    written,
)

_FEW = 16  # messages that are remembered of a thread that is not trimmed
_ITEM_BYTES = 2048  # of an item without its body, at most


class _Call(NamedTuple):
    """The arguments of an append."""

    key: ThreadKey
    rows: Sequence[Row]
    request_id: str
    now_us: int
    expected_position: int | None
    max_messages: int | None
    ttl: TimeToLive | None
    create: bool


class _Uncertain(Exception):
    """What the process remembers is not enough: the head has to be read."""


class Appender:
    """Appends to threads of a table."""

    def __init__(self, committer: Committer) -> None:
        self._table = committer.table
        self._cache = committer.cache
        self._reader = committer.reader
        self._index = committer.index

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
        unique: dict[str, Row] = {}
        for row in rows:
            unique.setdefault(row.message_id, row)
        rows = list(unique.values())
        call = _Call(key, rows, request_id, now_us, expected_position, max_messages, ttl, create)
        if any(len(row.body) > self._table.limits.item_bytes for row in rows):
            return None
        async with self._cache.queue.turn(key):
            for is_fresh in (False, True):
                known = self._cache.get(key)
                if known is None or is_fresh:
                    await self._reader.head(key)
                    known, is_fresh = self._cache.get(key), True
                try:
                    return await self._attempt(call, known, is_fresh=is_fresh)
                except _Uncertain:
                    continue
                except ConditionFailed as error:
                    self._cache.drop(key)
                    if is_fresh or error.index > 0:  # other writers were faster, or an id exists
                        return None
                except OutcomeUnknownError:
                    return await self._resolve(call)
        return None

    async def _resolve(self, call: _Call) -> int | None:
        """The result of an append whose answer was lost; None when it had no effect."""
        self._cache.drop(call.key)
        try:
            stored = await self._reader.head(call.key)
        except StoreError as error:
            raise OutcomeUnknownError(
                f"the connection to {self._table.location} was lost while a write was confirmed: "
                "it may or may not be stored"
            ) from error
        if stored is None or call.request_id not in stored.thread.recent_request_ids:
            return None
        return stored.thread.last_position

    async def _attempt(self, call: _Call, known: Known | None, *, is_fresh: bool) -> int | None:
        """Append by one transaction.

        Raises:
            _Uncertain: when the thread may have changed since it was read, and that matters.
            ConditionFailed: when it has changed (index 0), or an id exists.
            OutcomeUnknownError: when the answer was lost.
        """
        stored = None if known is None else known.stored
        head = Head(generation=keys.new_generation(call.now_us), thread=Thread())
        if stored is not None:
            head = stored.head
            if not head.thread.is_visible(call.now_us) or head.thread.staged_position:
                return _certain(None, is_fresh)
            if call.request_id in head.thread.recent_request_ids:
                return _certain(head.thread.last_position, is_fresh)
        if not call.create and head.thread.last_position == 0:
            return _certain(None, is_fresh)
        try:
            check_position(head.thread, call.expected_position)
        except ConflictError:  # unless all rows are there, which the general path finds out
            return _certain(None, is_fresh)
        known, trimmed = await self._trimmed(call, known)
        if trimmed is None or 1 + 2 * (len(call.rows) + len(trimmed)) > self._table.limits.operations:
            return None
        last = head.thread.last_position
        placed = [replace(row, position=last + number) for number, row in enumerate(call.rows, 1)]
        gone = [each.row for each in trimmed]
        old = None if stored is None else stored.head
        new = await self._index.announce(call.key, old, _grown(head, call, placed, gone))
        operations = write_operations(call.key, stored, new, placed, gone, are_new=True)
        size = _ITEM_BYTES * len(operations) + sum(len(each.item.body) for each in operations)
        if size > self._table.limits.transaction_bytes:
            return None
        version = (await self._table.transact(operations))[0]
        self._remember(call, known, StoredHead(new, version), placed, len(trimmed))
        await self._index.after_write(call.key, old, new)
        return new.thread.last_position

    async def _trimmed(
        self, call: _Call, known: Known | None
    ) -> tuple[Known | None, Sequence[StoredRow] | None]:
        """What is known of the thread now, and the messages that the append removes.

        These are None when the general path has to find them.
        """
        added = [row for row in call.rows if not row.pinned]
        unpinned = 0 if known is None else known.stored.thread.unpinned
        excess = 0 if call.max_messages is None else unpinned + len(added) - call.max_messages
        if excess <= 0:
            return known, ()
        if known is None or excess > min(unpinned, MAX_OLDEST):
            return known, None
        index = _cut(known, added, excess)
        if index is None and not known.has_all:
            head = known.stored.head
            oldest = await self._reader.oldest(
                call.key, head, head.floor + 1, head.thread.last_position, MAX_OLDEST, bodies=False
            )
            known = known._replace(oldest=oldest, has_all=len(oldest) == unpinned)
            index = _cut(known, added, excess)
        if index is None:
            return known, None
        removed = known.oldest[:index]
        taken = {row.message_id for row in call.rows}
        if any(each.tag or each.row.message_id in taken or not each.row.message_id for each in removed):
            return known, None
        return known, removed

    def _remember(
        self, call: _Call, known: Known | None, stored: StoredHead, placed: Sequence[Row], removed: int
    ) -> None:
        oldest = [] if known is None else list(known.oldest[removed:])
        has_all = known is None or known.has_all or not known.stored.thread.unpinned
        if has_all:
            oldest += [StoredRow(replace(row, body=b"")) for row in placed if not row.pinned]
        most = _FEW if call.max_messages is None else MAX_OLDEST
        if len(oldest) > most:
            oldest, has_all = oldest[:most], False
        self._cache.put(call.key, Known(stored, oldest, has_all))


def _grown(head: Head, call: _Call, placed: Sequence[Row], gone: Sequence[Row]) -> Head:
    """The head after the append."""
    thread = replace(
        head.thread,
        last_position=placed[-1].position,
        first_us=placed[0].created_us if head.thread.first_us is None else head.thread.first_us,
        last_us=placed[-1].created_us,
    )
    thread = with_rows(with_rows(thread, placed), gone, -1)
    thread = written(with_request(with_ttl(thread, call.ttl, call.now_us), call.request_id), call.now_us)
    low = gone[-1].position if gone else head.low
    return replace(head, thread=thread, low=low)


def _cut(known: Known, added: Sequence[Row], excess: int) -> int | None:
    """How many of the oldest messages a trim removes; None when what is known does not say."""
    rows = [each.row for each in known.oldest]
    if known.has_all:
        index = trim_index([row.boundary for row in (*rows, *added)], excess)
        return index if index <= len(rows) else None
    return next((index for index in range(excess, len(rows)) if rows[index].boundary), None)


def _certain(result: int | None, is_fresh: bool) -> int | None:
    """A result that must not rest on what may be out of date."""
    if not is_fresh:
        raise _Uncertain
    return result
