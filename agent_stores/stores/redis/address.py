"""Which server is meant: URLs and connection arguments, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

from agent_stores.errors import ArgumentError, ArgumentTypeError, MissingDependencyError

try:  # the first import of redis on the way to the Redis store
    import redis.asyncio as aioredis
    from redis.asyncio.connection import parse_url
    from redis.asyncio.sentinel import SentinelConnectionPool
except ImportError:
    raise MissingDependencyError.of("redis", extra="redis", purpose="the Redis store") from None

if TYPE_CHECKING:
    from redis.credentials import CredentialProvider

Kind = Literal["single", "sentinel", "cluster"]

ACCEPTED = (
    "redis://host:port/db, rediss://… (TLS), unix:///path, redis+sentinel://host:port,host:port/service/db "
    "or redis+cluster://host:port,host:port"
)

_KINDS: dict[str, Kind] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
_TLS = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_SECRET_OPTIONS = ("password", "ssl_password", "sentinel_password")


@dataclass(frozen=True)
class Address:
    """A server, or several that are one, and how to connect to it.

    Attributes:
        kind: one server, one behind sentinels, or a Cluster.
        location: where it is, without secrets; goes into states.
        place: where it is, without secrets, for errors.
        hosts: host names and ports: the server's, the sentinels' or some nodes'.
        url: what redis-py takes, for one server that is named by a URL.
        options: arguments of redis-py's client; hold the password.
        service: the service's name, for sentinels.
        sentinel_options: arguments of the clients of the sentinels.
        client: the caller's client.
        secrets: text that must never show.
    """

    kind: Kind
    location: str
    place: str
    hosts: tuple[tuple[str, int], ...] = ()
    url: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    service: str = ""
    sentinel_options: Mapping[str, Any] | None = field(default=None, repr=False)
    client: Any = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def identity(self) -> Any:
        """Equal for addresses whose connections may be shared."""
        if self.client is not None:
            return id(self.client)
        options = sorted((name, repr(value)) for name, value in self.options.items())
        sentinel = repr(sorted((self.sentinel_options or {}).items()))
        return (self.kind, self.hosts, self.url, self.service, repr(options), sentinel)


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who connects, apart from the URL."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    credential_provider: CredentialProvider | None = field(default=None, repr=False)

    def options(self, *, in_url: bool = False) -> dict[str, Any]:
        """As arguments of redis-py's client."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if "credential_provider" in given and ("password" in given or "username" in given or in_url):
            raise ArgumentError(
                "credential_provider says who connects: accepted is no username or password beside it"
            )
        if given and in_url:
            raise ArgumentError("the URL holds a user or password already: accepted is one of both places")
        return given


def make_address(
    redis_url: str | None,
    *,
    redis_client: Any,
    login: Login,
    host: str | None,
    port: int | None,
    ssl: bool | None,
    sentinels: Sequence[tuple[str, int]] | None,
    service_name: str | None,
    sentinel_kwargs: Mapping[str, Any] | None,
    client_options: Mapping[str, Any],
) -> Address:
    """Read the connection arguments, of which exactly one way of connecting is accepted.

    Raises:
        ArgumentError: when they do not say one way; never repeats a URL, which may hold a password.
        ArgumentTypeError: for values of other types.
    """
    ways = {"redis_url": redis_url, "redis_client": redis_client, "host": host, "sentinels": sentinels}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise ArgumentError(
            f"accepted is exactly one of redis_url, redis_client, host and sentinels; given is {found}"
        )
    way = given[0]
    for name, value, ways_for in (
        ("port", port, ("host",)),
        ("ssl", ssl, ("host", "sentinels")),
        ("service_name", service_name, ("sentinels",)),
        ("sentinel_kwargs", sentinel_kwargs, ("sentinels", "redis_url")),
        ("client_options", client_options or None, ("redis_url", "host", "sentinels")),
        *((name, value, ("redis_url", "host", "sentinels")) for name, value in vars(login).items()),
    ):
        if value is not None and way not in ways_for:
            raise ArgumentError(f"{name} is not accepted with {way}; it goes with {' or '.join(ways_for)}")
    if redis_client is not None:
        return _borrowed(redis_client)
    # A token must not travel in the clear: TLS is the default with a credential provider.
    tls = login.credential_provider is not None if ssl is None else ssl
    if redis_url is not None:
        return _from_url(redis_url, login, sentinel_kwargs, client_options)
    options = {**login.options(), **client_options}
    if tls:
        options["ssl"] = True
    if host is not None:
        at = (6380 if tls else 6379) if port is None else _port(port)
        return _address("single", ((_host(host), at),), options, db=options.get("db", 0))
    if not service_name:
        raise ArgumentError("service_name is missing: the name under which the sentinels know the server")
    hosts = tuple((_host(name), _port(number)) for name, number in sentinels or ())
    if not hosts:
        raise ArgumentError("sentinels is empty; accepted are host names and ports")
    return _address(
        "sentinel",
        hosts,
        options,
        db=options.get("db", 0),
        service=service_name,
        sentinel_options=_sentinel_options(options, sentinel_kwargs),
    )


