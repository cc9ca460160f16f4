"""How statements get the tables' names and their values, and how threads and rows become columns and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from functools import lru_cache
from typing import Any, Literal, TypeVar

import msgspec

from agent_stores._json import decode, encode
from agent_stores.backend import Row, Thread
from agent_stores.backends.sql import names

Style = Literal["?", "$", "%s"]
"""How a driver marks values: as ``?`` or ``:name``, as ``%s`` or ``%(name)s``, or numbered as ``$1``."""

Statement = tuple[str, Any]
"""A text and its values: by name or in order, or a list of tuples, which runs it once for each. Its result is
rows, or how many it changed."""

T = TypeVar("T")

Steps = Generator[Statement, Any, T]
"""A transaction: yields statements, and is sent the result of each. It is committed when they end."""

Work = Statement | Callable[[], Steps[Any]]
"""A statement, or what makes the steps of a transaction, maybe more than once."""

LARGEST = 2**32
"""Larger than every position. A message's key on SQLite: its thread's id times this, and its position."""

MINUTE = 60_000_000
"""Microseconds. Indexes hold times in minutes, so that most writes do not change them."""

# Names compare by code point, with case, accents and trailing spaces: the defaults of MariaDB do not.
_MARIADB = " CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
TYPES = {
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
HEAD = ", ".join(f"t.{name}" for name in (*THREAD_COLUMNS, "id", "version"))
"""What `to_thread` takes, of ``{threads} t``."""

LOAD = f"SELECT {HEAD} FROM {{threads}} t WHERE t.thread_key = :key"
THREAD_ID = "(SELECT id FROM {threads} WHERE thread_key = :key)"
_NO_VALUES: Mapping[str, Any] = {}
_TABLE = re.compile(r"\{([a-z][a-z_0-9]*)\}")
_VALUE = re.compile(r"(?<![:\w]):([a-z_][a-z_0-9]*)")


class Abort(Exception):
    """Rolls a transaction back; raised by its steps."""


class Statements:
    """Makes the statements of one database.

    Args:
        dialect: ``sqlite``, ``postgresql`` or ``mariadb``.
        prefix: what the names of the tables begin with: letters, digits and underscores.
        style: how the driver marks values.
    """

    def __init__(self, dialect: str, prefix: str, style: Style) -> None:
        self.dialect, self.prefix, self.style = dialect, prefix, style
        self.compile = lru_cache(maxsize=128)(self._compile)
        self.is_sqlite = dialect == "sqlite"
        self.place = "id" if self.is_sqlite else "position"
        """What orders the rows of a thread."""

    def __call__(self, text: str, values: Mapping[str, Any] = _NO_VALUES) -> Statement:
        """The statement of a text with ``{threads}`` and the like for tables, and ``:name`` for values.

        There may be more values than the text names.
        """
        text, used = self.compile(text)
        return text, values if used is None else tuple(map(values.__getitem__, used))

    def _compile(self, text: str) -> tuple[str, list[str] | None]:
        """The text for the driver, and the names of the values that it takes in this order."""
        text = _TABLE.sub(lambda match: f"{self.prefix}{match[1]}", text)
        if self.style != "$":
            return text if self.style == "?" else _VALUE.sub(r"%(\1)s", text), None
        used = list(dict.fromkeys(_VALUE.findall(text)))
        return _VALUE.sub(lambda match: f"${used.index(match[1]) + 1}", text), used

    def marks(self, count: int) -> str:
        """The marks of values that come as a tuple."""
        return ", ".join(f"${n}" if self.style == "$" else self.style for n in range(1, count + 1))

    def within(self, thread: str, after: str = "", before: str = "", alias: str = "m.") -> str:
        """The condition of the rows of a thread, or of those between two positions."""
        if self.is_sqlite:
            first = f"{thread} * {LARGEST}"
            return f"{alias}id > {first} + {after or 0} AND {alias}id < {first} + {before or LARGEST}"
        above = f" AND {alias}position > {after}" if after else ""
        below = f" AND {alias}position < {before}" if before else ""
        return f"{alias}thread = {thread}{above}{below}"


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
