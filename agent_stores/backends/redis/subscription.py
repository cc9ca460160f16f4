"""Notifications of changes, by the server's tracking of keys; writers do nothing for them.

Client-side caching in its broadcasting mode (``CLIENT TRACKING ... BCAST``, since Redis 6) tells a connection
of each change to keys that begin with a prefix: here, with the name of a thread's meta hash. RESP2 delivers
that as a message of a channel.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import redis

from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.connection import Client, make_client
from agent_stores.backends.redis.errors import FAILURES, translate_error

_CHANNEL = "__redis__:invalidate"


class RedisSubscription:
    """A `Subscription` over a connection of its own; use `subscribe`."""

    def __init__(self, client: Any, config: Config) -> None:
        self._client = client
        self._config = config
        self._messages = client.pubsub(ignore_subscribe_messages=True)

    async def begin(self, meta: bytes) -> bool:
        """Be told of changes to a key; False when the server's version or permissions do not allow that."""
        messages = self._messages
        try:
            await messages.connect()
            await messages.execute_command("CLIENT", "ID")
            number = await messages.parse_response(block=True)
            tracking = ("TRACKING", "ON", "REDIRECT", number, "BCAST", "PREFIX", meta)
            await messages.execute_command("CLIENT", *tracking)
            await messages.parse_response(block=True)
            await messages.subscribe(_CHANNEL)
            await messages.parse_response(block=True)
            return True
        except redis.ResponseError:
            return False
        except FAILURES as error:
            raise self._translated(error) from error

    async def wait(self, seconds: float) -> None:
        """See `Subscription.wait`."""
        try:
            while await self._messages.get_message(timeout=seconds) is not None:
                seconds = 0
        except FAILURES as error:
            raise self._translated(error) from error

    async def aclose(self) -> None:
        """See `Subscription.aclose`."""
        with contextlib.suppress(*FAILURES):
            await self._messages.aclose()
        with contextlib.suppress(*FAILURES):
            await Client(self._client, 1, is_owned=True).aclose()

    def _translated(self, error: BaseException) -> Exception:
        return translate_error(error, self._config)


async def subscribe(config: Config, meta: bytes, *, timeout: float) -> RedisSubscription | None:
    """See `ChangeNotifier.subscribe`; in a Cluster, on the server that has the key now."""
    client = make_client(config, timeout=timeout, protocol=2)
    if config.kind == "cluster":
        try:
            await client.initialize()
            node = client.get_node_from_key(meta)
            place = replace(config, kind="single", hosts=((node.host, node.port),))
        except FAILURES as error:
            raise translate_error(error, config) from error
        finally:
            await client.aclose()
        client = make_client(place, timeout=timeout, protocol=2)
    subscription = RedisSubscription(client, config)
    begun = False
    try:
        begun = await subscription.begin(meta)
    finally:
        if not begun:
            await subscription.aclose()
    return subscription if begun else None
