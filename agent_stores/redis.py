"""Conversations on Redis or Valkey, alone, behind Sentinel, or in a Cluster. Needs the extra ``redis``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic
from urllib.parse import quote

from typing_extensions import TypedDict, TypeVar, Unpack

from agent_stores._checks import HOST_AND_PORT, check_limit, positive_seconds
from agent_stores.backend import ThreadKey
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import StoreOptions, log_options, positive

if TYPE_CHECKING:
    import redis
    import redis.asyncio as aioredis
    from redis.credentials import CredentialProvider

    from agent_stores.attachments import Attachments
    from agent_stores.backends.redis.config import Config
    from agent_stores.encryption import Keys

__all__ = ["RedisChatMessageStore", "RedisMessageLog"]

M = TypeVar("M", default=ChatMessage)

_WAYS = ("redis_url", "redis_client", "host", "sentinels")
_GO_WITH: dict[str, tuple[str, ...]] = {
    "port": ("host",),
    "ssl": ("host", "sentinels"),
    "service_name": ("sentinels",),
    "sentinel_kwargs": ("sentinels", "redis_url"),
    **dict.fromkeys(
        ("client_options", "username", "password", "credential_provider"), ("redis_url", "host", "sentinels")
    ),
}


class RedisOptions(TypedDict, total=False):
    """How to connect; exactly one of `redis_url`, `redis_client`, `host` and `sentinels` names the server.

    Attributes:
        redis_client: a client of the caller's, which is never closed: a `Redis` or `RedisCluster` of
            `redis.asyncio`, or of `redis`; of a synchronous one, asynchronous calls use the options.
        host: the server's name; goes with `port` and `ssl`.
        port: its port, 6379 by default, and 6380 with TLS.
        ssl: whether to use TLS; by default only with a `credential_provider`.
        sentinels: the sentinels' names and ports; goes with `service_name`.
        service_name: the name under which the sentinels know the server.
        sentinel_kwargs: arguments of redis-py's clients of the sentinels.
        username: the user, where the URL does not name one.
        password: the user's password.
        credential_provider: gives user and password, or token, at each connection.
        client_options: further arguments of redis-py's client, such as those that begin with ``ssl_``.
        key_prefix: the beginning of all keys, ``agent`` by default.
        timeout: seconds that an operation may take, attempts and pauses included; 10 by default.
        retries: the number of attempts after the first: three by default; with Sentinel and Cluster as many
            as `timeout` allows, since a failover takes seconds.
        max_connections: the largest number of connections on each event loop, for all stores of this process
            that name the server alike; 50 by default.
        wait_replicas: how many replicas must have a write before it is acknowledged; 0 by default.
        wait_timeout: seconds to wait for them; then `NotReplicatedError` is raised. 1 by default.
    """

    redis_client: aioredis.Redis | aioredis.RedisCluster | redis.Redis | redis.RedisCluster | None
    host: str | None
    port: int | None
    ssl: bool | None
    sentinels: Sequence[tuple[str, int]] | None
    service_name: str | None
    sentinel_kwargs: Mapping[str, Any] | None
    username: str | None
    password: str | None
    credential_provider: CredentialProvider | None
    client_options: Mapping[str, Any] | None
    key_prefix: str
    timeout: float
    retries: int | None
    max_connections: int
    wait_replicas: int
    wait_timeout: float


class RedisStoreOptions(RedisOptions, StoreOptions[M], Generic[M], total=False):
    """The options of `RedisChatMessageStore`."""


class RedisMessageLog(MessageLog):
    """Threads on a Redis (6.2 or newer) or Valkey server, behind Sentinel, or in a Cluster.

    Logs of one process that name a server alike share its connections. Nothing connects before the first
    operation.

    Args:
        redis_url: the server:
            ``redis://user:password@host:port/database``, and ``rediss://`` with TLS;
            ``unix:///path/of/socket?db=0``;
            ``redis+sentinel://user:password@host:port,host:port/service/database``;
            ``redis+cluster://user:password@host:port,host:port``;
            options of redis-py's client may follow, as in ``?ssl_ca_certs=/path``.
        encryption: the keys that encrypt messages and metadata; none by default.
        attachments: where large data of messages is stored; in the messages by default.
        options: those of `RedisOptions`.

    Raises:
        ArgumentError, ArgumentTypeError: for arguments that do not name one server, or are out of range.
        MissingDependencyError: when redis-py is not installed; names the extra.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        encryption: Keys | None = None,
        attachments: Attachments | None = None,
        **options: Unpack[RedisOptions],
    ) -> None:
        # Imported here, so that the class can be imported where redis-py is not installed.
        from agent_stores.backends.redis.backend import RedisBackend

        given: dict[str, Any] = {**options}
        settings: dict[str, Any] = {
            "key_prefix": _key_prefix(given.pop("key_prefix", "agent")),
            "timeout": positive_seconds("timeout", given.pop("timeout", 10.0)),
            "retries": check_limit("retries", given.pop("retries", None)),
            "max_connections": positive("max_connections", given.pop("max_connections", 50)),
            "wait_replicas": check_limit("wait_replicas", given.pop("wait_replicas", 0)) or 0,
            "wait_timeout": positive_seconds("wait_timeout", given.pop("wait_timeout", 1.0)),
        }
        if unknown := given.keys() - RedisOptions.__annotations__.keys():
            known = ", ".join(["redis_url", *RedisOptions.__annotations__])
            raise ArgumentTypeError(f"keyword argument must be one of {known}, got {min(unknown)!r}")
        backend = RedisBackend(_config({"redis_url": redis_url, **given}), **settings)
        super().__init__(backend, encryption=encryption, attachments=attachments)
        self._redis = backend

    async def delete_thread(self, key: ThreadKey) -> bool:
        """See `MessageLog.delete_thread`; also deletes a thread of which the server evicted a part."""
        try:
            return await super().delete_thread(key)
        except StoreError as error:
            if "damaged" not in str(error):
                raise
            return await self._redis.remove(key)

    def __repr__(self) -> str:
        return f"RedisMessageLog({self.location!r})"


