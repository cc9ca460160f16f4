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

Style = Literal["?", "$", "%s"]
"""How a driver marks values: by order as ``?`` or ``%s``, or numbered as ``$1``."""

Statement = tuple[str, Any]
"""A text and its values: a tuple or a dict; a list of tuples runs it once for each."""

Sql = Callable[..., Statement]
"""Makes a statement of values by name, of which there may be more."""

T = TypeVar("T")

Steps = Generator[Statement, Any, T]
"""A transaction: yields statements; is sent the rows of each, or how many it changed."""

BEGIN: Statement = ("BEGIN", ())
"""Yielded where a transaction begins that writes. It is committed when the steps end."""

LARGEST = 2**62
"""Larger than every position; no limit."""

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
_VISIBLE = "m.position <= (SELECT last_position FROM {threads} WHERE thread_key = :key)"
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
        self.load = self.make(f"SELECT {_HEAD} FROM {{threads}} t WHERE t.thread_key = :key")
        self.renew = self.make(
            f"UPDATE {{threads}} SET expires_us = {expiry(dialect, 'ttl', ':now')} "
            "WHERE thread_key = :key AND ttl_refresh = 'read' AND expires_us > :now"
        )
        self.expired = self.make(
            f"SELECT t.tenant, t.thread_id, {_HEAD} FROM {{threads}} t WHERE t.expires_us < :before "
            "ORDER BY t.expires_us LIMIT :limit"
        )
        version = "WHERE thread_key = :key AND id = :id AND version = :version"
        returning = " RETURNING id" if dialect == "postgresql" else ""  # asyncpg does not count changed rows
        changes = ", ".join(f"{name} = :{name}" for name in THREAD_COLUMNS)
        self.update_thread = self.make(
            f"UPDATE {{threads}} SET version = version + 1, {changes} {version}{returning}"
        )
        columns = (*names.NAME_COLUMNS, *THREAD_COLUMNS)
        self.insert_thread = self.make(
            f"INSERT INTO {{threads}} (version, {', '.join(columns)}) VALUES (1, :{', :'.join(columns)}) "
            "RETURNING id"
        )
        self.delete_thread = self.make(f"DELETE FROM {{threads}} {version}{returning}")
        self.delete_rows = self.make("DELETE FROM {messages} WHERE thread = :id")
        self.clear = self.make("DELETE FROM {messages} WHERE thread = :id AND position <= :last_position")
        lock = "" if dialect == "sqlite" else " FOR UPDATE"
        self.lock = self.make(f"SELECT last_position FROM {{threads}} {version}{lock}")
        columns = ("thread", *ROW_COLUMNS)
        insert = f"INSERT INTO {{messages}} ({', '.join(columns)}) VALUES ({self.marks(len(columns))})"
        self.insert = self.named(insert)
        changes = "{0} = VALUES({0})" if dialect == "mariadb" else "{0} = excluded.{0}"
        conflict = (
            "DUPLICATE KEY UPDATE" if dialect == "mariadb" else "CONFLICT (thread, position) DO UPDATE SET"
        )
        self.put = f"{self.insert} ON {conflict} {', '.join(map(changes.format, ROW_COLUMNS[3:]))}"
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
        return re.sub(r"\{([a-z][a-z_0-9]*)\}", lambda match: f"{self.prefix}{match[1]}", text)

    def marks(self, count: int) -> str:
        """The marks of values that are bound by their order."""
        return ", ".join(f"${n}" if self._style == "$" else self._style for n in range(1, count + 1))

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
        if self.dialect == "mariadb":  # which writes a subquery with bodies to a temporary table on disk
            limited = f"({limited.replace(source, _NULLS + source)})"
        else:
            limited = f"SELECT part.*{_NULLS} FROM ({limited}) AS part"
        head = f"SELECT {_HEAD} FROM {{threads}} t WHERE t.thread_key = :key"
        return self.make(f"{head} UNION ALL {limited}{pinned}")

    @lru_cache(maxsize=64)  # noqa: B019
    def find(self, count: int) -> Sql:
        """Rows by their ids in the index: ``id_0`` and so on."""
        columns = ", ".join("''" if name == "body" else f"m.{name}" for name in ROW_COLUMNS)
        ids = ", ".join(f":id_{n}" for n in range(count))
        where = f"m.thread = {_ID} AND m.message_id IN ({ids}) AND {_VISIBLE}"
        return self.make(f"SELECT {columns} FROM {{messages}} m WHERE {where}")

    def delete(self, positions: Sequence[int]) -> Sql:
        """Delete rows by their positions."""
        some = ", ".join(map(str, positions))
        return self.make(f"DELETE FROM {{messages}} WHERE thread = :id AND position IN ({some})")

    @lru_cache(maxsize=64)  # noqa: B019
    def threads(self, *, recent: bool, prefix: bool, bounded: bool, after: bool) -> Sql:
        """A page of a tenant's threads."""
        where = "t.tenant_key = :tenant_key"
        where += " AND t.sort_key >= :low AND substr(t.thread_id, 1, :length) = :prefix" if prefix else ""
        where += " AND t.sort_key < :high" if bounded else ""
        if not recent:
            where += " AND t.sort_key > :cursor" if after else ""
        else:
            # Threads of one microsecond are ordered by id. The index knows times only: it gives the time that
            # ends the page, and no more than the page is sorted.
            if after:
                where += " AND t.updated_us <= :updated_us"
                where += " AND (t.updated_us < :updated_us OR t.sort_key > :cursor)"
            last = f"SELECT o.updated_us FROM {{threads}} o WHERE {where.replace('t.', 'o.')} "
            last += "ORDER BY o.updated_us DESC LIMIT 1 OFFSET :skip"
            where += f" AND t.updated_us >= coalesce(({last}), 0)"
        text = f"SELECT t.tenant, t.thread_id, {_HEAD} FROM {{threads}} t WHERE {where} ORDER BY "
        return self.make(f"{text}{'t.updated_us DESC, ' if recent else ''}t.sort_key LIMIT :limit")


def expiry(dialect: str, ttl: str, now: str) -> str:
    """When a time-to-live ends that counts from now, in microseconds."""
    if dialect == "postgresql":
        return f"{now}::bigint + round({ttl} * 1000000)::bigint"
    return f"{now} + CAST(round({ttl} * 1000000) AS {'SIGNED' if dialect == 'mariadb' else 'INTEGER'})"


def thread_values(thread: Thread) -> dict[str, Any]:
    """A thread's columns by name."""
    values = msgspec.structs.asdict(thread)
    values["recent"] = names.join_ids(values.pop("recent_request_ids"))
    values["metadata"] = encode(thread.metadata).decode()
    values["ttl_explicit"] = int(thread.ttl_explicit)
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
    return (
        position,
        name,
        long,
        row.body.decode(),
        1 if row.boundary else 0,
        1 if row.pinned else 0,
        row.bytes,
        row.tokens,
        row.created_us,
    )


_metadata = msgspec.json.Decoder(dict[str, Any])
