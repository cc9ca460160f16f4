"""The texts of statements that all dialects share, and how values are put into them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal

import msgspec

from agent_stores._json import decode, encode
from agent_stores.backend import Row, Thread
from agent_stores.backends.sql.names import ID_LENGTH, from_text, index_id, join_ids, split_ids, to_text

Style = Literal["?", "$", "%s"]
"""How a driver marks values: numbered as ``?1`` or ``$1``, or ``%s``, once for each use."""

Values = tuple[Any, ...]

LARGEST = 2**62
"""Larger than every position and limit."""

_NAME = re.compile(r"(?<![:\w]):([a-z_]+)")


class Sql:
    """A statement for one driver.

    Args:
        text: the statement; a value is written as ``:name``.
        style: how the driver marks values.

    Attributes:
        text: the statement for the driver.
        names: the order of its values.
    """

    __slots__ = ("_picked", "names", "text")

    def __init__(self, text: str, style: Style) -> None:
        found = _NAME.findall(text)
        self.names = list(dict.fromkeys(found))
        self._picked: list[int] | None = None
        if style == "%s":
            self.text = _NAME.sub("%s", text)
            self._picked = [self.names.index(name) for name in found]
        else:
            self.text = _NAME.sub(lambda match: f"{style}{self.names.index(match[1]) + 1}", text)

    def bind(self, values: Values) -> Values:
        """Values in the order of `names`, as the driver takes them."""
        return values if self._picked is None else tuple([values[index] for index in self._picked])

    def bind_names(self, **values: Any) -> Values:
        """Values by name, as the driver takes them."""
        return self.bind(tuple([values[name] for name in self.names]))


THREAD_COLUMNS = (
    "last_position",
    "recent",
    "ttl_refresh",
    "metadata",
    "ttl_explicit",
    "pinned",
    "bytes",
    "tokens",
    "updated_us",
    "staged_position",
    "messages",
    "first_us",
    "last_us",
    "ttl",
    "expires_us",
    "revision",
)
"""The columns of a thread's metadata. The first nine have the types of those of a row (`ROW_COLUMNS`), so that
one statement returns both."""

ROW_COLUMNS = (
    "position",
    "message_id",
    "long_id",
    "body",
    "boundary",
    "pinned",
    "bytes",
    "tokens",
    "created_us",
)
"""The columns of a message, after `thread`."""

REPLACED = ("body", "boundary", "pinned", "bytes", "tokens", "created_us")
"""The columns that change when a row is replaced."""

_HEAD = ", ".join(f"t.{name}" for name in (*THREAD_COLUMNS, "id", "version"))
_NULLS = ", NULL" * (len(THREAD_COLUMNS) - len(ROW_COLUMNS) + 2)
_VISIBLE = "(SELECT last_position FROM {threads} WHERE thread_key = :key)"
_PINNED = "(SELECT pinned FROM {threads} WHERE thread_key = :key) > 0"
_NO_LIMIT = {"sqlite": -1, "postgresql": None, "mariadb": LARGEST}


class Statements:
    """The statements of one database.

    Args:
        dialect: ``sqlite``, ``postgresql`` or ``mariadb``.
        prefix: what the names of the tables begin with.
        style: how the driver marks values.
    """

    def __init__(self, dialect: str, prefix: str, style: Style) -> None:
        self.dialect = dialect
        self.prefix = prefix
        self.style: Style = style
        self.no_limit = _NO_LIMIT[dialect]
        self.load = self.make(f"SELECT {_HEAD} FROM {{threads}} t WHERE t.thread_key = :key")
        self.renew = self.make(
            f"UPDATE {{threads}} SET expires_us = {expiry(dialect, 'ttl', ':now')} "
            "WHERE thread_key = :key AND ttl_refresh = 'read' AND expires_us > :now"
        )
        self.expired = self.make(
            f"SELECT t.tenant, t.thread_id, {_HEAD} FROM {{threads}} t WHERE t.expires_us < :before "
            "ORDER BY t.expires_us LIMIT :limit"
        )
        # A thread is one row, found first: the messages come in the order of their index.
        indexed = "INDEXED BY ix_{messages}_pinned" if dialect == "sqlite" else ""
        alive = "WHERE t.thread_key = :key AND (t.expires_us IS NULL OR t.expires_us > :now)"
        source = "SELECT m.position, m.body, m.pinned, m.boundary FROM {threads} t JOIN {messages} m"
        visible = "ON m.thread = t.id AND m.position <= t.last_position AND m.pinned"
        self.latest = self.make(
            f"SELECT * FROM ({source} {visible} = 0 {alive} ORDER BY m.position DESC LIMIT :limit) AS newest "
            f"UNION ALL {source} {indexed} {visible} = 1 {alive} AND t.pinned > 0 "
            f"UNION ALL SELECT 0, '', 0, 0 FROM {{threads}} t {alive} AND t.ttl_refresh = 'read' AND t.ttl > 0"
        )
        self.update_thread = self.make(
            f"UPDATE {{threads}} SET version = version + 1, {assignments(THREAD_COLUMNS)} "
            "WHERE thread_key = :key AND id = :id AND version = :version"
        )
        names = ("thread_key", "tenant_key", "sort_key", "tenant", "thread_id", "version", *THREAD_COLUMNS)
        self.insert_thread = self.make(
            f"INSERT INTO {{threads}} ({', '.join(names)}) VALUES (:{', :'.join(names)}) RETURNING id"
        )
        self.delete_thread = self.make(
            "DELETE FROM {threads} WHERE thread_key = :key AND id = :id AND version = :version"
        )
        self.delete_rows = self.make("DELETE FROM {messages} WHERE thread = :id")
        self.clear = self.make("DELETE FROM {messages} WHERE thread = :id AND position <= :last_position")
        self.last_position = self.make("SELECT last_position FROM {threads} WHERE id = :id")
        self.lock = self.make(
            "SELECT 1 FROM {threads} WHERE thread_key = :key AND id = :id AND version = :version"
            + (" FOR UPDATE" if dialect == "mariadb" else "")
        )
        names = ROW_COLUMNS
        self.copy_rows = self.make(
            f"INSERT INTO {{messages}} (thread, {', '.join(names)}) SELECT :new_id, {', '.join(names)} "
            "FROM {messages} WHERE thread = :id AND position <= :at"
        )
        self.count_rows = self.make(
            "SELECT count(*), coalesce(sum(pinned), 0), coalesce(sum(bytes), 0), coalesce(sum(tokens), 0), "
            "(SELECT created_us FROM {messages} WHERE thread = :id ORDER BY position DESC LIMIT 1) "
            "FROM {messages} WHERE thread = :id"
        )
        self.set_counters = self.make(
            "UPDATE {threads} SET messages = :messages, pinned = :pinned, bytes = :bytes, tokens = :tokens, "
            "last_us = coalesce(:last_us, last_us) WHERE id = :id"
        )
        self.tenants = self.make(
            "WITH RECURSIVE k(tenant_key) AS (SELECT * FROM (SELECT tenant_key FROM {threads} "
            "ORDER BY tenant_key LIMIT 1) AS lowest UNION ALL SELECT (SELECT n.tenant_key FROM {threads} n "
            "WHERE n.tenant_key > k.tenant_key ORDER BY n.tenant_key LIMIT 1) FROM k "
            "WHERE k.tenant_key IS NOT NULL) "
            "SELECT (SELECT t.tenant FROM {threads} t WHERE t.tenant_key = k.tenant_key LIMIT 1) AS tenant "
            "FROM k WHERE k.tenant_key IS NOT NULL"
        )

    def make(self, text: str) -> Sql:
        """A statement, with the tables' names for ``{threads}`` and the like."""
        return Sql(self.named(text), self.style)

    def named(self, text: str) -> str:
        """A text with the tables' names, which are letters, digits and underscores."""
        return re.sub(r"\{([a-z][a-z_0-9]*)\}", lambda match: f"{self.prefix}{match[1]}", text)

    @lru_cache(maxsize=64)  # noqa: B019 - statements live as long as their database
    def rows(self, *, newest: bool, bodies: bool, staged: bool) -> Sql:
        """A thread and a range of its rows."""
        columns = ", ".join("'' AS body" if n == "body" and not bodies else f"m.{n}" for n in ROW_COLUMNS)
        source = (
            " FROM {messages} m WHERE m.thread = (SELECT id FROM {threads} WHERE thread_key = :key) "
            "AND m.position > :after AND m.position < :before"
        ) + ("" if staged else f" AND m.position <= {_VISIBLE}")
        if newest:
            limited = f"SELECT {columns}{source} AND m.pinned = 0 ORDER BY m.position DESC LIMIT :limit"
            pinned = f" UNION ALL SELECT {columns}{_NULLS}{source} AND m.pinned = 1 AND {_PINNED}"
        else:
            limited, pinned = f"SELECT {columns}{source} ORDER BY m.position LIMIT :limit", ""
        return self.make(
            f"SELECT {_HEAD} FROM {{threads}} t WHERE t.thread_key = :key "
            f"UNION ALL SELECT part.*{_NULLS} FROM ({limited}) AS part{pinned}"
        )

    @lru_cache(maxsize=64)  # noqa: B019
    def find(self, count: int) -> Sql:
        """Rows by their ids in the index."""
        columns = ", ".join("''" if name == "body" else f"m.{name}" for name in ROW_COLUMNS)
        ids = ", ".join(f":id_{letters(n)}" for n in range(count))
        return self.make(
            f"SELECT {columns} FROM {{messages}} m WHERE m.thread = (SELECT id FROM {{threads}} "
            f"WHERE thread_key = :key) AND m.message_id IN ({ids}) AND m.position <= {_VISIBLE}"
        )

    @lru_cache(maxsize=64)  # noqa: B019
    def delete(self, count: int) -> Sql:
        """Delete rows by their positions."""
        positions = ", ".join(f":p_{letters(n)}" for n in range(count))
        return self.make(f"DELETE FROM {{messages}} WHERE thread = :id AND position IN ({positions})")

    @lru_cache(maxsize=64)  # noqa: B019
    def insert(self, count: int, *, replace: bool = False) -> Sql:
        """Insert rows; with `replace`, over those that have the same positions."""
        names = ("thread", *ROW_COLUMNS)
        groups = (", ".join(f":{name}_{letters(n)}" for name in names) for n in range(count))
        text = f"INSERT INTO {{messages}} ({', '.join(names)}) VALUES ({'), ('.join(groups)})"
        if replace and self.dialect == "mariadb":
            text += " ON DUPLICATE KEY UPDATE " + ", ".join(f"{n} = VALUES({n})" for n in REPLACED)
        elif replace:
            text += " ON CONFLICT (thread, position) DO UPDATE SET "
            text += ", ".join(f"{n} = excluded.{n}" for n in REPLACED)
        return self.make(text)

    @lru_cache(maxsize=64)  # noqa: B019
    def threads(self, *, recent: bool, prefix: bool, bounded: bool, after: bool) -> Sql:
        """A page of a tenant's threads."""
        conditions = "x.tenant_key = :tenant_key"
        if prefix:
            conditions += " AND x.sort_key >= :low AND substr(x.thread_id, 1, :length) = :prefix"
        if bounded:
            conditions += " AND x.sort_key < :high"
        if after and recent:
            conditions += (
                " AND x.updated_us <= :updated_us AND (x.updated_us < :updated_us OR x.sort_key > :cursor)"
            )
        elif after:
            conditions += " AND x.sort_key > :cursor"
        order = "t.sort_key"
        where = conditions.replace("x.", "t.")
        if recent:
            # Threads of one microsecond are ordered by id. The index knows times only: it gives the time that
            # ends the page, and no more than the page is sorted.
            order = "t.updated_us DESC, t.sort_key"
            where += (
                f" AND t.updated_us >= coalesce((SELECT o.updated_us FROM {{threads}} o WHERE "
                f"{conditions.replace('x.', 'o.')} ORDER BY o.updated_us DESC LIMIT 1 OFFSET :skip), 0)"
            )
        return self.make(
            f"SELECT t.tenant, t.thread_id, {_HEAD} FROM {{threads}} t WHERE {where} "
            f"ORDER BY {order} LIMIT :limit"
        )


