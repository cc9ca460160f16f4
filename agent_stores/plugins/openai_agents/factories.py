"""Sessions with the names and constructors of the SDK's own, over our stores.

Their data is in our layout; ``agent-stores migrate`` copies what the SDK's own sessions wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from agent_stores.database import DatabaseChatMessageStore
from agent_stores.plugins.openai_agents.session import AgentStoresSession
from agent_stores.plugins.store_resolver import StoreLike
from agent_stores.redis import RedisChatMessageStore

if TYPE_CHECKING:
    from agents.memory import SessionSettings

_TABLES = ("agent_sessions", "agent_messages")
_PREFIX = "agents:session"


class SQLiteSession(AgentStoresSession):
    """`AgentStoresSession` as ``agents.SQLiteSession`` is made.

    Args:
        session_id: the conversation's id.
        db_path: the file; by default a database in memory, of this session alone.
        sessions_table, messages_table: sessions with other names than the default share no data with those
            that have them, as with the SDK's.
        session_settings: see `AgentStoresSession`.
    """

    def __init__(
        self,
        session_id: str,
        db_path: str | Path = ":memory:",
        sessions_table: str = _TABLES[0],
        messages_table: str = _TABLES[1],
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
    ) -> None:
        options = _table_options(sessions_table, messages_table)

        def make(name: str) -> DatabaseChatMessageStore[Any]:
            return DatabaseChatMessageStore(Path(db_path), thread_id=name, **options)

        source: StoreLike = "memory:" if str(db_path) == ":memory:" else make
        super().__init__(session_id, source, session_settings=session_settings)

    def close(self) -> None:  # type: ignore[override]  # as the SDK's is
        """Close the session, and wait until it is."""
        if not self._is_closed:
            self._is_closed = True
            self._opened.wait(self.aclose(), self.session_id)

    _is_closed = False


class RedisSession(AgentStoresSession):
    """`AgentStoresSession` as ``agents.extensions.memory.RedisSession`` is made.

    Args:
        session_id: the conversation's id.
        redis_client: the caller's client, which stays open.
        key_prefix: the beginning of all keys; the SDK's default stands for ours, which is ``agent``.
        ttl: seconds after the last write.
        session_settings: see `AgentStoresSession`.
    """

    def __init__(
        self,
        session_id: str,
        *,
        redis_client: Any,
        key_prefix: str = _PREFIX,
        ttl: int | None = None,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
    ) -> None:
        self._connect(session_id, key_prefix, ttl, session_settings, redis_client=redis_client)

    @classmethod
    def from_url(
        cls,
        session_id: str,
        *,
        url: str,
        redis_kwargs: Mapping[str, Any] | None = None,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        key_prefix: str = _PREFIX,
        ttl: int | None = None,
    ) -> Self:
        """A session on a server; `redis_kwargs` are further arguments of redis-py's client."""
        session = cls.__new__(cls)
        options = {"redis_url": url, "client_options": dict(redis_kwargs or {})}
        session._connect(session_id, key_prefix, ttl, session_settings, **options)
        return session

    def _connect(
        self, session_id: str, key_prefix: str, ttl: int | None, settings: Any, **server: Any
    ) -> None:
        prefix = "agent" if key_prefix == _PREFIX else key_prefix
        AgentStoresSession.__init__(
            self,
            session_id,
            lambda name: RedisChatMessageStore(**server, key_prefix=prefix, ttl=ttl, thread_id=name),
            session_settings=settings,
        )


class SQLAlchemySession(AgentStoresSession):
    """`AgentStoresSession` as ``agents.extensions.memory.SQLAlchemySession`` is made.

    Args:
        session_id: the conversation's id.
        engine: the caller's engine, which is never disposed of here.
        create_tables, ensure_ascii: ignored: tables are made where they are missing, and text is UTF-8.
        sessions_table, messages_table: as for `SQLiteSession`.
        session_settings: see `AgentStoresSession`.
    """

    def __init__(
        self,
        session_id: str,
        *,
        engine: Any,
        create_tables: bool = False,
        sessions_table: str = _TABLES[0],
        messages_table: str = _TABLES[1],
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        ensure_ascii: bool = True,
    ) -> None:
        options = _table_options(sessions_table, messages_table)
        super().__init__(
            session_id,
            lambda name: DatabaseChatMessageStore(engine=engine, thread_id=name, **options),
            session_settings=session_settings,
        )

    @classmethod
    def from_url(
        cls,
        session_id: str,
        *,
        url: str,
        engine_kwargs: Mapping[str, Any] | None = None,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        create_tables: bool = False,
        sessions_table: str = _TABLES[0],
        messages_table: str = _TABLES[1],
        ensure_ascii: bool = True,
    ) -> Self:
        """A session on a database; `engine_kwargs` are the ``engine_options`` of `DatabaseMessageLog`."""
        options = {"engine_options": engine_kwargs, **_table_options(sessions_table, messages_table)}
        session = cls.__new__(cls)
        AgentStoresSession.__init__(
            session,
            session_id,
            lambda name: DatabaseChatMessageStore(url, thread_id=name, **options),
            session_settings=session_settings,
        )
        return session


def _table_options(sessions_table: str, messages_table: str) -> dict[str, Any]:
    """Where sessions are kept that have other tables than the default."""
    if (sessions_table, messages_table) == _TABLES:
        return {}
    return {"table_prefix": f"{messages_table}_"}
