"""Which server to connect to, and how: URLs and arguments, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from typing_extensions import TypedDict

from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:  # the first import of redis on the way to the Redis backend
    import redis
    import redis.asyncio as aioredis
    from redis.asyncio.connection import parse_url
except ImportError:
    raise MissingDependencyError.of("redis", extra="redis", purpose="the Redis store") from None

if TYPE_CHECKING:
    from redis.credentials import CredentialProvider

Kind = Literal["single", "sentinel", "cluster"]

URLS = (
    "redis://host:port/db, rediss://... (TLS), unix:///path, redis+sentinel://host:port,host:port/service/db "
    "or redis+cluster://host:port,host:port"
)
_KINDS: dict[str, Kind] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
_TLS = {"redis": False, "rediss": True, "valkey": False, "valkeys": True, "unix": False}
_SECRETS = ("password", "ssl_password", "sentinel_password")
_SHARED_OPTIONS = ("username", "password", "credential_provider", "client_name", "protocol", "db", "path")


class ConnectionArguments(TypedDict, total=False):
    """Arguments that say how to connect; see `agent_stores.redis.RedisOptions`."""

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


@dataclass(frozen=True, kw_only=True)
class Config:
    """A server, or several that are one, and how to connect to it.

    Attributes:
        kind: one server, one behind sentinels, or a Cluster.
        hosts: host names and ports: of the server, of the sentinels, or of some nodes; none for a socket.
        url: what redis-py takes, for one server that is named by a URL.
        options: arguments of redis-py's client; may hold secrets.
        service: the service's name, for sentinels.
        sentinel_options: arguments of the clients of the sentinels.
        client: the caller's client.
        is_blocking: whether that client is a synchronous one.
        secrets: text that must never show.
    """

    kind: Kind = "single"
    hosts: tuple[tuple[str, int], ...] = ()
    url: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    client: Any = field(default=None, repr=False)
    is_blocking: bool = False
    secrets: tuple[str, ...] = field(default=(), repr=False)
    database: int = 0
    socket: str = ""

    @property
    def location(self) -> str:
        """Where the server is, without secrets; goes into states."""
        if self.kind == "cluster":
            return f"redis+cluster://{','.join(sorted(self._names()))}"
        if self.kind == "sentinel":
            names = ",".join(self._names())
            return f"redis+sentinel://{names}/{quote(self.service, safe='')}/{self.database}"
        if self.socket:
            return f"unix://{quote(self.socket)}?db={self.database}"
        return f"redis://{self._names()[0]}/{self.database}"

    @property
    def place(self) -> str:
        """Where the server is, without secrets, for errors."""
        names = quote(self.socket) or ",".join(self._names())
        if self.kind == "cluster":
            return f"the Redis Cluster of {names}"
        if self.kind == "sentinel":
            return f"the Redis server {self.service!r} of the sentinels {names}"
        return f"the Redis server at {names}"

    @property
    def identity(self) -> Any:
        """Equal for configurations that may share connections."""
        if self.client is not None:
            return id(self.client)
        options = sorted((name, repr(value)) for name, value in self.options.items())
        sentinel = sorted((name, repr(value)) for name, value in self.sentinel_options.items())
        return (self.kind, self.hosts, self.url, self.service, repr(options), repr(sentinel))

    def _names(self) -> list[str]:
        return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts]


def parse_config(redis_url: str | None = None, **arguments: Any) -> Config:
    """Read the connection arguments, which must name one server in one way.

    Raises:
        ArgumentError: when they do not; never repeats a URL, which may hold a password.
        ArgumentTypeError: for values of other types.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    ways = [name for name in ("redis_client", "host", "sentinels") if name in given]
    ways += ["redis_url"] if redis_url is not None else []
    if len(ways) != 1:
        found = " and ".join(ways) or "none of them"
        raise ArgumentError(
            f"exactly one of redis_url, redis_client, host and sentinels must be given, got {found}"
        )
    for name in given:
        allowed = _ALLOWED.get(name, (name,))
        if ways[0] not in allowed:
            raise ArgumentError(f"{name} cannot be combined with {ways[0]}, only with {' or '.join(allowed)}")
    login = {name: given[name] for name in ("username", "password", "credential_provider") if name in given}
    if "credential_provider" in login and len(login) > 1:
        raise ArgumentError("credential_provider cannot be combined with username or password")
    if ways[0] == "redis_client":
        return _from_client(given["redis_client"])
    options = {**login, **given.get("client_options", {})}
    if redis_url is not None:
        return _from_url(redis_url, login, options, given.get("sentinel_kwargs"))
    # A token must not travel in the clear: TLS is the default with a credential provider.
    tls = given.get("ssl", "credential_provider" in login)
    options |= {"ssl": True} if tls else {}
    database = options.get("db", 0)
    if "host" in given:
        hosts = ((_host(given["host"]), _port(given.get("port", 6380 if tls else 6379))),)
        return _config(hosts=hosts, options=options, database=database)
    hosts = tuple((_host(name), _port(number)) for name, number in given["sentinels"])
    if not hosts:
        raise ArgumentError("sentinels must name at least one host and port")
    return _sentinels(hosts, given.get("service_name", ""), options, given.get("sentinel_kwargs"), database)


