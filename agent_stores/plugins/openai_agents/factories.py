"""Sessions with the names and constructors of the SDK's own, over our stores.

Their data is in our layout; ``agent-stores migrate`` copies what the SDK's own sessions wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Self

from agent_stores.database import DatabaseChatMessageStore
from agent_stores.plugins.openai_agents.session import AgentStoresSession
from agent_stores.plugins.store_resolver import StoreLike
from agent_stores.redis import RedisChatMessageStore
from agent_stores.store import ChatMessageStore

if TYPE_CHECKING:
    from agents.memory import SessionSettings

S = TypeVar("S", bound=AgentStoresSession)

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
        in_file = _in_tables(sessions_table, messages_table, Path(db_path))
        source: StoreLike = "memory:" if str(db_path) == ":memory:" else in_file
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
        source = _with_prefix(key_prefix, ttl, redis_client=redis_client)
        super().__init__(session_id, source, session_settings=session_settings)

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
        source = _with_prefix(key_prefix, ttl, redis_url=url, client_options=dict(redis_kwargs or {}))
        return _made(cls, session_id, source, session_settings)


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
        source = _in_tables(sessions_table, messages_table, engine=engine)
        super().__init__(session_id, source, session_settings=session_settings)

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
        source = _in_tables(sessions_table, messages_table, url, engine_options=engine_kwargs)
        return _made(cls, session_id, source, session_settings)


def _made(cls: type[S], session_id: str, source: StoreLike, settings: Any) -> S:
    """A session of a class whose constructor takes other arguments."""
    session = cls.__new__(cls)
    AgentStoresSession.__init__(session, session_id, source, session_settings=settings)
    return session


def _with_prefix(key_prefix: str, ttl: int | None, **server: Any) -> Callable[[str], ChatMessageStore[Any]]:
    prefix = "agent" if key_prefix == _PREFIX else key_prefix
    return lambda name: RedisChatMessageStore(**server, key_prefix=prefix, ttl=ttl, thread_id=name)


def _in_tables(
    sessions: str, messages: str, *source: Any, **options: Any
) -> Callable[[str], ChatMessageStore[Any]]:
    """Sessions in tables; those of other names than the default are apart."""
    if (sessions, messages) != _TABLES:
        options["table_prefix"] = f"{messages}_"
    return lambda name: DatabaseChatMessageStore(*source, thread_id=name, **options)
