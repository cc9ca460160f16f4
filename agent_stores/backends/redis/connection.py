"""redis-py's clients, asynchronous and synchronous, by their public interface alone. Replies are bytes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio.cluster
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.cluster
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff

from agent_stores.backends.redis.config import Config
from agent_stores.connection_pool import let_go

_pack: Any = None
with contextlib.suppress(ImportError):
    from hiredis import pack_command as _pack

Command = tuple[Any, ...]
_RAW = {"NEVER_DECODE": True}
_SCANNED = 10_000  # keys that one SCAN looks at, which takes a server a millisecond or two


class Client:
    """A client on one event loop; or one for any thread, of which the coroutines block instead of waiting.

    Commands of a client of ours go over connections that stay checked out of its pool, packed by hiredis.
    Compared with `execute_command` of redis-py 8.1, that takes 105 instead of 169 µs of the client's time for
    a turn (33 instead of 80 without an event loop), which is a quarter of the turn. It is not done in a
    Cluster, where a credential provider renews tokens on connections in the pool, and where instrumentation
    wraps `execute_command`.

    Attributes:
        slots: to be held while commands run: as many connections as the event loop may have.
    """

    def __init__(self, client: Any, limit: int, *, is_owned: bool) -> None:
        self._client, self._is_owned = client, is_owned
        self._blocking = isinstance(client, (redis.Redis, redis.RedisCluster))
        self._pool: Any = getattr(client, "connection_pool", None)  # none in a Cluster
        self._is_direct = (
            is_owned
            and self._pool is not None
            and self._pool.connection_kwargs.get("credential_provider") is None
            and not hasattr(type(client).execute_command, "__wrapped__")
        )
        self._idle: list[Any] = []
        self.slots: Any = contextlib.nullcontext() if self._blocking else asyncio.Semaphore(limit)

    async def execute(self, command: Command) -> Any:
        """Run a command on the server of its key."""
        if not self._is_direct:
            return await _settle(self._client.execute_command(*command, **_RAW))
        connection = (self._idle or [await _settle(self._pool.get_connection())]).pop()
        is_whole = False  # whether the reply was read
        try:
            if self._blocking or not connection.is_connected:
                await _settle(connection.connect())  # asks the sentinels
            packed = [_pack(command)] if _pack else connection.pack_command(*command)
            sent = connection.send_packed_command(packed)
            if not self._blocking:
                await sent
            reply = connection.read_response(disable_decoding=True)
            reply = reply if self._blocking else await reply
            is_whole = True
            return reply
        except redis.ResponseError:
            is_whole = True
            raise
        finally:
            self._idle.append(connection)
            if not is_whole:  # the next command must not read this reply, and others failed likewise
                await self._disconnect()

    async def pipeline(self, commands: Sequence[Command], key: bytes | None = None) -> list[Any]:
        """Run commands in as few round trips as there are servers.

        With a key, all go over one connection to the server of the key, and errors are among the replies.
        """
        client = self._client
        if self._pool is None and key is not None and self._blocking:
            client = client.get_redis_connection(client.get_node_from_key(key))
        elif self._pool is None and key is not None:
            await client.initialize()
            make = redis.asyncio.cluster.PipelineCommand
            batch = [make(number, *command, **_RAW) for number, command in enumerate(commands)]
            await client.get_node_from_key(key).execute_pipeline(batch)
            return [command.result for command in batch]
        pipe = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command, **_RAW)
        replies: list[Any] = await _settle(pipe.execute(raise_on_error=False))
        for reply in replies if key is None else ():
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def scan(self, pattern: str, kind: str) -> list[bytes]:
        """The keys of a kind whose names match a pattern, on all servers; walks through all their keys."""
        found = self._client.scan_iter(match=pattern, count=_SCANNED, _type=kind)
        keys = list(found) if self._blocking else [key async for key in found]
        return [key.encode() if isinstance(key, str) else key for key in keys]

    async def refresh(self) -> None:
        """Learn the servers' roles again."""
        if self._pool is None:
            await _settle(self._client.nodes_manager.initialize())
        else:
            await self._disconnect()
            await _settle(self._pool.disconnect(inuse_connections=False))

    async def aclose(self) -> None:
        """Close the connections, on their loop; not those of a client that a caller lent."""
        if self._is_owned:
            await close_client(self._client)

    def close_sockets(self) -> None:
        """Close the sockets when their loop has ended, of which redis-py and asyncio would warn."""
        let_go(lambda: vars(self).update(_client=None, _pool=None, _idle=[]))

    async def _disconnect(self) -> None:
        connections, self._idle = self._idle, []
        for connection in connections:
            await _settle(connection.disconnect(**({} if self._blocking else {"nowait": True})))
        self._idle += connections


def make_client(config: Config, *, timeout: float, blocking: bool = False, **options: Any) -> Any:
    """redis-py's client of a server; nothing connects yet.

    Args:
        config: the server.
        timeout: seconds for connecting; with `blocking`, also for a reply.
        blocking: whether to make the synchronous client.
        options: arguments of the client that win over those of the configuration.
    """
    library: Any = redis if blocking else redis.asyncio
    # Attempts, and the time that all of them together take, are counted by `RedisServer`.
    common = {"retry": library.retry.Retry(NoBackoff(), 0), "socket_connect_timeout": timeout}
    given = {
        "socket_timeout": timeout if blocking else None,
        "socket_keepalive": True,
        "max_connections": 2**31,
        **common,
        **_verified(config.options),
        **options,
    }
    if config.kind == "cluster":
        nodes = [library.cluster.ClusterNode(*host) for host in config.hosts]
        return library.RedisCluster(startup_nodes=nodes, **given)
    if config.kind == "sentinel":
        short = {name: min(1.0, timeout) for name in ("socket_timeout", "socket_connect_timeout")}
        own = {**common, **short, **_verified(config.sentinel_options)}
        sentinel = library.sentinel.Sentinel([*config.hosts], sentinel_kwargs=own)
        return sentinel.master_for(config.service, **given)
    for host, port in config.hosts:
        given |= {"host": host, "port": port}
    return library.Redis(**given)


async def close_client(client: Any) -> None:
    """Close redis-py's client, and those of its sentinels, on their loop."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for each in (client, *getattr(manager, "sentinels", ())):
        await _settle(each.aclose() if hasattr(each, "aclose") else each.close())


async def _settle(result: Any) -> Any:
    """What a method of a client returns, which is to be awaited for an asynchronous one."""
    return await result if inspect.isawaitable(result) else result


def _verified(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with a check of the host's name; redis-py before 6 leaves it out unless it is asked for."""
    is_checked = options.get("ssl") and options.get("ssl_cert_reqs") not in ("none", ssl.CERT_NONE)
    return {**({"ssl_check_hostname": True} if is_checked else {}), **options}
