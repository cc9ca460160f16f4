"""Services with the names and constructors of ADK's own, over our stores.

Their data is in our layout: `agent-stores migrate` takes over what ADK's own services wrote.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from agent_stores.errors import ArgumentError
from agent_stores.plugins.google_adk.service import AgentStoresSessionService

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_DRIVER = re.compile(r"^(\w+)\+\w+://")


class DatabaseSessionService(AgentStoresSessionService):
    """`AgentStoresSessionService` as ``google.adk.sessions.DatabaseSessionService`` is made.

    Args:
        db_url: the database, with or without a driver, which is not needed.
        db_engine: an engine of the caller's instead, which stays open.
        engine_options: options of an SQLAlchemy engine; ignored.
    """

    def __init__(
        self, db_url: str | None = None, db_engine: AsyncEngine | None = None, **engine_options: Any
    ) -> None:
        if (db_url is None) == (db_engine is None):
            raise ArgumentError("one of db_url and db_engine must be given")
        if db_engine is not None:
            from agent_stores.database import DatabaseMessageLog

            log = DatabaseMessageLog(engine=db_engine)
            super().__init__(log)
            self._opened.own(log)
            return
        if not isinstance(db_url, str) or "://" not in db_url:
            raise ArgumentError("db_url must be a URL, such as postgresql://user@host/database")
        url = _DRIVER.sub(r"\1://", db_url)
        super().__init__("memory:" if url in ("sqlite://", "sqlite:///:memory:") else url)


class SqliteSessionService(AgentStoresSessionService):
    """`AgentStoresSessionService` as ``google.adk.sessions.sqlite_session_service`` has it.

    Args:
        db_path: the file.
    """

    def __init__(self, db_path: str) -> None:
        super().__init__("memory:" if db_path == ":memory:" else db_path)


class InMemorySessionService(AgentStoresSessionService):
    """`AgentStoresSessionService` as ``google.adk.sessions.InMemorySessionService`` is made."""

    def __init__(self) -> None:
        super().__init__("memory:")