_BY_NAME = ("redis_url", "host", "sentinels")
_ALLOWED: dict[str, tuple[str, ...]] = {
    "port": ("host",),
    "ssl": ("host", "sentinels"),
    "service_name": ("sentinels",),
    "sentinel_kwargs": ("sentinels", "redis_url"),
    **dict.fromkeys(("client_options", "username", "password", "credential_provider"), _BY_NAME),
}


def _from_url(
    redis_url: str, login: Mapping[str, Any], options: dict[str, Any], sentinel: Mapping[str, Any] | None
) -> Config:
    if not isinstance(redis_url, str):
        raise ArgumentTypeError(f"redis_url must be a str, got {type(redis_url).__name__}")
    try:
        parts = urlsplit(redis_url)
    except ValueError:
        raise ArgumentError(f"redis_url is malformed; it must be {URLS}") from None
    name, _, suffix = parts.scheme.partition("+")
    kind, tls = _KINDS.get(suffix), _TLS.get(name)
    if kind is None or tls is None or "://" not in redis_url or (name == "unix" and suffix):
        raise ArgumentError(f"redis_url has an unknown scheme; it must be {URLS}")
    if parts.fragment:
        raise ArgumentError("redis_url must not contain '#': percent-encode it as %23")
    userinfo, _, address = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    if login and (userinfo or "password" in query):
        raise ArgumentError("redis_url has a user or password: it cannot be combined with another login")
    password = userinfo.partition(":")[2] or userinfo
    secrets = (password, unquote(password), *(query.get(option, "") for option in _SECRETS))
    given = {option: query.pop(option) for option in list(query) if option.startswith("sentinel_")}
    if kind != "sentinel" and (given or sentinel is not None):
        raise ArgumentError("sentinel_kwargs and sentinel options are only for a redis_url of sentinels")
    path, service = parts.path, ""
    if kind == "sentinel":
        service, _, path = path.lstrip("/").partition("/")
        service = unquote(service)
    if name != "unix" and path.strip("/") and not path.strip("/").isdecimal():
        raise ArgumentError(f"redis_url must end with the number of a database; it must be {URLS}")
    # redis-py reads the URL of one host: it knows the options and their types.
    login_part = f"{userinfo}@" if userinfo else ""
    host_part = address if kind == "single" else "localhost"
    scheme = "unix" if name == "unix" else "rediss" if tls else "redis"
    separator = "" if not path or path.startswith("/") else "/"
    url = f"{scheme}://{login_part}{host_part}{separator}{path}"
    if query:
        url = f"{url}?{urlencode(query, safe='/:', quote_via=quote)}"
    try:
        parsed: dict[str, Any] = {**parse_url(url)}
    except ValueError:
        raise ArgumentError(
            f"redis_url is malformed: an option or a number in it is wrong; it must be {URLS}"
        ) from None
    database = options.get("db", parsed.get("db", 0))
    if kind == "single":
        socket = str(parsed.get("path", ""))
        hosts = () if socket else ((_host(parsed.get("host", "localhost")), int(parsed.get("port", 6379))),)
        return _config(
            hosts=hosts, url=url, options=options, secrets=secrets, database=database, socket=socket
        )
    for option in ("host", "port", "connection_class"):
        parsed.pop(option, None)
    options = {**parsed, **options, **({"ssl": True} if tls else {})}
    if kind == "sentinel":
        given = {option.removeprefix("sentinel_"): value for option, value in given.items()}
        return _sentinels(
            _hosts(address, 26379), service, options, {**given, **(sentinel or {})}, database, secrets
        )
    if options.pop("db", 0):
        raise ArgumentError("redis_url names a database, but a Cluster has only database 0")
    return _config(kind=kind, hosts=_hosts(address, 6379), options=options, secrets=secrets)


