"""What writes to a thread: each operation once, as a synchronous function inside a transaction.

`server` runs them: on a worker thread, or inside an async engine's `run_sync`. How many statements an append
takes does not depend on the length of the thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
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
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from agent_stores.errors import NotFoundError, ThreadExistsError
from agent_stores.log import Entry, Record, ThreadKey, TimeToLive
from agent_stores.stores.database.rows import (
    chunks,
    count_row,
    head_columns,
    record_columns,
    to_entry,
    to_head,
    to_links,
)
from agent_stores.stores.database.schema import (
    SORT_LENGTH,
    Schema,
    tenant_digest,
    thread_digest,
    to_message_id,
    to_text,
)
from agent_stores.stores.planning import Head, fork_head, plan_append, plan_rewrite, recut
from agent_stores.stores.planning import Row as PlannedRow


class Writes:
    """The writing operations on the tables of one schema. All of them take the connection first."""

    def __init__(self, schema: Schema) -> None:
        self.threads = t = schema.threads
        self.messages = m = schema.messages
        self._meta = [m.c.position, m.c.bytes, m.c.tokens, m.c.pinned, m.c.links]
        self._lock = select(t).where(t.c.thread_key == bindparam("key")).with_for_update()
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
            for ids in chunks(list(columns.values())):
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
        self._insert_rows(conn, row_id, plan.rows)
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
        count_row(head, old, -1)
        head.add(record)
        conn.execute(
            update(m)
            .where(m.c.thread == row_id, m.c.position == old.position)
            .values(**record_columns(record))
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
            select(m.c.position, m.c.body, m.c.pinned, m.c.cut, m.c.bytes, m.c.tokens, m.c.links)
            .where(m.c.thread == found[0], m.c.pinned == 0)
            .order_by(m.c.position.desc())
            .limit(1)
        ).first()
        if row is None:
            return None
        self._take_out(conn, *found, [row], now)
        return to_entry(row)

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

    def rewrite(
        self,
        conn: Connection,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None,
        ttl: TimeToLive | None,
        now: int,
    ) -> int:
        """See `MessageLog.rewrite`."""
        found = self._open(conn, key, now) if records else self._locked(conn, key, now)
        row_id, head = found or (0, Head())
        plan = plan_rewrite(head, records, batch_id=batch_id, expected_position=expected_position)
        if plan is None or found is None:
            return head.last_position
        conn.execute(delete(self.messages).where(self.messages.c.thread == row_id))
        if plan.rows:
            self._insert_rows(conn, row_id, plan.rows)
        if ttl is not None:
            head.set_ttl(ttl, now, by_hand=False)
        head.written(now)
        self._save_head(conn, row_id, head)
        return head.last_position

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
        for part in chunks(ids):
            self._delete_threads(conn, part)
        return len(ids)

    # -- inside ---------------------------------------------------------------------------------------

    def _open(self, conn: Connection, key: ThreadKey, now: int) -> tuple[int, Head]:
        """Lock a thread's row, making it if need be; a thread that expired begins anew."""
        found = self._locked(conn, key, now)
        if found is not None:
            return found
        while True:
            row_id = self._insert_thread(conn, key)
            if row_id is not None:
                return row_id, Head()
            found = self._locked(conn, key, now)  # another writer was faster; yet another may have deleted it
            if found is not None:
                return found

    def _locked(self, conn: Connection, key: ThreadKey, now: int) -> tuple[int, Head] | None:
        """Lock a thread's row until the transaction ends; what is left of an expired thread goes."""
        row = conn.execute(self._lock, {"key": thread_digest(key)}).first()
        if row is None:
            return None
        head = to_head(row)
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
            **head_columns(Head()),
        }
        if conn.dialect.name == "sqlite":
            statement: Any = sqlite.insert(self.threads).on_conflict_do_nothing()
        elif conn.dialect.name == "postgresql":
            statement = postgresql.insert(self.threads).on_conflict_do_nothing()
        else:
            statement = insert(self.threads).prefix_with("IGNORE")
        return conn.execute(statement.values(values).returning(self.threads.c.id)).scalar()

    def _save_head(self, conn: Connection, row_id: int, head: Head) -> None:
        conn.execute(self._save, {"row_id": row_id, **head_columns(head)})

    def _insert_rows(self, conn: Connection, row_id: int, rows: Sequence[PlannedRow]) -> None:
        conn.execute(
            self._insert,
            [
                {
                    "thread": row_id,
                    "position": row.position,
                    "message_id": to_message_id(row.record.message_id),
                    "cut": int(row.cut),
                    **record_columns(row.record),
                }
                for row in rows
            ],
        )

    def _rows(self, conn: Connection, row_id: int, message_ids: Sequence[str]) -> list[Row[Any]]:
        m = self.messages
        rows: list[Row[Any]] = []
        for ids in chunks(list(dict.fromkeys(map(to_message_id, message_ids)))):
            query = select(*self._meta).where(m.c.thread == row_id, m.c.message_id.in_(ids))
            rows += conn.execute(query).all()
        return rows

    def _take_out(self, conn: Connection, row_id: int, head: Head, rows: Sequence[Any], now: int) -> None:
        m = self.messages
        for positions in chunks([row.position for row in rows]):
            conn.execute(delete(m).where(m.c.thread == row_id, m.c.position.in_(positions)))
        for row in rows:
            count_row(head, row, -1)
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
        cuts, head.open_calls = recut((row.position, *to_links(row.links)) for row in rows)
        changed = [row.position for row in rows if bool(row.cut) != cuts[row.position]]
        for positions in chunks(changed):
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