class RedisChatMessageStore(ChatMessageStore[M]):
    """A conversation on a Redis or Valkey server.

    Args:
        redis_url: see `RedisMessageLog`.
        options: those of `RedisOptions`, and those of `ChatMessageStore`: ``thread_id``, ``tenant``,
            ``max_messages``, ``ttl`` and so on.

    Raises:
        ArgumentError, ArgumentTypeError: for arguments that do not name one server, or are out of range.
        MissingDependencyError: when redis-py is not installed; names the extra.
    """

    state_type = "redis"

    def __init__(self, redis_url: str | None = None, **options: Unpack[RedisStoreOptions[M]]) -> None:
        given: dict[str, Any] = {**options}
        own = {name: given.pop(name) for name in RedisOptions.__annotations__ if name in given}
        log = RedisMessageLog(redis_url, **log_options(given), **own)
        super().__init__(log, **given)
        self._take_ownership(log)


def _config(arguments: dict[str, Any]) -> Config:
    """The server of connection arguments, which must name one in one way."""
    from agent_stores.backends.redis.config import LOGIN, config_from_client, config_from_url

    given = {name: value for name, value in arguments.items() if value is not None}
    ways = [name for name in _WAYS if name in given]
    if len(ways) != 1:
        raise ArgumentError(
            f"exactly one of {', '.join(_WAYS[:-1])} and {_WAYS[-1]} must be given, "
            f"got {' and '.join(ways) or 'none of them'}"
        )
    for name in given:
        allowed = _GO_WITH.get(name, (name,))
        if ways[0] not in allowed:
            raise ArgumentError(f"{name} must be given with {' or '.join(allowed)}, got it with {ways[0]}")
    login = {name: given[name] for name in LOGIN if name in given}
    if "credential_provider" in login and len(login) > 1:
        raise ArgumentError("credential_provider must not be given together with username or password")
    if "redis_client" in given:
        return config_from_client(given["redis_client"])
    # A token must not travel in the clear: TLS is the default with a credential provider.
    scheme = "rediss" if given.get("ssl", "credential_provider" in login) else "redis"
    url: Any = given.get("redis_url")
    if isinstance(url, str) and HOST_AND_PORT.fullmatch(url):
        raise ArgumentError(f"redis_url must be a URL of Redis: write redis://{url}")
    if "host" in given:
        url = f"{scheme}://{_address(given['host'], given.get('port', 6380 if scheme == 'rediss' else 6379))}"
    elif "sentinels" in given:
        hosts = ",".join(_address(*one) for one in given["sentinels"])
        if not hosts:
            raise ArgumentError("sentinels must name at least one host")
        url = f"{scheme}+sentinel://{hosts}/{quote(given.get('service_name', ''), safe='')}"
    options = {**login, **given.get("client_options", {})}
    of_sentinels = {f"sentinel_{name}": value for name, value in given.get("sentinel_kwargs", {}).items()}
    return config_from_url(url, **options, **of_sentinels)


def _address(host: Any, port: Any) -> str:
    if not isinstance(host, str) or not host or any(mark in host for mark in ",@/?#"):
        raise ArgumentError("host must be a host name or an IP address, without a port, path or login")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ArgumentError(f"port must be an int from 1 to 65535, got {port!r}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _key_prefix(value: Any) -> str:
    if not isinstance(value, str):
        raise ArgumentTypeError(f"key_prefix must be a str, got {type(value).__name__}")
    if not value or "{" in value or "}" in value:
        raise ArgumentError(f"key_prefix must be a non-empty str without braces, got {value!r}")
    return value
