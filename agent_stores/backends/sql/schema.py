"""The tables, version 5, and how they come to be (docs/database.md describes them for operators)."""

from __future__ import annotations

from agent_stores.backends.sql.append import FUNCTIONS
from agent_stores.backends.sql.names import KEY_LENGTH, NAME_COLUMNS
from agent_stores.backends.sql.statements import (
    STORED_COLUMNS,
    THREAD_COLUMNS,
    TYPES,
    Statements,
    Steps,
)
from agent_stores.errors import StoreRejectedError, UnsupportedVersionError

SCHEMA_VERSION = 5

_COLUMNS = {
    "schema": {"name", "version"},
    "threads": {"id", "version", *NAME_COLUMNS, *THREAD_COLUMNS, "updated_minute", "expires_minute"},
    "messages": {*STORED_COLUMNS},
}
_COUNTERS = ", ".join(
    f"{name} BIGINT NOT NULL DEFAULT 0"
    for name in "version last_position messages pinned bytes tokens updated_us updated_minute ttl_explicit "
    "revision".split()
)
_OURS = "('{schema}', '{threads}', '{messages}')"
LIST_COLUMNS = {
    "sqlite": "SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_xinfo(m.name) p "
    f"WHERE m.type = 'table' AND m.name IN {_OURS}",
    "postgresql": "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
    f"WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relname IN {_OURS} AND pg_table_is_visible(c.oid)",
    "mariadb": "SELECT table_name, column_name FROM information_schema.columns "
    f"WHERE table_schema = DATABASE() AND table_name IN {_OURS}",
}
"""Selects the names of the tables that exist, and of their columns."""

# Notifies clients that listen of changes of a thread; see `PostgresDatabase.subscribe`.
_HAS_TRIGGER = "SELECT 1 FROM pg_trigger WHERE tgname = '{notify}' AND tgrelid = to_regclass('{threads}')"
_TRIGGER = (
    "CREATE OR REPLACE FUNCTION {notify}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify("
    "'agent_stores_' || md5(left(TG_TABLE_NAME, -7) "
    "|| encode(coalesce(NEW.thread_key, OLD.thread_key), 'hex')), ''); RETURN NULL; END $$",
    "DROP TRIGGER IF EXISTS {notify} ON {threads}",
    "CREATE TRIGGER {notify} AFTER INSERT OR DELETE OR UPDATE OF version ON {threads} "
    "FOR EACH ROW EXECUTE FUNCTION {notify}()",
)


def check_tables(sql: Statements, location: str, notify: bool) -> Steps[bool]:
    """Check that the tables that exist are ours, and of our version; returns whether all of them exist.

    With `notify`, the trigger that notifies of changes, too.

    Raises:
        UnsupportedVersionError: when they are of another version.
        StoreRejectedError: when another application's tables have our names.
    """
    found: dict[str, set[str]] = {name: set() for name in _COLUMNS}
    for table, column in (yield sql(LIST_COLUMNS[sql.dialect])):
        found[str(table)[len(sql.prefix) :]].add(str(column))
    versions = []
    if found["schema"] == _COLUMNS["schema"]:
        versions = yield sql("SELECT version FROM {schema} WHERE name = 'agent_stores'")
    if versions and versions[0][0] != SCHEMA_VERSION:
        raise UnsupportedVersionError(
            f"the tables {sql.prefix}threads and {sql.prefix}messages at {location} have schema version "
            f"{versions[0][0]}, and this agent-stores needs {SCHEMA_VERSION}"
        )
    for table, columns in found.items():
        if columns and columns != _COLUMNS[table]:
            raise StoreRejectedError(
                f"the table {sql.prefix}{table} at {location} has other columns than agent-stores needs: "
                "another application created it; choose another table_prefix. Nothing was written"
            )
    return bool(versions) and all(found.values()) and (not notify or bool((yield sql(_HAS_TRIGGER))))


def create_tables(sql: Statements, location: str, notify: bool) -> Steps[None]:
    """Create the tables, and with `notify` the trigger, where they are missing."""
    if sql.dialect == "postgresql":  # creating a table twice at once fails
        yield sql(f"SELECT pg_advisory_xact_lock(hashtext('agent_stores:{sql.prefix}'))")
    if not (yield from check_tables(sql, location, notify)):
        for text in (*definitions(sql.dialect), *(_TRIGGER if notify else ())):
            yield sql(text)


def definitions(dialect: str) -> list[str]:
    """The statements that create what is missing; the version comes last."""
    serial, digest, text, collation = TYPES[dialect]
    key, options = f"VARCHAR({KEY_LENGTH}){collation} NOT NULL", ""
    pinned = "(thread) WHERE pinned = 1"
    version = f"INTO {{schema}} (name, version) VALUES ('agent_stores', {SCHEMA_VERSION})"
    insert = f"INSERT {version} ON CONFLICT DO NOTHING"
    if dialect == "mariadb":
        options, pinned = " ENGINE=InnoDB ROW_FORMAT=DYNAMIC", "(thread, pinned)"
        insert = f"INSERT IGNORE {version}"
    tables = {
        "schema": "name VARCHAR(64) PRIMARY KEY, version INTEGER NOT NULL",
        "threads": f"id {serial}, thread_key {digest} UNIQUE, tenant_key {digest}, sort_key {key}, "
        f"tenant {text}, thread_id {text} NOT NULL, {_COUNTERS}, first_us BIGINT, last_us BIGINT, "
        f"ttl DOUBLE PRECISION, ttl_refresh VARCHAR(8) NOT NULL, expires_us BIGINT, expires_minute BIGINT, "
        f"recent {text} NOT NULL DEFAULT '', metadata {text} NOT NULL DEFAULT '{{}}'",
        # On SQLite and MariaDB the key orders the table itself.
        "messages": f"id {serial.split()[0]} PRIMARY KEY, thread BIGINT NOT NULL, message_id {key}, "
        f"long_id {text} NOT NULL DEFAULT '', "
        "boundary SMALLINT NOT NULL, pinned SMALLINT NOT NULL, bytes BIGINT NOT NULL, "
        f"tokens BIGINT NOT NULL, created_us BIGINT NOT NULL, body {text} NOT NULL",
    }
    indexes = {
        "INDEX IF NOT EXISTS ix_{threads}_id": "{threads} (tenant_key, sort_key)",
        "INDEX IF NOT EXISTS ix_{threads}_recent": "{threads} (tenant_key, updated_minute)",
        "INDEX IF NOT EXISTS ix_{threads}_expires": "{threads} (expires_minute)",
        "UNIQUE INDEX IF NOT EXISTS ix_{messages}_id": "{messages} (thread, message_id)",
        "INDEX IF NOT EXISTS ix_{messages}_pinned": f"{{messages}} {pinned}",
    }
    return [
        *(f"CREATE TABLE IF NOT EXISTS {{{name}}} ({columns}){options}" for name, columns in tables.items()),
        *(f"CREATE {index} ON {columns}" for index, columns in indexes.items()),
        *(FUNCTIONS if dialect == "postgresql" else ()),
        insert,
    ]
