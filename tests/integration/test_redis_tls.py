"""The Redis store over TLS, with certificates made for the test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import redis
import redis.asyncio as aioredis

from agent_stores import ChatMessage, RedisChatMessageStore
from agent_stores.backends.redis.config import config_from_client
from agent_stores.errors import OutcomeUnknownError, StoreUnavailableError
from agent_stores.log import ThreadKey
from agent_stores.redis import RedisMessageLog
from agent_stores.sync import SyncChatMessageStore
from tests.integration.test_redis_faults import WRITERS, Load, assert_turns
from tests.servers.proxy import FaultProxy
from tests.servers.redis import RedisCluster, RedisServer
from tests.servers.tls import Authority, TlsProxy

pytestmark = pytest.mark.anyio

MakeStore = Callable[..., RedisChatMessageStore]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server", hosts=("localhost", "127.0.0.1"))


@pytest.fixture
def tls(valkey_server: RedisServer, certificate: tuple[Path, Path]) -> Iterator[TlsProxy]:
    with TlsProxy(valkey_server.port, certificate) as proxy:
        yield proxy


@pytest.fixture
async def make_store() -> AsyncIterator[MakeStore]:
    async with AsyncExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> RedisChatMessageStore:
            store = RedisChatMessageStore(*arguments, thread_id=f"tls-{uuid.uuid4().hex}", **options)
            stack.push_async_callback(store.aclose)
            return store

        yield make


def user(text: str) -> ChatMessage:
    return ChatMessage("user", text)


async def use(store: RedisChatMessageStore) -> None:
    """Write and read, from the event loop and without one."""
    await store.add_messages([user("1")])
    view = SyncChatMessageStore(store)
    await asyncio.to_thread(view.add_messages, [user("2")])
    assert [message.text for message in await asyncio.to_thread(view.list_messages)] == ["1", "2"]
    assert [message.text for message in await store.list_messages()] == ["1", "2"]


async def test_all_ways_to_ask_for_it(
    valkey_server: RedisServer, tls: TlsProxy, authority: Authority, make_store: MakeStore
) -> None:
    ca: dict[str, Any] = {"ssl_ca_certs": str(authority.path)}
    url = tls.url(valkey_server.url)
    await use(make_store(f"{url}?{urlencode(ca)}"))
    await use(make_store(url.replace("rediss://", "valkeys://"), client_options=ca))
    login = {"password": valkey_server.password, "client_options": ca}
    await use(make_store(host="localhost", port=tls.port, ssl=True, **login))
    before = tls.handshakes
    async with aioredis.Redis.from_url(url, **ca) as client:
        store = make_store(redis_client=client)
        await store.add_messages([user("1")])
        assert await store.count() == 1
    with redis.Redis.from_url(url, **ca) as blocking:
        await use(make_store(redis_client=blocking))
    assert before >= 4  # the first two stores share their connections, as they name the server alike
    assert tls.handshakes >= before + 3  # a client made from another one uses TLS, too


async def test_a_watcher_by_a_callers_client_of_a_cluster(
    redis_cluster: RedisCluster, certificate: tuple[Path, Path], authority: Authority
) -> None:
    with ExitStack() as stack:
        proxies = {
            node.port: stack.enter_context(TlsProxy(node.port, certificate)) for node in redis_cluster.nodes
        }
        options: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": proxies[redis_cluster.nodes[0].port].port,
            "password": redis_cluster.password,
            "address_remap": lambda address: (address[0], proxies[address[1]].port),
            "ssl": True,
            "ssl_ca_certs": str(authority.path),
        }
        async with aioredis.RedisCluster(**options) as client:
            assert config_from_client(client).options["ssl"] is True
            log = RedisMessageLog(redis_client=client)
            store = RedisChatMessageStore(redis_client=client, thread_id=f"tls-{uuid.uuid4().hex}")
            before = sum(proxy.handshakes for proxy in proxies.values())
            subscription: Any = await log._redis.subscribe(ThreadKey(None, store.thread_id))
            assert sum(proxy.handshakes for proxy in proxies.values()) > before
            await store.add_messages([user("1")])
            await asyncio.wait_for(subscription.wait(600), 30)
            await subscription.aclose()
            await store.aclose()
            await log.aclose()
        with redis.RedisCluster(**options) as blocking:
            assert config_from_client(blocking).options["ssl"] is True


async def test_what_is_sent_cannot_be_read_on_the_way(
    valkey_server: RedisServer, tls: TlsProxy, authority: Authority, make_store: MakeStore
) -> None:
    with FaultProxy(tls.port) as wire:
        for secret in (valkey_server.password.encode(), b"needle"):
            wire.cut_before_request(secret, times=None)
            url = tls.url(valkey_server.url, port=wire.port)
            store = make_store(f"{url}?ssl_ca_certs={authority.path}", tenant=secret.decode())
            await store.add_messages([user("needle")])
            assert await store.count() == 1
        assert wire.connections > 0
        assert wire.cuts == 0


async def rejected(store: RedisChatMessageStore, secret: str) -> str:
    """The text of the error of every operation, from the event loop and without one."""
    texts = []
    view = SyncChatMessageStore(store)
    for work in (
        store.add_messages([user("1")]),
        store.list_messages(),
        asyncio.to_thread(view.add_messages, [user("2")]),
    ):
        with pytest.raises(StoreUnavailableError, match="nothing was written") as caught:
            await work
        assert secret not in str(caught.value)
        texts.append(str(caught.value))
    assert all("certificate" in text.lower() for text in texts), texts
    return texts[0]


async def test_a_certificate_of_another_authority(
    valkey_server: RedisServer, tls: TlsProxy, tmp_path: Path, make_store: MakeStore
) -> None:
    url, other = tls.url(valkey_server.url), Authority(tmp_path, "another")
    for query in (f"?ssl_ca_certs={other.path}", ""):  # and of none that this machine trusts
        text = await rejected(make_store(url + query, retries=1), valkey_server.password)
        assert "verify failed" in text
    await use(make_store(f"{url}?ssl_cert_reqs=none"))


async def test_a_certificate_of_another_host(
    valkey_server: RedisServer, authority: Authority, make_store: MakeStore
) -> None:
    with TlsProxy(valkey_server.port, authority.issue("elsewhere", hosts=("localhost",))) as tls:
        query = f"?ssl_ca_certs={authority.path}"
        url = tls.url(valkey_server.url) + query
        text = await rejected(make_store(url, retries=1), valkey_server.password)
        assert "127.0.0.1" in text
        await use(make_store(tls.url(valkey_server.url, host="localhost") + query))
        await use(make_store(f"{url}&ssl_check_hostname=false"))


async def test_a_server_that_asks_for_a_certificate(
    valkey_server: RedisServer,
    authority: Authority,
    certificate: tuple[Path, Path],
    tmp_path: Path,
    make_store: MakeStore,
) -> None:
    mine, of_another = authority.issue("client"), Authority(tmp_path, "another").issue("client")
    with TlsProxy(valkey_server.port, certificate, client_authority=authority) as tls:
        url = f"{tls.url(valkey_server.url)}?ssl_ca_certs={authority.path}"
        await use(make_store(f"{url}&ssl_certfile={mine[0]}&ssl_keyfile={mine[1]}"))
        other = {"ssl_certfile": str(of_another[0]), "ssl_keyfile": str(of_another[1])}
        for options in ({}, {"client_options": other}):
            store = make_store(url, retries=1, **options)
            for work in (store.list_messages(), asyncio.to_thread(SyncChatMessageStore(store).list_messages)):
                with pytest.raises(StoreUnavailableError) as caught:
                    await work
                assert valkey_server.password not in str(caught.value)
            # With TLS 1.3, a client learns only after its first command that its certificate was refused.
            with pytest.raises((StoreUnavailableError, OutcomeUnknownError)):
                await store.add_messages([user("1")])
        assert await make_store(valkey_server.url).delete_thread(store.thread_id) is False


async def test_without_tls_where_the_server_wants_it(
    valkey_server: RedisServer, tls: TlsProxy, make_store: MakeStore
) -> None:
    url = tls.url(valkey_server.url).replace("rediss://", "redis://")
    store = make_store(url, retries=1)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.list_messages()
    assert valkey_server.password not in str(caught.value)


async def test_connections_that_are_cut_under_load(
    valkey_server: RedisServer, tls: TlsProxy, authority: Authority, make_store: MakeStore
) -> None:
    with FaultProxy(tls.port) as wire:
        url = f"{tls.url(valkey_server.url, port=wire.port)}?ssl_ca_certs={authority.path}"
        store = make_store(url, timeout=30, retries=1000)
        load = Load([store] * WRITERS)
        async with load:
            for count in range(4):
                await load.progress(30)
                wire.drop_all()
                await load.progress(10)
                wire.cut_after_client_bytes(700 + 100 * count)  # in the middle of a record
            await load.progress(30)
        assert wire.cuts >= 8
        assert_turns([item.message.text async for item in store.iter_messages()], load.acknowledged)


async def test_a_reply_that_is_lost_behind_tls(
    valkey_server: RedisServer, authority: Authority, certificate: tuple[Path, Path], make_store: MakeStore
) -> None:
    with FaultProxy(valkey_server.port) as behind, TlsProxy(behind.port, certificate) as tls:
        store = make_store(f"{tls.url(valkey_server.url)}?ssl_ca_certs={authority.path}")
        for n in range(6):
            behind.cut_before_reply(f"needle {n}".encode())
            await store.add_messages([user(f"needle {n}")])
        assert behind.cuts == 6
        assert [message.text for message in await store.list_messages()] == [f"needle {n}" for n in range(6)]
