"""The Redis store's connection arguments, its names of keys, and that no secret ever shows."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
from typing import Any

import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider
from redis.exceptions import ClusterError

from agent_stores import ChatMessage, RedisChatMessageStore, open_log
from agent_stores.backend import RECENT_REQUESTS
from agent_stores.backends.redis import layout
from agent_stores.backends.redis.config import config_from_url
from agent_stores.backends.redis.errors import explain
from agent_stores.backends.redis.layout import (
    LAYOUT,
    quote_name,
    shard_key,
    thread_keys,
    unquote_name,
)
from agent_stores.errors import (
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    StateError,
    StoreUnavailableError,
)
from agent_stores.log import ThreadKey
from agent_stores.redis import RedisMessageLog

pytestmark = pytest.mark.anyio

SECRET = "planted-s3cret/+@:"
IN_URL = "planted-s3cret%2F%2B%40%3A"
UNUSED = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("redis://localhost", "redis://localhost:6379/0#agent"),
        ("redis://localhost/", "redis://localhost:6379/0#agent"),
        (f"redis://user:{IN_URL}@Host.example:7000/3", "redis://host.example:7000/3#agent"),
        (f"redis://:{IN_URL}@host?db=2", "redis://host:6379/2#agent"),
        (f"rediss://:{IN_URL}@host:6380/0?ssl_cert_reqs=none", "redis://host:6380/0#agent"),
        ("valkey://host", "redis://host:6379/0#agent"),
        ("valkeys://host", "redis://host:6379/0#agent"),
        ("redis://[::1]:7000", "redis://[::1]:7000/0#agent"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1#agent"),
        (f"unix://:{IN_URL}@/run/redis.sock", "unix:///run/redis.sock?db=0#agent"),
        (
            f"redis+sentinel://:{IN_URL}@a:26379,b/main/2?sentinel_password={IN_URL}",
            "redis+sentinel://a:26379,b:26379/main/2#agent",
        ),
        ("rediss+sentinel://a/main", "redis+sentinel://a:26379/main/0#agent"),
        (f"redis+cluster://u:{IN_URL}@b:7001,a:7000", "redis+cluster://a:7000,b:7001#agent"),
        ("valkeys+cluster://a", "redis+cluster://a:6379#agent"),
    ],
)
def test_urls(url: str, location: str) -> None:
    assert RedisMessageLog(url).location == location
    assert open_log(url).location == location
    assert "planted" not in repr(RedisMessageLog(url)) + repr(RedisMessageLog(url)._redis._config)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://host",
        "redis+http://host",
        f"redis:{IN_URL}@host",
        f"redis://:{IN_URL}@host:port",
        f"redis://:{IN_URL}@host:70000",
        f"redis://:{IN_URL}@host/name",
        f"redis://:{IN_URL}@a,b",
        f"redis://:{IN_URL}@host?socket_timeout=long",
        f"redis://:{IN_URL}#more@host",
        f"redis+sentinel://:{IN_URL}@host",
        f"redis+sentinel://:{IN_URL}@host/main/name",
        f"redis+sentinel://:{IN_URL}@host:x/main",
        f"redis+cluster://:{IN_URL}@host/1",
        f"redis+cluster://:{IN_URL}@a,,b",
        f"redis://:{IN_URL}@host?sentinel_password=x",
        f"redis://:{IN_URL}@[::1",
        f"unix+cluster://:{IN_URL}@host",
    ],
)
def test_urls_that_are_not_accepted(url: str) -> None:
    with pytest.raises(ArgumentError, match=r"redis_url|host name") as caught:
        RedisMessageLog(url)
    assert "planted" not in str(caught.value)
    assert "planted" not in repr(caught.value.__cause__)


PROVIDER = UsernamePasswordCredentialProvider("user", SECRET)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"redis_url": "redis://h", "host": "h"},
        {"redis_client": aioredis.Redis(), "redis_url": "redis://h"},
        {"redis_url": "redis://h", "port": 1},
        {"redis_url": "redis://h", "ssl": True},
        {"redis_url": "redis://h", "service_name": "main"},
        {"redis_url": "redis://h", "sentinel_kwargs": {"username": "me"}},
        {"redis_url": f"redis://:{IN_URL}@h", "password": SECRET},
        {"redis_url": f"redis://:{IN_URL}@h", "credential_provider": PROVIDER},
        {"redis_client": aioredis.Redis(), "password": SECRET},
        {"redis_client": aioredis.Redis(), "client_options": {"ssl": True}},
        {"host": "h", "password": SECRET, "credential_provider": PROVIDER},
        {"host": "h", "port": 0},
        {"host": "h", "port": "6379"},
        {"host": "redis://h"},
        {"host": "h", "sentinels": [("a", 1)]},
        {"sentinels": [("a", 1)]},
        {"sentinels": [], "service_name": "main"},
        {"host": "h", "timeout": 0},
        {"host": "h", "timeout": None},
        {"host": "h", "retries": -1},
        {"host": "h", "max_connections": 0},
        {"host": "h", "key_prefix": ""},
        {"host": "h", "key_prefix": "a{b}"},
    ],
)
def test_arguments_that_are_not_accepted(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        RedisChatMessageStore(**arguments)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [{"redis_url": b"redis://h"}, {"redis_client": object()}, {"host": "h", "key_prefix": 1}],
)
def test_arguments_of_other_types(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentTypeError):
        RedisChatMessageStore(**arguments)


def client_of(log: RedisMessageLog) -> Any:
    """redis-py's client on the running event loop."""
    return log._redis._clients.get()._client


