"""The texts of the statements, and how threads and rows become columns and come back."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Literal, TypeVar

import msgspec

from agent_stores._json import decode, encode
from agent_stores.backend import Row, Thread
from agent_stores.backends.sql.names import ID_LENGTH, from_text, index_id, join_ids, split_ids, to_text

Style = Literal["?", "$", "%s"]
"""How a driver marks values: numbered as ``?1`` or ``$1``, or ``%s``, once for each use."""

Values = tuple[Any, ...]

T = TypeVar("T")

Steps = Generator[tuple[str, Values], Any, T]
"""The statements of a transaction: yields texts with values; is sent their rows, or how many they changed."""

BEGIN_WRITE = "BEGIN"
"""Yielded where a transaction begins to write: SQLite takes its lock, others have begun already."""

LARGEST = 2**62
"""Larger than every position and limit."""

# The columns of a thread's metadata. The first nine have the types of those of a row, so that one statement
# returns both.
THREAD_COLUMNS = tuple(
    "last_position recent ttl_refresh metadata ttl_explicit pinned bytes tokens updated_us staged_position "
    "messages first_us last_us ttl expires_us revision".split()
)
ROW_COLUMNS = tuple("position message_id long_id body boundary pinned bytes tokens created_us".split())
_REPLACED = ("body", "boundary", "pinned", "bytes", "tokens", "created_us")
_HEAD = ", ".join(f"t.{name}" for name in (*THREAD_COLUMNS, "id", "version"))
_NULLS = ", NULL" * (len(THREAD_COLUMNS) - len(ROW_COLUMNS) + 2)
_ID = "(SELECT id FROM {threads} WHERE thread_key = :key)"
_VISIBLE = "m.position <= (SELECT last_position FROM {threads} WHERE thread_key = :key)"
_NAME = re.compile(r"(?<![:\w]):([a-z_]+)")


class Abort(Exception):
    """Rolls a transaction back; raised by its steps."""


class Sql:
    """A statement for one driver.

    Args:
        text: the statement; a value is written as ``:name``.
        style: how the driver marks values.
        order: the names of the values as `bind` gets them; by default those of the text in their order.
    """

    __slots__ = ("bind", "names", "text")

    def __init__(self, text: str, style: Style, order: Sequence[str] | None = None) -> None:
        used = _NAME.findall(text)
        self.names = list(dict.fromkeys(used))
        if style == "%s":
            self.text = _NAME.sub("%s", text)
        else:
            self.text = _NAME.sub(lambda match: f"{style}{self.names.index(match[1]) + 1}", text)
            used = self.names
        given = list(order or self.names)
        self.bind: Callable[[Values], Values] = tuple
        """Puts values in the order that the driver takes them in."""
        if used != given:
            pick = itemgetter(*map(given.index, used))
            self.bind = pick if len(used) > 1 else lambda values: (pick(values),)

    def step(self, **values: Any) -> tuple[str, Values]:
        """The text, and its values by name; there may be more than needed."""
        given = tuple([values[name] for name in self.names])
        return self.text, self.bind(given)


class Statements:
    """The statements of one database.

    Args:
        dialect: ``sqlite``, ``postgresql`` or ``mariadb``.
        prefix: what the names of the tables begin with.
        style: how the driver marks values.
    """

    def __init__(self, dialect: str, prefix: str, style: Style) -> None:
        self.dialect, self.prefix = dialect, prefix
        self.style: Style = style
        self.no_limit = {"sqlite": -1, "postgresql": None, "mariadb": LARGEST}[dialect]
        self.load = self.make(f"SELECT {_HEAD} FROM {{threads}} t WHERE t.thread_key = :key")
        self.renew = self.make(
            f"UPDATE {{threads}} SET expires_us = {expiry(dialect, 'ttl', ':now')} "
            "WHERE thread_key = :key AND ttl_refresh = 'read' AND expires_us > :now"
        )
        self.expired = self.make(
            f"SELECT t.tenant, t.thread_id, {_HEAD} FROM {{threads}} t WHERE t.expires_us < :before "
            "ORDER BY t.expires_us LIMIT :limit"
        )
        # The thread is one row, found first: the messages come in the order of their index.
        indexed = "INDEXED BY ix_{messages}_pinned" if dialect == "sqlite" else ""
        alive = "WHERE t.thread_key = :key AND (t.expires_us IS NULL OR t.expires_us > :now)"
        # As bytes: the driver need not decode what the log wants encoded.
        body = f"CAST(m.body AS {'BINARY' if dialect == 'mariadb' else 'BLOB'})"
        source = f"SELECT m.position, {body}, m.pinned, m.boundary FROM {{threads}} t JOIN {{messages}} m"
        visible = "ON m.thread = t.id AND m.position <= t.last_position AND m.pinned"
        newest = f"({source} {visible} = 0 {alive} ORDER BY m.position DESC LIMIT :limit)"
        if dialect != "mariadb":  # which writes a subquery with bodies to a temporary table on disk
            newest = f"SELECT * FROM {newest} AS newest"
        self.latest = self.make(
            f"{newest} UNION ALL {source} {indexed} {visible} = 1 {alive} AND t.pinned > 0 "
            f"UNION ALL SELECT 0, {body.replace('m.body', chr(39) * 2)}, 0, 0 FROM {{threads}} t {alive} "
            "AND t.ttl_refresh = 'read' AND t.ttl > 0",
            order=("key", "now", "limit"),
        )
        version = "WHERE thread_key = :key AND id = :id AND version = :version"
        returning = " RETURNING id" if dialect == "postgresql" else ""  # asyncpg does not count changed rows
        changes = ", ".join(f"{name} = :{name}" for name in THREAD_COLUMNS)
        self.update_thread = self.make(
            f"UPDATE {{threads}} SET version = version + 1, {changes} {version}{returning}"
        )
        columns = ("thread_key", "tenant_key", "sort_key", "tenant", "thread_id", "version", *THREAD_COLUMNS)
        self.insert_thread = self.make(
            f"INSERT INTO {{threads}} ({', '.join(columns)}) VALUES (:{', :'.join(columns)}) RETURNING id"
        )
        self.delete_thread = self.make(f"DELETE FROM {{threads}} {version}{returning}")
        self.delete_rows = self.make("DELETE FROM {messages} WHERE thread = :id")
        self.clear = self.make("DELETE FROM {messages} WHERE thread = :id AND position <= :last_position")
        lock = "" if dialect == "sqlite" else " FOR UPDATE"
        self.lock = self.make(f"SELECT last_position FROM {{threads}} {version}{lock}")
        columns = ROW_COLUMNS
        self.copy_rows = self.make(
            f"INSERT INTO {{messages}} (thread, {', '.join(columns)}) SELECT :new_id, {', '.join(columns)} "
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
        # One row of the index for each tenant.
        self.tenants = self.make(
            "WITH RECURSIVE k(tenant_key) AS (SELECT * FROM (SELECT tenant_key FROM {threads} "
            "ORDER BY tenant_key LIMIT 1) AS lowest UNION ALL SELECT (SELECT n.tenant_key FROM {threads} n "
            "WHERE n.tenant_key > k.tenant_key ORDER BY n.tenant_key LIMIT 1) FROM k "
            "WHERE k.tenant_key IS NOT NULL) "
            "SELECT (SELECT t.tenant FROM {threads} t WHERE t.tenant_key = k.tenant_key LIMIT 1) AS tenant "
            "FROM k WHERE k.tenant_key IS NOT NULL"
        )

    def make(self, text: str, order: Sequence[str] | None = None) -> Sql:
        """A statement, with the tables' names for ``{threads}`` and the like."""
        return Sql(self.named(text), self.style, order)

    def named(self, text: str) -> str:
        """A text with the tables' names, which are letters, digits and underscores."""
        return re.sub(r"\{([a-z][a-z_0-9]*)\}", lambda match: f"{self.prefix}{match[1]}", text)

    @lru_cache(maxsize=64)  # noqa: B019 - statements live as long as their database
    def rows(self, *, newest: bool, bodies: bool, staged: bool) -> Sql:
        """A thread and a range of its rows."""
        columns = ", ".join("'' AS body" if n == "body" and not bodies else f"m.{n}" for n in ROW_COLUMNS)
        source = (
            f" FROM {{messages}} m WHERE m.thread = {_ID} AND m.position > :after AND m.position < :before"
        )
        source += "" if staged else f" AND {_VISIBLE}"
        limited, pinned = f"SELECT {columns}{source} ORDER BY m.position LIMIT :limit", ""
        if newest:
            limited = f"SELECT {columns}{source} AND m.pinned = 0 ORDER BY m.position DESC LIMIT :limit"
            pinned = f" UNION ALL SELECT {columns}{_NULLS}{source} AND m.pinned = 1"
            pinned += " AND (SELECT pinned FROM {threads} WHERE thread_key = :key) > 0"
        if self.dialect == "mariadb":
            limited = f"({limited.replace(source, _NULLS + source)})"
        else:
            limited = f"SELECT part.*{_NULLS} FROM ({limited}) AS part"
        head = f"SELECT {_HEAD} FROM {{threads}} t WHERE t.thread_key = :key"
        return self.make(f"{head} UNION ALL {limited}{pinned}")

    @lru_cache(maxsize=64)  # noqa: B019
    def find(self, count: int) -> Sql:
        """Rows by their ids in the index."""
        columns = ", ".join("''" if name == "body" else f"m.{name}" for name in ROW_COLUMNS)
        ids = f"m.thread = {_ID} AND m.message_id IN ({_numbered('i', count)})"
        return self.make(f"SELECT {columns} FROM {{messages}} m WHERE {ids} AND {_VISIBLE}")

    @lru_cache(maxsize=64)  # noqa: B019
    def delete(self, count: int) -> Sql:
        """Delete rows by their positions."""
        return self.make(
            f"DELETE FROM {{messages}} WHERE thread = :id AND position IN ({_numbered('p', count)})"
        )

    @lru_cache(maxsize=64)  # noqa: B019
    def insert(self, count: int, *, replace: bool = False) -> Sql:
        """Insert rows; with `replace`, over those that have the same positions."""
        columns = ("thread", *ROW_COLUMNS)
        text = f"INSERT INTO {{messages}} ({', '.join(columns)}) VALUES "
        text += ", ".join(f"({_numbered(f'r{_letters(n)}_', len(columns))})" for n in range(count))
        if replace and self.dialect == "mariadb":
            text += " ON DUPLICATE KEY UPDATE " + ", ".join(f"{n} = VALUES({n})" for n in _REPLACED)
        elif replace:
            text += " ON CONFLICT (thread, position) DO UPDATE SET "
            text += ", ".join(f"{n} = excluded.{n}" for n in _REPLACED)
        return self.make(text)

    @lru_cache(maxsize=64)  # noqa: B019
    def threads(self, *, recent: bool, prefix: bool, bounded: bool, after: bool) -> Sql:
        """A page of a tenant's threads."""
        where = "x.tenant_key = :tenant_key"
        where += " AND x.sort_key >= :low AND substr(x.thread_id, 1, :length) = :prefix" if prefix else ""
        where += " AND x.sort_key < :high" if bounded else ""
        order = "x.sort_key"
        if after and recent:
            where += (
                " AND x.updated_us <= :updated_us AND (x.updated_us < :updated_us OR x.sort_key > :cursor)"
            )
        elif after:
            where += " AND x.sort_key > :cursor"
        if recent:
            # Threads of one microsecond are ordered by id. The index knows times only: it gives the time that
            # ends the page, and no more than the page is sorted.
            order = "x.updated_us DESC, x.sort_key"
            last = f"SELECT o.updated_us FROM {{threads}} o WHERE {where.replace('x.', 'o.')} "
            last += "ORDER BY o.updated_us DESC LIMIT 1 OFFSET :skip"
            where += f" AND x.updated_us >= coalesce(({last}), 0)"
        text = f"SELECT x.tenant, x.thread_id, {_HEAD} FROM {{threads}} x WHERE {where} ORDER BY {order}"
        return self.make(f"{text} LIMIT :limit".replace("t.", "x."))


