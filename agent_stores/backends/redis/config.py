"""Which server to connect to, and how: URLs and arguments, and what may be said of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from agent_stores import _checks
from agent_stores._concurrency import settle
from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:  # the first import of redis on the way to the Redis backend
    import redis
    import redis.asyncio.cluster
    import redis.asyncio.retry
    import redis.cluster
    import redis.retry
    from redis import asyncio as aioredis
    from redis.asyncio.connection import parse_url
    from redis.backoff import NoBackoff
except ImportError:
    raise MissingDependencyError.of("redis", extra="redis", purpose="the Redis store") from None

URLS = (
    "the forms are redis://host:port/db, rediss://... (TLS), unix:///path, "
    "redis+sentinel://host:port,host:port/service/db and redis+cluster://host:port,host:port"
)
_URL = re.compile(  # TLS, kind, login, hosts, path and query
    r"(?:(?:redis|valkey)(s?)(?:\+(sentinel|cluster))?|unix)://([^/?#]*@)?([^/?#]*)/*([^?#]*)(\?[^#]*)?",
    re.IGNORECASE,
)
LOGIN = {"username", "password", "credential_provider"}
_COPIED = re.compile("username|password|credential_provider|client_name|protocol|db|ssl(_.*)?")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A server, or several that are one, and how to connect to it.

    Attributes:
        kind: ``"single"`` for one server, ``"sentinel"`` for one behind sentinels, or ``"cluster"``.
        hosts: names and ports: of the server, of the sentinels, or of some nodes; none for a socket.
        service: the service's name, for sentinels.
        options: arguments of redis-py's client; may hold secrets.
        sentinel_options: arguments of the clients of the sentinels.
        client: the caller's client.
        is_blocking: whether that client is a synchronous one.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: Mapping[str, Any] = field(repr=False)
    sentinel_options: Mapping[str, Any] = field(repr=False)
    client: Any = field(default=None, repr=False)
    is_blocking: bool = False

    @property
    def location(self) -> str:
        """Where the server is, without secrets; in errors and states."""
        hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts]
        database = int(self.options.get("db") or 0)
        if self.kind == "cluster":
            return f"redis+cluster://{','.join(sorted(hosts))}"
        if self.kind == "sentinel":
            return f"redis+sentinel://{','.join(hosts)}/{quote(self.service, safe='')}/{database}"
        if not hosts:
            return f"unix://{quote(self.options['unix_socket_path'])}?db={database}"
        return f"redis://{hosts[0]}/{database}"

    @property
    def secrets(self) -> list[str]:
        """What must not show."""
        given = [*self.options.items(), *self.sentinel_options.items()]
        return [str(value) for name, value in given if name in ("password", "ssl_password") and value]

    @property
    def identity(self) -> Any:
        """Equal for configurations that may share connections."""
        options = (sorted(self.options.items()), sorted(self.sentinel_options.items()))
        return id(self.client) if self.client else (self.kind, self.hosts, self.service, repr(options))


def config_from_url(redis_url: str, /, **options: Any) -> Config:
    """The server of a URL.

    Args:
        redis_url: see `RedisMessageLog`.
        options: arguments of redis-py's client, and with ``sentinel_`` before the name of the clients of the
            sentinels; they win over those of the URL, but a login must be in one only.

    Raises:
        ArgumentError: when the URL does not name one server; never repeats it, as it may hold a password.
        ArgumentTypeError: when it is not text.
    """
    found = _URL.fullmatch(_checks.text(redis_url, "redis_url"))
    if found is None:
        raise ArgumentError(f"redis_url must be a URL of Redis; {URLS}")
    tls, kind, login, address, path, query = [part or "" for part in found.groups()]
    kind, is_socket = kind.lower() or "single", redis_url[:4].lower() == "unix"
    service, _, path = path.partition("/") if kind == "sentinel" else ("", "", path)
    # redis-py reads the URL of each host: it knows the options and their types.
    scheme = "unix" if is_socket else f"redis{tls}"
    try:
        read: list[Any] = [parse_url(f"{scheme}://{login}{one}/{path}{query}") for one in address.split(",")]
    except ValueError:
        raise ArgumentError(f"redis_url must have a valid host, port and options; {URLS}") from None
    is_named = len(read) == 1 or (kind != "single" and all("host" in one for one in read))
    port = 26379 if kind == "sentinel" else 6379
    hosts = tuple((one.pop("host", "localhost"), one.pop("port", port)) for one in read)
    given = read[0]
    given.pop("connection_class", None)
    if is_socket:
        given["unix_socket_path"] = given.pop("path", "")
    is_login_twice = LOGIN & {*options} and LOGIN & {*given}
    options = {**given, **options, **({"ssl": True} if tls else {})}
    # The sentinels are reached as the server is, with logins of their own.
    shared = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    own = {name[9:]: options.pop(name) for name in [*options] if name.startswith("sentinel_")}
    for is_kept, rule in (
        (is_named, "must name one host, or several for sentinels or a Cluster"),
        (is_socket or re.fullmatch(r"/*\d*/*", path), "must end with the number of a database"),
        (kind != "cluster" or not options.pop("db", 0), "must not name a database, as a Cluster has only 0"),
        (kind != "sentinel" or service, "must name a service of the sentinels (service_name)"),
        (kind == "sentinel" or not own, "must name sentinels to have their options"),
        (not is_login_twice, "must not have a login where another is given"),
    ):
        if not is_kept:
            raise ArgumentError(f"redis_url {rule}; {URLS}")
    return Config(
        kind=kind,
        hosts=() if is_socket else hosts,
        service=unquote(service),
        options=options,
        sentinel_options={**shared, **own},
    )


def config_from_client(client: Any) -> Config:
    """The configuration of a client that the caller made, from which another one can be made."""
    is_blocking = isinstance(client, (redis.Redis, redis.RedisCluster))
    if not is_blocking and not isinstance(client, (aioredis.Redis, aioredis.RedisCluster)):
        raise ArgumentTypeError(
            "redis_client must be a Redis or RedisCluster of redis or redis.asyncio, "
            f"got {type(client).__module__}.{type(client).__name__}"
        )
    pool: Any = getattr(client, "connection_pool", None)  # none in a Cluster
    options: dict[str, Any] = {**client.get_connection_kwargs()}
    kind, asked = "single", [options]  # the options of what is connected to first
    if pool is None:
        nodes = client.nodes_manager.startup_nodes.values()
        kind, asked = "cluster", [{"host": node.host, "port": node.port} for node in nodes]
    elif hasattr(pool, "sentinel_manager"):
        kind, asked = "sentinel", [one.get_connection_kwargs() for one in pool.sentinel_manager.sentinels]
    connection = options.get("connection_class", getattr(pool, "connection_class", object))
    if issubclass(connection, (redis.SSLConnection, aioredis.SSLConnection)):
        options["ssl"] = True
    hosts = [(one.get("host", "localhost"), one.get("port", 6379)) for one in asked if "path" not in one]
    return Config(
        kind=kind,
        hosts=tuple(hosts),
        service=str(getattr(pool, "service_name", "")),
        options=_copied(options),
        sentinel_options={**_copied(asked[0]), "db": 0},
        client=client,
        is_blocking=is_blocking,
    )


def _copied(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a client that another client may have too."""
    kept = {name: value for name, value in given.items() if value is not None and _COPIED.fullmatch(name)}
    return {**kept, **({"unix_socket_path": given["path"]} if "path" in given else {})}


