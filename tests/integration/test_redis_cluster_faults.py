"""The Redis store on a Cluster whose primary is replaced while eight clients write."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.crc import key_slot

from agent_stores import ChatMessage, RedisChatMessageStore
from agent_stores.backends.redis.layout import thread_keys
from agent_stores.log import ThreadKey
from agent_stores.sync import SyncChatMessageStore
from tests.integration.test_redis_faults import WRITERS, Load, assert_turns, texts
from tests.servers import redis
from tests.servers.redis_replicas import ReplicatedCluster, start_replicated_cluster

pytestmark = pytest.mark.anyio

BLOCKING_WRITERS = 2


@pytest.fixture(scope="module", params=["valkey9", "redis62"])
def cluster(request: pytest.FixtureRequest) -> Iterator[ReplicatedCluster]:
    if (reason := redis.available(request.param)) is not None:
        pytest.skip(reason)
    with start_replicated_cluster(request.param) as started:
        yield started


class Blocking:
    """A store for `Load` that writes by the synchronous view, on a thread."""

    def __init__(self, store: RedisChatMessageStore) -> None:
        self._view = SyncChatMessageStore(store)

    async def add_messages(self, messages: list[ChatMessage]) -> None:
        await asyncio.to_thread(self._view.add_messages, messages)


def thread_in(slots: range) -> str:
    """The id of a new thread in one of these slots."""
    while True:
        thread_id = uuid.uuid4().hex
        if key_slot(thread_keys("agent", ThreadKey(None, thread_id)).meta) in slots:
            return thread_id


FAULTS: dict[str, list[Callable[[ReplicatedCluster], None]]] = {
    "asked for": [ReplicatedCluster.failover] * 3,
    "killed": [ReplicatedCluster.kill_primary],
    "paused": [ReplicatedCluster.pause_primary],
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_failover_loses_nothing_that_a_replica_confirmed(
    cluster: ReplicatedCluster, kind: str
) -> None:
    url = cluster.url.replace("redis://", "redis+cluster://")
    thread_id = thread_in(cluster.slots(0))
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> RedisChatMessageStore:
            store = RedisChatMessageStore(url, thread_id=thread_id, timeout=60, **options)
            stack.push_async_callback(store.aclose)
            return store

        stores: list[Any] = [make(wait_replicas=1) for _ in range(WRITERS)]
        stores[:BLOCKING_WRITERS] = map(Blocking, stores[:BLOCKING_WRITERS])
        load = Load(stores)
        try:
            async with load:
                await load.progress(40)
                for fail in FAULTS[kind]:
                    await asyncio.to_thread(fail, cluster)
                    await asyncio.to_thread(cluster.heal)
                    await load.progress(40)
        finally:
            await asyncio.to_thread(cluster.heal)
        assert_turns(await texts(make()), load.acknowledged)
