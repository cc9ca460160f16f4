"""Connections to a server: for each event loop a client of its own, on which scripts are run.

redis-py makes and keeps the connections; a script goes over one of them directly, rather than through its
`execute_command`. So it is known whether a failed command may have reached the server, no command is repeated
behind our back, and replies come as bytes whatever the client decodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, ResponseError

from agent_stores.stores.redis.address import Address
from agent_stores.stores.redis.failures import code_of

Command = tuple[Any, ...]


class Attempt:
    """One try: what the client did, for those who must know after a failure.

    Attributes:
        sent: whether the server may have been asked.
        node: the node of a Cluster to ask, where another one named it.
        asking: whether that node is to be told that the slot is on its way to it.
    """

    __slots__ = ("asking", "node", "sent")

    def __init__(self) -> None:
        self.sent = False
        self.node: Any = None
        self.asking = False


def pack(command: Command) -> bytes:
    """A command as it is sent (RESP)."""
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


async def exchange(connection: Any, commands: Sequence[Command], attempt: Attempt) -> list[Any]:
    """Send commands in one go, and read a reply to each; a server's errors are returned, not raised."""
    packed = b"".join(map(pack, commands))
    if attempt.asking:
        packed = pack((b"ASKING",)) + packed
    attempt.sent = True
    replies: list[Any] = []
    is_whole = False
    try:
        await connection.send_packed_command(packed)
        if attempt.asking:
            await connection.read_response()
        for _ in commands:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
        is_whole = True
    finally:
        if not is_whole:  # as where Ctrl-C struck between two lines: the next one would read our replies
            await connection.disconnect(nowait=True)
    return replies


class PoolClient:
    """A client of one server, or of one that sentinels name.

    Connections of our own pool are kept at hand between commands: taking one out of redis-py's pool and
    putting it back takes longer than what else there is to do for a command. Pools of others, and those that
    renew tokens on connections that come back to them, are used as redis-py means it.

    Attributes:
        loop_close_hook: what closes it with its loop.
    """

    def __init__(self, client: Any, limit: int, *, owned: bool) -> None:
        self._client = client
        self._pool = client.connection_pool
        self._owned = owned
        self._keeps = owned and self._pool.connection_kwargs.get("credential_provider") is None
        self._idle: list[Any] = []
        self._free = asyncio.Semaphore(limit)
        self.loop_close_hook: AsyncGenerator[None, None] | None = None
        self._get = self._pool.get_connection
        name = inspect.signature(self._get).parameters.get("command_name")
        if name is not None and name.default is name.empty:  # redis-py before 5.3 wants to be told
            self._get = partial(self._get, "EVALSHA")

    async def run(self, key: bytes, commands: Sequence[Command], attempt: Attempt) -> list[Any]:
        """Run commands on a connection."""
        if not self._owned and self._client.single_connection_client:
            return await self._run_alone(commands, attempt)
        async with self._free:
            connection = await self._connection()
            try:
                return await exchange(connection, commands, attempt)
            finally:
                if self._keeps:
                    self._idle.append(connection)
                else:
                    await self._pool.release(connection)

    async def _connection(self) -> Any:
        if not self._idle:
            return await self._get()
        connection = self._idle.pop()
        try:
            await _make_ready(connection)
        except BaseException:
            self._idle.append(connection)
            raise
        return connection

    async def run_on_each(self, keys: Sequence[bytes], commands: Sequence[Command]) -> list[Any]:
        """Run a command for each key, in as few round trips as there are servers."""
        return await self.run(keys[0], commands, Attempt())

    async def recover(self, attempt: Attempt, error: BaseException) -> bool:
        """Prepare the next attempt; whether it needs no pause."""
        if self._owned and code_of(error) == "READONLY":
            # The server was demoted. Where a script is what it refuses (Redis 6), redis-py does not see it.
            for connection in [*self._idle, *self._pool._available_connections]:
                await connection.disconnect(nowait=True)
        return False

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        for pool in self._pools():
            await pool.disconnect()

    def close_sockets(self) -> None:
        """Close the sockets, when their loop is gone."""
        for pool in self._pools():
            _abandon([*pool._available_connections, *pool._in_use_connections])

    async def _run_alone(self, commands: Sequence[Command], attempt: Attempt) -> list[Any]:
        """The caller's client keeps its one connection to itself: ask through it."""
        attempt.sent = True
        replies: list[Any] = []
        for command in commands:
            try:
                replies.append(await self._client.execute_command(*command, NEVER_DECODE=True))
            except ResponseError as error:
                replies.append(error)
        return replies

    def _pools(self) -> list[Any]:
        manager = getattr(self._pool, "sentinel_manager", None)
        return [self._pool, *(one.connection_pool for one in getattr(manager, "sentinels", ()))]


