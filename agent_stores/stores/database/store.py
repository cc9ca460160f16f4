"""`DatabaseChatMessageStore`: a conversation in an SQL database."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar, Unpack

from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import StoreOptions

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

M = TypeVar("M", default=ChatMessage)


class DatabaseChatMessageStore(ChatMessageStore[M]):
    """A conversation in an SQLite, PostgreSQL or MariaDB database.

    Args:
        connection_string: where it is kept:
            a file's name, as ``chat.db`` or ``sqlite:///chat.db``, for SQLite, which needs no server;
            ``postgresql://user:password@host:port/database``;
            ``mariadb://user:password@host:port/database``;
            a driver may be named, as in ``postgresql+asyncpg://``.
        engine: an SQLAlchemy engine, sync or async, instead of a connection string; it stays the caller's.
        timeout: seconds that an operation may take, the wait for a connection included.
        max_connections: how many connections this process makes to the database, for all its stores.
        table_prefix: what the tables' names begin with.
        engine_options: further options for SQLAlchemy's `create_engine`.
        options: those of `ChatMessageStore`: ``thread_id``, ``tenant``, ``max_messages``, ``ttl`` and so on.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
        MissingDependencyError: when no driver for the database is installed; names the extra.
    """

    state_type = "database"

    def __init__(
        self,
        connection_string: str | os.PathLike[str] | URL | None = None,
        *,
        engine: Engine | AsyncEngine | None = None,
        timeout: float = 10.0,
        max_connections: int = 10,
        table_prefix: str = "agent_",
        engine_options: Mapping[str, Any] | None = None,
        **options: Unpack[StoreOptions[M]],
    ) -> None:
        # Imported here, so that the class can be imported where SQLAlchemy is not installed.
        from agent_stores.stores.database.log import DatabaseMessageLog

        log = DatabaseMessageLog(
            connection_string,
            engine=engine,
            timeout=timeout,
            max_connections=max_connections,
            table_prefix=table_prefix,
            engine_options=engine_options,
        )
        super().__init__(log, **options)
        self._own(log)
