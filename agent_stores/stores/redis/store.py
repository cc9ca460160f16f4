"""`RedisChatMessageStore`: a conversation on a Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar, Unpack

from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import StoreOptions

if TYPE_CHECKING:
    import redis.asyncio as aioredis
    from redis.credentials import CredentialProvider

M = TypeVar("M", default=ChatMessage)


class RedisChatMessageStore(ChatMessageStore[M]):
    """A conversation on a Redis (6.2 or newer) or Valkey server, alone, behind Sentinel, or in a Cluster.

    Accepted is exactly one of `redis_url`, `redis_client`, `host` and `sentinels`.

    Args:
        redis_url: where it is kept:
            ``redis://user:password@host:port/database``, and ``rediss://`` with TLS;
            ``unix:///path/of/socket?db=0``;
            ``redis+sentinel://user:password@host:port,host:port/service/database``;
            ``redis+cluster://user:password@host:port,host:port``;
            options of redis-py's client may follow, as in ``?ssl_ca_certs=/path``.
        redis_client: a `redis.asyncio.Redis` or `redis.asyncio.RedisCluster`; it stays the caller's.
        host: the server's name, to go with `port` and `ssl`.
        port: its port, 6379 by default, and 6380 with TLS.
        ssl: whether to use TLS; by default with a `credential_provider` only.
        sentinels: the sentinels' names and ports, to go with `service_name`.
        service_name: the name under which the sentinels know the server.
        sentinel_kwargs: arguments of redis-py's clients of the sentinels.
        username: who connects, where the URL does not say it.
        password: the user's password.
        credential_provider: gives user and password, or token, at each connection.
        key_prefix: what the keys' names begin with.
        timeout: seconds that an operation may take, attempts and pauses included.
        retries: how often an operation is tried again after the connection failed: three times by default;
            with Sentinel and Cluster as often as `timeout` allows, since a failover takes seconds.
        max_connections: how many connections at most, on each event loop, for all stores of this process.
        client_options: further arguments of redis-py's client, as those that begin with ``ssl_``.
        options: those of `ChatMessageStore`: ``thread_id``, ``tenant``, ``max_messages``, ``ttl`` and so on.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
        MissingDependencyError: when redis-py is not installed; names the extra.
    """

    state_type = "redis"

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        redis_client: aioredis.Redis | aioredis.RedisCluster | None = None,
        host: str | None = None,
        port: int | None = None,
        ssl: bool | None = None,
        sentinels: Sequence[tuple[str, int]] | None = None,
        service_name: str | None = None,
        sentinel_kwargs: Mapping[str, Any] | None = None,
        username: str | None = None,
        password: str | None = None,
        credential_provider: CredentialProvider | None = None,
        key_prefix: str = "agent",
        timeout: float = 10.0,
        retries: int | None = None,
        max_connections: int = 50,
        client_options: Mapping[str, Any] | None = None,
        **options: Unpack[StoreOptions[M]],
    ) -> None:
        # Imported here, so that the class can be imported where redis-py is not installed.
        from agent_stores.stores.redis.log import RedisMessageLog

        log = RedisMessageLog(
            redis_url,
            redis_client=redis_client,
            host=host,
            port=port,
            ssl=ssl,
            sentinels=sentinels,
            service_name=service_name,
            sentinel_kwargs=sentinel_kwargs,
            username=username,
            password=password,
            credential_provider=credential_provider,
            key_prefix=key_prefix,
            timeout=timeout,
            retries=retries,
            max_connections=max_connections,
            client_options=client_options,
        )
        super().__init__(log, **options)
        self._own(log)