def expiry(dialect: str, ttl: str, now: str) -> str:
    """When a time-to-live ends that counts from now, in microseconds."""
    if dialect == "postgresql":
        return f"{now}::bigint + round({ttl} * 1000000)::bigint"
    return f"{now} + CAST(round({ttl} * 1000000) AS {'SIGNED' if dialect == 'mariadb' else 'INTEGER'})"


def assignments(names: tuple[str, ...]) -> str:
    """The assignments of an UPDATE that sets columns to values of the same names."""
    return ", ".join(f"{name} = :{name}" for name in names)


def letters(number: int) -> str:
    """A number as letters, for names of values."""
    return "".join(chr(97 + int(digit)) for digit in str(number))


def thread_values(thread: Thread) -> dict[str, Any]:
    """A thread's columns."""
    return {
        "last_position": thread.last_position,
        "recent": join_ids(thread.recent_request_ids),
        "ttl_refresh": thread.ttl_refresh,
        "metadata": encode(thread.metadata).decode() if thread.metadata else "{}",
        "ttl_explicit": int(thread.ttl_explicit),
        "pinned": thread.pinned,
        "bytes": thread.bytes,
        "tokens": thread.tokens,
        "updated_us": thread.updated_us,
        "staged_position": thread.staged_position,
        "messages": thread.messages,
        "first_us": thread.first_us,
        "last_us": thread.last_us,
        "ttl": thread.ttl,
        "expires_us": thread.expires_us,
        "revision": thread.revision,
    }


