"""redis-py's clients, asynchronous and synchronous, by their public interface alone. Replies are bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import redis
import redis.asyncio.cluster
from redis.exceptions import NoScriptError

from agent_stores._concurrency import settle
from agent_stores._recent import RecentDict
from agent_stores.backends.redis.config import Config, close_client, make_client
from agent_stores.backends.redis.errors import FAILURES, explain
from agent_stores.backends.redis.layout import Keys, Script
from agent_stores.connection_pool import let_go
from agent_stores.errors import NotReplicatedError
from agent_stores.inline import may_block

_pack: Any = None
with contextlib.suppress(ImportError):
    from hiredis import pack_command as _pack

Command = tuple[Any, ...]
Wait = tuple[int, int]  # for how many replicas, and for how many milliseconds
_RAW = {"NEVER_DECODE": True}
_PLAIN = 10_000  # threads that are known to be plain
_SCANNED = 10_000  # keys that one SCAN looks at, which takes a server a millisecond or two


class Client:
    """A client on one event loop; or one for any thread, of which the coroutines block instead of waiting.

    Commands of a client of ours go over connections that stay checked out of its pool, packed by hiredis,
    which saves a quarter of the time of a turn. It is not done in a Cluster, where a credential provider
    renews tokens on connections in the pool, and where instrumentation wraps `execute_command`.

    Args:
        config: the server.
        timeout: seconds for connecting; where the caller may block, also for a reply.
        limit: the largest number of connections.

    Attributes:
        slots: to be held while commands run: as many connections as the event loop may have.
        plain: the lists of threads that a read may get by one LRANGE (docs/redis.md).
        is_moved: whether a primary was demoted, or a slot is elsewhere, so that `refresh` is to be called.
    """

    def __init__(self, config: Config, *, timeout: float, limit: int) -> None:
        self._config, self._blocking, self.is_moved = config, may_block(), False
        lent = config.client if config.is_blocking == self._blocking else None
        self._is_owned = lent is None
        self._client = lent or make_client(config, timeout=timeout, blocking=self._blocking)
        self._pool: Any = getattr(self._client, "connection_pool", None)  # none in a Cluster
        self._is_direct = (
            self._is_owned
            and self._pool is not None
            and self._pool.connection_kwargs.get("credential_provider") is None
            and not hasattr(type(self._client).execute_command, "__wrapped__")
        )
        self._idle: list[Any] = []
        self.plain: RecentDict[bytes, bool] = RecentDict(_PLAIN)
        self.slots: Any = contextlib.nullcontext() if self._blocking else asyncio.Semaphore(limit)

    async def execute(self, command: Command) -> Any:
        """Run a command on the server of its key."""
        if not self._is_direct:
            return await settle(self._client.execute_command(*command, **_RAW))
        connection = (self._idle or [await settle(self._pool.get_connection())]).pop()
        try:
            if self._blocking or not connection.is_connected:
                await settle(connection.connect())  # asks the sentinels
            packed = [_pack(command)] if _pack else connection.pack_command(*command)
            sent = connection.send_packed_command(packed)
            if not self._blocking:
                await sent
            reply = connection.read_response(disable_decoding=True)
            return reply if self._blocking else await reply
        except redis.ResponseError:  # the reply
            raise
        except BaseException:  # the next command must not read this reply, and others failed likewise
            await self._disconnect(connection)
            raise
        finally:
            self._idle.append(connection)

    async def run(self, script: Script, keys: Keys, arguments: Sequence[Any], wait: Wait | None) -> Any:
        """Run a script on a thread; its arguments follow the thread's id. `wait` is as for `replicate`."""
        tail = (script.keys, *keys[: script.keys], keys.thread_id, *arguments)
        execute = self.execute if wait is None else partial(self.replicate, keys.meta, wait)
        try:
            return await execute(("EVALSHA", script.sha, *tail))
        except NoScriptError:
            return await execute(("EVAL", script.source, *tail))

    async def replicate(self, key: bytes, wait: Wait, command: Command) -> Any:
        """Run a command on the server of a key, and wait for replicas to have what it wrote.

        Raises:
            NotReplicatedError: not enough of them are known to have it.
        """
        reply, confirmed = await self.pipeline([command, ("WAIT", *wait)], key)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(confirmed, Exception):  # the primary was demoted
            raise redis.ConnectionError(str(confirmed)) from confirmed
        if int(confirmed) < wait[0]:
            raise NotReplicatedError(
                f"{confirmed} of {wait[0]} replicas of {self._config.location} had the write after "
                f"{wait[1]} ms: it is stored, but a failover may lose it"
            )
        return reply

    async def pipeline(self, commands: Sequence[Command], key: bytes | None = None, **read: Any) -> list[Any]:
        """Run commands in as few round trips as there are servers; `read` is how redis-py reads replies.

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
            pipe.execute_command(*command, **_RAW, **read)
        replies: list[Any] = await settle(pipe.execute(raise_on_error=False))
        for reply in replies if key is None else ():
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def scan(self, pattern: str, kind: str) -> list[bytes]:
        """The keys of a kind whose names match a pattern, on all servers; walks through all their keys."""
        found = self._client.scan_iter(match=pattern, count=_SCANNED, _type=kind)
        keys = list(found) if self._blocking else [key async for key in found]
        return [key.encode() if isinstance(key, str) else key for key in keys]

    async def subscribe(self, key: bytes) -> RedisSubscription | None:
        """What tells of changes of a key, by the server that has it now; None where that does not allow it.

        Client-side caching in its broadcasting mode (``CLIENT TRACKING ... BCAST``, since Redis 6) tells a
        connection of each change to keys that begin with a prefix; RESP2 delivers that as a message of a
        channel. Writers do nothing for it.
        """
        place = self._pool
        if place is None:
            await self._client.initialize()
            place = self._client.get_node_from_key(key)
        # Notifications of the server's maintenance need RESP3.
        options = {name: value for name, value in place.connection_kwargs.items() if "maint_" not in name}
        connection = place.connection_class(**{**options, "protocol": 2})

        async def ask(*command: Any) -> Any:
            await connection.send_command(*command)
            return await connection.read_response(disable_decoding=True)

        try:
            await connection.connect()
            own = await ask("CLIENT", "ID")
            await ask("CLIENT", "TRACKING", "ON", "REDIRECT", own, "BCAST", "PREFIX", key)
            await ask("SUBSCRIBE", "__redis__:invalidate")
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, redis.ResponseError):  # the server's version or permissions
                return None
            raise
        return RedisSubscription(connection, self._config)

    async def refresh(self) -> None:
        """Learn the servers' roles again; the next command tells if that failed."""
        self.is_moved = False
        with contextlib.suppress(*FAILURES):
            if self._pool is None:
                await settle(self._client.nodes_manager.initialize())
            else:
                await self._disconnect()
                await settle(self._pool.disconnect(inuse_connections=False))

    async def aclose(self) -> None:
        """Close the connections, on their loop; not those of a client that a caller lent."""
        if self._is_owned:
            await close_client(self._client)

    def close_sockets(self) -> None:
        """Close the sockets when their loop has ended, of which redis-py and asyncio would warn."""
        let_go(lambda: vars(self).update(_client=None, _pool=None, _idle=[]))

    async def _disconnect(self, *used: Any) -> None:
        connections, self._idle = self._idle, []
        for connection in (*used, *connections):
            await settle(connection.disconnect(**({} if self._blocking else {"nowait": True})))
        self._idle += connections


class RedisSubscription:
    """A `Subscription` over a connection of its own, which `Client.subscribe` makes."""

    def __init__(self, connection: Any, config: Config) -> None:
        self._connection, self._config = connection, config

    async def wait(self, seconds: float) -> None:
        """See `Subscription.wait`."""
        try:
            while await self._connection.read_response(disable_decoding=True, timeout=seconds) is not None:
                seconds = 0
        except FAILURES as error:
            raise explain(error, self._config).error from error

    async def aclose(self) -> None:
        """See `Subscription.aclose`."""
        with contextlib.suppress(*FAILURES):
            await self._connection.disconnect()
