"""The texts of the statements, and how threads and rows become columns and come back."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar

import msgspec

from agent_stores._json import decode, encode
from agent_stores.backend import Row, Thread
from agent_stores.backends.sql import names
from agent_stores.errors import StoreRejectedError

Style = Literal["?", "$", "%s"]
"""How a driver marks values: by order as ``?`` or ``%s``, or numbered as ``$1``."""

Statement = tuple[str, Any]
"""A text and its values: a tuple or a dict; a list of tuples runs it once for each. Its result is rows, or
how many it changed."""

Sql = Callable[..., Statement]
"""Makes a statement of values by name, of which there may be more."""

T = TypeVar("T")

Steps = Generator[Statement, Any, T]
"""A transaction: yields statements, and is sent the result of each."""

Work = Statement | Callable[[], Steps[Any]]
"""A statement, or what makes the steps of a transaction, maybe more than once."""

BEGIN: Statement = ("BEGIN", ())
"""Yielded where a transaction begins that writes. It is committed when the steps end."""

LARGEST = 2**32
"""Larger than every position. A message's key on SQLite: its thread's id times this, and its position."""

MINUTE = 60_000_000
"""Microseconds. Indexes hold times in minutes, so that most writes do not change them."""

# Names compare by code point, with case, accents and trailing spaces: the defaults of MariaDB do not.
_MARIADB = " CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
TEXT_TYPES = {
    "sqlite": {"digest": "BLOB", "text": "TEXT", "collation": ""},
    "postgresql": {"digest": "BYTEA", "text": "TEXT", "collation": ' COLLATE "C"'},
    "mariadb": {"digest": "BINARY(32)", "text": f"LONGTEXT{_MARIADB}", "collation": _MARIADB},
}
# The columns of a thread's metadata. The first nine have the types of those of a row, so that one statement
# returns both.
THREAD_COLUMNS = tuple(
    "last_position recent ttl_refresh metadata ttl_explicit pinned bytes tokens updated_us staged_position "
    "messages first_us last_us ttl expires_us revision".split()
)
ROW_COLUMNS = tuple("position message_id long_id body boundary pinned bytes tokens created_us".split())
_HEAD = ", ".join(f"t.{name}" for name in (*THREAD_COLUMNS, "id", "version"))
_NULLS = ", NULL" * (len(THREAD_COLUMNS) - len(ROW_COLUMNS) + 2)
_ID = "(SELECT id FROM {threads} WHERE thread_key = :key)"
_NAME = re.compile(r"\{([a-z][a-z_0-9]*)\}")
_VALUE = re.compile(r"(?<![:\w]):([a-z_][a-z_0-9]*)")


class Abort(Exception):
    """Rolls a transaction back; raised by its steps."""


class Statements:
    """The statements of one database.

    Args:
        dialect: ``sqlite``, ``postgresql`` or ``mariadb``.
        prefix: what the names of the tables begin with.
        style: how the driver marks values.
    """

    def __init__(self, dialect: str, prefix: str, style: Style) -> None:
        self.dialect, self.prefix = dialect, prefix
        self._style: Style = style
        self._is_sqlite, is_mariadb = dialect == "sqlite", dialect == "mariadb"
        self.place = "id" if self._is_sqlite else "position"
        """What orders the rows of a thread."""
        self.find = lru_cache(maxsize=64)(self._find)
        self.rows = lru_cache(maxsize=4)(self._rows)
        self.threads = lru_cache(maxsize=16)(self._threads)
        self.load = self.make(f"SELECT {_HEAD} FROM {{threads}} t WHERE t.thread_key = :key")
        bigint = "::bigint" if dialect == "postgresql" else ""
        expires = f"CAST(:now{bigint} + round(ttl * 1000000) AS {'SIGNED' if is_mariadb else 'BIGINT'})"
        self.renew = self.make(
            f"UPDATE {{threads}} SET expires_us = {expires}, "
            f"expires_minute = {expires} {'DIV' if is_mariadb else '/'} {MINUTE} "
            "WHERE thread_key = :key AND ttl_refresh = 'read' AND expires_us > :now"
        )
        self.expired = self.make(
            f"SELECT t.tenant, t.thread_id, {_HEAD} FROM {{threads}} t "
            "WHERE t.expires_minute <= :minute AND t.expires_us < :before "
            "ORDER BY t.expires_minute LIMIT :limit"
        )
        version = "WHERE thread_key = :key AND id = :id AND version = :version"
        returning = " RETURNING id" if dialect == "postgresql" else ""  # asyncpg does not count changed rows
        columns = (*THREAD_COLUMNS, "updated_minute", "expires_minute")
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        self.update_thread = self.make(
            f"UPDATE {{threads}} SET version = version + 1, {changes} {version}{returning}"
        )
        columns = (*names.NAME_COLUMNS, *columns)
        self.insert_thread = self.make(
            f"INSERT INTO {{threads}} (version, {', '.join(columns)}) VALUES (1, :{', :'.join(columns)}) "
            "RETURNING id"
        )
        self.delete_thread = self.make(f"DELETE FROM {{threads}} {version}{returning}")
        self.delete_rows = self.make(f"DELETE FROM {{messages}} WHERE {self.within(':id', alias='')}")
        key = ("id",) if self._is_sqlite else ("thread", "position")
        columns = (*key, *ROW_COLUMNS[1:])
        self.insert = self.named(
            f"INSERT INTO {{messages}} ({', '.join(columns)}) VALUES ({self.marks(len(columns))})"
        )
        conflict = "DUPLICATE KEY UPDATE" if is_mariadb else f"CONFLICT ({', '.join(key)}) DO UPDATE SET"
        change = "{0} = VALUES({0})" if is_mariadb else "{0} = excluded.{0}"
        self.put = f"{self.insert} ON {conflict} {', '.join(map(change.format, ROW_COLUMNS[3:]))}"
        """Inserts rows, over those that have the same positions."""
        self.tenants = self.make("SELECT DISTINCT tenant FROM {threads}")

    def make(self, text: str) -> Sql:
        """A statement, with the tables' names for ``{threads}`` and the like, and ``:name`` for values."""
        text, used = self.named(text), list(dict.fromkeys(_VALUE.findall(text)))
        if self._style == "$":
            text = _VALUE.sub(lambda match: f"${used.index(match[1]) + 1}", text)
            return lambda **values: (text, tuple([values[name] for name in used]))
        text = _VALUE.sub(r"%(\1)s", text) if self._style == "%s" else text
        return lambda **values: (text, values)

    def named(self, text: str) -> str:
        """A text with the tables' names, which are letters, digits and underscores."""
        return _NAME.sub(lambda match: f"{self.prefix}{match[1]}", text)

    def marks(self, count: int) -> str:
        """The marks of values that are bound by their order."""
        return ", ".join(f"${n}" if self._style == "$" else self._style for n in range(1, count + 1))

    def within(self, thread: str, after: str = "", before: str = "", alias: str = "m.") -> str:
        """The condition of the rows of a thread, or of those between two positions."""
        if self._is_sqlite:
            first = f"{thread} * {LARGEST}"
            return f"{alias}id > {first} + {after or 0} AND {alias}id < {first} + {before or LARGEST}"
        bounds = [
            f" AND {alias}position {sign} {bound}" for sign, bound in ((">", after), ("<", before)) if bound
        ]
        return f"{alias}thread = {thread}{''.join(bounds)}"

    def values(self, thread: int, row: Row) -> tuple[Any, ...]:
        """The values of `insert` and `put` for a row of a thread."""
        if row.position >= LARGEST:
            raise StoreRejectedError(f"a thread's positions must be below {LARGEST}, got {row.position}")
        if self._is_sqlite:
            return row_values(row, thread * LARGEST + row.position)
        return (thread, *row_values(row, row.position))

    def delete(self, positions: Sequence[int]) -> Sql:
        """Delete rows by their positions."""
        first = f":id * {LARGEST} + " if self._is_sqlite else ""
        some = ", ".join(f"{first}{position}" for position in positions)
        where = f"{self.within(':id', alias='')} AND {self.place} IN ({some})"
        return self.make(f"DELETE FROM {{messages}} WHERE {where}")

    def _rows(self, *, newest: bool, bodies: bool) -> Sql:
        """A thread and a range of its rows."""
        columns = ", ".join("'' AS body" if n == "body" and not bodies else f"m.{n}" for n in ROW_COLUMNS)
        source = f" FROM {{messages}} m WHERE {self.within(_ID, ':after', ':before')}"
        limited, pinned = f"SELECT {columns}{source} ORDER BY m.{self.place} LIMIT :limit", ""
        if newest:
            limited = f"SELECT {columns}{source} AND m.pinned = 0 ORDER BY m.{self.place} DESC LIMIT :limit"
            pinned = f" UNION ALL SELECT {columns}{_NULLS}{source} AND m.pinned = 1"
            pinned += " AND (SELECT pinned FROM {threads} WHERE thread_key = :key) > 0"
        if self.dialect == "mariadb":  # which writes a subquery with bodies to a temporary table on disk
            limited = f"({limited.replace(source, _NULLS + source)})"
        else:
            limited = f"SELECT part.*{_NULLS} FROM ({limited}) AS part"
        head = f"SELECT {_HEAD} FROM {{threads}} t WHERE t.thread_key = :key"
        return self.make(f"{head} UNION ALL {limited}{pinned}")

    def _find(self, count: int) -> Sql:
        """Rows by their ids in the index: ``id_0`` and so on."""
        columns = ", ".join("''" if name == "body" else f"m.{name}" for name in ROW_COLUMNS)
        where = f"m.thread = {_ID} AND m.message_id IN ({', '.join(f':id_{n}' for n in range(count))})"
        return self.make(f"SELECT {columns} FROM {{messages}} m WHERE {where}")

    def _threads(self, *, recent: bool, prefix: bool, bounded: bool, after: bool) -> Sql:
        """A page of a tenant's threads."""
        where = "t.tenant_key = :tenant_key"
        where += " AND t.sort_key >= :low AND substr(t.thread_id, 1, :length) = :prefix" if prefix else ""
        where += " AND t.sort_key < :high" if bounded else ""
        order = ""
        if not recent:
            where += " AND t.sort_key > :cursor" if after else ""
        else:
            # The index gives the minute that ends the page: no more than the page and that minute are sorted.
            order = "t.updated_minute DESC, t.updated_us DESC, "
            if after:
                where += " AND t.updated_minute <= :minute AND (t.updated_us < :updated_us OR "
                where += "t.updated_us = :updated_us AND t.sort_key > :cursor)"
            last = f"SELECT o.updated_minute FROM {{threads}} o WHERE {where.replace('t.', 'o.')} "
            last += "ORDER BY o.updated_minute DESC LIMIT 1 OFFSET :skip"
            where += f" AND t.updated_minute >= coalesce(({last}), 0)"
        text = f"SELECT t.tenant, t.thread_id, {_HEAD} FROM {{threads}} t WHERE {where} "
        return self.make(f"{text}ORDER BY {order}t.sort_key LIMIT :limit")


