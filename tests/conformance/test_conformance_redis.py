"""The conformance suite on Redis 6.2, Valkey 9, a Cluster and a server behind Sentinel, and on fakeredis."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from agent_stores.backends.redis.keys import thread_keys
from agent_stores.log import ThreadKey
from agent_stores.redis import RedisMessageLog
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Target

SERVERS = {"valkey9": "valkey_server", "redis62": "redis62_server"}
NOT_ON_FAKEREDIS = (
    "several_event_loops",
    "TestCancellation",
    "TestTimeToLive",
    *(f"fakeredis-{seed}]" for seed in range(2, 12)),
)
Run = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["valkey9", "redis62", "cluster", "sentinel", "fakeredis"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    name: str = request.param
    if name == "fakeredis":
        fakeredis = pytest.importorskip("fakeredis")
        pytest.importorskip("lupa")
        if any(part in request.node.nodeid for part in NOT_ON_FAKEREDIS):
            pytest.skip("run on the real servers only: fakeredis has no sockets, and this takes long")
        make_client = partial(fakeredis.FakeAsyncRedis, server=fakeredis.FakeServer(), host="fake")
        client = make_client()
        yield Target(
            name,
            open_log=lambda: RedisMessageLog(redis_client=make_client()),
            corrupt=corrupter(client.execute_command),
        )
        return
    if name == "cluster":
        cluster = request.getfixturevalue("redis_cluster")
        url = cluster.url.replace("redis://", "redis+cluster://")
    elif name == "sentinel":
        group = request.getfixturevalue("redis_sentinel")
        sentinels = ",".join(f"{host}:{port}" for host, port in group.sentinels)
        url = f"redis+sentinel://:{group.password}@{sentinels}/{group.service_name}/0"
    else:
        url = request.getfixturevalue(SERVERS[name]).url

    async def run(*command: Any) -> Any:
        log = RedisMessageLog(url)
        reply = await log._redis._server.execute(*command)
        await log.aclose()
        return reply

    # Each opening is a client of its own, as on another host; options that differ keep connections apart.
    yield Target(
        name,
        open_log=lambda: RedisMessageLog(url, client_options={"client_name": uuid.uuid4().hex}),
        open_in_process=partial(RedisMessageLog, url, timeout=60),
        corrupt=corrupter(run),
    )


def corrupter(run: Run) -> Callable[[ThreadKey, int], Awaitable[None]]:
    async def corrupt(key: ThreadKey, position: int) -> None:
        messages = thread_keys("agent", key).messages
        index = position - 1  # nothing was trimmed
        line = (await run("LINDEX", messages, index)).partition(b"\n")[0]
        await run("LSET", messages, index, line + b'\n{"role": ')

    return corrupt