def expiry(dialect: str, ttl: str, now: str) -> str:
    """When a time-to-live ends that counts from now, in microseconds."""
    if dialect == "postgresql":
        return f"{now}::bigint + round({ttl} * 1000000)::bigint"
    return f"{now} + CAST(round({ttl} * 1000000) AS {'SIGNED' if dialect == 'mariadb' else 'INTEGER'})"


def _letters(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(number))


def _numbered(name: str, count: int) -> str:
    return ", ".join(f":{name}_{_letters(number)}" for number in range(count))


def thread_values(thread: Thread) -> dict[str, Any]:
    """A thread's columns by name."""
    values = msgspec.structs.asdict(thread)
    values["recent"] = join_ids(values.pop("recent_request_ids"))
    values["metadata"] = encode(thread.metadata).decode()
    values["ttl_explicit"] = int(thread.ttl_explicit)
    return values


def to_thread(columns: Values) -> tuple[Thread, tuple[int, int]]:
    """A thread and its version, of its `THREAD_COLUMNS`, ``id`` and ``version``."""
    values = dict(zip(THREAD_COLUMNS, columns, strict=False))
    metadata = values["metadata"]
    values["metadata"] = {} if metadata == "{}" else decode(metadata, _metadata, dict[str, Any])
    values["recent_request_ids"] = split_ids(values.pop("recent"))
    values["ttl_explicit"] = values["ttl_explicit"] == 1
    return Thread(**values), (columns[-2], columns[-1])


def to_row(columns: Values) -> Row:
    """A row, of its `ROW_COLUMNS`."""
    position, message_id, long_id, body, boundary, pinned, size, tokens, created_us = columns
    name = from_text(long_id or message_id)
    return Row(name, body.encode(), position, boundary == 1, pinned == 1, size, tokens, created_us)


def row_values(row: Row, position: int) -> Values:
    """A row's `ROW_COLUMNS`."""
    name = to_text(row.message_id)
    long = None
    if len(name) > ID_LENGTH:
        name, long = index_id(name), name
    flags = (1 if row.boundary else 0, 1 if row.pinned else 0)
    return (position, name, long, row.body.decode(), *flags, row.bytes, row.tokens, row.created_us)


_metadata = msgspec.json.Decoder(dict[str, Any])