def fill(text: str, /, **parts: str) -> str:
    """A text with its parts, which may have parts in turn, for ``{name}``; other names stay."""
    for _ in range(2):
        text = _NAME.sub(lambda match: parts.get(match[1], match[0]), text)
    return text


def thread_values(thread: Thread) -> dict[str, Any]:
    """A thread's columns by name."""
    values = msgspec.structs.asdict(thread)
    values["recent"] = names.join_ids(values.pop("recent_request_ids"))
    values["metadata"] = encode(thread.metadata).decode()
    values["ttl_explicit"] = int(thread.ttl_explicit)
    values["updated_minute"] = thread.updated_us // MINUTE
    values["expires_minute"] = None if thread.expires_us is None else thread.expires_us // MINUTE
    return values


def to_thread(columns: tuple[Any, ...]) -> tuple[Thread, tuple[int, int]]:
    """A thread and its version, of its `THREAD_COLUMNS`, ``id`` and ``version``."""
    values = dict(zip(THREAD_COLUMNS, columns, strict=False))
    metadata = values["metadata"]
    values["metadata"] = {} if metadata == "{}" else decode(metadata, _metadata, dict[str, Any])
    values["recent_request_ids"] = names.split_ids(values.pop("recent"))
    values["ttl_explicit"] = values["ttl_explicit"] == 1
    return Thread(**values), (columns[-2], columns[-1])


def to_row(columns: tuple[Any, ...]) -> Row:
    """A row, of its `ROW_COLUMNS`; more columns may follow."""
    position, message_id, long_id, body, boundary, pinned, size, tokens, created_us, *_ = columns
    name = names.from_text(long_id or message_id)
    return Row(name, body.encode(), position, boundary == 1, pinned == 1, size, tokens, created_us)


def row_values(row: Row, position: int) -> tuple[Any, ...]:
    """A row's `ROW_COLUMNS`."""
    name, long = names.to_text(row.message_id), None
    if len(name) > names.ID_LENGTH:
        name, long = names.index_id(name), name
    # Integers: the drivers take them faster than bool.
    boundary, pinned = 1 if row.boundary else 0, 1 if row.pinned else 0
    return position, name, long, row.body.decode(), boundary, pinned, row.bytes, row.tokens, row.created_us


_metadata = msgspec.json.Decoder(dict[str, Any])
