"""What reads a thread: each operation once, as a synchronous function on a connection.

`server` runs them: on a worker thread, or inside an async engine's `run_sync`. How many statements an
operation takes does not depend on the length of the thread.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from operator import itemgetter
from typing import Annotated, Any

import msgspec
from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)

from agent_stores.errors import ArgumentError
from agent_stores.log import Entry, Slice, ThreadKey, ThreadPage, ThreadStats
from agent_stores.retention import LARGEST, cut_at
from agent_stores.stores.database.rows import to_entry, to_head
from agent_stores.stores.database.schema import (
    SORT_LENGTH,
    Schema,
    from_text,
    tenant_digest,
    thread_digest,
    to_message_id,
    to_text,
)
from agent_stores.stores.planning import head_stats

_position = itemgetter(0)


class Reads:
    """The reading operations on the tables of one schema. All of them take the connection first."""

    def __init__(self, schema: Schema) -> None:
        self.threads = t = schema.threads
        self.messages = m = schema.messages
        # As text: a parameter would keep the partial index from being used.
        self._is_pinned = m.c.pinned == literal_column("1")
        self._is_loose = m.c.pinned == literal_column("0")
        self._entry = [m.c.position, m.c.body, m.c.pinned, m.c.cut]
        self._unexpired = or_(t.c.expires_us.is_(None), t.c.expires_us > bindparam("now"))
        self._alive = and_(t.c.thread_key == bindparam("key"), self._unexpired)

    def read(
        self,
        conn: Connection,
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
        if before is not None:
            values["before"] = before
        bounded = before is not None
        if last is not None:
            rows, has_older = self._read_last(conn, values, last, bounded=bounded)
        else:
            has_older = False
            if first is not None:
                values["first"] = first
            query = self._read_query(bounded=bounded, limited=first is not None)
            rows = conn.execute(query, values).all()
        if not rows:
            return Slice([]), False
        edge, refresh = rows[0].edge, rows[0].ttl_refresh
        return Slice([to_entry(row) for row in rows], has_older, edge != 0), refresh == "read"

    def _read_last(
        self, conn: Connection, values: dict[str, Any], last: int, *, bounded: bool
    ) -> tuple[Sequence[Any], bool]:
        """The newest rows that are not pinned, from a cut on, the pinned ones, and whether there are more.

        One statement, and a second one where the newest group is longer than what is wanted.
        """
        newest = self._tail_query(bounded=bounded)
        rows: list[Any] = sorted(conn.execute(newest, {**values, "limit": last + 1}).all(), key=_position)
        pinned = [row for row in rows if row[2]]
        loose: Sequence[Any] = [row for row in rows if not row[2]] if pinned else rows
        if len(loose) <= last:
            return rows, False
        # One row more than wanted was read: it shows that there are more, and may begin the newest group.
        cuts = [row[3] == 1 for row in loose]
        if last and not any(cuts):
            query = self._group_query(bounded=bounded)
            loose = conn.execute(query, {**values, "below": loose[0].position}).all()
        else:
            loose = loose[cut_at(cuts, 1) if last else 1 :]
        return sorted([*pinned, *loose], key=_position), True

    def get(self, conn: Connection, key: ThreadKey, message_id: str, *, now: int) -> Entry | None:
        """See `MessageLog.get`."""
        m, t = self.messages, self.threads
        query = (
            select(*self._entry)
            .join(t, t.c.id == m.c.thread)
            .where(self._alive, m.c.message_id == bindparam("message_id"))
        )
        values = {"key": thread_digest(key), "now": now, "message_id": to_message_id(message_id)}
        row = conn.execute(query, values).first()
        return None if row is None else to_entry(row)

    def stats(self, conn: Connection, key: ThreadKey, *, now: int) -> ThreadStats | None:
        """See `MessageLog.stats`."""
        query = select(self.threads).where(self._alive)
        row = conn.execute(query, {"key": thread_digest(key), "now": now}).first()
        return None if row is None else head_stats(key, to_head(row))

    def list_threads(
        self, conn: Connection, tenant: str | None, *, prefix: str, limit: int, cursor: str | None, now: int
    ) -> ThreadPage:
        """See `MessageLog.list_threads`; the cursor is the last thread's place in the index, as JSON."""
        t = self.threads
        query = (
            select(t)
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
        rows = conn.execute(query, {"now": now}).all()
        page = rows[:limit]
        more = msgspec.json.encode([page[-1].sort_key, page[-1].id]).decode() if len(rows) > limit else None
        return ThreadPage(
            [head_stats(ThreadKey(tenant, from_text(row.thread_id)), to_head(row)) for row in page], more
        )

    @functools.lru_cache  # noqa: B019 - as many as there are combinations; operations live with their server
    def _read_query(self, *, bounded: bool, limited: bool) -> Any:
        """A range, oldest first."""
        columns, extent = self._range(bounded)
        query = select(*columns).where(*extent).order_by(self.messages.c.position)
        return query.limit(bindparam("first")) if limited else query

    @functools.lru_cache  # noqa: B019
    def _tail_query(self, *, bounded: bool) -> Any:
        """The newest rows of a range that are not pinned, and all that are."""
        position = self.messages.c.position
        columns, extent = self._range(bounded)
        tail = select(*columns).where(*extent, self._is_loose)
        newest = tail.order_by(position.desc()).limit(bindparam("limit")).subquery("newest")
        return union_all(select(newest), select(*columns).where(*extent, self._is_pinned))

    @functools.lru_cache  # noqa: B019
    def _group_query(self, *, bounded: bool) -> Any:
        """The rows of a range that are not pinned, from the last cut below a position on."""
        m = self.messages
        columns, extent = self._range(bounded)
        start = (
            select(m.c.position)
            .where(*extent, self._is_loose, m.c.cut == 1, m.c.position < bindparam("below"))
            .order_by(m.c.position.desc())
            .limit(1)
            .scalar_subquery()
        )
        return (
            select(*columns)
            .where(*extent, self._is_loose, m.c.position >= func.coalesce(start, 0))
            .order_by(m.c.position)
        )

    def _range(self, bounded: bool) -> tuple[list[Any], list[Any]]:
        """The columns to read, and the conditions of a range."""
        m, t = self.messages, self.threads
        row_id = select(t.c.id).where(self._alive).scalar_subquery()
        refresh = select(t.c.ttl_refresh).where(self._alive).scalar_subquery()
        extent = [m.c.thread == row_id, m.c.position > bindparam("after")]
        edge: Any = literal(1)
        if bounded:
            beyond = select(m.c.cut).where(m.c.thread == row_id, m.c.position >= bindparam("before"))
            edge = beyond.order_by(m.c.position).limit(1).scalar_subquery()
            extent.append(m.c.position < bindparam("before"))
        return [*self._entry, refresh.label("ttl_refresh"), edge.label("edge")], extent


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
