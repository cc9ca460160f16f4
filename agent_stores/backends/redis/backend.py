"""`RedisBackend`: the contract on Redis and Valkey. The scripts in ``lua/`` do the work."""

from __future__ import annotations

import contextlib
import json
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from msgspec.structs import replace

from agent_stores.attempts import Attempts, FailedAttempt, time_limit
from agent_stores.backend import (
    Change,
    Limits,
    ListCursor,
    ListedThread,
    Row,
    RowRange,
    Snapshot,
    ThreadKey,
    ThreadQuery,
    Version,
    VersionConflict,
)
from agent_stores.backends.redis import layout
from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.connection import Client, RedisSubscription
from agent_stores.backends.redis.errors import FAILURES, explain, is_moved
from agent_stores.capabilities import Append, tenants_after
from agent_stores.connection_pool import LoopClients, ServerRegistry
from agent_stores.errors import NotReplicatedError, OutcomeUnknownError, StoreError
from agent_stores.thread_updates import position_conflict

T = TypeVar("T")

_position = attrgetter("position")


class RedisBackend:
    """Threads on a server; backends of one process that name it alike share its connections.

    Args:
        config: the server.
        key_prefix: the beginning of all keys.
        wait_replicas: how many replicas must have a write before it is acknowledged.
        wait_timeout: seconds to wait for them.
        timeout: seconds that an operation may take, attempts and pauses included.
        retries: the number of attempts after the first; by default 3 on a single server, and elsewhere as
            many as the time allows, since a failover takes seconds.
        max_connections: the largest number of connections on each event loop.
    """

    limits = Limits(body_bytes=500_000_000)  # servers take 512 MiB for an argument (proto-max-bulk-len)

    def __init__(
        self,
        config: Config,
        *,
        key_prefix: str = "agent",
        wait_replicas: int = 0,
        wait_timeout: float = 1.0,
        timeout: float,
        retries: int | None,
        max_connections: int,
    ) -> None:
        self._config, self._prefix, self.location = config, key_prefix, f"{config.location}#{key_prefix}"
        self._wait = (wait_replicas, max(1, round(wait_timeout * 1000))) if wait_replicas else None
        default = 3 if config.kind == "single" else math.inf
        most = 1 + (default if retries is None else retries)
        self._attempts = Attempts(config.location, timeout=timeout, limit=most, first_pause=0.02)
        make = partial(Client, config, timeout=timeout, limit=max_connections)
        self.supports_inline = config.client is None or config.is_blocking
        self._clients, self._finalizer = _registry.acquire(
            (config.identity, timeout, max_connections),
            lambda: LoopClients(make, are_ours=self.supports_inline, timeout=timeout),
            user=self,
        )
        # Credential providers renew tokens in the background, on the loop that asked first.
        self.loop_independent = self.supports_inline and "credential_provider" not in config.options

    async def append(self, key: ThreadKey, call: Append) -> int | None:
        """See `Appender.append`."""
        rows, ttl, (_, size, tokens) = call.rows, call.ttl, call.totals()
        ids = [layout.quote_id(row.message_id) for row in rows]
        if len(set(ids)) < len(ids):
            return None
        seconds, refresh = (None, "") if ttl is None else (ttl.seconds, ttl.refresh)
        arguments = [
            *(layout.quote_name(call.request_id), *_texts(call.expected_position, call.max_messages)),
            *("" if seconds is None else seconds, refresh, *_texts(call.create, self._wait is not None)),
            *(call.now_us, "".join([str(layout.flags_of(row)) for row in rows])),
            *(size, tokens, rows[0].created_us, rows[-1].created_us),
            *(*ids, *map(layout.encode_row, rows)),
        ]
        reply = await self._run(layout.APPEND, key, arguments)
        if isinstance(reply, list):
            raise position_conflict(call.expected_position, int(reply[0]))
        return None if reply is None else int(reply)

    async def latest(self, key: ThreadKey, limit: int | None, *, now_us: int, ids: bool = False) -> list[Row]:
        """See `LatestReader.latest`: one LRANGE where the list alone is known to show all, else a script."""
        messages, plain = layout.thread_keys(self._prefix, key).messages, self._clients.get().plain
        if messages in plain and limit != 0:
            command = ("LRANGE", messages, 0 if limit is None else -limit, -1)
            entries = await self._call(lambda client: client.execute(command))
            if entries and entries[-1][0] & 4:  # the list is still all there is
                return layout.decode_latest(entries, ids=ids)
        reply = await self._run(layout.LATEST, key, _texts(limit))
        entries, pinned, is_plain = reply or ([], [], 0)
        if is_plain and entries:
            plain[messages] = True
        else:
            plain.discard(messages)
        rows = layout.decode_latest(entries, ids=ids)
        return sorted([*map(layout.decode_row, pinned), *rows], key=_position) if pinned else rows

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        reply = await self._run(layout.LOAD, key)
        return None if reply is None else Snapshot(*layout.decode_thread(key, *reply))

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """See `Backend.rows`."""
        arguments = _texts(wanted.after, wanted.before, wanted.limit, wanted.newest, wanted.bodies)
        reply = await self._run(layout.READ, key, arguments)
        if reply is None:
            return None
        fields, left, entries, pinned = reply
        rows = [layout.decode_row(entry, bodies=wanted.bodies) for entry in (*entries, *pinned)]
        if pinned:
            last = math.inf if wanted.before is None else wanted.before
            rows = sorted([row for row in rows if wanted.after < row.position < last], key=_position)
            rows = rows if wanted.newest else rows[: wanted.limit]
        return Snapshot(*layout.decode_thread(key, fields, left), rows)

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        if not message_ids:
            return {}
        reply = await self._run(layout.READ, key, [0, "", "", "", "", *map(layout.quote_id, message_ids)])
        rows = [layout.decode_row(entry, bodies=False) for entry in reply[2]] if reply else []
        return {row.message_id: row for row in rows}

    async def commit(self, key: ThreadKey, change: Change) -> Version | None:
        """See `Backend.commit`. It is not repeated: without a reply, its outcome is unknown."""
        thread, expected = change.thread, change.expected
        assert expected is None or isinstance(expected, layout.RedisVersion)  # noqa: S101
        known = expected.number if expected else b""
        if thread is None:
            if not await self.remove(key, known):
                raise VersionConflict
            return None
        left: str | int = "keep"
        if expected is None or thread.expires_us != expected.expires_us:
            expires_us = thread.expires_us
            left = "" if expires_us is None else max(1, (expires_us - time.time_ns() // 1000) // 1000)
        number = b"%d.%d" % (thread.updated_us, random.getrandbits(63))
        delete = sorted(change.delete, key=_position)
        lists = [
            *layout.encode_thread(thread),
            [layout.quote_id(row.message_id).decode() for row in delete],
            [row.position for row in delete],
        ]
        rows = [
            b"%d%d%b" % (layout.flags_of(row), row.position, layout.encode_row(row))
            for row in sorted(change.put, key=_position)
        ]
        arguments = [known, number, left, *_texts(change.clear), json.dumps(lists), *rows]
        if not await self._run(layout.COMMIT, key, arguments):
            raise VersionConflict
        return layout.RedisVersion(number, thread.expires_us)

    async def remove(self, key: ThreadKey, version: bytes = b"*") -> bool:
        """Delete a thread in any condition, also one that is damaged; returns whether there was one.

        With a version, only if the thread has it; with an empty one, only if the thread has no keys any more.
        """
        return bool(await self._run(layout.DELETE, key, [version]))

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        """See `Backend.threads`; one round trip to each server reads ids, and one the threads."""
        found: list[ListedThread] = []
        if query.expired_before is not None:
            return found  # the server removes expired threads
        while missing := query.limit - len(found):
            page = await self._page(query, missing)
            named = [at for at in page if at.thread_id.startswith(query.prefix)]
            found += await self._listed(query.tenant, named)
            if len(page) < missing:
                break
            query = replace(query, after=page[-1])
        return found

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """See `TenantLister.tenants`; walks through the names of all keys of the servers."""
        found: list[str | None] = []
        pattern = layout.index_pattern(self._prefix)
        keys = await self._call(lambda client: client.scan(pattern, "zset"))
        for tenant in tenants_after(layout.tenants_of(keys), after):
            # One that has only expired threads is none.
            if len(found) < limit and await self.threads(ThreadQuery(tenant, limit=1)):
                found.append(tenant)
        return found

    async def subscribe(self, key: ThreadKey) -> RedisSubscription | None:
        """See `ChangeNotifier.subscribe`."""
        return await self._call(lambda client: client.subscribe(layout.thread_keys(self._prefix, key).meta))

    async def aclose(self) -> None:
        """Close the connections, if no other backend of this process uses them."""
        await _registry.release(self._clients, self._finalizer)

    # -- internals ------------------------------------------------------------------------------------

    def _call(
        self, attempt: Callable[[Client], Awaitable[T]], *, write: bool = False, repeatable: bool = True
    ) -> Awaitable[T]:
        """Do what `attempt` does with a client, as `Attempts.run` does."""

        async def attempt_once(deadline: float) -> T:
            client = self._clients.get()
            async with time_limit(deadline), client.slots:
                if client.is_moved:
                    await client.refresh()
                return await attempt(client)

        return self._attempts.run(attempt_once, self._explain, write=write, repeatable=repeatable)

    def _explain(self, error: Exception) -> FailedAttempt | None:
        if not isinstance(error, FAILURES):
            return None
        self._clients.get().is_moved |= is_moved(error, self._config)
        return explain(error, self._config)

    async def _run(self, script: layout.Script, key: ThreadKey, arguments: Sequence[Any] = ()) -> Any:
        """Run a script, and wait for replicas if it writes; repeated as `Script.repeats` allows."""
        keys, wait = layout.thread_keys(self._prefix, key), self._wait if script.writes else None
        try:
            return await self._call(
                lambda client: client.run(script, keys, arguments, wait),
                write=script.writes,
                repeatable=script.repeats,
            )
        except OutcomeUnknownError as error:
            if wait is None or isinstance(error, NotReplicatedError):
                raise
            raise NotReplicatedError(str(error)) from error

    async def _page(self, query: ThreadQuery, limit: int, extra: int = 2) -> list[ListCursor]:
        """At most `limit` threads after a place in a listing, in order; by id, they have no times."""
        after, by_id = query.after or ListCursor(2**63, ""), query.order == "id"
        last, size = after.thread_id.encode(*layout.UTF8), limit + extra
        bounds: tuple[Any, ...] = (after.updated_us, "-inf", "WITHSCORES")
        kind, command = "recent", "ZREVRANGEBYSCORE"
        if by_id:
            prefix = query.prefix.encode(*layout.UTF8)
            low = b"(" + last if last >= prefix else b"[" + prefix
            kind, command, bounds = "index", "ZRANGEBYLEX", (low, b"(" + prefix + b"\xff")
        keys = [layout.shard_key(self._prefix, query.tenant, shard, kind) for shard in range(layout.SHARDS)]
        commands = [(command, key, *bounds, "LIMIT", 0, size) for key in keys]
        replies = await self._call(lambda client: client.pipeline(commands, withscores=not by_id))
        items = [(0, item) if by_id else (-int(item[1]), item[0]) for reply in replies for item in reply]
        # Servers give the last id of a time first: of the time of its last item, a full page may lack ids.
        ends = [-int(reply[-1][1]) for reply in replies if len(reply) == size and not by_id]
        end = min(ends, default=1)
        found = [item for item in items if item > (-after.updated_us, last) and item[0] < end]
        if len(found) < limit and ends:
            return await self._page(query, limit, 4 * size)
        return [ListCursor(-time_us, name.decode(*layout.UTF8)) for time_us, name in sorted(found)[:limit]]

    async def _listed(self, tenant: str | None, page: Sequence[ListCursor]) -> list[ListedThread]:
        """The threads of a page that exist; the others are removed from their shards."""
        names = [ThreadKey(tenant, at.thread_id) for at in page]
        metas = [layout.thread_keys(self._prefix, name).meta for name in names]
        commands = [each for meta in metas for each in (("HMGET", meta, *layout.FIELDS), ("PTTL", meta))]
        replies, found = await self._call(lambda client: client.pipeline(commands)), []
        for at, name, fields, left in zip(page, names, replies[::2], replies[1::2], strict=True):
            if fields[0] is None:
                with contextlib.suppress(StoreError):  # as on a replica
                    await self.remove(name, b"")
                continue
            thread, version = layout.decode_thread(name, fields, left)
            if at.updated_us:  # so that the next page follows the place in the listing
                thread = replace(thread, updated_us=at.updated_us)
            found.append(ListedThread(name, thread, version))
        return found


def _texts(*values: int | None) -> list[int | str]:
    return ["" if value is None or value is False else int(value) for value in values]


_registry: ServerRegistry[LoopClients[Client]] = ServerRegistry()