async def test_options_reach_the_client() -> None:
    def options_of(*arguments: Any, **options: Any) -> tuple[type, dict[str, Any]]:
        pool = client_of(RedisMessageLog(*arguments, **options)).connection_pool
        return pool.connection_class, pool.connection_kwargs

    kind, given = options_of(f"rediss://me:{IN_URL}@h/2?ssl_ca_certs=/ca.pem&health_check_interval=7")
    assert kind is aioredis.SSLConnection
    assert (given["username"], given["password"], given["db"]) == ("me", SECRET, 2)
    assert (given["ssl_ca_certs"], given["health_check_interval"]) == ("/ca.pem", 7)
    assert given["ssl_cert_reqs"] == "required"  # redis-py verifies certificates unless it is told otherwise
    _, given = options_of("redis://h", username="me", password=SECRET, client_options={"protocol": 3})
    assert (given["username"], given["password"], given["protocol"]) == ("me", SECRET, 3)
    kind, given = options_of(host="h", credential_provider=PROVIDER)
    assert kind is aioredis.SSLConnection  # a token does not travel in the clear
    assert (given["port"], given["credential_provider"]) == (6380, PROVIDER)
    # A provider renews its tokens on the loop that asked first, which must go on.
    assert RedisMessageLog(host="h").loop_independent
    assert not RedisMessageLog(host="h", credential_provider=PROVIDER).loop_independent
    kind, given = options_of(host="h", credential_provider=PROVIDER, ssl=False, port=7)
    assert kind is aioredis.Connection
    assert given["port"] == 7
    _, given = options_of("redis://h", credential_provider=PROVIDER)
    assert given["credential_provider"] is PROVIDER
    _, given = options_of("unix:///s?db=4")
    assert (given["path"], given["db"]) == ("/s", 4)

    log = RedisMessageLog(
        f"rediss+sentinel://me:{IN_URL}@a:1,b:2/main/3?ssl_ca_certs=/ca.pem&sentinel_password=other"
    )
    client = client_of(log)
    assert issubclass(client.connection_pool.connection_class, aioredis.SSLConnection)
    given = client.connection_pool.connection_kwargs
    assert (given["username"], given["password"], given["db"]) == ("me", SECRET, 3)
    watchers = [one.connection_pool for one in client.connection_pool.sentinel_manager.sentinels]
    assert [pool.connection_kwargs["host"] for pool in watchers] == ["a", "b"]
    for pool in watchers:
        assert pool.connection_class is aioredis.SSLConnection
        assert (pool.connection_kwargs["password"], pool.connection_kwargs["ssl_ca_certs"]) == (
            "other",
            "/ca.pem",
        )

    log = RedisMessageLog(f"rediss+cluster://me:{IN_URL}@a:1,b:2?ssl_ca_certs=/ca.pem")
    cluster = client_of(log)
    assert set(cluster.nodes_manager.startup_nodes) == {"a:1", "b:2"}
    given = cluster.get_connection_kwargs()
    assert (given["username"], given["password"], given["ssl_ca_certs"]) == ("me", SECRET, "/ca.pem")


async def test_borrowed_clients_say_where_they_lead() -> None:
    client = aioredis.Redis(host="h", port=7, db=2, password=SECRET)
    assert RedisMessageLog(redis_client=client).location == "redis://h:7/2#agent"
    make_sentinel: Any = Sentinel
    behind = make_sentinel([("a", 1)]).master_for("main", db=1)
    assert RedisMessageLog(redis_client=behind).location == "redis+sentinel://a:1/main/1#agent"