def to_thread(columns: Values) -> tuple[Thread, tuple[int, int]]:
    """A thread and its version, of its `THREAD_COLUMNS`, ``id`` and ``version``."""
    last, recent, refresh, metadata, explicit, pinned, size, tokens, updated, *rest = columns
    staged, messages, first_us, last_us, ttl, expires_us, revision, row_id, version = rest
    thread = Thread(
        last_position=last,
        staged_position=staged,
        messages=messages,
        pinned=pinned,
        bytes=size,
        tokens=tokens,
        first_us=first_us,
        last_us=last_us,
        updated_us=updated,
        ttl=ttl,
        ttl_refresh=refresh,
        ttl_explicit=bool(explicit),
        expires_us=expires_us,
        recent_request_ids=split_ids(recent),
        metadata={} if metadata == "{}" else decode(metadata, _metadata, dict[str, Any]),
        revision=revision,
    )
    return thread, (row_id, version)


def to_row(columns: Values) -> Row:
    """A row, of its `ROW_COLUMNS`."""
    position, message_id, long_id, body, boundary, pinned, size, tokens, created_us = columns
    name = from_text(long_id or message_id)
    return Row(name, body.encode(), position, boundary == 1, pinned == 1, size, tokens, created_us)


def row_values(row: Row, position: int) -> Values:
    """A row's `ROW_COLUMNS`."""
    name = to_text(row.message_id)
    long = len(name) > ID_LENGTH
    return (
        position,
        index_id(name) if long else name,
        name if long else None,
        row.body.decode(),
        1 if row.boundary else 0,
        1 if row.pinned else 0,
        row.bytes,
        row.tokens,
        row.created_us,
    )


_metadata = msgspec.json.Decoder(dict[str, Any])
