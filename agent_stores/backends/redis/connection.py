"""redis-py's clients, by their public interface alone. Replies are bytes, whatever a client decodes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
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
from agent_stores.backends.redis.direct import DirectConnections, can_be_direct

_DRIVER: dict[str, Any] = {}
with contextlib.suppress(ImportError):  # redis-py would read its version from a file at each connection
    from redis.driver_info import DriverInfo

    _DRIVER["driver_info"] = DriverInfo(lib_version=redis.__version__)

Command = tuple[Any, ...]
_RAW = {"NEVER_DECODE": True}
_SCANNED = 10_000  # keys that one SCAN looks at, which takes a server a millisecond or two


class Client:
    """A client on one event loop; or one for any thread, of which the coroutines block instead of waiting.

    Args:
        client: redis-py's client, asynchronous or synchronous.
        limit: the largest number of connections on the event loop.
        is_owned: whether the client is ours.

    Attributes:
        loop_close_hook: closes it with its loop.
    """

    def __init__(self, client: Any, limit: int, *, is_owned: bool) -> None:
        self._client = client
        self._blocking = isinstance(client, (redis.Redis, redis.RedisCluster))
        self._is_cluster = isinstance(client, (redis.RedisCluster, aioredis.RedisCluster))
        self._slots: Any = contextlib.nullcontext() if self._blocking else asyncio.Semaphore(limit)
        self._direct: DirectConnections | None = None
        if is_owned and can_be_direct(client):
            self._direct = DirectConnections(client.connection_pool, blocking=self._blocking)
        self.loop_close_hook: AsyncGenerator[None, None] | None = None

    async def execute(self, command: Command) -> Any:
        """Run a command on the server of its key."""
        async with self._slots:
            if self._direct is not None:
                return await self._direct.execute(command)
            return await self._settle(self._client.execute_command, *command, **_RAW)

    async def pipeline(self, commands: Sequence[Command], key: bytes | None = None) -> list[Any]:
        """Run commands in as few round trips as there are servers; errors are among the replies.

        With a key, all go over one connection to the server of the key.
        """
        client = self._client
        if self._is_cluster and key is not None:
            if not self._blocking:
                return await self._run_on_node(commands, key)
            client = client.get_redis_connection(client.get_node_from_key(key))
        pipe = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command, **_RAW)
        async with self._slots:
            replies: list[Any] = await self._settle(pipe.execute, raise_on_error=False)
            return replies

    async def scan(self, pattern: str, kind: str) -> list[bytes]:
        """The keys of a kind whose names match a pattern, on all servers; walks through all their keys."""
        options = {"match": pattern, "count": _SCANNED, "_type": kind}
        async with self._slots:
            if self._blocking:
                found = list(self._client.scan_iter(**options))
            else:
                found = [key async for key in self._client.scan_iter(**options)]
        return [key.encode() if isinstance(key, str) else key for key in found]

    async def refresh(self) -> None:
        """Learn the servers' roles again."""
        if self._is_cluster:
            await self._settle(self._client.nodes_manager.initialize)
            return
        if self._direct is not None:
            await self._direct.disconnect()
        await self._settle(self._client.connection_pool.disconnect, inuse_connections=False)

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        await self._settle(self._client.close if self._blocking else self._client.aclose)
        if not self._is_cluster:
            pool = self._client.connection_pool
            sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
            for one in (pool, *(sentinel.connection_pool for sentinel in sentinels)):
                await self._settle(one.disconnect)

    def close_sockets(self) -> None:
        """Close the sockets when their loop has ended, of which redis-py and asyncio would warn."""

        def drop() -> None:
            hook = sys.unraisablehook
            try:
                sys.unraisablehook = lambda _: None  # redis-py before 5.3 raises in `__del__`
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ResourceWarning)
                    self._client = self._direct = None
                    gc.collect()
            finally:
                sys.unraisablehook = hook

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            drop()
        else:  # redis-py would report to the loop that runs here
            thread = threading.Thread(target=drop, name="agent-stores-close", daemon=True)
            thread.start()
            thread.join()

    async def _settle(self, method: Any, *arguments: Any, **options: Any) -> Any:
        """The result of a method of a client, asynchronous or synchronous."""
        if not self._blocking:
            return await method(*arguments, **options)
        try:
            return method(*arguments, **options)
        except Exception:
            raise
        except BaseException:  # after Ctrl-C, an idle connection may hold the reply
            with contextlib.suppress(Exception):
                if self._is_cluster:
                    self._client.disconnect_connection_pools()
                else:
                    self._client.connection_pool.disconnect(inuse_connections=False)
            raise

    async def _run_on_node(self, commands: Sequence[Command], key: bytes) -> list[Any]:
        await self._client.initialize()
        node = self._client.get_node_from_key(key)
        batch = [aiocluster.PipelineCommand(n, *command, **_RAW) for n, command in enumerate(commands)]
        async with self._slots:
            await node.execute_pipeline(batch)
        return [command.result for command in batch]


def make_client(config: Config, *, timeout: float, blocking: bool = False, **options: Any) -> Any:
    """redis-py's client of a server; nothing connects yet.

    Args:
        config: the server.
        timeout: seconds for connecting; with `blocking`, also for a reply.
        blocking: whether to make the synchronous client.
        options: arguments of the client that win over those of the configuration.
    """
    library: Any = redis if blocking else aioredis
    retry: Any = (redis.retry if blocking else redis.asyncio.retry).Retry(NoBackoff(), 0)
    # Attempts, and the time that all of them together take, are counted by `RedisServer`.
    options = {
        "socket_timeout": timeout if blocking else None,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "retry": retry,
        "max_connections": 2**31,
        **_DRIVER,
        **_verified(config.options, config.url or ""),
        **options,
    }
    if config.kind == "cluster":
        node: Any = redis.cluster.ClusterNode if blocking else aiocluster.ClusterNode
        return library.RedisCluster(startup_nodes=[node(*host) for host in config.hosts], **options)
    if config.kind == "sentinel":
        short = {"socket_timeout": min(1.0, timeout), "socket_connect_timeout": min(1.0, timeout)}
        sentinel: Any = redis.sentinel if blocking else redis.asyncio.sentinel
        manager = sentinel.Sentinel(
            list(config.hosts),
            sentinel_kwargs={**short, "retry": retry, **_verified(config.sentinel_options)},
        )
        return manager.master_for(config.service, **options)
    if config.url is not None:
        return library.Redis.from_url(config.url, **options)
    host, port = config.hosts[0]
    return library.Redis(host=host, port=port, **options)


def _verified(options: Mapping[str, Any], url: str = "") -> Mapping[str, Any]:
    """The options with a check of the host's name; redis-py before 6 leaves it out unless it is asked for."""
    uses_tls = options.get("ssl") or url.startswith("rediss://")
    is_off = options.get("ssl_cert_reqs") in ("none", ssl.CERT_NONE) or "ssl_cert_reqs=none" in url
    return {"ssl_check_hostname": True, **options} if uses_tls and not is_off else options
