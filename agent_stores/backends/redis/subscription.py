"""Notifications of changes, by the server's tracking of keys; writers do nothing for them.

Client-side caching in its broadcasting mode (``CLIENT TRACKING ... BCAST``, since Redis 6) tells a connection
of each change to keys that begin with a prefix: here, with the name of a thread's meta hash. RESP2 delivers
that as a message of a channel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import redis

from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.connection import close_client, make_client
from agent_stores.backends.redis.errors import FAILURES, explain


class RedisSubscription:
    """A `Subscription` over a connection of its own.

    Args:
        config: the server.
        messages: redis-py's subscription.
        resources: what is closed with it.
    """

    def __init__(self, config: Config, messages: Any, resources: contextlib.AsyncExitStack) -> None:
        self._config, self._messages, self._resources = config, messages, resources

    async def wait(self, seconds: float) -> None:
        """See `Subscription.wait`."""
        with _translating(self._config):
            while await self._messages.get_message(timeout=seconds) is not None:
                seconds = 0

    async def aclose(self) -> None:
        """See `Subscription.aclose`."""
        with contextlib.suppress(*FAILURES):
            await self._resources.aclose()


async def subscribe(config: Config, meta: bytes, *, timeout: float) -> RedisSubscription | None:
    """See `ChangeNotifier.subscribe`; in a Cluster, on the server that has the key now."""
    client = make_client(config, timeout=timeout, protocol=2)
    async with contextlib.AsyncExitStack() as resources:
        resources.push_async_callback(close_client, client)
        with _translating(config):
            if config.kind == "cluster":
                await client.initialize()
                node = client.get_node_from_key(meta)
                place = replace(config, kind="single", hosts=((node.host, node.port),))
                return await subscribe(place, meta, timeout=timeout)
            messages = client.pubsub(ignore_subscribe_messages=True)
            resources.push_async_callback(messages.aclose)
            try:
                await messages.execute_command("CLIENT", "ID")
                own = ("REDIRECT", await messages.parse_response(block=True))
                await messages.execute_command("CLIENT", "TRACKING", "ON", *own, "BCAST", "PREFIX", meta)
                await messages.parse_response(block=True)
                await messages.subscribe("__redis__:invalidate")
                await messages.parse_response(block=True)
            except redis.ResponseError:  # the server's version or permissions do not allow that
                return None
        return RedisSubscription(config, messages, resources.pop_all())


@contextlib.contextmanager
def _translating(config: Config) -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise explain(error, config).error from error