@pytest.mark.parametrize(
    "arguments",
    [
        {"redis_url": f"redis://user:{IN_URL}@{UNUSED}/0"},
        {"redis_url": f"redis+sentinel://user:{IN_URL}@{UNUSED}/main", "timeout": 1},
        {"redis_url": f"redis+cluster://user:{IN_URL}@{UNUSED}", "timeout": 1},
        {"host": "127.0.0.1", "port": 1, "password": SECRET},
        {"host": "127.0.0.1", "port": 1, "ssl": False, "credential_provider": PROVIDER},
        {
            "redis_client": aioredis.Redis(
                host="127.0.0.1", port=1, password=SECRET, retry=Retry(NoBackoff(), 0)
            )
        },
    ],
)
async def test_secrets_never_show(arguments: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with RedisChatMessageStore(**arguments, retries=1, tenant="acme") as store:
        shown = [
            repr(store),
            repr(store.log),
            store.location,
            repr(vars(store.log)),
            json.dumps(await store.serialize()),
        ]
        for work in (
            store.add_messages([ChatMessage("user", "x")]),
            store.list_messages(),
            store.list_threads(),
        ):
            with pytest.raises(StoreUnavailableError, match=UNUSED) as caught:
                await work
            error: BaseException | None = caught.value
            assert isinstance(error, AgentStoresError)
            shown += [str(error), repr(error)]
    text = "\n".join([*shown, caplog.text])
    assert "planted" not in text
    assert "s3cret" not in text


async def test_a_state_leads_nowhere_else() -> None:
    store = RedisChatMessageStore("redis://one:6379/0", thread_id="t")
    state = await store.serialize()
    assert state["location"] == "redis://one:6379/0#agent"
    same = RedisChatMessageStore(f"rediss://:{IN_URL}@one/0")  # who connects, and how, is no matter
    await same.update_from_state(dict(state))
    assert same.thread_id == "t"
    for other in (
        RedisChatMessageStore("redis://two"),
        RedisChatMessageStore("redis://one/1"),
        RedisChatMessageStore("redis://one:6380"),
        RedisChatMessageStore("redis://one", key_prefix="other"),
        RedisChatMessageStore("redis+cluster://one:6379"),
    ):
        with pytest.raises(StateError, match="location"):
            await other.update_from_state(dict(state))


def test_keys_are_readable_and_unambiguous() -> None:
    keys = thread_keys("agent", ThreadKey("acme", "user_session:123"))
    assert keys.meta.startswith(b"agent:{acme.")
    assert keys.meta.endswith(b"}:meta:user_session:123")
    tags = {key.partition(b"{")[2].partition(b"}")[0] for key in keys[:6]}
    assert len(tags) == 1
    shard = int(tags.pop()[-2:])
    assert keys.by_time == shard_key("agent", "acme", shard, "recent")
    names = [
        *("", "~", "%7E", "%", "a b", "a+b", "a%20b", "é", "e\u0301", "{a}", "\x00", "\ud83d"),
        *("x" * 160, "x" * 161, "x" * 3000),
    ]
    made = [quote_name(one) for one in names]
    assert len(set(made)) == len(made)
    assert all(one and one.isascii() for one in made)
    assert not any(set(one) & set("{}=&, \n") for one in made)
    assert [unquote_name(one.encode()) for one in made] == names
    threads = [
        ThreadKey(tenant, thread) for tenant in (None, "", "a", "a.01", ".01", "-") for thread in ("b", "a:b")
    ]
    assert len({thread_keys("agent", key).meta for key in threads}) == len(threads)


def test_the_scripts_agree_with_the_library() -> None:
    assert f"request_count > {RECENT_REQUESTS} then".encode() in layout.APPEND.source
    assert f"layout ~= '{LAYOUT}'".encode() in layout.APPEND.source
    assert f"'{LAYOUT},%s".encode() in layout.APPEND.source
    for script in vars(layout).values():
        if isinstance(script, layout.Script):
            assert b"KEYS *" not in script.source
            assert b"redis.setresp" not in script.source


def test_without_redis_installed() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from agent_stores import RedisChatMessageStore, open_log\n"
        "for make in (lambda: RedisChatMessageStore('redis://h'), lambda: open_log('redis://h')):\n"
        "    try: make()\n"
        "    except ImportError as error: print(type(error).__name__, 'agent-stores[redis]' in str(error))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines() == ["MissingDependencyError True"] * 2, result.stderr


def test_errors_can_be_pickled() -> None:
    with pytest.raises(ArgumentError) as caught:
        RedisMessageLog()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_command_that_was_only_redirected_is_repeated() -> None:
    """redis-py gives up after a number of redirections while a slot moves; none of them carried it out."""
    failed = explain(ClusterError("TTL exhausted."), config_from_url("redis+cluster://host"))
    assert failed.may_retry
    assert not failed.may_have_applied
