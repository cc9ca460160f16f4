"""The Redis backend's log: maps `MessageLog` onto scripts, and shares servers within a process."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_stores.connection_registry import ServerRegistry
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    NotFoundError,
    StoreClosedError,
    StoreError,
    ThreadExistsError,
)
from agent_stores.log import Entry, Record, Slice, ThreadKey, ThreadPage, ThreadStats, TimeToLive
from agent_stores.retention import check_limit, check_seconds
from agent_stores.stores.planning import check_sizes, position_conflict
from agent_stores.stores.redis import scripts
from agent_stores.stores.redis.address import Login, make_address
from agent_stores.stores.redis.entries import (
    batch_name,
    encode_record,
    encode_ttl,
    read_end,
    read_entries,
    read_entry,
    read_stats,
    restore_arguments,
)
from agent_stores.stores.redis.keys import BUCKETS, Keys, bucket_keys, decode, encode, name, thread_keys
from agent_stores.stores.redis.server import RedisServer

if TYPE_CHECKING:
    import redis.asyncio as aioredis
    from redis.credentials import CredentialProvider

_LARGEST = 500_000_000  # bytes; servers take arguments of up to 512 MiB (proto-max-bulk-len)
_CURSOR = "after:"


class RedisMessageLog:
    """Threads on a Redis or Valkey server, behind Sentinel, or in a Cluster.

    Logs of one process that name a server alike share its connections. Nothing connects before the first
    operation.

    Args:
        redis_url: the server; see `RedisChatMessageStore`.
        redis_client: a `redis.asyncio.Redis` or `RedisCluster` of the caller's instead; it is never closed.
        host: the server's name instead, to go with `port` and `ssl`.
        port: its port, 6379 by default, and 6380 with TLS.
        ssl: whether to use TLS; by default with a `credential_provider` only.
        sentinels: the sentinels' names and ports instead, to go with `service_name`.
        service_name: the name under which the sentinels know the server.
        sentinel_kwargs: arguments of redis-py's clients of the sentinels.
        username: who connects.
        password: the user's password.
        credential_provider: gives user and password, or token, at each connection.
        key_prefix: what the keys' names begin with.
        timeout: seconds that an operation may take, attempts and pauses included.
        retries: how often an operation is tried again after the connection failed: three times by default;
            with Sentinel and Cluster as often as `timeout` allows, since a failover takes seconds.
        max_connections: how many connections at most, on each event loop.
        client_options: further arguments of redis-py's client, as those that begin with ``ssl_``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
        MissingDependencyError: when redis-py is not installed.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        redis_client: aioredis.Redis | aioredis.RedisCluster | None = None,
        host: str | None = None,
        port: int | None = None,
        ssl: bool | None = None,
        sentinels: Sequence[tuple[str, int]] | None = None,
        service_name: str | None = None,
        sentinel_kwargs: Mapping[str, Any] | None = None,
        username: str | None = None,
        password: str | None = None,
        credential_provider: CredentialProvider | None = None,
        key_prefix: str = "agent",
        timeout: float = 10.0,
        retries: int | None = None,
        max_connections: int = 50,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        if check_seconds("timeout", timeout, zero=False) is None:
            raise ArgumentError("timeout is None; accepted is a positive number of seconds")
        check_limit("retries", retries)
        if not check_limit("max_connections", max_connections):
            raise ArgumentError(f"max_connections is {max_connections}; accepted is a positive number")
        if not isinstance(key_prefix, str):
            raise ArgumentTypeError(f"key_prefix is of type {type(key_prefix).__name__}; accepted is str")
        if not key_prefix or "{" in key_prefix or "}" in key_prefix:
            raise ArgumentError(f"key_prefix is {key_prefix!r}; accepted is text without braces")
        address = make_address(
            redis_url,
            redis_client=redis_client,
            login=Login(username=username, password=password, credential_provider=credential_provider),
            host=host,
            port=port,
            ssl=ssl,
            sentinels=sentinels,
            service_name=service_name,
            sentinel_kwargs=sentinel_kwargs,
            client_options=client_options or {},
        )
        self._prefix = key_prefix
        options: dict[str, Any] = {
            "timeout": float(timeout),
            "retries": retries,
            "max_connections": max_connections,
        }
        self._server, self._finalizer = _registry.acquire(
            (address.identity, repr(sorted(options.items()))),
            lambda: RedisServer(address, **options),
            user=self,
        )
        self._closed = False

    @property
    def location(self) -> str:
        """See `MessageLog.location`."""
        return f"{self._server.address.location}#{self._prefix}"

    @property
    def loop_independent(self) -> bool:
        """Whether its operations may come from any event loop, also one that runs for one call only."""
        # Providers renew tokens in the background, on the loop that asked first: that one must keep running.
        address = self._server.address
        return address.client is None and address.options.get("credential_provider") is None

    @property
    def max_message_bytes(self) -> int | None:
        """See `MessageLog.max_message_bytes`."""
        return _LARGEST

    async def append(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """See `MessageLog.append`."""
        return await self._append(
            scripts.APPEND,
            key,
            records,
            batch_id=batch_id,
            expected_position=expected_position,
            max_messages=max_messages,
            ttl=ttl,
        )

    async def read(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        last: int | None = None,
        first: int | None = None,
    ) -> Slice:
        """See `MessageLog.read`."""
        server, keys = self._use(key)
        if keys.entries in server.plain and not after and before is None and first is None:
            command = (b"LRANGE", keys.entries, 0 if last is None else -1 - last, -1)
            part = read_end(await server.ask(keys.entries, command), last)
            if part is not None:
                return part
        limits = ["" if limit is None else limit for limit in (before, last, first)]
        reply = await server.run(scripts.READ, keys[:4], [after, *limits, keys.member])
        if reply is None:
            server.note_plain(keys.entries, plain=False)
            return Slice([])
        older, at_cut, position, skip, entries, pins, is_plain = reply
        server.note_plain(keys.entries, plain=is_plain == 1)
        found = read_entries(entries, position, skip, pins)
        return Slice(found if first is None else found[:first], bool(older), bool(at_cut))

    async def get(self, key: ThreadKey, message_id: str) -> Entry | None:
        """See `MessageLog.get`."""
        server, keys = self._use(key)
        reply = await server.run(scripts.GET, keys[:2], [name(message_id)])
        return None if reply is None else read_entry(reply[0], reply[2])

    async def replace(self, key: ThreadKey, record: Record) -> bool:
        """See `MessageLog.replace`."""
        server, keys = self._use(key)
        check_sizes([record], _LARGEST)
        return bool(await server.run(scripts.REPLACE, keys[:4], [encode_record(record), keys.member]))

    async def delete(self, key: ThreadKey, message_ids: Sequence[str]) -> int:
        """See `MessageLog.delete`."""
        server, keys = self._use(key)
        names = map(name, message_ids)
        return int(await server.run(scripts.DELETE, keys[:4], [keys.member, *names], again=False))

    async def pop_last(self, key: ThreadKey) -> Entry | None:
        """See `MessageLog.pop_last`."""
        server, keys = self._use(key)
        reply = await server.run(scripts.POP_LAST, keys[:4], [keys.member], again=False)
        return None if reply is None else read_entry(reply[0], reply[1])

    async def clear(self, key: ThreadKey) -> int:
        """See `MessageLog.clear`."""
        server, keys = self._use(key)
        return int(await server.run(scripts.CLEAR, keys[:4], [keys.member], again=False))

    async def rewrite(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """See `MessageLog.rewrite`."""
        return await self._append(
            scripts.REWRITE, key, records, batch_id=batch_id, expected_position=expected_position, ttl=ttl
        )

    async def stats(self, key: ThreadKey) -> ThreadStats | None:
        """See `MessageLog.stats`."""
        server, keys = self._use(key)
        return read_stats(key, await server.run(scripts.STATS, keys[:1], []))

    async def set_ttl(self, key: ThreadKey, ttl: TimeToLive) -> bool:
        """See `MessageLog.set_ttl`."""
        server, keys = self._use(key)
        return bool(await server.run(scripts.SET_TTL, keys[:4], [*encode_ttl(ttl), keys.member]))

    async def fork(self, key: ThreadKey, new_key: ThreadKey, *, at: int | None = None) -> int:
        """See `MessageLog.fork`.

        Two steps, each atomic, since the two threads may be on different nodes: the thread is read as of one
        moment, and the copy comes into being whole.
        """
        server, keys = self._use(key)
        reply = await server.run(scripts.DUMP, keys[:2], ["" if at is None else at])
        if reply is None:
            raise NotFoundError(f"there is no thread {key.thread_id!r} to fork")
        target = thread_keys(self._prefix, new_key)
        arguments = [target.member, *restore_arguments(reply, at)]
        copied = int(await server.run(scripts.RESTORE, target[:4], arguments, again=False))
        if copied < 0:
            raise ThreadExistsError(f"there is a thread {new_key.thread_id!r} already")
        return copied

    async def delete_thread(self, key: ThreadKey) -> bool:
        """See `MessageLog.delete_thread`."""
        server, keys = self._use(key)
        return bool(await server.run(scripts.DELETE_THREAD, keys[:4], [keys.member], again=False))

    async def list_threads(
        self, tenant: str | None, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> ThreadPage:
        """See `MessageLog.list_threads`; the cursor names the last thread of the page before.

        One round trip reads the ids from the buckets, and one the heads of the threads, on each server.
        """
        if cursor is not None and not cursor.startswith(_CURSOR):
            raise ArgumentError("cursor is not one that list_threads returned")
        server = self._open()
        start = encode(prefix)
        low = b"[" + start if start else b"-"
        if cursor is not None and (last := encode(cursor[len(_CURSOR) :])) >= start:
            low = b"(" + last
        high = b"(" + start + b"\xff" if start else b"+"
        found: list[ThreadStats] = []
        indexes = [bucket_keys(self._prefix, tenant, bucket)[0] for bucket in range(BUCKETS)]
        while True:
            wanted = limit + 1 - len(found)
            command = (low, high, b"LIMIT", 0, wanted)
            lists = await server.run_each(
                None, [(index, (b"ZRANGEBYLEX", index, *command)) for index in indexes]
            )
            members = list(heapq.merge(*lists))[:wanted]
            keys = [ThreadKey(tenant, decode(member)) for member in members]
            found += await self._stats_of(server, keys)
            if len(found) > limit:
                return ThreadPage(found[:limit], _CURSOR + found[limit - 1].thread_id)
            if len(members) < wanted:
                return ThreadPage(found)
            low = b"(" + members[-1]

    async def purge_expired(self, *, limit: int = 1000) -> int:
        """See `MessageLog.purge_expired`: the server does it."""
        self._open()
        return 0

    async def aclose(self) -> None:
        """Close the connections, if no other log of this process uses them."""
        if not self._closed:
            self._closed = True
            await _registry.release(self._server, self._finalizer)

    def __repr__(self) -> str:
        return f"RedisMessageLog({self.location!r})"

    def _open(self) -> RedisServer:
        if self._closed:
            raise StoreClosedError(f"this log of {self.location} is closed")
        return self._server

    def _use(self, key: ThreadKey) -> tuple[RedisServer, Keys]:
        return self._open(), thread_keys(self._prefix, key)

    async def _append(
        self,
        script: scripts.Script,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None,
        max_messages: int | None = None,
        ttl: TimeToLive | None,
    ) -> int:
        server, keys = self._use(key)
        check_sizes(records, _LARGEST)
        reply = await server.run(
            script,
            keys[:4],
            [
                batch_name(batch_id),
                "" if expected_position is None else expected_position,
                "" if max_messages is None else max_messages,
                *encode_ttl(ttl),
                keys.member,
                *map(encode_record, records),
            ],
        )
        if isinstance(reply, int):
            return reply
        raise position_conflict(expected_position, int(reply[0]))

    async def _stats_of(self, server: RedisServer, keys: Sequence[ThreadKey]) -> list[ThreadStats]:
        """The statistics of those threads that are there; the others are taken out of the index."""
        named = [thread_keys(self._prefix, key) for key in keys]
        command = (b"EVALSHA", scripts.STATS.sha, 1)
        replies = await server.run_each(scripts.STATS, [(one.head, (*command, one.head)) for one in named])
        found = []
        for key, one, reply in zip(keys, named, replies, strict=True):
            stats = read_stats(key, reply)
            if stats is not None:
                found.append(stats)
                continue
            with contextlib.suppress(StoreError):  # as on a replica
                await server.run(scripts.FORGET, one[:4], [one.member])
        return found


_registry: ServerRegistry[RedisServer] = ServerRegistry()