def _from_url(
    redis_url: str, login: Login, sentinel_kwargs: Mapping[str, Any] | None, client_options: Mapping[str, Any]
) -> Address:
    if not isinstance(redis_url, str):
        raise ArgumentTypeError(f"redis_url is of type {type(redis_url).__name__}; accepted is str")
    try:
        parts = urlsplit(redis_url)
    except ValueError:
        raise ArgumentError(f"redis_url is malformed; accepted is {ACCEPTED}") from None
    name, _, plus = parts.scheme.partition("+")
    kind, tls = _KINDS.get(plus), _TLS.get(name, False)
    if kind is None or (name not in _TLS and parts.scheme != "unix") or "://" not in redis_url:
        raise ArgumentError(f"redis_url is of a kind that is not known; accepted is {ACCEPTED}")
    if parts.fragment:
        raise ArgumentError("redis_url has a part after '#'; accepted is none: percent-encode '#' as %23")
    userinfo = parts.netloc.rpartition("@")[0]
    query = dict(parse_qsl(parts.query))
    secrets = _secrets(userinfo, query)
    options = login.options(in_url=bool(userinfo) or "password" in query)
    if sentinel_kwargs is not None and kind != "sentinel":
        raise ArgumentError("sentinel_kwargs is accepted with sentinels only")
    sentinel_query = {name: query.pop(name) for name in list(query) if name.startswith("sentinel_")}
    if sentinel_query and kind != "sentinel":
        raise ArgumentError(f"redis_url has {sorted(sentinel_query)}; accepted with redis+sentinel:// only")
    # redis-py reads one host's URL: it knows the options and their types.
    path, service = parts.path, ""
    if kind == "sentinel":
        service, _, database = path.lstrip("/").partition("/")
        service, path = unquote(service), f"/{database}"
        if not service:
            raise ArgumentError("redis_url names no service: redis+sentinel://host:port/service")
    if parts.scheme != "unix" and path.strip("/") and not path.strip("/").isdecimal():
        raise ArgumentError(f"redis_url names a database that is no number; accepted is {ACCEPTED}")
    netloc = parts.netloc
    if kind != "single":
        netloc = f"{userinfo}@localhost" if userinfo else "localhost"
    scheme = "unix" if parts.scheme == "unix" else "rediss" if tls else "redis"
    url = urlunsplit(SplitResult(scheme, netloc, path, _join_query(query), ""))
    if scheme == "unix" and not url.startswith("unix://"):
        url = f"unix://{url.removeprefix('unix:')}"
    try:
        parsed: dict[str, Any] = {**parse_url(url)}
    except ValueError as error:
        text = str(error)
        if any(secret in text for secret in secrets) or userinfo:
            text = "an option or a number in it is malformed"
        raise ArgumentError(f"redis_url is malformed: {text}; accepted is {ACCEPTED}") from None
    if kind == "single":
        if "path" in parsed:
            where = quote(str(parsed["path"]))
            return _address(
                kind,
                (),
                {**options, **client_options},
                url=url,
                unix=where,
                db=parsed.get("db", 0),
                secrets=secrets,
            )
        hosts: tuple[tuple[str, int], ...] = (
            (_host(parsed.get("host", "localhost")), int(parsed.get("port", 6379))),
        )
        options = {**options, **client_options}
        return _address(
            kind, hosts, options, url=url, db=options.get("db", parsed.get("db", 0)), secrets=secrets
        )
    for name in ("host", "port", "connection_class"):
        parsed.pop(name, None)
    options = {**parsed, **options, **client_options}
    if tls:
        options["ssl"] = True
    hosts = _hosts(parts.netloc.rpartition("@")[2], 26379 if kind == "sentinel" else 6379)
    if kind == "cluster":
        if options.pop("db", 0):
            raise ArgumentError("redis_url names a database; a Cluster has only database 0")
        return _address(kind, hosts, options, secrets=secrets)
    given = {name.removeprefix("sentinel_"): value for name, value in sentinel_query.items()}
    return _address(
        kind,
        hosts,
        options,
        db=options.get("db", 0),
        service=service,
        sentinel_options=_sentinel_options(options, {**given, **(sentinel_kwargs or {})}),
        secrets=secrets,
    )


