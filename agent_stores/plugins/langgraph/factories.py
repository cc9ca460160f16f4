"""Savers with the names and constructors of LangGraph's own, over our stores.

Their data is in our layout: `agent-stores migrate` takes over what LangGraph's own savers wrote.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from typing_extensions import Self

from agent_stores.backend import TtlRefresh
from agent_stores.errors import ArgumentError
from agent_stores.plugins.langgraph.saver import AgentStoresSaver
from agent_stores.plugins.store_resolver import PluginOptions
from agent_stores.redis import RedisMessageLog


class PostgresSaver(AgentStoresSaver):
    """`AgentStoresSaver` as ``langgraph.checkpoint.postgres.PostgresSaver`` is made."""

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, conn_string: str, *, pipeline: bool = False, serde: SerializerProtocol | None = None
    ) -> Iterator[Self]:
        """A saver on a database; `pipeline` is ignored."""
        with cls(_url(conn_string), serde=serde) as saver:
            yield saver

    def setup(self) -> None:
        """Nothing to do: the tables are made by the first operation."""


class AsyncPostgresSaver(AgentStoresSaver):
    """`AgentStoresSaver` as ``langgraph.checkpoint.postgres.aio.AsyncPostgresSaver`` is made."""

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, conn_string: str, *, pipeline: bool = False, serde: SerializerProtocol | None = None
    ) -> AsyncIterator[Self]:
        """A saver on a database; `pipeline` is ignored."""
        async with cls(_url(conn_string), serde=serde) as saver:
            yield saver

    async def setup(self) -> None:
        """Nothing to do: the tables are made by the first operation."""


class SqliteSaver(AgentStoresSaver):
    """`AgentStoresSaver` as ``langgraph.checkpoint.sqlite.SqliteSaver`` is made."""

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str) -> Iterator[Self]:
        """A saver on a file, or in memory for ``:memory:``."""
        with cls(_file(conn_string)) as saver:
            yield saver

    def setup(self) -> None:
        """Nothing to do: the tables are made by the first operation."""


class AsyncSqliteSaver(AgentStoresSaver):
    """`AgentStoresSaver` as ``langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver`` is made."""

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, conn_string: str) -> AsyncIterator[Self]:
        """A saver on a file, or in memory for ``:memory:``."""
        async with cls(_file(conn_string)) as saver:
            yield saver

    async def setup(self) -> None:
        """Nothing to do: the tables are made by the first operation."""


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
        log = RedisMessageLog(redis_url, redis_client=redis_client, client_options=connection_args)
        super().__init__(log, **_ttl(ttl))
        self._opened.own(log)


class RedisSaver(_OnRedis):
    """`AgentStoresSaver` as ``langgraph.checkpoint.redis.RedisSaver`` is made."""

    @classmethod
    @contextmanager
    def from_conn_string(cls, redis_url: str | None = None, **options: Any) -> Iterator[Self]:
        """A saver on a server; `options` are the arguments of the class."""
        with cls(redis_url, **options) as saver:
            yield saver

    def setup(self) -> None:
        """Nothing to do: there are no indexes."""


class AsyncRedisSaver(_OnRedis):
    """`AgentStoresSaver` as ``langgraph.checkpoint.redis.aio.AsyncRedisSaver`` is made."""

    @classmethod
    @asynccontextmanager
    async def from_conn_string(cls, redis_url: str | None = None, **options: Any) -> AsyncIterator[Self]:
        """A saver on a server; `options` are the arguments of the class."""
        async with cls(redis_url, **options) as saver:
            yield saver

    async def asetup(self) -> None:
        """Nothing to do: there are no indexes."""

    async def setup(self) -> None:
        """Nothing to do: there are no indexes."""


class InMemorySaver(AgentStoresSaver):
    """`AgentStoresSaver` as ``langgraph.checkpoint.memory.InMemorySaver`` is made."""

    def __init__(self, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__("memory:", serde=serde)


def _url(text: str) -> str:
    if "://" not in text:  # a string of keywords, which would be taken for the name of a file
        raise ArgumentError("the connection string must be a URL, such as postgresql://user@host/database")
    return text


def _file(text: str) -> str:
    return "memory:" if text == ":memory:" else text


def _ttl(ttl: Mapping[str, Any] | None) -> PluginOptions:
    if not ttl or ttl.get("default_ttl") is None:
        return {}
    refresh: TtlRefresh = "read" if ttl.get("refresh_on_read") else "write"
    return {"ttl": 60 * ttl["default_ttl"], "ttl_refresh": refresh}
