"""redis-py's clients: one for each event loop, and one for calls that block.

Only their public interface is used, so that instrumentation of `execute_command` and of pipelines sees all
commands. Replies are bytes, whatever the client decodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import redis
import redis.asyncio as aioredis
import redis.asyncio.cluster as aiocluster
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff

from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.direct import BlockingDirectConnections, DirectConnections, can_be_direct

Command = tuple[Any, ...]
_RAW = {"NEVER_DECODE": True}


class AsyncClient:
    """A client on one event loop.

    Args:
        client: redis-py's client.
        limit: the largest number of connections.
        is_owned: whether the client is ours.

    Attributes:
        loop_close_hook: closes it with its loop.
    """

    def __init__(self, client: Any, limit: int, *, is_owned: bool) -> None:
        self._client = client
        self._is_cluster = isinstance(client, aioredis.RedisCluster)
        self._slots = asyncio.Semaphore(limit)
        is_direct = is_owned and can_be_direct(client)
        self._direct = DirectConnections(client.connection_pool) if is_direct else None
        self.loop_close_hook: AsyncGenerator[None, None] | None = None

    async def execute(self, command: Command) -> Any:
        """Run a command on the server of its key."""
        async with self._slots:
            if self._direct is not None:
                return await self._direct.execute(command)
            return await self._client.execute_command(*command, **_RAW)

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in as few round trips as there are servers; errors are in their replies."""
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command, **_RAW)
        async with self._slots:
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies

    async def on_one_connection(self, key: bytes, commands: Sequence[Command]) -> list[Any]:
        """Run commands on one connection to the server of a key; errors are in their replies."""
        if not self._is_cluster:
            return await self.pipeline(commands)
        await self._client.initialize()
        node = self._client.get_node_from_key(key)
        batch = [aiocluster.PipelineCommand(n, *command, **_RAW) for n, command in enumerate(commands)]
        async with self._slots:
            await node.execute_pipeline(batch)
        return [command.result for command in batch]

    async def refresh(self) -> None:
        """After an error: learn the servers' roles again."""
        if self._is_cluster:
            await self._client.nodes_manager.initialize()
        else:  # a demoted primary keeps its connections
            if self._direct is not None:
                await self._direct.disconnect()
            await self._client.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        if not self._is_cluster:
            for pool in _pools(self._client):
                await pool.disconnect()
        await self._client.aclose()

    def close_sockets(self) -> None:
        """Close the sockets when their loop is gone: what redis-py and asyncio could only warn about."""

        def drop() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                self._client = self._direct = None
                gc.collect()

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            drop()
        else:  # redis-py would report to the loop that runs here
            thread = threading.Thread(target=drop, name="agent-stores-close", daemon=True)
            thread.start()
            thread.join()


class BlockingClient:
    """A client for calls without an event loop, from any thread: its coroutines block instead of waiting."""

    def __init__(self, client: Any, limit: int, *, is_owned: bool) -> None:
        self._client = client
        self._is_cluster = isinstance(client, redis.RedisCluster)
        self._slots = threading.BoundedSemaphore(limit)
        is_direct = is_owned and can_be_direct(client)
        self._direct = BlockingDirectConnections(client.connection_pool) if is_direct else None

    async def execute(self, command: Command) -> Any:
        """Run a command on the server of its key."""
        with self._slots:
            if self._direct is not None:
                return await self._direct.execute(command)
            with self._discarding_unread():
                return self._client.execute_command(*command, **_RAW)

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in as few round trips as there are servers; errors are in their replies."""
        return self._run_all(self._client, commands)

    async def on_one_connection(self, key: bytes, commands: Sequence[Command]) -> list[Any]:
        """Run commands on one connection to the server of a key; errors are in their replies."""
        if not self._is_cluster:
            return self._run_all(self._client, commands)
        return self._run_all(self._client.get_redis_connection(self._client.get_node_from_key(key)), commands)

    async def refresh(self) -> None:
        """After an error: learn the servers' roles again."""
        if self._is_cluster:
            self._client.nodes_manager.initialize()
        else:
            if self._direct is not None:
                await self._direct.disconnect()
            self._client.connection_pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(Exception):
            self._client.close()
            if not self._is_cluster:
                for pool in _pools(self._client):
                    pool.disconnect()

    def _run_all(self, client: Any, commands: Sequence[Command]) -> list[Any]:
        pipe = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command, **_RAW)
        with self._slots, self._discarding_unread():
            replies: list[Any] = pipe.execute(raise_on_error=False)
            return replies

    @contextlib.contextmanager
    def _discarding_unread(self) -> Iterator[None]:
        """After Ctrl-C: disconnect idle connections, one of which may hold the reply to the command."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            if self._is_cluster:
                self._client.disconnect_connection_pools()
            else:
                self._client.connection_pool.disconnect(inuse_connections=False)
            raise


Client = AsyncClient | BlockingClient


def make_client(config: Config, *, timeout: float, blocking: bool = False, **options: Any) -> Any:
    """redis-py's client of a server; nothing connects yet.

    Args:
        config: the server; not that of a borrowed client.
        timeout: seconds for connecting; for a blocking client, also for a reply.
        blocking: whether to make the synchronous client.
        options: arguments of the client that win over those of the configuration.
    """
    library: Any = redis if blocking else aioredis
    retry = redis.retry.Retry if blocking else redis.asyncio.retry.Retry
    sentinel = redis.sentinel if blocking else redis.asyncio.sentinel
    # Attempts, and the time that all of them together take, are counted by `RedisServer`.
    options = {
        "socket_timeout": timeout if blocking else None,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "retry": retry(NoBackoff(), 0),
        "max_connections": 2**31,
        **config.options,
        **options,
    }
    if config.kind == "cluster":
        node: Any = redis.cluster.ClusterNode if blocking else aiocluster.ClusterNode
        nodes = [node(host, port) for host, port in config.hosts]
        return library.RedisCluster(startup_nodes=nodes, **options)
    if config.kind == "sentinel":
        sentinel_options = {
            "socket_timeout": min(1.0, timeout),
            "socket_connect_timeout": min(1.0, timeout),
            "retry": retry(NoBackoff(), 0),
            **config.sentinel_options,
        }
        make_sentinel: Any = sentinel.Sentinel  # not typed
        manager = make_sentinel(list(config.hosts), sentinel_kwargs=sentinel_options)
        return manager.master_for(config.service, **options)
    if config.url is not None:
        return library.Redis.from_url(config.url, **options)
    host, port = config.hosts[0]
    return library.Redis(host=host, port=port, **options)


def _pools(client: Any) -> list[Any]:
    """The pools of a client, and of the sentinels that it asks."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    return [client.connection_pool, *(one.connection_pool for one in getattr(manager, "sentinels", ()))]
