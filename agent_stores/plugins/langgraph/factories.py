"""Savers with the names and constructors of LangGraph's own, over our stores.

Their data is in our layout: `agent-stores migrate` takes over what LangGraph's own savers wrote. What
``from_conn_string`` makes is closed at the end of ``with`` or ``async with``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from typing_extensions import Self

from agent_stores.backend import TtlRefresh
from agent_stores.errors import ArgumentError
from agent_stores.plugins.langgraph.saver import AgentStoresSaver
from agent_stores.plugins.store_resolver import PluginOptions
from agent_stores.redis import RedisMessageLog


class _Sync(AgentStoresSaver):
    def setup(self) -> None:
        """Nothing to do: the first operation makes what there is to be made."""


class _Async(AgentStoresSaver):
    async def setup(self) -> None:
        """Nothing to do: the first operation makes what there is to be made."""


class _OnPostgres(AgentStoresSaver):
    @classmethod
    def from_conn_string(
        cls, conn_string: str, *, pipeline: bool = False, serde: SerializerProtocol | None = None
    ) -> Self:
        """A saver on a database; `pipeline` is ignored."""
        if "://" not in conn_string:  # a string of keywords, which would be taken for the name of a file
            raise ArgumentError(
                "the connection string must be a URL, such as postgresql://user@host/database"
            )
        return cls(conn_string, serde=serde)


class PostgresSaver(_OnPostgres, _Sync):
    """`AgentStoresSaver` as ``langgraph.checkpoint.postgres.PostgresSaver`` is made."""


class AsyncPostgresSaver(_OnPostgres, _Async):
    """`AgentStoresSaver` as ``langgraph.checkpoint.postgres.aio.AsyncPostgresSaver`` is made."""


class _OnSqlite(AgentStoresSaver):
    @classmethod
    def from_conn_string(cls, conn_string: str) -> Self:
        """A saver on a file, or in memory for ``:memory:``."""
        return cls("memory:" if conn_string == ":memory:" else conn_string)


class SqliteSaver(_OnSqlite, _Sync):
    """`AgentStoresSaver` as ``langgraph.checkpoint.sqlite.SqliteSaver`` is made."""


class AsyncSqliteSaver(_OnSqlite, _Async):
    """`AgentStoresSaver` as ``langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver`` is made."""


class _OnRedis(AgentStoresSaver):
    """As both of LangGraph's are made.

    Args:
        redis_url: the server.
        redis_client: a client instead, which stays open.
        connection_args: further arguments of redis-py's client.
        ttl: ``default_ttl``, in minutes, and ``refresh_on_read``.
        checkpoint_prefix: ignored; so is `checkpoint_write_prefix`.
        checkpoint_write_prefix: see `checkpoint_prefix`.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        redis_client: Any = None,
        connection_args: Mapping[str, Any] | None = None,
        ttl: Mapping[str, Any] | None = None,
        checkpoint_prefix: str = "",
        checkpoint_write_prefix: str = "",
    ) -> None:
        options: PluginOptions = {}
        if ttl and ttl.get("default_ttl") is not None:
            refresh: TtlRefresh = "read" if ttl.get("refresh_on_read") else "write"
            options = {"ttl": 60 * ttl["default_ttl"], "ttl_refresh": refresh}
        log = RedisMessageLog(redis_url, redis_client=redis_client, client_options=connection_args)
        super().__init__(log, **options)
        self._opened.own(log)

    @classmethod
    def from_conn_string(cls, redis_url: str | None = None, **options: Any) -> Self:
        """A saver on a server; `options` are the arguments of the class."""
        return cls(redis_url, **options)


class RedisSaver(_OnRedis, _Sync):
    """`AgentStoresSaver` as ``langgraph.checkpoint.redis.RedisSaver`` is made."""


class AsyncRedisSaver(_OnRedis, _Async):
    """`AgentStoresSaver` as ``langgraph.checkpoint.redis.aio.AsyncRedisSaver`` is made."""

    async def asetup(self) -> None:
        """See `setup`."""


class InMemorySaver(AgentStoresSaver):
    """`AgentStoresSaver` as ``langgraph.checkpoint.memory.InMemorySaver`` is made."""

    def __init__(self, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__("memory:", serde=serde)
