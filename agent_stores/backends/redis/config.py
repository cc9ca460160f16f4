"""Which server to connect to, and how: URLs and arguments, and what may be said of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote

from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:  # the first import of redis on the way to the Redis backend
    import redis
    import redis.asyncio as aioredis
    from redis.asyncio.connection import parse_url
except ImportError:
    raise MissingDependencyError.of("redis", extra="redis", purpose="the Redis store") from None

URLS = (
    "the forms are redis://host:port/db, rediss://... (TLS), unix:///path, "
    "redis+sentinel://host:port,host:port/service/db and redis+cluster://host:port,host:port"
)
_URL = re.compile(  # TLS, kind, login, hosts, path and query
    r"(?:(?:redis|valkey)(s?)(?:\+(sentinel|cluster))?|unix)://([^/?#]*@)?([^/?#]*)([^?#]*)\??([^#]*)",
    re.IGNORECASE,
)
LOGIN = {"username", "password", "credential_provider"}
_OF_A_HOST = ("host", "port", "path", "connection_class")
_SECRETS = ("password", "ssl_password")
_COPIED = re.compile("username|password|credential_provider|client_name|protocol|db|ssl(_.*)?")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A server, or several that are one, and how to connect to it.

    Attributes:
        kind: one server, one behind sentinels, or a Cluster.
        hosts: names and ports: of the server, of the sentinels, or of some nodes; none for a socket.
        service: the service's name, for sentinels.
        options: arguments of redis-py's client; may hold secrets.
        sentinel_options: arguments of the clients of the sentinels.
        client: the caller's client.
        is_blocking: whether that client is a synchronous one.
    """

    kind: Literal["single", "sentinel", "cluster"] = "single"
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    client: Any = field(default=None, repr=False)
    is_blocking: bool = False

    @property
    def names(self) -> str:
        """The hosts and ports, or the socket."""
        names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts]
        names = sorted(names) if self.kind == "cluster" else names
        return ",".join(names) or quote(self.options["unix_socket_path"])

    @property
    def location(self) -> str:
        """Where the server is, without secrets; goes into states."""
        database = int(self.options.get("db") or 0)
        if self.kind == "single":
            return f"redis://{self.names}/{database}" if self.hosts else f"unix://{self.names}?db={database}"
        service = f"/{quote(self.service, safe='')}/{database}" if self.kind == "sentinel" else ""
        return f"redis+{self.kind}://{self.names}{service}"

    @property
    def place(self) -> str:
        """Where the server is, without secrets, for errors."""
        if self.kind == "sentinel":
            return f"the Redis server {self.service!r} of the sentinels {self.names}"
        return f"the Redis {'Cluster of' if self.kind == 'cluster' else 'server at'} {self.names}"

    def hide_secrets(self, text: str) -> str:
        """A text in which no password shows."""
        given = [options.get(name) for options in (self.options, self.sentinel_options) for name in _SECRETS]
        for secret in sorted([str(one) for one in given if one], key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    @property
    def identity(self) -> Any:
        """Equal for configurations that may share connections."""
        options = (sorted(self.options.items()), sorted(self.sentinel_options.items()))
        return id(self.client) if self.client else (self.kind, self.hosts, self.service, repr(options))


def config_from_url(
    redis_url: str, options: Mapping[str, Any] | None = None, sentinel: Mapping[str, Any] | None = None
) -> Config:
    """The server of a URL.

    Args:
        redis_url: see `RedisMessageLog`.
        options: arguments of redis-py's client, which win over those of the URL; a login must be in one only.
        sentinel: those of the clients of the sentinels.

    Raises:
        ArgumentError: when the URL does not name one server; never repeats it, as it may hold a password.
        ArgumentTypeError: when it is not text.
    """
    if not isinstance(redis_url, str):
        raise ArgumentTypeError(f"redis_url must be a str, got {type(redis_url).__name__}")
    found = _URL.fullmatch(redis_url)
    if found is None:
        # Only what is a host and a port for certain is repeated: the text may hold a password.
        hint = re.fullmatch(r"[\w.-]+:\d{2,5}(/\d*)?", redis_url) and f": write redis://{redis_url}"
        raise ArgumentError(f"redis_url must be a URL of Redis{hint or ''}; {URLS}")
    parts: list[Any] = [part or "" for part in found.groups()]
    tls, kind, login, address, path, query = parts
    options = options or {}
    service, is_socket = "", redis_url[:4].lower() == "unix"
    if (kind := kind.lower()) == "sentinel":
        service, _, path = path.lstrip("/").partition("/")
    asked = {name[9:]: text for name, text in parse_qsl(query) if name.startswith("sentinel_")}
    query = "&".join(part for part in query.split("&") if not part.startswith("sentinel_"))
    # redis-py reads the URL of each host: it knows the options and their types.
    scheme, rest = "unix" if is_socket else f"redis{tls}", f"/{path.lstrip('/')}?{query}"
    try:
        read: list[Any] = [parse_url(f"{scheme}://{login}{one}{rest}") for one in address.split(",")]
    except ValueError:
        raise ArgumentError(f"redis_url must have a valid host, port and options; {URLS}") from None
    port = 26379 if kind == "sentinel" else 6379
    hosts = tuple((one.get("host", "localhost"), one.get("port", port)) for one in read)
    parsed = {name: value for name, value in read[0].items() if name not in _OF_A_HOST}
    is_named = len(hosts) == 1 or (kind and all("host" in one for one in read))
    is_numbered = is_socket or re.fullmatch(r"/*\d*/*", path)
    for is_kept, rule in (
        (is_named, "must name one host, or several for sentinels or a Cluster"),
        (is_numbered, "must end with the number of a database"),
        (kind != "cluster" or not parsed.pop("db", 0), "must not name a database, as a Cluster has only 0"),
        (kind != "sentinel" or service, "must name a service of the sentinels (service_name)"),
        (kind == "sentinel" or (not asked and sentinel is None), "must name sentinels to have their options"),
        (not (LOGIN & {*options} and LOGIN & {*parsed}), "must not have a login where another is given"),
    ):
        if not is_kept:
            raise ArgumentError(f"redis_url {rule}; {URLS}")
    options = {**parsed, **options, **({"ssl": True} if tls else {})}
    if is_socket:
        options["unix_socket_path"] = read[0]["path"]
    # The sentinels are reached as the server is, with logins of their own.
    shared = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    return Config(
        kind=kind or "single",
        hosts=() if is_socket else hosts,
        service=unquote(service),
        options=options,
        sentinel_options={**shared, **asked, **(sentinel or {})} if kind == "sentinel" else {},
    )


def config_from_client(client: Any) -> Config:
    """The configuration of a client that the caller made, from which another one can be made."""
    is_blocking = isinstance(client, (redis.Redis, redis.RedisCluster))
    if isinstance(client, (aioredis.RedisCluster, redis.RedisCluster)):
        options, nodes = client.get_connection_kwargs(), client.nodes_manager.startup_nodes.values()
        found: dict[str, Any] = {"kind": "cluster", "hosts": [(node.host, node.port) for node in nodes]}
    elif not isinstance(client, (aioredis.Redis, redis.Redis)):
        raise ArgumentTypeError(
            "redis_client must be a Redis or RedisCluster of redis or redis.asyncio, "
            f"got {type(client).__module__}.{type(client).__name__}"
        )
    else:
        pool: Any = client.connection_pool
        options = {"host": "localhost", "port": 6379, **pool.connection_kwargs}
        found = {"hosts": [] if "path" in options else [(options["host"], options["port"])]}
        if hasattr(pool, "sentinel_manager"):
            asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
            found = {"kind": "sentinel", "service": str(pool.service_name)}
            found["hosts"] = [(one["host"], one.get("port", 26379)) for one in asked]
            found["sentinel_options"] = {**_copied(asked[0]), "db": 0}
        if issubclass(pool.connection_class, (redis.SSLConnection, aioredis.SSLConnection)):
            options["ssl"] = True
    hosts = tuple((str(host), int(port)) for host, port in found.pop("hosts"))
    return Config(client=client, is_blocking=is_blocking, hosts=hosts, options=_copied(options), **found)


def _copied(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a client that another client may have too."""
    kept = {name: value for name, value in given.items() if value is not None and _COPIED.fullmatch(name)}
    return {**kept, **({"unix_socket_path": given["path"]} if "path" in given else {})}