def make_client(config: Config, *, timeout: float, blocking: bool = False, **options: Any) -> Any:
    """redis-py's client of a server; nothing connects yet.

    Args:
        config: the server.
        timeout: seconds for connecting; with `blocking`, also for a reply.
        blocking: whether to make the synchronous client.
        options: arguments of the client that win over those of the configuration.
    """
    library: Any = redis if blocking else redis.asyncio
    # Attempts, and the time that all of them together take, are counted by `Attempts`.
    common = {"retry": library.retry.Retry(NoBackoff(), 0), "socket_connect_timeout": timeout}
    given = {
        "socket_timeout": timeout if blocking else None,
        "socket_keepalive": True,
        "max_connections": 2**31,
        **common,
        **config.options,
        **options,
    }
    if config.kind == "cluster":
        nodes = [library.cluster.ClusterNode(*host) for host in config.hosts]
        return library.RedisCluster(startup_nodes=nodes, **given)
    if config.kind == "sentinel":
        short = {name: min(1.0, timeout) for name in ("socket_timeout", "socket_connect_timeout")}
        own = {**common, **short, **config.sentinel_options}
        return library.Sentinel([*config.hosts], sentinel_kwargs=own).master_for(config.service, **given)
    for host, port in config.hosts:
        given |= {"host": host, "port": port}
    return library.Redis(**given)


async def close_client(client: Any) -> None:
    """Close redis-py's client, and those of its sentinels, on their loop."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for each in (client, *getattr(manager, "sentinels", ())):
        await settle(each.aclose() if hasattr(each, "aclose") else each.close())
