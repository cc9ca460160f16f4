"""The database store: SQLite, PostgreSQL and MariaDB. Needs the extra ``database``."""

from agent_stores.stores.database.log import DatabaseMessageLog
from agent_stores.stores.database.store import DatabaseChatMessageStore

__all__ = ["DatabaseChatMessageStore", "DatabaseMessageLog"]