def _sentinels(
    hosts: tuple[tuple[str, int], ...],
    service: str,
    options: Mapping[str, Any],
    given: Mapping[str, Any] | None,
    database: int,
    secrets: tuple[str, ...] = (),
) -> Config:
    if not service:
        raise ArgumentError("the service's name is missing: service_name, or redis_url of the form " + URLS)
    # The sentinels are reached as the server is, with logins of their own.
    shared = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    return _config(
        kind="sentinel",
        hosts=hosts,
        options=options,
        service=service,
        sentinel_options={**shared, **(given or {})},
        database=database,
        secrets=secrets,
    )


def _from_client(client: Any) -> Config:
    """The configuration of a client that the caller made; another one can be made from it."""
    is_blocking = isinstance(client, (redis.Redis, redis.RedisCluster))
    common: dict[str, Any] = {"client": client, "is_blocking": is_blocking}
    if isinstance(client, (aioredis.RedisCluster, redis.RedisCluster)):
        nodes = client.nodes_manager.startup_nodes.values()
        hosts = tuple(sorted((str(node.host), int(node.port)) for node in nodes))
        options = _shared_options(
            client.get_connection_kwargs()
            if isinstance(client, aioredis.RedisCluster)
            else client.nodes_manager.connection_kwargs
        )
        return _config(kind="cluster", hosts=hosts, options=options, **common)
    if not isinstance(client, (aioredis.Redis, redis.Redis)):
        raise ArgumentTypeError(
            "redis_client must be a Redis or RedisCluster of redis or redis.asyncio, "
            f"got {type(client).__module__}.{type(client).__name__}"
        )
    pool: Any = client.connection_pool
    options = _shared_options(pool.connection_kwargs)
    if issubclass(pool.connection_class, (redis.SSLConnection, aioredis.SSLConnection)):
        options["ssl"] = True
    database = int(options.get("db") or 0)
    if hasattr(pool, "sentinel_manager"):
        sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        hosts = tuple((str(one.get("host")), int(one.get("port", 26379))) for one in sentinels)
        sentinel_options = {
            name: value for name, value in _shared_options(sentinels[0]).items() if name != "db"
        }
        return _config(
            kind="sentinel",
            hosts=hosts,
            options=options,
            service=str(pool.service_name),
            sentinel_options=sentinel_options,
            database=database,
            **common,
        )
    if socket := options.pop("path", ""):
        options["unix_socket_path"] = socket
        return _config(
            hosts=(("localhost", 6379),), options=options, database=database, socket=str(socket), **common
        )
    given = pool.connection_kwargs
    hosts = ((str(given.get("host", "localhost")), int(given.get("port", 6379))),)
    return _config(hosts=hosts, options=options, database=database, **common)


def _shared_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a client that another client on another loop may have too."""
    return {
        name: value
        for name, value in given.items()
        if value is not None and (name in _SHARED_OPTIONS or name.startswith("ssl_"))
    }


def _config(**given: Any) -> Config:
    """A configuration that knows its secrets."""
    secrets = [*given.pop("secrets", ())]
    for options in (given.get("options", {}), given.get("sentinel_options", {})):
        secrets += (str(options[name]) for name in _SECRETS if options.get(name))
    longest_first = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
    return Config(**given, secrets=tuple(longest_first))


def _hosts(netloc: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for one in netloc.split(","):
        try:
            parts = urlsplit(f"//{one}")
            hosts.append((_host(parts.hostname), parts.port or default_port))
        except ValueError:
            raise ArgumentError(f"redis_url names a port that is not a number; it must be {URLS}") from None
    return tuple(hosts)


def _host(value: Any) -> str:
    if not isinstance(value, str) or not value or "," in value or "@" in value or "/" in value:
        raise ArgumentError(f"host name is missing or malformed; redis_url must be {URLS}")
    return value


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise ArgumentError("port must be an int from 1 to 65535")
    return value
