"""Histories with the names and constructors of LangChain's own, over our stores.

Their data is in our layout: what LangChain's own histories wrote is not read. Arguments that mean nothing
there are ignored, as each class says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.log import MessageLog
from agent_stores.plugins.langchain.history import AgentStoresChatMessageHistory

if TYPE_CHECKING:
    import redis
    import redis.asyncio as aioredis
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine


class RedisChatMessageHistory(AgentStoresChatMessageHistory):
    """`AgentStoresChatMessageHistory` as those of langchain-redis and langchain-community are made.

    Args:
        session_id: the conversation's id.
        redis_url: the server, ``redis://localhost:6379`` by default.
        key_prefix: the beginning of all keys, by default ours.
        ttl: time-to-live of the conversation, in seconds; renewed by each write.
        index_name: ignored, since there is no index.
        redis_client: a client of the caller's instead, synchronous or not.
        overwrite_index: ignored.
        url: another name of `redis_url`.
        kwargs: options of redis-py's client.
    """

    def __init__(
        self,
        session_id: str,
        redis_url: str | None = None,
        key_prefix: str | None = None,
        ttl: float | None = None,
        index_name: str | None = None,
        redis_client: redis.Redis | redis.RedisCluster | aioredis.Redis | aioredis.RedisCluster | None = None,
        overwrite_index: bool = False,
        *,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        from agent_stores.redis import RedisMessageLog

        if redis_url is not None and url is not None:
            raise ArgumentError("redis_url and url must not be given together: they are one")
        prefix: Any = {} if key_prefix is None else {"key_prefix": key_prefix}
        if redis_client is not None:
            log = RedisMessageLog(redis_client=redis_client, **prefix)
        else:
            log = RedisMessageLog(
                redis_url or url or "redis://localhost:6379", client_options=kwargs or None, **prefix
            )
        super().__init__(session_id, log, ttl=ttl)
        self._opened.own(log)


class SQLChatMessageHistory(AgentStoresChatMessageHistory):
    """`AgentStoresChatMessageHistory` as langchain-community's ``SQLChatMessageHistory`` is made.

    Args:
        session_id: the conversation's id.
        table_name: the beginning of the names of the tables, by default ours.
        session_id_field_name: ignored.
        custom_message_converter: must be None: messages come back as they are.
        connection: a URL, with or without a driver, or an engine of the caller's.
        engine_args: options of the engine, for a URL.
        async_mode: ignored, since the synchronous and asynchronous methods work on either.
        connection_string: another name of `connection`.
    """

    def __init__(
        self,
        session_id: str,
        table_name: str | None = None,
        session_id_field_name: str = "session_id",
        custom_message_converter: None = None,
        connection: str | Engine | AsyncEngine | None = None,
        engine_args: Mapping[str, Any] | None = None,
        async_mode: bool | None = None,
        *,
        connection_string: str | None = None,
    ) -> None:
        from agent_stores.database import DatabaseMessageLog

        if custom_message_converter is not None:
            raise ArgumentError("custom_message_converter must be None: messages come back as they are")
        given = [one for one in (connection, connection_string) if one is not None]
        if len(given) != 1:
            raise ArgumentError("one of connection and connection_string must be given")
        source: Any = given[0]
        options: dict[str, Any] = {} if table_name is None else {"table_prefix": f"{table_name}_"}
        options |= {} if engine_args is None else {"engine_options": engine_args}
        if isinstance(source, (bytes, MessageLog)):
            raise ArgumentTypeError(f"connection must be a URL or an engine, got {type(source).__name__}")
        log = (
            DatabaseMessageLog(source, **options)
            if isinstance(source, str)
            else DatabaseMessageLog(engine=source, **options)
        )
        super().__init__(session_id, log)
        self._opened.own(log)
