"""Creating the tables on first use, and refusing those of a newer version."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, Select, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from agent_stores.errors import UnsupportedVersionError
from agent_stores.stores.database.schema import SCHEMA_VERSION, Schema

_SCHEMA_NAME = "agent_stores"
_PAUSE = 0.01  # seconds between two tries to change an SQLite file's mode


def prepare(conn: Connection, schema: Schema, *, dialect: str, place: str, timeout: float) -> None:
    """Create the tables unless they are there, and check their version.

    Raises:
        UnsupportedVersionError: when a newer version made them.
    """
    if dialect == "sqlite":
        _use_wal(conn, timeout)
    found = _version(conn, schema)
    if found is None:
        found = _create(conn, schema, dialect=dialect, timeout=timeout)
    if found > SCHEMA_VERSION:
        raise UnsupportedVersionError(
            f"the tables at {place} are of schema version {found}; this version of agent-stores knows up to "
            f"{SCHEMA_VERSION}: upgrade it"
        )


def _version(conn: Connection, schema: Schema) -> int | None:
    """The version of the tables; None until all of them are there, as it is written last."""
    found = None
    if inspect(conn).has_table(schema.versions.name):
        found = conn.execute(_version_query(schema)).scalar()
    conn.rollback()
    return found


def _version_query(schema: Schema) -> Select[Any]:
    versions = schema.versions
    return select(versions.c.version).where(versions.c.name == _SCHEMA_NAME)


def _create(conn: Connection, schema: Schema, *, dialect: str, timeout: float) -> int:
    """Create the tables, one client at a time: creating one twice at once is an error, or a mess."""
    lock = {"name": f"agent_stores:{schema.versions.name}", "seconds": timeout}
    if dialect == "sqlite":
        conn.exec_driver_sql("BEGIN IMMEDIATE")
    elif dialect == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), lock)
    else:  # its statements on tables are no part of a transaction
        conn.execute(text("SELECT GET_LOCK(:name, :seconds)"), lock)
    try:
        schema.metadata.create_all(conn)
        found = conn.execute(_version_query(schema)).scalar()
        if found is None:
            found = SCHEMA_VERSION
            conn.execute(insert(schema.versions).values(name=_SCHEMA_NAME, version=found))
        conn.commit()
    finally:
        if dialect == "mariadb":
            conn.execute(text("SELECT RELEASE_LOCK(:name)"), lock)
            conn.rollback()
    return found


def _use_wal(conn: Connection, timeout: float) -> None:
    """Switch an SQLite file to write-ahead logging, so that readers and a writer do not wait for each other.

    The mode stays with the file. Switching does not wait for locks by itself, so it is tried again.
    """
    deadline = time.monotonic() + timeout
    while True:
        mode = conn.exec_driver_sql("PRAGMA journal_mode").scalar()
        if mode in ("wal", "memory") or "mode=ro" in str(conn.engine.url):
            return
        try:
            conn.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except DBAPIError as error:
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                if "readonly" in str(error.orig):
                    return  # reading works without it
                raise
        time.sleep(_PAUSE)
