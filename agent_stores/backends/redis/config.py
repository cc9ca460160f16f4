"""Which server to connect to, and how: URLs and arguments, and what may be said of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:  # the first import of redis on the way to the Redis backend
    import redis
    import redis.asyncio as aioredis
    from redis.asyncio.connection import parse_url
except ImportError:
    raise MissingDependencyError.of("redis", extra="redis", purpose="the Redis store") from None

Kind = Literal["single", "sentinel", "cluster"]
Hosts = tuple[tuple[str, int], ...]

URLS = (
    "redis://host:port/db, rediss://... (TLS), unix:///path, redis+sentinel://host:port,host:port/service/db "
    "or redis+cluster://host:port,host:port"
)
_KINDS: dict[str, Kind] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
_SECRETS = ("password", "ssl_password", "sentinel_password")
_COPIED = ("username", "password", "credential_provider", "client_name", "protocol", "db")
_NAMED = ("redis_url", "host", "sentinels")
_GO_WITH: dict[str, tuple[str, ...]] = {
    "port": ("host",),
    "ssl": ("host", "sentinels"),
    "service_name": ("sentinels",),
    "sentinel_kwargs": ("sentinels", "redis_url"),
    **dict.fromkeys(("client_options", "username", "password", "credential_provider"), _NAMED),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A server, or several that are one, and how to connect to it.

    Attributes:
        kind: one server, one behind sentinels, or a Cluster.
        hosts: names and ports: of the server, of the sentinels, or of some nodes.
        socket: the path of the server's socket instead.
        database: its number.
        service: the service's name, for sentinels.
        url: what redis-py takes, for one server that is named by a URL.
        options: arguments of redis-py's client; may hold secrets.
        sentinel_options: arguments of the clients of the sentinels.
        client: the caller's client.
        is_blocking: whether that client is a synchronous one.
        hidden: further texts that must never show.
    """

    kind: Kind = "single"
    hosts: Hosts = ()
    socket: str = ""
    database: int = 0
    service: str = ""
    url: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    client: Any = field(default=None, repr=False)
    is_blocking: bool = False
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @property
    def names(self) -> str:
        """The hosts and ports, or the socket."""
        names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts]
        return quote(self.socket) or ",".join(sorted(names) if self.kind == "cluster" else names)

    @property
    def location(self) -> str:
        """Where the server is, without secrets; goes into states."""
        if self.kind == "cluster":
            return f"redis+cluster://{self.names}"
        if self.kind == "sentinel":
            return f"redis+sentinel://{self.names}/{quote(self.service, safe='')}/{self.database}"
        return (
            f"unix://{self.names}?db={self.database}"
            if self.socket
            else f"redis://{self.names}/{self.database}"
        )

    @property
    def place(self) -> str:
        """Where the server is, without secrets, for errors."""
        if self.kind == "sentinel":
            return f"the Redis server {self.service!r} of the sentinels {self.names}"
        return f"the Redis {'Cluster of' if self.kind == 'cluster' else 'server at'} {self.names}"

    @property
    def secrets(self) -> list[str]:
        """Texts that must never show, longest first."""
        given = [options.get(name) for options in (self.options, self.sentinel_options) for name in _SECRETS]
        return sorted({str(secret) for secret in (*given, *self.hidden) if secret}, key=len, reverse=True)

    @property
    def identity(self) -> Any:
        """Equal for configurations that may share connections."""
        if self.client is not None:
            return id(self.client)
        options = (sorted(self.options.items()), sorted(self.sentinel_options.items()))
        return (self.kind, self.hosts, self.url, self.service, repr(options))


