"""Which class connects to a database, and the databases that this process uses."""

from __future__ import annotations

import sys

from agent_stores.backends.sql.config import Config
from agent_stores.backends.sql.database import Database
from agent_stores.backends.sql.sqlite import SQLiteDatabase
from agent_stores.connection_pool import ServerRegistry


def connect(config: Config) -> Database:
    """The database of a configuration; nothing connects before the first operation."""
    if config.engine is None and config.dialect == "sqlite":
        return SQLiteDatabase(config)
    # psycopg's asynchronous connections do not run on the default event loop of Windows.
    is_async = config.driver == "asyncpg" or (
        config.driver.startswith("psycopg") and config.driver != "psycopg2"
    )
    if config.engine is None and is_async and (config.driver == "asyncpg" or sys.platform != "win32"):
        from agent_stores.backends.sql.postgresql import PostgresDatabase

        return PostgresDatabase(config)
    from agent_stores.backends.sql.engines import EngineDatabase

    return EngineDatabase(config)


registry: ServerRegistry[Database] = ServerRegistry()
"""The databases in use in this process."""
