"""What writes to a thread: each operation once, as a synchronous function of a transaction.

`server` runs them. How many statements an append
takes does not depend on the length of the thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Row,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from agent_stores.errors import NotFoundError, ThreadExistsError
from agent_stores.log import Entry, Record, ThreadKey, TimeToLive
from agent_stores.retention import LARGEST
from agent_stores.stores.database.rows import (
    HEAD,
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
from agent_stores.stores.database.statements import ONE, ZERO, Statement, Transaction
from agent_stores.stores.planning import Head, fork_head, plan_append, plan_rewrite, recut
from agent_stores.stores.planning import Row as PlannedRow


class Writes:
    """The writing operations on the tables of one schema. All of them take the transaction first."""

    def __init__(self, schema: Schema) -> None:
        self.threads = t = schema.threads
        self.messages = m = schema.messages
        self._meta = [m.c.position, m.c.bytes, m.c.tokens, m.c.pinned, m.c.links]
        row_id = t.c.id == bindparam("row_id")
        head = [t.c[name] for name in HEAD]
        self._lock = Statement(
            select(t.c.id, *head).where(t.c.thread_key == bindparam("key")).with_for_update()
        )
        self._present = select(m.c.message_id).where(
            m.c.thread == bindparam("thread"), m.c.message_id.in_(bindparam("ids", expanding=True))
        )
        self._close_cuts = Statement(
            update(m)
            .where(m.c.thread == bindparam("thread_"), m.c.position.between(bindparam("lo"), bindparam("hi")))
            .values(cut=0)
        )
        self._insert = Statement(insert(m))
        self._save = Statement(update(t).where(row_id), HEAD)
        # SQLite writes an index anew for each of its columns that is set, be it to the same value.
        unindexed = [name for name in HEAD if name != "expires_us"]
        self._save_but_expiry = Statement(update(t).where(row_id), unindexed)
        start = self._trim_start()
        self._trim = self._trim_below(start)
        self._find_start = Statement(select(start))
        self._trim_to_start = self._trim_below(bindparam("start"))

    def append(
        self,
        tx: Transaction,
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
        given: dict[str, Any] = {
            "batch_id": batch_id,
            "expected_position": expected_position,
            "max_messages": max_messages,
            "ttl": ttl,
            "now": now,
        }
        try:
            return self._append(tx, key, records, present=False, **given)
        except IntegrityError:
            # A message is there already. That is rare, and so it is not looked for in the first place.
            tx.restart()
            return self._append(tx, key, records, present=True, **given)

    def _append(
        self,
        tx: Transaction,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        present: bool,
        batch_id: str,
        expected_position: int | None,
        max_messages: int | None,
        ttl: TimeToLive | None,
        now: int,
    ) -> int:
        """Append; with `present`, some of the records may be in the thread already."""
        row_id, head = self._open(tx, key, now)
        expires_us = head.expires_us
        columns = {record.message_id: to_message_id(record.message_id) for record in records}
        present = present or (expected_position not in (None, head.last_position))
        plan = plan_append(
            head,
            records,
            batch_id=batch_id,
            present=self._find_present(tx, row_id, columns) if present else (),
            expected_position=expected_position,
        )
        if not plan.rows:
            return head.last_position
        self._insert_rows(tx, row_id, plan.rows, columns)
        for lo, hi in plan.closed:
            tx.run(self._close_cuts, {"thread_": row_id, "lo": lo, "hi": hi})
        excess = head.excess(max_messages)
        if excess > 0:
            gone = self._delete_oldest(tx, row_id, excess)
            for _, size, tokens in gone:
                head.messages -= 1
                head.bytes -= size
                head.tokens -= tokens
            if gone:
                head.forget_calls(before=max(map(itemgetter(0), gone)) + 1)
        if ttl is not None:
            head.set_ttl(ttl, now, by_hand=False)
        head.written(now)
        if head.expires_us == expires_us:
            values = head_columns(head)
            del values["expires_us"]
            tx.run(self._save_but_expiry, {"row_id": row_id, **values})
        else:
            self._save_head(tx, row_id, head)
        return head.last_position

    def _delete_oldest(self, tx: Transaction, row_id: int, excess: int) -> Sequence[Any]:
        """Delete records that are over a limit; returns position, bytes and tokens of each."""
        values = {"thread": row_id, "excess": excess}
        if tx.conn.dialect.name in ("sqlite", "postgresql"):
            return tx.rows(self._trim, values)
        # MariaDB takes no subquery on the table that it deletes from for a range, and would read all of it.
        [(start,)] = tx.rows(self._find_start, values)
        return tx.rows(self._trim_to_start, {"thread": row_id, "start": start})

    def _find_present(self, tx: Transaction, row_id: int, columns: dict[str, str]) -> set[str]:
        """Which ids are in the thread already; `columns` has each as its column holds it."""
        found: set[str] = set()
        for ids in chunks(list(columns.values())):
            found.update(tx.conn.execute(self._present, {"thread": row_id, "ids": ids}).scalars())
        return {name for name, column in columns.items() if column in found}

    def replace(self, tx: Transaction, key: ThreadKey, record: Record, *, now: int) -> bool:
        """See `MessageLog.replace`."""
        m = self.messages
        found = self._locked(tx, key, now)
        rows = self._rows(tx, found[0], [record.message_id]) if found else []
        if found is None or not rows:
            return False
        row_id, head = found
        old = rows[0]
        count_row(head, old, -1)
        head.add(record)
        tx.conn.execute(
            update(m)
            .where(m.c.thread == row_id, m.c.position == old.position)
            .values(**record_columns(record))
        )
        if old.links or record.calls or record.results:
            self._recut(tx, row_id, head)
        head.written(now)
        self._save_head(tx, row_id, head)
        return True

    def delete(self, tx: Transaction, key: ThreadKey, message_ids: Sequence[str], *, now: int) -> int:
        """See `MessageLog.delete`."""
        found = self._locked(tx, key, now)
        rows = self._rows(tx, found[0], message_ids) if found else []
        if found and rows:
            self._take_out(tx, *found, rows, now)
        return len(rows)

    def pop_last(self, tx: Transaction, key: ThreadKey, *, now: int) -> Entry | None:
        """See `MessageLog.pop_last`."""
        m = self.messages
        found = self._locked(tx, key, now)
        if found is None:
            return None
        row = tx.conn.execute(
            select(m.c.position, m.c.body, m.c.pinned, m.c.cut, m.c.bytes, m.c.tokens, m.c.links)
            .where(m.c.thread == found[0], m.c.pinned != ONE)
            .order_by(m.c.position.desc())
            .limit(1)
        ).first()
        if row is None:
            return None
        self._take_out(tx, *found, [row], now)
        return to_entry(row)

    def clear(self, tx: Transaction, key: ThreadKey, *, now: int) -> int:
        """See `MessageLog.clear`."""
        found = self._locked(tx, key, now)
        if found is None:
            return 0
        row_id, head = found
        count = head.messages
        tx.conn.execute(delete(self.messages).where(self.messages.c.thread == row_id))
        head.messages = head.pinned = head.bytes = head.tokens = 0
        head.open_calls = {}
        head.forget_batches()
        head.written(now)
        self._save_head(tx, row_id, head)
        return count

    def rewrite(
        self,
        tx: Transaction,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None,
        ttl: TimeToLive | None,
        now: int,
    ) -> int:
        """See `MessageLog.rewrite`."""
        found = self._open(tx, key, now) if records else self._locked(tx, key, now)
        row_id, head = found or (0, Head())
        plan = plan_rewrite(head, records, batch_id=batch_id, expected_position=expected_position)
        if plan is None or found is None:
            return head.last_position
        tx.conn.execute(delete(self.messages).where(self.messages.c.thread == row_id))
        if plan.rows:
            columns = {record.message_id: to_message_id(record.message_id) for record in records}
            self._insert_rows(tx, row_id, plan.rows, columns)
        if ttl is not None:
            head.set_ttl(ttl, now, by_hand=False)
        head.written(now)
        self._save_head(tx, row_id, head)
        return head.last_position

    def set_ttl(self, tx: Transaction, key: ThreadKey, ttl: TimeToLive, *, now: int) -> bool:
        """See `MessageLog.set_ttl`."""
        found = self._locked(tx, key, now)
        if found is None:
            return False
        row_id, head = found
        head.set_ttl(ttl, now, by_hand=True)
        self._save_head(tx, row_id, head)
        return True

    def renew(self, tx: Transaction, key: ThreadKey, *, now: int) -> None:
        """Renew the time-to-live of a thread whose time reads renew."""
        found = self._locked(tx, key, now)
        if found is not None:
            row_id, head = found
            head.renew(now)
            self._save_head(tx, row_id, head)

    def fork(self, tx: Transaction, key: ThreadKey, new_key: ThreadKey, *, at: int | None, now: int) -> int:
        """See `MessageLog.fork`."""
        m = self.messages
        found = self._locked(tx, key, now)
        if found is None:
            raise NotFoundError(f"there is no thread {key.thread_id!r} to fork")
        row_id, source = found
        taken = self._locked(tx, new_key, now) is not None
        new_id = None if taken else self._insert_thread(tx, new_key)
        if new_id is None:
            raise ThreadExistsError(f"there is a thread {new_key.thread_id!r} already")
        copied = [column for column in m.c if column.name != "thread"]
        upto = literal(True) if at is None else m.c.position <= at
        tx.conn.execute(
            insert(m).from_select(
                ["thread", *(column.name for column in copied)],
                select(literal(new_id), *copied).where(m.c.thread == row_id, upto),
            )
        )
        head = fork_head(source, at)
        counts = tx.conn.execute(
            select(func.count(), func.sum(m.c.pinned), func.sum(m.c.bytes), func.sum(m.c.tokens)).where(
                m.c.thread == new_id
            )
        ).one()
        head.messages, head.pinned, head.bytes, head.tokens = (int(value or 0) for value in counts)
        newest = select(m.c.created_us).where(m.c.thread == new_id).order_by(m.c.position.desc()).limit(1)
        head.last_us = tx.conn.execute(newest).scalar() or head.last_us
        head.open_calls = dict(source.open_calls)
        if at is not None:
            self._recut(tx, new_id, head)
        self._save_head(tx, new_id, head)
        return head.messages

    def delete_thread(self, tx: Transaction, key: ThreadKey, *, now: int) -> bool:
        """See `MessageLog.delete_thread`."""
        found = self._locked(tx, key, now)
        if found is None:
            return False
        self._delete_threads(tx, [found[0]])
        return True

    def purge_expired(self, tx: Transaction, *, limit: int, now: int) -> int:
        """See `MessageLog.purge_expired`."""
        t = self.threads
        expired = (
            select(t.c.id).where(t.c.expires_us <= now).order_by(t.c.expires_us).limit(limit)
        ).with_for_update()
        ids = list(tx.conn.execute(expired).scalars())
        for part in chunks(ids):
            self._delete_threads(tx, part)
        return len(ids)

    # -- inside ---------------------------------------------------------------------------------------

    def _open(self, tx: Transaction, key: ThreadKey, now: int) -> tuple[int, Head]:
        """Lock a thread's row, making it if need be; a thread that expired begins anew."""
        found = self._locked(tx, key, now)
        if found is not None:
            return found
        while True:
            row_id = self._insert_thread(tx, key)
            if row_id is not None:
                return row_id, Head()
            found = self._locked(tx, key, now)  # another writer was faster; yet another may have deleted it
            if found is not None:
                return found

    def _locked(self, tx: Transaction, key: ThreadKey, now: int) -> tuple[int, Head] | None:
        """Lock a thread's row until the transaction ends; what is left of an expired thread goes."""
        rows = tx.rows(self._lock, {"key": thread_digest(key)})
        if not rows:
            return None
        row_id, *columns = rows[0]
        head = to_head(columns)
        if head.is_expired(now):
            self._delete_threads(tx, [row_id])
            return None
        return row_id, head

    def _insert_thread(self, tx: Transaction, key: ThreadKey) -> int | None:
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
        if tx.conn.dialect.name == "sqlite":
            statement: Any = sqlite.insert(self.threads).on_conflict_do_nothing()
        elif tx.conn.dialect.name == "postgresql":
            statement = postgresql.insert(self.threads).on_conflict_do_nothing()
        else:
            statement = insert(self.threads).prefix_with("IGNORE")
        return tx.conn.execute(statement.values(values).returning(self.threads.c.id)).scalar()

    def _save_head(self, tx: Transaction, row_id: int, head: Head) -> None:
        tx.run(self._save, {"row_id": row_id, **head_columns(head)})

    def _insert_rows(
        self, tx: Transaction, row_id: int, rows: Sequence[PlannedRow], columns: Mapping[str, str]
    ) -> None:
        """Insert messages; `columns` has their ids as their column holds them."""
        tx.run_many(
            self._insert,
            [
                {
                    "thread": row_id,
                    "position": row.position,
                    "message_id": columns[row.record.message_id],
                    "cut": int(row.cut),
                    **record_columns(row.record),
                }
                for row in rows
            ],
        )

    def _rows(self, tx: Transaction, row_id: int, message_ids: Sequence[str]) -> list[Row[Any]]:
        m = self.messages
        rows: list[Row[Any]] = []
        for ids in chunks(list(dict.fromkeys(map(to_message_id, message_ids)))):
            query = select(*self._meta).where(m.c.thread == row_id, m.c.message_id.in_(ids))
            rows += tx.conn.execute(query).all()
        return rows

    def _take_out(self, tx: Transaction, row_id: int, head: Head, rows: Sequence[Any], now: int) -> None:
        m = self.messages
        for positions in chunks([row.position for row in rows]):
            tx.conn.execute(delete(m).where(m.c.thread == row_id, m.c.position.in_(positions)))
        for row in rows:
            count_row(head, row, -1)
        head.forget_batches()
        if any(row.links for row in rows):
            self._recut(tx, row_id, head)
        head.written(now)
        self._save_head(tx, row_id, head)

    def _delete_threads(self, tx: Transaction, ids: Sequence[int]) -> None:
        tx.conn.execute(delete(self.messages).where(self.messages.c.thread.in_(ids)))
        tx.conn.execute(delete(self.threads).where(self.threads.c.id.in_(ids)))

    def _recut(self, tx: Transaction, row_id: int, head: Head) -> None:
        """Work out anew where cuts may fall, after tool calls or results were taken out."""
        m = self.messages
        rows = tx.conn.execute(
            select(m.c.position, m.c.links, m.c.cut).where(m.c.thread == row_id).order_by(m.c.position)
        ).all()
        cuts, head.open_calls = recut((row.position, *to_links(row.links)) for row in rows)
        changed = [row.position for row in rows if bool(row.cut) != cuts[row.position]]
        for positions in chunks(changed):
            opened = [position for position in positions if cuts[position]]
            tx.conn.execute(
                update(m)
                .where(m.c.thread == row_id, m.c.position.in_(positions))
                .values(cut=case((m.c.position.in_(opened), 1), else_=0))
            )

    def _trim_start(self) -> Any:
        """The first position to keep, when `excess` records are to go; see `retention.cut_at`."""
        m = self.messages.alias("kept")
        loose = and_(m.c.thread == bindparam("thread"), m.c.pinned != ONE)
        wanted = (
            select(m.c.position)
            .where(loose)
            .order_by(m.c.position)
            .limit(ONE)
            .offset(bindparam("excess"))
            .scalar_subquery()
        )
        # By order and limit, as not every database reads only one row for a minimum or maximum.
        at_cut = select(m.c.position).where(loose, m.c.cut != ZERO).limit(ONE)
        following = at_cut.where(m.c.position >= wanted).order_by(m.c.position)
        preceding = at_cut.where(m.c.position < wanted).order_by(m.c.position.desc())
        everything: Any = literal_column(str(LARGEST))
        return func.coalesce(following.scalar_subquery(), preceding.scalar_subquery(), wanted, everything)

    def _trim_below(self, start: Any) -> Statement:
        """Delete what is below a position."""
        m = self.messages
        return Statement(
            delete(m)
            .where(m.c.thread == bindparam("thread"), m.c.pinned != ONE, m.c.position < start)
            .returning(m.c.position, m.c.bytes, m.c.tokens)
        )
