"""Chat stores with the names and constructors of LlamaIndex's own, over our stores.

Their data is in our layout: what LlamaIndex's own chat stores wrote on a server is not read. Arguments that
mean nothing there are ignored, as each class says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from typing_extensions import Self

from agent_stores.errors import ArgumentError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.plugins.llama_index.chat_store import AgentStoresChatStore
from agent_stores.plugins.llama_index.db_store import AgentStoresDBChatStore, with_status

if TYPE_CHECKING:
    import redis
    import redis.asyncio as aioredis
    from azure.data.tables.aio import TableServiceClient
    from sqlalchemy.ext.asyncio import AsyncEngine


class SimpleChatStore(AgentStoresChatStore):
    """`AgentStoresChatStore` as ``llama_index.core.storage.chat_store.SimpleChatStore`` is made: in memory.

    Args:
        store: the messages that it begins with, by key; also as LlamaIndex's own files have them.
        state: its own JSON.
    """

    def __init__(self, store: Mapping[str, Sequence[Any]] | None = None, **state: Any) -> None:
        super().__init__("memory:", **state)
        for key, messages in (store or {}).items():
            self.set_messages(key, [LlamaMessage.model_validate(message) for message in messages])

    @classmethod
    def _from_file(cls, data: Any, path: str) -> Self:
        if isinstance(data, dict) and isinstance(data.get("store"), dict):  # of LlamaIndex's own
            return cls(data["store"])
        return super()._from_file(data, path)


class _OnServer(AgentStoresChatStore):
    """A chat store whose JSON makes an `AgentStoresChatStore`."""

    def __init__(self, source: str | MessageLog, *, ttl: float | None = None) -> None:
        super().__init__(source, ttl=ttl)
        if isinstance(source, MessageLog):
            self._opened.own(source)

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Any:
        """The chat store of a state."""
        return AgentStoresChatStore.from_dict(data, **kwargs)


class RedisChatStore(_OnServer):
    """`AgentStoresChatStore` as ``llama_index.storage.chat_store.redis.RedisChatStore`` is made.

    Args:
        redis_url: the server.
        redis_client: a synchronous client of the caller's instead, for all methods.
        aredis_client: an asynchronous client, where no synchronous one is given.
        ttl: time-to-live of each conversation, in seconds; renewed by each write.
        kwargs: options of redis-py's client.
    """

    def __init__(
        self,
        redis_url: str = "redis://localhost:6379",
        redis_client: redis.Redis | redis.RedisCluster | None = None,
        aredis_client: aioredis.Redis | aioredis.RedisCluster | None = None,
        ttl: float | None = None,
        **kwargs: Any,
    ) -> None:
        from agent_stores.redis import RedisMessageLog

        source: str | MessageLog = redis_url
        if redis_client is not None or aredis_client is not None:
            source = RedisMessageLog(redis_client=redis_client or aredis_client)
        elif kwargs:
            source = RedisMessageLog(redis_url, client_options=kwargs)
        super().__init__(source, ttl=ttl)


class AzureChatStore(_OnServer):
    """`AgentStoresChatStore` as ``llama_index.storage.chat_store.azure.AzureChatStore`` is made.

    The table must be a new one: our rows are others than those of LlamaIndex. One table has everything, on
    Table Storage and on Cosmos DB alike.

    Args:
        table_service_client: a synchronous client; ignored.
        atable_service_client: an asynchronous client of the caller's, which all methods use.
        chat_table_name: the table, by default ours.
        metadata_table_name, metadata_partition_key, service_mode: ignored.
    """

    def __init__(
        self,
        table_service_client: Any = None,
        atable_service_client: TableServiceClient | None = None,
        chat_table_name: str | None = None,
        metadata_table_name: str | None = None,
        metadata_partition_key: str | None = None,
        service_mode: Any = None,
    ) -> None:
        from agent_stores.azure import AzureTableMessageLog

        if isinstance(table_service_client, MessageLog):
            super().__init__(table_service_client)
            return
        if atable_service_client is None:
            raise ArgumentError(
                "atable_service_client must be an asynchronous client, got None; or use "
                "from_connection_string, from_account_and_key, from_account_and_id, from_sas_token or "
                "from_aad_token"
            )
        super().__init__(
            AzureTableMessageLog(table_service_client=atable_service_client, **_table(chat_table_name))
        )

    @classmethod
    def from_connection_string(
        cls,
        connection_string: str,
        chat_table_name: str | None = None,
        metadata_table_name: str | None = None,
        metadata_partition_key: str | None = None,
        service_mode: Any = None,
    ) -> Self:
        """A chat store on the account of a connection string."""
        return cls._at(chat_table_name, connection_string=connection_string)

    @classmethod
    def from_account_and_key(
        cls,
        account_name: str,
        account_key: str,
        endpoint: str | None = None,
        chat_table_name: str | None = None,
        metadata_table_name: str | None = None,
        metadata_partition_key: str | None = None,
        service_mode: Any = None,
    ) -> Self:
        """A chat store on an account, with its key."""
        return cls._at(chat_table_name, account_name=account_name, account_key=account_key, endpoint=endpoint)

    @classmethod
    def from_account_and_id(
        cls,
        account_name: str,
        endpoint: str | None = None,
        chat_table_name: str | None = None,
        metadata_table_name: str | None = None,
        metadata_partition_key: str | None = None,
        service_mode: Any = None,
    ) -> Self:
        """A chat store on an account, with the login that azure-identity finds."""
        return cls._at(chat_table_name, account_name=account_name, endpoint=endpoint)

    @classmethod
    def from_sas_token(
        cls,
        endpoint: str,
        sas_token: str,
        chat_table_name: str | None = None,
        metadata_table_name: str | None = None,
        metadata_partition_key: str | None = None,
        service_mode: Any = None,
    ) -> Self:
        """A chat store on an account, with a shared access signature."""
        return cls._at(chat_table_name, endpoint=endpoint, sas_token=sas_token)

    @classmethod
    def from_aad_token(
        cls,
        endpoint: str,
        chat_table_name: str | None = None,
        metadata_table_name: str | None = None,
        metadata_partition_key: str | None = None,
        service_mode: Any = None,
    ) -> Self:
        """A chat store on an account, with the login that azure-identity finds."""
        account = (urlsplit(endpoint).hostname or "").partition(".")[0]
        return cls._at(chat_table_name, endpoint=endpoint, account_name=account)

    @classmethod
    def _at(cls, chat_table_name: str | None, **login: Any) -> Self:
        from agent_stores.azure import AzureTableMessageLog

        return cls(AzureTableMessageLog(**login, **_table(chat_table_name)))


class SQLAlchemyChatStore(AgentStoresDBChatStore):
    """`AgentStoresDBChatStore` as ``llama_index.core.storage.chat_store.sql.SQLAlchemyChatStore`` is made.

    Args:
        table_name: the beginning of the names of the tables.
        async_database_uri: the database, with or without a driver; by default this process's memory.
        async_engine: an engine of the caller's instead.
        db_data: rows that it begins with, as LlamaIndex's own dumps them.
        db_schema: must be None: name the schema in the URL or the engine, as in
            ``?options=-csearch_path%3Dname``.
    """

    def __init__(
        self,
        table_name: str,
        async_database_uri: str | None = None,
        async_engine: AsyncEngine | None = None,
        db_data: Sequence[Mapping[str, Any]] | None = None,
        db_schema: str | None = None,
    ) -> None:
        from agent_stores.database import DatabaseMessageLog

        if db_schema is not None:
            raise ArgumentError(
                f"db_schema must be None, got {db_schema!r}: name the schema in the URL or the engine"
            )
        if async_engine is None and async_database_uri in (
            *(None, "sqlite+aiosqlite://"),
            "sqlite+aiosqlite:///:memory:",
        ):
            super().__init__()
        else:
            uri = async_database_uri if async_engine is None else None
            log = DatabaseMessageLog(uri, engine=async_engine, table_prefix=f"{table_name}_")
            super().__init__(log)
            self._opened.own(log)
        if db_data:
            self._opened.wait(self._insert(db_data))

    async def _insert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        threads: dict[str, list[ChatMessage]] = {}
        for row in sorted(rows, key=lambda row: int(row["timestamp"])):
            message = self._codec.to_chat_message(LlamaMessage.model_validate(row["data"]))
            threads.setdefault(row["key"], []).append(with_status(message, row["status"]))
        for key, messages in threads.items():
            await self._neutral(key).add_messages(messages)


def _table(name: str | None) -> dict[str, Any]:
    return {} if name is None else {"table_name": name}