def _address(
    kind: Kind,
    hosts: tuple[tuple[str, int], ...],
    options: Mapping[str, Any],
    *,
    url: str | None = None,
    unix: str = "",
    db: Any = 0,
    service: str = "",
    sentinel_options: Mapping[str, Any] | None = None,
    secrets: tuple[str, ...] = (),
    client: Any = None,
) -> Address:
    names = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
    if kind == "cluster":
        names = ",".join(sorted(names.split(",")))
        location, place = f"redis+cluster://{names}", f"the Redis Cluster of {names}"
    elif kind == "sentinel":
        location = f"redis+sentinel://{names}/{quote(service, safe='')}/{db}"
        place = f"the Redis server {service!r} of the sentinels {names}"
    elif unix:
        location, place = f"unix://{unix}?db={db}", f"the Redis server at {unix}"
    else:
        location, place = f"redis://{names}/{db}", f"the Redis server at {names}"
    hidden = [*secrets, *(str(options[name]) for name in _SECRET_OPTIONS if options.get(name))]
    hidden += [
        str((sentinel_options or {})[name]) for name in _SECRET_OPTIONS if (sentinel_options or {}).get(name)
    ]
    return Address(
        kind,
        location,
        place,
        hosts,
        url,
        options,
        service,
        sentinel_options,
        client,
        tuple(sorted({secret for secret in hidden if secret}, key=len, reverse=True)),
    )


def _borrowed(client: Any) -> Address:
    """The address of a client that the caller made, as far as it says where it leads."""
    if isinstance(client, aioredis.RedisCluster):
        nodes = client.nodes_manager.startup_nodes.values()
        hosts = tuple(sorted((str(node.host), int(node.port)) for node in nodes))
        return _address(
            "cluster", hosts, {}, client=client, secrets=_kept_secrets(client.get_connection_kwargs())
        )
    if not isinstance(client, aioredis.Redis):
        raise ArgumentTypeError(
            f"redis_client is of type {type(client).__module__}.{type(client).__name__}; accepted are "
            "redis.asyncio.Redis and redis.asyncio.RedisCluster"
        )
    pool = client.connection_pool
    options = pool.connection_kwargs
    secrets, db = _kept_secrets(options), options.get("db") or 0
    if isinstance(pool, SentinelConnectionPool):
        sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        hosts = tuple((str(one.get("host")), int(one.get("port", 26379))) for one in sentinels)
        service = str(pool.service_name)
        return _address("sentinel", hosts, {}, db=db, service=service, client=client, secrets=secrets)
    if "path" in options:
        return _address(
            "single", (), {}, unix=quote(str(options["path"])), db=db, client=client, secrets=secrets
        )
    hosts = ((str(options.get("host", "localhost")), int(options.get("port", 6379))),)
    return _address("single", hosts, {}, db=db, client=client, secrets=secrets)


def _sentinel_options(options: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The sentinels are reached as the server is, with logins of their own."""
    shared = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    return {**shared, **(given or {})}


def _kept_secrets(options: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(options[name]) for name in _SECRET_OPTIONS if options.get(name))


def _secrets(userinfo: str, query: Mapping[str, str]) -> tuple[str, ...]:
    password = userinfo.partition(":")[2] or (userinfo if ":" not in userinfo else "")
    return tuple(
        {password, unquote(password), *(query[name] for name in _SECRET_OPTIONS if name in query)} - {""}
    )


def _join_query(query: Mapping[str, str]) -> str:
    """A query, as redis-py takes it apart again."""
    return "&".join(f"{quote(name)}={quote(value, safe='/:')}" for name, value in query.items())


def _hosts(netloc: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for one in netloc.split(","):
        try:
            parts = urlsplit(f"//{one}")
            hosts.append((_host(parts.hostname), parts.port or default_port))
        except ValueError:
            raise ArgumentError(f"redis_url names a port that is no number; accepted is {ACCEPTED}") from None
    return tuple(hosts)


def _host(value: Any) -> str:
    if not isinstance(value, str) or not value or "," in value or "@" in value or "/" in value:
        raise ArgumentError(f"a host name is missing or malformed; accepted is {ACCEPTED}")
    return value


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise ArgumentError(f"port is {value!r}; accepted is a number from 1 to 65535")
    return value