def parse_config(redis_url: str | None = None, **arguments: Any) -> Config:
    """Read the connection arguments, which must name one server in one way.

    Raises:
        ArgumentError: when they do not; never repeats a URL, which may hold a password.
        ArgumentTypeError: for values of other types.
    """
    arguments["redis_url"] = redis_url
    given: dict[str, Any] = {name: value for name, value in arguments.items() if value is not None}
    ways = [name for name in ("redis_client", *_NAMED) if name in given]
    if len(ways) != 1:
        raise ArgumentError(
            "exactly one of redis_url, redis_client, host and sentinels must be given, "
            f"got {' and '.join(ways) or 'none of them'}"
        )
    for name in given:
        allowed = _GO_WITH.get(name, (name,))
        if ways[0] not in allowed:
            raise ArgumentError(f"{name} cannot be combined with {ways[0]}, only with {' or '.join(allowed)}")
    login = {name: given[name] for name in ("username", "password", "credential_provider") if name in given}
    if "credential_provider" in login and len(login) > 1:
        raise ArgumentError("credential_provider cannot be combined with username or password")
    options = {**login, **given.get("client_options", {})}
    if "redis_client" in given:
        return _from_client(given["redis_client"])
    if redis_url is not None:
        return _from_url(redis_url, options, given.get("sentinel_kwargs"), has_login=bool(login))
    # A token must not travel in the clear: TLS is the default with a credential provider.
    tls = given.get("ssl", "credential_provider" in login)
    options |= {"ssl": True} if tls else {}
    database = options.get("db", 0)
    if "host" in given:
        host = (_host(given["host"]), _port(given.get("port", 6380 if tls else 6379)))
        return Config(hosts=(host,), options=options, database=database)
    hosts = tuple((_host(name), _port(number)) for name, number in given["sentinels"])
    service = given.get("service_name", "")
    return _sentinels(hosts, service, options, given.get("sentinel_kwargs"), database=database)


def _from_url(
    redis_url: Any, options: dict[str, Any], sentinel: Mapping[str, Any] | None, *, has_login: bool
) -> Config:
    if not isinstance(redis_url, str):
        raise ArgumentTypeError(f"redis_url must be a str, got {type(redis_url).__name__}")
    try:
        parts = urlsplit(redis_url)
    except ValueError:
        raise ArgumentError(f"redis_url is malformed; it must be {URLS}") from None
    name, _, suffix = parts.scheme.partition("+")
    kind, scheme = _KINDS.get(suffix), _SCHEMES.get(name)
    if "@" not in redis_url and re.fullmatch(r"[\w.-]+:\d{2,5}(/\d*)?", redis_url):
        raise ArgumentError(f"redis_url must be {URLS}, got {redis_url!r}: write redis://{redis_url}")
    if kind is None or scheme is None or "://" not in redis_url or (name == "unix" and suffix):
        raise ArgumentError(f"redis_url has an unknown scheme; it must be {URLS}")
    if parts.fragment:
        raise ArgumentError("redis_url must not contain '#': percent-encode it as %23")
    userinfo, _, address = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    if has_login and (userinfo or "password" in query):
        raise ArgumentError("redis_url has a user or password: it cannot be combined with another login")
    password = userinfo.partition(":")[2] or userinfo
    hidden = (password, unquote(password), *(query.get(option, "") for option in _SECRETS))
    prefix = "sentinel_"
    asked = {
        option.removeprefix(prefix): query.pop(option) for option in list(query) if option.startswith(prefix)
    }
    if kind != "sentinel" and (asked or sentinel is not None):
        raise ArgumentError("sentinel_kwargs and sentinel options are only for a redis_url of sentinels")
    path, service = parts.path, ""
    if kind == "sentinel":
        service, _, path = path.lstrip("/").partition("/")
    if name != "unix" and path.strip("/") and not path.strip("/").isdecimal():
        raise ArgumentError(f"redis_url must end with the number of a database; it must be {URLS}")
    # redis-py reads the URL of one host: it knows the options and their types.
    host = (f"{userinfo}@" if userinfo else "") + (address if kind == "single" else "localhost")
    encoded = urlencode(query, safe="/:", quote_via=quote)
    url = f"{scheme}://{host}/{path.lstrip('/')}" + (f"?{encoded}" if encoded else "")
    try:
        parsed: dict[str, Any] = {**parse_url(url)}
    except ValueError:
        raise ArgumentError(f"redis_url has a malformed option or number; it must be {URLS}") from None
    database = options.get("db", parsed.get("db", 0))
    if kind == "single":
        socket = str(parsed.get("path", ""))
        hosts: Hosts = (
            () if socket else ((_host(parsed.get("host", "localhost")), int(parsed.get("port", 6379))),)
        )
        return Config(hosts=hosts, url=url, options=options, hidden=hidden, database=database, socket=socket)
    for option in ("host", "port", "connection_class"):
        parsed.pop(option, None)
    options = {**parsed, **options, **({"ssl": True} if scheme == "rediss" else {})}
    if kind == "sentinel":
        hosts = _hosts(address, 26379)
        asked |= sentinel or {}
        return _sentinels(hosts, unquote(service), options, asked, database=database, hidden=hidden)
    if options.pop("db", 0):
        raise ArgumentError("redis_url names a database, but a Cluster has only database 0")
    return Config(kind=kind, hosts=_hosts(address, 6379), options=options, hidden=hidden)


