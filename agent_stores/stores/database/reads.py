"""What reads a thread: each operation once, as a synchronous function of a transaction.

`server` runs them. How many statements an
operation takes does not depend on the length of the thread.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from operator import itemgetter
from typing import Annotated, Any

import msgspec
from sqlalchemy import (
    and_,
    bindparam,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)

from agent_stores.errors import ArgumentError
from agent_stores.log import Entry, Slice, ThreadKey, ThreadPage, ThreadStats
from agent_stores.retention import LARGEST, cut_at
from agent_stores.stores.database.rows import HEAD, to_entries, to_entry, to_head
from agent_stores.stores.database.schema import (
    SORT_LENGTH,
    Schema,
    from_text,
    tenant_digest,
    thread_digest,
    to_message_id,
    to_text,
)
from agent_stores.stores.database.statements import ONE, ZERO, Statement, Transaction
from agent_stores.stores.planning import head_stats

_position = itemgetter(0)


class Reads:
    """The reading operations on the tables of one schema. All of them take the transaction first."""

    def __init__(self, schema: Schema) -> None:
        self.threads = t = schema.threads
        self.messages = m = schema.messages
        self._is_pinned = m.c.pinned == ONE
        self._is_loose = m.c.pinned != ONE
        self._entry = [m.c.position, m.c.body, m.c.pinned, m.c.cut]
        self._unexpired = or_(t.c.expires_us.is_(None), t.c.expires_us > bindparam("now"))
        self._alive = and_(t.c.thread_key == bindparam("key"), self._unexpired)
        self._get = Statement(
            select(*self._entry)
            .join(t, t.c.id == m.c.thread)
            .where(self._alive, m.c.message_id == bindparam("message_id"))
        )
        self._stats = Statement(select(*(t.c[name] for name in HEAD)).where(self._alive))

    def read(
        self,
        tx: Transaction,
        key: ThreadKey,
        *,
        after: int,
        before: int | None,
        last: int | None,
        first: int | None,
        now: int,
    ) -> tuple[Slice, bool]:
        """See `MessageLog.read`; also returns whether the read renews the time-to-live."""
        values: dict[str, Any] = {"key": thread_digest(key), "now": now, "after": after}
        bounded = before is not None
        if bounded:
            values["before"] = before
        # One row more than wanted is read: it shows that there are more, and may begin the newest group.
        limit = first if last is None else last + 1
        if limit is not None:
            values["limit"] = limit
        query = self._query(bounded=bounded, limited=limit is not None, newest=last is not None)
        rows = sorted(tx.rows(query, values), key=_position)
        if not rows:
            return Slice([]), False
        _, _, renews, edge = rows.pop(0)
        has_older = False
        if last is not None and len(rows) > last:
            rows, has_older = self._newest(tx, values, rows, last, bounded=bounded)
        return Slice(to_entries(rows), has_older, edge != 0), renews == 1

    def _newest(
        self, tx: Transaction, values: dict[str, Any], rows: list[Any], last: int, *, bounded: bool
    ) -> tuple[list[Any], bool]:
        """The newest of the rows from a cut on, the pinned ones, and whether there are more.

        Reads again where the newest group is longer than what is wanted.
        """
        pinned = [row for row in rows if row[2]]
        loose: Sequence[Any] = [row for row in rows if not row[2]] if pinned else rows
        if len(loose) <= last:
            return rows, False
        cuts = [] if last == 0 or loose[1][3] else [row[3] == 1 for row in loose]
        if not cuts:
            loose = loose[1:]  # which is the rule where a cut may fall there
        elif any(cuts):
            loose = loose[cut_at(cuts, 1) :]
        else:
            loose = tx.rows(self._group_query(bounded=bounded), {**values, "below": loose[0][0]})
        return sorted([*pinned, *loose], key=_position) if pinned else list(loose), True

    def get(self, tx: Transaction, key: ThreadKey, message_id: str, *, now: int) -> Entry | None:
        """See `MessageLog.get`."""
        values = {"key": thread_digest(key), "now": now, "message_id": to_message_id(message_id)}
        rows = tx.rows(self._get, values)
        return to_entry(rows[0]) if rows else None

    def stats(self, tx: Transaction, key: ThreadKey, *, now: int) -> ThreadStats | None:
        """See `MessageLog.stats`."""
        rows = tx.rows(self._stats, {"key": thread_digest(key), "now": now})
        return head_stats(key, to_head(rows[0])) if rows else None

    def list_threads(
        self, tx: Transaction, tenant: str | None, *, prefix: str, limit: int, cursor: str | None, now: int
    ) -> ThreadPage:
        """See `MessageLog.list_threads`; the cursor is the last thread's place in the index, as JSON."""
        t = self.threads
        query = (
            select(t.c.sort_key, t.c.id, t.c.thread_id, *(t.c[name] for name in HEAD))
            .where(t.c.tenant_key == tenant_digest(tenant), self._unexpired)
            .order_by(t.c.sort_key, t.c.id)
            .limit(limit + 1)
        )
        if prefix:
            column = to_text(prefix)
            query = query.where(
                t.c.sort_key >= column[:SORT_LENGTH], func.substr(t.c.thread_id, 1, len(column)) == column
            )
            bound = _next_text(column[:SORT_LENGTH])
            if bound is not None:
                query = query.where(t.c.sort_key < bound)
        if cursor is not None:
            sort_key, row_id = _read_cursor(cursor)
            query = query.where(or_(t.c.sort_key > sort_key, and_(t.c.sort_key == sort_key, t.c.id > row_id)))
        rows = tx.conn.execute(query, {"now": now}).all()
        page = rows[:limit]
        more = msgspec.json.encode([page[-1].sort_key, page[-1].id]).decode() if len(rows) > limit else None
        return ThreadPage(
            [head_stats(ThreadKey(tenant, from_text(row.thread_id)), to_head(row[3:])) for row in page], more
        )

    @functools.lru_cache  # noqa: B019 - as many as there are combinations; operations live with their server
    def _query(self, *, bounded: bool, limited: bool, newest: bool) -> Statement:
        """A range of a thread: all of it or a number of rows, the oldest or the newest.

        With `newest`, pinned rows do not count, and all of them come along. A row of position 0 stands for
        the thread: whether reads renew its time-to-live, and whether a cut may fall at the range's end.
        """
        m, t = self.messages, self.threads
        extent = self._extent(bounded)
        edge: Any = ONE
        if bounded:
            beyond = select(m.c.cut).where(extent[0], m.c.position >= bindparam("before"))
            edge = func.coalesce(beyond.order_by(m.c.position).limit(1).scalar_subquery(), 1)
        renews = case((t.c.ttl_refresh == literal_column("'read'"), ONE), else_=ZERO)
        thread = select(ZERO, null(), renews, edge).where(self._alive)
        order = m.c.position.desc() if newest else m.c.position
        query = select(*self._entry).where(*extent, *([self._is_loose] if newest else [])).order_by(order)
        parts = [select((query.limit(bindparam("limit")) if limited else query).subquery("part")), thread]
        if newest:
            parts.append(select(*self._entry).where(*extent, self._is_pinned))
        return Statement(union_all(*parts))

    @functools.lru_cache  # noqa: B019
    def _group_query(self, *, bounded: bool) -> Statement:
        """The rows of a range that are not pinned, from the last cut below a position on."""
        m = self.messages
        extent = self._extent(bounded)
        start = (
            select(m.c.position)
            .where(*extent, self._is_loose, m.c.cut != ZERO, m.c.position < bindparam("below"))
            .order_by(m.c.position.desc())
            .limit(1)
            .scalar_subquery()
        )
        return Statement(
            select(*self._entry)
            .where(*extent, self._is_loose, m.c.position >= func.coalesce(start, 0))
            .order_by(m.c.position)
        )

    def _extent(self, bounded: bool) -> list[Any]:
        """The conditions of a range."""
        m = self.messages
        row_id = select(self.threads.c.id).where(self._alive).scalar_subquery()
        extent = [m.c.thread == row_id, m.c.position > bindparam("after")]
        return [*extent, m.c.position < bindparam("before")] if bounded else extent


def _next_text(prefix: str) -> str | None:
    """The first text, by code point, after all that begin with a prefix."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < 0x10FFFF:
            return prefix[:index] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None


def _read_cursor(cursor: str) -> tuple[str, int]:
    try:
        return msgspec.json.decode(cursor, type=tuple[str, Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]])
    except (msgspec.DecodeError, TypeError):
        raise ArgumentError("cursor is not one that list_threads returned") from None
