"""Each operation on a thread, once, as a synchronous function on a connection inside a transaction.

`server` runs them: on a worker thread, or inside an async engine's `run_sync`. How many statements an
operation takes does not depend on the length of the thread.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    CompoundSelect,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from agent_stores.errors import ArgumentError, NotFoundError, ThreadExistsError
from agent_stores.log import Entry, Record, Slice, ThreadKey, ThreadPage, ThreadStats, TimeToLive
from agent_stores.retention import cut_at
from agent_stores.stores.database.schema import (
    SORT_LENGTH,
    Schema,
    from_text,
    tenant_digest,
    thread_digest,
    to_message_id,
    to_text,
)
from agent_stores.stores.planning import Head, fork_head, head_stats, plan_append, recut

_IDS_AT_ONCE = 500  # ids in one statement; SQLite allows 999 parameters in old versions

_names = msgspec.json.Decoder(list[str])
_positions = msgspec.json.Decoder(dict[str, int])
_links = msgspec.json.Decoder(tuple[tuple[str, ...], tuple[str, ...]])


class Operations:
    """The operations on the tables of one schema. All of them take the connection first."""

    def __init__(self, schema: Schema) -> None:
        self.threads = t = schema.threads
        self.messages = m = schema.messages
        # As text: a parameter would keep the partial index from being used.
        self._is_pinned = m.c.pinned == literal_column("1")
        self._is_loose = m.c.pinned == literal_column("0")
        self._entry = [m.c.position, m.c.body, m.c.pinned, m.c.cut]
        self._meta = [m.c.position, m.c.bytes, m.c.tokens, m.c.pinned, m.c.links]
        self._find = select(t).where(t.c.thread_key == bindparam("key"))
        self._lock = self._find.with_for_update()
        self._alive = and_(
            t.c.thread_key == bindparam("key"),
            or_(t.c.expires_us.is_(None), t.c.expires_us > bindparam("now")),
        )
        self._present = select(m.c.message_id).where(
            m.c.thread == bindparam("thread"), m.c.message_id.in_(bindparam("ids", expanding=True))
        )
        self._close_cuts = (
            update(m)
            .where(m.c.thread == bindparam("thread_"), m.c.position.between(bindparam("lo"), bindparam("hi")))
            .values(cut=0)
        )
        self._insert = insert(m)
        self._save = update(t).where(t.c.id == bindparam("row_id"))
        self._trim_start = self._trim_query()
        self._trim = (
            delete(m)
            .where(
                m.c.thread == bindparam("thread"),
                m.c.pinned == 0,
                m.c.position < bindparam("start"),
            )
            .returning(m.c.bytes, m.c.tokens)
        )

    # -- writing --------------------------------------------------------------------------------------

    def append(
        self,
        conn: Connection,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None,
        max_messages: int | None,
        ttl: TimeToLive | None,
        now: int,
    ) -> int:
        """See `MessageLog.append`."""
        row_id, head = self._open(conn, key, now)
        columns = {record.message_id: to_message_id(record.message_id) for record in records}
        present: set[str] = set()
        if head.last_position:
            for ids in _chunks(list(columns.values())):
                present.update(conn.execute(self._present, {"thread": row_id, "ids": ids}).scalars())
        plan = plan_append(
            head,
            records,
            batch_id=batch_id,
            present={name for name, column in columns.items() if column in present},
            expected_position=expected_position,
        )
        if not plan.rows:
            return head.last_position
        conn.execute(
            self._insert,
            [
                {
                    "thread": row_id,
                    "position": row.position,
                    "message_id": columns[row.record.message_id],
                    "cut": int(row.cut),
                    **_columns(row.record),
                }
                for row in plan.rows
            ],
        )
        for lo, hi in plan.closed:
            conn.execute(self._close_cuts, {"thread_": row_id, "lo": lo, "hi": hi})
        excess = head.excess(max_messages)
        if excess > 0:
            start = conn.execute(self._trim_start, {"thread": row_id, "excess": excess}).scalar()
            start = head.last_position + 1 if start is None else start
            for size, tokens in conn.execute(self._trim, {"thread": row_id, "start": start}):
                head.messages -= 1
                head.bytes -= size
                head.tokens -= tokens
            head.forget_calls(before=start)
        if ttl is not None:
            head.set_ttl(ttl, now, by_hand=False)
        head.written(now)
        self._save_head(conn, row_id, head)
        return head.last_position

    def replace(self, conn: Connection, key: ThreadKey, record: Record, *, now: int) -> bool:
        """See `MessageLog.replace`."""
        m = self.messages
        found = self._locked(conn, key, now)
        rows = self._rows(conn, found[0], [record.message_id]) if found else []
        if found is None or not rows:
            return False
        row_id, head = found
        old = rows[0]
        _count(head, old, -1)
        head.add(record)
        conn.execute(
            update(m).where(m.c.thread == row_id, m.c.position == old.position).values(**_columns(record))
        )
        if old.links or record.calls or record.results:
            self._recut(conn, row_id, head)
        head.written(now)
        self._save_head(conn, row_id, head)
        return True

    def delete(self, conn: Connection, key: ThreadKey, message_ids: Sequence[str], *, now: int) -> int:
        """See `MessageLog.delete`."""
        found = self._locked(conn, key, now)
        rows = self._rows(conn, found[0], message_ids) if found else []
        if found and rows:
            self._take_out(conn, *found, rows, now)
        return len(rows)

    def pop_last(self, conn: Connection, key: ThreadKey, *, now: int) -> Entry | None:
        """See `MessageLog.pop_last`."""
        m = self.messages
        found = self._locked(conn, key, now)
        if found is None:
            return None
        row = conn.execute(
            select(*self._meta, m.c.body, m.c.cut)
            .where(m.c.thread == found[0], m.c.pinned == 0)
            .order_by(m.c.position.desc())
            .limit(1)
        ).first()
        if row is None:
            return None
        self._take_out(conn, *found, [row], now)
        return _entry(row)

    def clear(self, conn: Connection, key: ThreadKey, *, now: int) -> int:
        """See `MessageLog.clear`."""
        found = self._locked(conn, key, now)
        if found is None:
            return 0
        row_id, head = found
        count = head.messages
        conn.execute(delete(self.messages).where(self.messages.c.thread == row_id))
        head.messages = head.pinned = head.bytes = head.tokens = 0
        head.open_calls = {}
        head.forget_batches()
        head.written(now)
        self._save_head(conn, row_id, head)
        return count

    def set_ttl(self, conn: Connection, key: ThreadKey, ttl: TimeToLive, *, now: int) -> bool:
        """See `MessageLog.set_ttl`."""
        found = self._locked(conn, key, now)
        if found is None:
            return False
        row_id, head = found
        head.set_ttl(ttl, now, by_hand=True)
        self._save_head(conn, row_id, head)
        return True

    def renew(self, conn: Connection, key: ThreadKey, *, now: int) -> None:
        """Renew the time-to-live of a thread whose time reads renew."""
        found = self._locked(conn, key, now)
        if found is not None:
            row_id, head = found
            head.renew(now)
            self._save_head(conn, row_id, head)

    def fork(self, conn: Connection, key: ThreadKey, new_key: ThreadKey, *, at: int | None, now: int) -> int:
        """See `MessageLog.fork`."""
        m = self.messages
        found = self._locked(conn, key, now)
        if found is None:
            raise NotFoundError(f"there is no thread {key.thread_id!r} to fork")
        row_id, source = found
        taken = self._locked(conn, new_key, now) is not None
        new_id = None if taken else self._insert_thread(conn, new_key)
        if new_id is None:
            raise ThreadExistsError(f"there is a thread {new_key.thread_id!r} already")
        copied = [column for column in m.c if column.name != "thread"]
        upto = literal(True) if at is None else m.c.position <= at
        conn.execute(
            insert(m).from_select(
                ["thread", *(column.name for column in copied)],
                select(literal(new_id), *copied).where(m.c.thread == row_id, upto),
            )
        )
        head = fork_head(source, at)
        counts = conn.execute(
            select(func.count(), func.sum(m.c.pinned), func.sum(m.c.bytes), func.sum(m.c.tokens)).where(
                m.c.thread == new_id
            )
        ).one()
        head.messages, head.pinned, head.bytes, head.tokens = (int(value or 0) for value in counts)
        newest = select(m.c.created_us).where(m.c.thread == new_id).order_by(m.c.position.desc()).limit(1)
        head.last_us = conn.execute(newest).scalar() or head.last_us
        head.open_calls = dict(source.open_calls)
        if at is not None:
            self._recut(conn, new_id, head)
        self._save_head(conn, new_id, head)
        return head.messages

    def delete_thread(self, conn: Connection, key: ThreadKey, *, now: int) -> bool:
        """See `MessageLog.delete_thread`."""
        found = self._locked(conn, key, now)
        if found is None:
            return False
        self._delete_threads(conn, [found[0]])
        return True

    def purge_expired(self, conn: Connection, *, limit: int, now: int) -> int:
        """See `MessageLog.purge_expired`."""
        t = self.threads
        expired = (
            select(t.c.id).where(t.c.expires_us <= now).order_by(t.c.expires_us).limit(limit)
        ).with_for_update()
        ids = list(conn.execute(expired).scalars())
        for part in _chunks(ids):
            self._delete_threads(conn, part)
        return len(ids)

    # -- reading --------------------------------------------------------------------------------------

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
            rows = list(conn.execute(query, values))
        if not rows:
            return Slice([]), False
        edge, refresh = rows[0].edge, rows[0].ttl_refresh
        return Slice([_entry(row) for row in rows], has_older, edge != 0), refresh == "read"

    def _read_last(
        self, conn: Connection, values: dict[str, Any], last: int, *, bounded: bool
    ) -> tuple[list[Row[Any]], bool]:
        """The newest rows that are not pinned, from a cut on, the pinned ones, and whether there are more.

        One statement, and a second one where the newest group is longer than what is wanted.
        """
        newest = self._tail_query(bounded=bounded)
        rows = sorted(conn.execute(newest, {**values, "limit": last + 1}), key=lambda row: row.position)
        pinned = [row for row in rows if row.pinned]
        loose = [row for row in rows if not row.pinned]
        if len(loose) <= last:
            return rows, False
        # One row more than wanted was read: it shows that there are more, and may begin the newest group.
        cuts = [bool(row.cut) for row in loose]
        if last and not any(cuts):
            query = self._group_query(bounded=bounded)
            loose = list(conn.execute(query, {**values, "below": loose[0].position}))
        else:
            loose = loose[cut_at(cuts, 1) if last else 1 :]
        return sorted([*pinned, *loose], key=lambda row: row.position), True

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
        return None if row is None else _entry(row)

    def stats(self, conn: Connection, key: ThreadKey, *, now: int) -> ThreadStats | None:
        """See `MessageLog.stats`."""
        query = select(self.threads).where(self._alive)
        row = conn.execute(query, {"key": thread_digest(key), "now": now}).first()
        return None if row is None else head_stats(key, _head(row))

    def list_threads(
        self, conn: Connection, tenant: str | None, *, prefix: str, limit: int, cursor: str | None, now: int
    ) -> ThreadPage:
        """See `MessageLog.list_threads`; the cursor is the last thread's place in the index, as JSON."""
        t = self.threads
        query = (
            select(t)
            .where(
                t.c.tenant_key == tenant_digest(tenant),
                or_(t.c.expires_us.is_(None), t.c.expires_us > now),
            )
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
        rows = conn.execute(query).all()
        page = rows[:limit]
        more = msgspec.json.encode([page[-1].sort_key, page[-1].id]).decode() if len(rows) > limit else None
        return ThreadPage(
            [head_stats(ThreadKey(tenant, from_text(row.thread_id)), _head(row)) for row in page], more
        )

    # -- inside ---------------------------------------------------------------------------------------

    def _open(self, conn: Connection, key: ThreadKey, now: int) -> tuple[int, Head]:
        """Lock a thread's row, making it if need be; a thread that expired begins anew."""
        found = self._locked(conn, key, now)
        if found is not None:
            return found
        row_id = self._insert_thread(conn, key)
        if row_id is not None:
            return row_id, Head()
        row = conn.execute(self._lock, {"key": thread_digest(key)}).one()  # another writer was faster
        return row.id, _head(row)

    def _locked(self, conn: Connection, key: ThreadKey, now: int) -> tuple[int, Head] | None:
        """Lock a thread's row until the transaction ends; what is left of an expired thread goes."""
        row = conn.execute(self._lock, {"key": thread_digest(key)}).first()
        if row is None:
            return None
        head = _head(row)
        if head.is_expired(now):
            self._delete_threads(conn, [row.id])
            return None
        return row.id, head

    def _insert_thread(self, conn: Connection, key: ThreadKey) -> int | None:
        """Insert a thread's row and return its number; None when it is there already."""
        thread_id = to_text(key.thread_id)
        values = {
            "thread_key": thread_digest(key),
            "tenant_key": tenant_digest(key.tenant),
            "sort_key": thread_id[:SORT_LENGTH],
            "tenant": None if key.tenant is None else to_text(key.tenant),
            "thread_id": thread_id,
            **_head_columns(Head()),
        }
        if conn.dialect.name == "sqlite":
            statement: Any = sqlite.insert(self.threads).on_conflict_do_nothing()
        elif conn.dialect.name == "postgresql":
            statement = postgresql.insert(self.threads).on_conflict_do_nothing()
        else:
            statement = insert(self.threads).prefix_with("IGNORE")
        return conn.execute(statement.values(values).returning(self.threads.c.id)).scalar()

    def _save_head(self, conn: Connection, row_id: int, head: Head) -> None:
        conn.execute(self._save, {"row_id": row_id, **_head_columns(head)})

    def _rows(self, conn: Connection, row_id: int, message_ids: Sequence[str]) -> list[Row[Any]]:
        m = self.messages
        rows: list[Row[Any]] = []
        for ids in _chunks(list(dict.fromkeys(map(to_message_id, message_ids)))):
            query = select(*self._meta).where(m.c.thread == row_id, m.c.message_id.in_(ids))
            rows += conn.execute(query).all()
        return rows

    def _take_out(self, conn: Connection, row_id: int, head: Head, rows: Sequence[Any], now: int) -> None:
        m = self.messages
        for positions in _chunks([row.position for row in rows]):
            conn.execute(delete(m).where(m.c.thread == row_id, m.c.position.in_(positions)))
        for row in rows:
            _count(head, row, -1)
        head.forget_batches()
        if any(row.links for row in rows):
            self._recut(conn, row_id, head)
        head.written(now)
        self._save_head(conn, row_id, head)

    def _delete_threads(self, conn: Connection, ids: Sequence[int]) -> None:
        conn.execute(delete(self.messages).where(self.messages.c.thread.in_(ids)))
        conn.execute(delete(self.threads).where(self.threads.c.id.in_(ids)))

    def _recut(self, conn: Connection, row_id: int, head: Head) -> None:
        """Work out anew where cuts may fall, after tool calls or results were taken out."""
        m = self.messages
        rows = conn.execute(
            select(m.c.position, m.c.links, m.c.cut).where(m.c.thread == row_id).order_by(m.c.position)
        ).all()
        cuts, head.open_calls = recut((row.position, *_decode_links(row.links)) for row in rows)
        changed = [row.position for row in rows if bool(row.cut) != cuts[row.position]]
        for positions in _chunks(changed):
            opened = [position for position in positions if cuts[position]]
            conn.execute(
                update(m)
                .where(m.c.thread == row_id, m.c.position.in_(positions))
                .values(cut=case((m.c.position.in_(opened), 1), else_=0))
            )

    def _trim_query(self) -> Select[Any]:
        """The first position to keep, when `excess` records are to go; see `retention.cut_at`."""
        m = self.messages
        loose = and_(m.c.thread == bindparam("thread"), m.c.pinned == 0)
        wanted = (
            select(m.c.position)
            .where(loose)
            .order_by(m.c.position)
            .limit(1)
            .offset(bindparam("excess"))
            .scalar_subquery()
        )
        following = select(func.min(m.c.position)).where(loose, m.c.cut == 1, m.c.position >= wanted)
        preceding = select(func.max(m.c.position)).where(loose, m.c.cut == 1, m.c.position < wanted)
        return select(func.coalesce(following.scalar_subquery(), preceding.scalar_subquery(), wanted))

    @functools.lru_cache  # noqa: B019 - as many as there are combinations; operations live with their server
    def _read_query(self, *, bounded: bool, limited: bool) -> Select[Any]:
        """A range, oldest first."""
        columns, extent = self._range(bounded)
        query = select(*columns).where(*extent).order_by(self.messages.c.position)
        return query.limit(bindparam("first")) if limited else query

    @functools.lru_cache  # noqa: B019
    def _tail_query(self, *, bounded: bool) -> CompoundSelect[Any]:
        """The newest rows of a range that are not pinned, and all that are."""
        position = self.messages.c.position
        columns, extent = self._range(bounded)
        tail = select(*columns).where(*extent, self._is_loose)
        newest = tail.order_by(position.desc()).limit(bindparam("limit")).subquery("newest")
        return union_all(select(newest), select(*columns).where(*extent, self._is_pinned))

    @functools.lru_cache  # noqa: B019
    def _group_query(self, *, bounded: bool) -> Select[Any]:
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


def _entry(row: Any) -> Entry:
    return Entry(row.position, row.body.encode(), bool(row.pinned), bool(row.cut))


def _decode_links(links: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _links.decode(links) if links else ((), ())


def _columns(record: Record) -> dict[str, Any]:
    links = (record.calls, record.results)
    return {
        "pinned": int(record.pinned),
        "created_us": record.created_us,
        "tokens": record.tokens,
        "bytes": len(record.body),
        "links": msgspec.json.encode(links).decode() if any(links) else None,
        "body": record.body.decode(),
    }


def _head(row: Row[Any]) -> Head:
    return Head(
        last_position=row.last_position,
        messages=row.messages,
        pinned=row.pinned,
        bytes=row.bytes,
        tokens=row.tokens,
        first_us=row.first_us,
        last_us=row.last_us,
        open_calls=_positions.decode(row.open_calls),
        recent=_names.decode(row.recent),
        ttl=row.ttl,
        ttl_refresh=row.ttl_refresh,
        ttl_set=bool(row.ttl_set),
        expires_us=row.expires_us,
    )


def _head_columns(head: Head) -> dict[str, Any]:
    columns = {name: getattr(head, name) for name in head.__struct_fields__}
    columns["open_calls"] = msgspec.json.encode(head.open_calls).decode()
    columns["recent"] = msgspec.json.encode(head.recent).decode()
    columns["ttl_set"] = int(head.ttl_set)
    return columns


def _count(head: Head, row: Row[Any], sign: int) -> None:
    head.messages += sign
    head.pinned += sign * row.pinned
    head.bytes += sign * row.bytes
    head.tokens += sign * row.tokens


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    return (items[at : at + _IDS_AT_ONCE] for at in range(0, len(items), _IDS_AT_ONCE))


def _next_text(prefix: str) -> str | None:
    """The first text, by code point, after all that begin with a prefix."""
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < 0x10FFFF:
            return prefix[:index] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None


def _read_cursor(cursor: str) -> tuple[str, int]:
    try:
        return msgspec.json.decode(cursor, type=tuple[str, int])
    except (msgspec.DecodeError, TypeError):
        raise ArgumentError("cursor is not one that list_threads returned") from None