def _sentinels(
    hosts: Hosts, service: str, options: Mapping[str, Any], given: Mapping[str, Any] | None, **more: Any
) -> Config:
    if not service or not hosts:
        raise ArgumentError(
            "sentinels need service_name and at least one host; or redis_url of the form " + URLS
        )
    # The sentinels are reached as the server is, with logins of their own.
    shared = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    own = {**shared, **(given or {})}
    return Config(
        kind="sentinel", hosts=hosts, service=service, options=options, sentinel_options=own, **more
    )


def _from_client(client: Any) -> Config:
    """The configuration of a client that the caller made, from which another one can be made."""
    common: dict[str, Any] = {
        "client": client,
        "is_blocking": isinstance(client, (redis.Redis, redis.RedisCluster)),
    }
    if isinstance(client, (aioredis.RedisCluster, redis.RedisCluster)):
        hosts = tuple(
            (str(node.host), int(node.port)) for node in client.nodes_manager.startup_nodes.values()
        )
        options = _copied(client.get_connection_kwargs())
        return Config(kind="cluster", hosts=hosts, options=options, **common)
    if not isinstance(client, (aioredis.Redis, redis.Redis)):
        raise ArgumentTypeError(
            "redis_client must be a Redis or RedisCluster of redis or redis.asyncio, "
            f"got {type(client).__module__}.{type(client).__name__}"
        )
    pool: Any = client.connection_pool
    given = pool.connection_kwargs
    common |= {"options": _copied(given), "database": int(given.get("db") or 0)}
    if issubclass(pool.connection_class, (redis.SSLConnection, aioredis.SSLConnection)):
        common["options"]["ssl"] = True
    if hasattr(pool, "sentinel_manager"):
        asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        hosts = tuple((str(one.get("host")), int(one.get("port", 26379))) for one in asked)
        own = {name: value for name, value in _copied(asked[0]).items() if name != "db"}
        return Config(
            kind="sentinel", hosts=hosts, service=str(pool.service_name), sentinel_options=own, **common
        )
    if "path" in given:
        common["options"]["unix_socket_path"] = given["path"]
    host = (str(given.get("host", "localhost")), int(given.get("port", 6379)))
    return Config(hosts=(host,), socket=str(given.get("path", "")), **common)


def _copied(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a client that another client may have too."""
    is_copied = {name: name in _COPIED or name.startswith("ssl_") for name in given}
    return {name: value for name, value in given.items() if value is not None and is_copied[name]}


def _hosts(netloc: str, default_port: int) -> Hosts:
    try:
        parts = [urlsplit(f"//{one}") for one in netloc.split(",")]
        return tuple((_host(one.hostname), one.port or default_port) for one in parts)
    except ArgumentError:
        raise
    except ValueError:
        raise ArgumentError(f"redis_url names a port that is not a number; it must be {URLS}") from None


def _host(value: Any) -> str:
    if not isinstance(value, str) or not value or "," in value or "@" in value or "/" in value:
        raise ArgumentError(f"host name is missing or malformed; redis_url must be {URLS}")
    return value


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise ArgumentError("port must be an int from 1 to 65535")
    return value
