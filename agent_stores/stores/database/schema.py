"""The tables of the database backend, version 1 (docs/database.md describes them for operators)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

from agent_stores.log import ThreadKey

SCHEMA_VERSION = 1

SORT_LENGTH = 128
"""How many characters of a thread id the index for listing holds."""

ID_LENGTH = 255
"""The longest message id, in characters, that is stored as it is; a longer one is stored as its digest."""

# Names compare by code point, with case, accents and trailing spaces: the defaults of MariaDB do not.
_NAMES = "utf8mb4_nopad_bin"


def _name(length: int) -> String:
    return (
        String(length)
        .with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation=_NAMES), "mysql", "mariadb")
    )


def _long_text() -> Text:
    return (
        Text()
        .with_variant(postgresql.TEXT(collation="C"), "postgresql")
        .with_variant(mysql.LONGTEXT(charset="utf8mb4", collation=_NAMES), "mysql", "mariadb")
    )


def _digest_type() -> LargeBinary:
    return LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb")


@dataclass(frozen=True)
class Schema:
    """The tables, whose names begin with a prefix.

    Attributes:
        metadata: all of them.
        versions: one row, the schema's version.
        threads: a row a thread: its names and its head.
        messages: a row a message.
    """

    metadata: MetaData
    versions: Table
    threads: Table
    messages: Table


def make_schema(prefix: str) -> Schema:
    """The tables for a prefix of their names."""
    metadata = MetaData()
    # SQLite counts rows by itself only in a column of exactly this type.
    row_id = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    versions = Table(
        f"{prefix}schema",
        metadata,
        Column("name", String(64), primary_key=True),
        Column("version", Integer, nullable=False),
    )
    threads = Table(
        f"{prefix}threads",
        metadata,
        Column("id", row_id, primary_key=True, autoincrement=True),
        Column("thread_key", _digest_type(), nullable=False, unique=True),
        Column("tenant_key", _digest_type(), nullable=False),
        Column("sort_key", _name(SORT_LENGTH), nullable=False),
        Column("tenant", _long_text()),
        Column("thread_id", _long_text(), nullable=False),
        Column("last_position", BigInteger, nullable=False),
        Column("messages", BigInteger, nullable=False),
        Column("pinned", BigInteger, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("tokens", BigInteger, nullable=False),
        Column("first_us", BigInteger),
        Column("last_us", BigInteger),
        Column("open_calls", _long_text(), nullable=False),
        Column("recent", _long_text(), nullable=False),
        Column("ttl", Double),
        Column("ttl_refresh", String(8), nullable=False),
        Column("ttl_set", SmallInteger, nullable=False),
        Column("expires_us", BigInteger, index=True),
        Index(f"ix_{prefix}threads_list", "tenant_key", "sort_key", "id"),
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
    )
    messages = Table(
        f"{prefix}messages",
        metadata,
        Column("thread", BigInteger, primary_key=True, autoincrement=False),
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("message_id", _name(ID_LENGTH), nullable=False),
        Column("pinned", SmallInteger, nullable=False),
        Column("cut", SmallInteger, nullable=False),
        Column("created_us", BigInteger, nullable=False),
        Column("tokens", BigInteger, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("links", _long_text()),
        Column("body", _long_text(), nullable=False),
        Index(f"ix_{prefix}messages_id", "thread", "message_id", unique=True),
        Index(
            f"ix_{prefix}messages_pinned",
            "thread",
            "pinned",
            "position",
            sqlite_where=text("pinned = 1"),
            postgresql_where=text("pinned = 1"),
        ),
        mysql_engine="InnoDB",
        mysql_row_format="DYNAMIC",
    )
    return Schema(metadata, versions, threads, messages)


def thread_digest(key: ThreadKey) -> bytes:
    """What identifies a thread: SHA-256 of the tenant's digest and the thread id."""
    return hashlib.sha256(tenant_digest(key.tenant) + _bytes(key.thread_id)).digest()


def tenant_digest(tenant: str | None) -> bytes:
    """What identifies a tenant; having none differs from every name."""
    return hashlib.sha256(b"none" if tenant is None else b"name:" + _bytes(tenant)).digest()


def to_text(name: str) -> str:
    """A name as the text columns hold it: PostgreSQL has no NUL, and no database unpaired surrogates.

    Both are escaped with U+0001, which keeps the order of names by code point but for the surrogates.
    """
    if "\x00" not in name and "\x01" not in name and _is_utf8(name):
        return name
    return "".join(
        _ESCAPES.get(c) or (f"\x01s{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c) for c in name
    )


def from_text(column: str) -> str:
    """The name that `to_text` made a column's text of."""
    if "\x01" not in column:
        return column
    first, *rest = column.split("\x01")
    parts = [first]
    for part in rest:
        if part.startswith("s"):
            parts.append(chr(int(part[1:5], 16)) + part[5:])
        elif part.startswith("n"):
            parts.append("\x00" + part[1:])
        else:
            parts.append("\x01" + part[1:])
    return "".join(parts)


def to_message_id(message_id: str) -> str:
    """A message id as its column holds it; a long one by its digest."""
    column = to_text(message_id)
    if len(column) <= ID_LENGTH:
        return column
    return "\x01d" + hashlib.sha256(_bytes(message_id)).hexdigest()


# "n" sorts before "o", so NUL stays before U+0001, and both before all other text.
_ESCAPES = {"\x00": "\x01n", "\x01": "\x01o"}


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogatepass")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
