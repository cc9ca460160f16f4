"""Conversations in SQLite, PostgreSQL or MariaDB: `DatabaseMessageLog` and `DatabaseChatMessageStore`.

Needs the extra ``database``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar, Unpack

from agent_stores._checks import positive_seconds
from agent_stores.capabilities import SearchableBackend
from agent_stores.errors import ArgumentError, StoreRejectedError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import StoreOptions, log_options, positive

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from agent_stores.attachments import Attachments
    from agent_stores.backends.sql.backend import SQLBackend
    from agent_stores.encryption import Keys

M = TypeVar("M", default=ChatMessage)

_PREFIX = "agent_stores_"


class DatabaseMessageLog(MessageLog):
    """Threads in the tables of an SQLite, PostgreSQL or MariaDB database.

    Logs of one process that name a database alike share its connections. Nothing connects before the first
    operation, which creates the tables where they are missing.

    Args:
        connection_string: an SQLite file's name, or a URL; see `DatabaseChatMessageStore`.
        engine: the caller's SQLAlchemy engine, sync or async, instead; it is never disposed of here.
        timeout: seconds that an operation may take, the wait for a connection included.
        max_connections: how many connections at most; SQLite uses five, PostgreSQL as many per event loop.
        table_prefix: what the tables' names begin with.
        engine_options: further options: ``connect_args`` for the driver, ``pool_size``, and for MariaDB all
            of SQLAlchemy's `create_engine`.
        notify: have PostgreSQL notify of changes (a trigger, made where it is missing), so that
            `ChatMessageStore.watch` does not poll; each write costs somewhat more, by any client.
        clock: returns seconds since 1970 UTC; for tests of expiry.
        encryption: the keys that encrypt messages and metadata; none by default.
        attachments: where large data of messages is stored; in the messages by default.

    Raises:
        ArgumentError, ArgumentTypeError: for an invalid value.
        MissingDependencyError: when no driver for the database is installed.
    """

    backend: SQLBackend

    def __init__(
        self,
        connection_string: str | os.PathLike[str] | URL | None = None,
        *,
        engine: Engine | AsyncEngine | None = None,
        timeout: float = 10.0,
        max_connections: int = 10,
        table_prefix: str = _PREFIX,
        engine_options: Mapping[str, Any] | None = None,
        notify: bool = False,
        clock: Callable[[], float] = time.time,
        encryption: Keys | None = None,
        attachments: Attachments | None = None,
    ) -> None:
        # Imported here, so that the class can be imported where SQLAlchemy is not installed.
        from agent_stores.backends.sql.backend import SQLBackend
        from agent_stores.backends.sql.config import parse_config

        if (connection_string is None) == (engine is None):
            raise ArgumentError("either connection_string or engine must be given, and not both")
        seconds = positive_seconds("timeout", timeout)
        if not table_prefix.isidentifier() or not table_prefix.isascii() or len(table_prefix) > 32:
            raise ArgumentError(
                f"table_prefix must be up to 32 letters, digits and underscores, got {table_prefix!r}"
            )
        config = parse_config(connection_string if engine is None else engine.url)  # type: ignore[arg-type]
        if notify and (config.dialect != "postgresql" or engine is not None):
            raise ArgumentError("notify must be False except for a connection string of PostgreSQL, got True")
        config = config._replace(
            location=config.location + ("" if table_prefix == _PREFIX else f"?tables={table_prefix}"),
            timeout=seconds,
            max_connections=positive("max_connections", max_connections),
            engine_options=dict(engine_options or {}),
            engine=engine,
            table_prefix=table_prefix,
            notify=notify,
        )
        super().__init__(SQLBackend(config), clock=clock, encryption=encryption, attachments=attachments)

    async def build_search_index(self) -> int:
        """Index all messages for `search`, in batches; returns how many were read, 0 when it is complete.

        From then on, each write updates the index.

        Raises:
            StoreRejectedError: on MariaDB, which has no search; when the user may not create tables.
        """
        self._open()
        if not isinstance(self.backend, SearchableBackend):
            raise StoreRejectedError(f"{self.location} cannot search: it has no search, or is encrypted")
        return await self.backend.build_search_index()

    def __repr__(self) -> str:
        return f"DatabaseMessageLog({self.location!r})"


class DatabaseChatMessageStore(ChatMessageStore[M]):
    """A conversation in an SQLite, PostgreSQL or MariaDB database.

    Args:
        connection_string: where it is kept:
            a file's name, as ``chat.db`` or ``sqlite:///chat.db``, for SQLite, which needs no server;
            ``postgresql://user:password@host:port/database``;
            ``mariadb://user:password@host:port/database``;
            a driver may be named, as in ``postgresql+asyncpg://``.
        engine: an SQLAlchemy engine, sync or async, instead of a connection string; it stays the caller's.
        timeout, max_connections, table_prefix, engine_options, notify: see `DatabaseMessageLog`.
        options: those of `ChatMessageStore`: ``thread_id``, ``tenant``, ``max_messages``, ``ttl`` and so on.

    Raises:
        ArgumentError, ArgumentTypeError: for an invalid value.
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
        table_prefix: str = _PREFIX,
        engine_options: Mapping[str, Any] | None = None,
        notify: bool = False,
        **options: Unpack[StoreOptions[M]],
    ) -> None:
        wrapping = log_options(options)
        log = DatabaseMessageLog(
            connection_string,
            engine=engine,
            timeout=timeout,
            max_connections=max_connections,
            table_prefix=table_prefix,
            engine_options=engine_options,
            notify=notify,
            **wrapping,
        )
        super().__init__(log, **options)
        self._take_ownership(log)