class ClusterClient:
    """A client of a Cluster; follows the redirections itself, so as to know what was done.

    Attributes:
        loop_close_hook: what closes it with its loop.
    """

    def __init__(self, client: Any, limit: int, *, owned: bool) -> None:
        self._client = client
        self._owned = owned
        self._free = asyncio.Semaphore(limit)
        self._refreshing = asyncio.Lock()
        self._refreshed = 0
        self.loop_close_hook: AsyncGenerator[None, None] | None = None

    async def run(self, key: bytes, commands: Sequence[Command], attempt: Attempt) -> list[Any]:
        """Run commands on the node of a key."""
        await self._client.initialize()
        node = attempt.node or self._client.get_node_from_key(key)
        async with self._free:
            return await self._run_on(node, commands, attempt)

    async def run_on_each(self, keys: Sequence[bytes], commands: Sequence[Command]) -> list[Any]:
        """Run a command for each key, in as few round trips as there are nodes."""
        await self._client.initialize()
        shares: dict[str, list[int]] = {}
        nodes = {}
        for index, key in enumerate(keys):
            node = self._client.get_node_from_key(key)
            nodes[node.name] = node
            shares.setdefault(node.name, []).append(index)
        replies: list[Any] = [None] * len(keys)
        for name, share in shares.items():
            async with self._free:
                found = await self._run_on(nodes[name], [commands[index] for index in share], Attempt())
            for index, reply in zip(share, found, strict=True):
                replies[index] = reply
        return replies

    async def recover(self, attempt: Attempt, error: BaseException) -> bool:
        """Learn where the slots are now; whether the next attempt needs no pause."""
        attempt.node, attempt.asking = None, False
        address = getattr(error, "node_addr", None)  # of a redirection
        if address is None:
            with contextlib.suppress(Exception):  # the next attempt says it
                await self._refresh()
            return False
        attempt.node = self._client.get_node(host=address[0], port=int(address[1]))
        if isinstance(error, MovedError) or attempt.node is None:
            with contextlib.suppress(Exception):
                await self._refresh()
            attempt.node = self._client.get_node(host=address[0], port=int(address[1]))
        attempt.asking = attempt.node is not None and not isinstance(error, MovedError)
        return attempt.node is not None

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        await self._client.aclose()

    def close_sockets(self) -> None:
        """Close the sockets, when their loop is gone."""
        manager = self._client.nodes_manager
        for node in (*manager.nodes_cache.values(), *manager.startup_nodes.values()):
            _abandon(node._connections)
        self._client._initialize = True  # as after closing

    async def _run_on(self, node: Any, commands: Sequence[Command], attempt: Attempt) -> list[Any]:
        connection = node.acquire_connection()
        try:
            await _make_ready(connection)
            return await exchange(connection, commands, attempt)
        finally:
            if _is_marked(connection) or self._client.nodes_manager.nodes_cache.get(node.name) is not node:
                await connection.disconnect()  # the node was replaced meanwhile
            node._free.append(connection)

    async def _refresh(self) -> None:
        """Ask for the slots; those who wait meanwhile share the answer."""
        before = self._refreshed
        async with self._refreshing:
            if self._refreshed == before:
                await self._client.nodes_manager.initialize()
                self._refreshed += 1


Client = PoolClient | ClusterClient


def make_client(address: Address, *, timeout: float, limit: int) -> Client:
    """A client for the running loop; nothing connects yet."""
    kind = ClusterClient if address.kind == "cluster" else PoolClient
    if address.client is not None:
        return kind(address.client, limit, owned=False)
    return kind(redis_client(address, timeout=timeout), limit, owned=True)


def redis_client(address: Address, *, timeout: float, **more: Any) -> Any:
    """Redis-py's client of a server, made for the running loop; nothing connects yet.

    Args:
        address: the server; not that of a client of the caller's.
        timeout: seconds that connecting may take.
        more: arguments of the client that win over those of the address.
    """
    # Attempts, and the time that all of them together take, are counted above.
    options = {
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": 2**31,
        **address.options,
        **more,
    }
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return aioredis.RedisCluster(startup_nodes=nodes, **options)
    if address.kind == "sentinel":
        sentinel_options = {
            "socket_timeout": min(1.0, timeout),
            "socket_connect_timeout": min(1.0, timeout),
            "retry": Retry(NoBackoff(), 0),
            **(address.sentinel_options or {}),
        }
        make_sentinel: Any = Sentinel  # not typed
        sentinel = make_sentinel(list(address.hosts), sentinel_kwargs=sentinel_options)
        return sentinel.master_for(address.service, **options)
    if address.url is not None:
        return aioredis.Redis.from_url(address.url, **options)
    host, port = address.hosts[0]
    return aioredis.Redis(host=host, port=port, **options)


async def _make_ready(connection: Any) -> None:
    """Connect anew where an idle connection has ended."""
    if connection.is_connected and (_is_marked(connection) or await _has_ended(connection)):
        await connection.disconnect()
    if not connection.is_connected:
        await connection.connect()


def _is_marked(connection: Any) -> bool:
    """Whether redis-py wants a connection to be made anew, as after a change of the slots."""
    check = getattr(connection, "should_reconnect", None)
    return check is not None and bool(check())


async def _has_ended(connection: Any) -> bool:
    """Whether an idle connection was closed by the server, or holds what nobody asked for.

    The stream tells it at once, as redis-py 8 asks it too; asking redis-py 7 takes longer than the command.
    """
    stream: Any = getattr(connection, "_reader", None)
    if isinstance(buffer := getattr(stream, "_buffer", None), bytearray):
        # A reset closes the transport at once, and ends the stream in the loop's next turn.
        return stream.at_eof() or bool(buffer) or connection._writer.is_closing()
    check = getattr(connection, "can_read", None) or connection.can_read_destructive
    try:
        return bool(await check())
    except Exception:
        return True


def _abandon(connections: Iterable[Any]) -> None:
    """Close sockets whose loop has ended: their transports can no longer do it, and would complain."""
    for connection in connections:
        writer = getattr(connection, "_writer", None)
        connection._writer = connection._reader = None
        transport = getattr(writer, "transport", None)
        protocol = getattr(transport, "_ssl_protocol", None)
        for one in (transport, getattr(protocol, "_transport", None)):
            if one is None:
                continue
            with contextlib.suppress(Exception):
                one._closing = one._closed = True
            sock = getattr(one, "_sock", None)
            if sock is not None:
                with contextlib.suppress(Exception):
                    sock.close()
                    one._sock = None
