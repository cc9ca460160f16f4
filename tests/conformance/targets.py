"""Every backend of the conformance suite: one function each, which opens a `Target`.

A `Setup` says what the log adds to the backend: encryption, attachments, both or nothing.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from agent_stores import MessageLog
from agent_stores.azure import AzureTableMessageLog
from agent_stores.backend import Backend, Change, Limits, RowRange, ThreadKey
from agent_stores.backends.memory import MemoryBackend
from agent_stores.backends.redis.backend import RedisBackend
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.backends.tables.table import TableLimits
from agent_stores.database import DatabaseMessageLog
from agent_stores.dynamodb import DynamoDBMessageLog
from agent_stores.redis import RedisMessageLog
from agent_stores.testing.conformance import Clock, Target
from agent_stores.wrapped_backend import WrappedBackend
from tests.conformance.opening import Opener, open_folder
from tests.tables.memory_table import MemoryTable


@dataclass
class Setup:
    """What a target is made from.

    Attributes:
        server: the running server of a fixture's name (see `tests.servers.fixtures`).
        folder: of the test's own.
        variant: one of `VARIANTS`.
    """

    server: Callable[[str], Any]
    folder: Path
    variant: str = "plain"
    clock: Clock = field(default_factory=Clock)

    def opener(self, make: Callable[..., MessageLog], *arguments: Any, **options: Any) -> Opener:
        """See `Opener`."""
        folder = str(self.folder / "attachments") if "attached" in self.variant else None
        return Opener(make, arguments, options, "encrypted" in self.variant, folder)


VARIANTS = ("plain", "encrypted", "attached", "attached-encrypted")
"""What a log adds to its backend."""


def memory(setup: Setup, limits: Limits | None = None) -> Target:
    """The memory of this process: one client, as closing it forgets all."""
    log = setup.opener(MessageLog, MemoryBackend(limits), clock=setup.clock)()
    return Target("memory", lambda: log, corrupt=partial(damage, log), advance=setup.clock.advance)


def memory_limited(setup: Setup) -> Target:
    """The same with small commits, so that large calls take several of them, as on table services."""
    return memory(setup, Limits(commit_rows=4, commit_bytes=3_000_000))


def table(setup: Setup, **options: Any) -> Target:
    """A table in memory."""
    held = MemoryTable(**options)
    opener = setup.opener(open_table, held, setup.clock)  # each a client with a memory of its own
    return Target("table", opener, corrupt=damager(opener), advance=setup.clock.advance)


def table_small(setup: Setup) -> Target:
    """A table in memory with narrow limits, and short pages."""
    limits = TableLimits(
        operations=12,
        transaction_bytes=400_000,
        item_bytes=120_000,
        body_bytes=16 * 1024 * 1024,
    )
    return table(setup, limits=limits, page=7)


def folder(setup: Setup) -> Target:
    """The sample of a backend, `samples/folder_backend.py`."""
    return served("folder", setup, setup.opener(open_folder, str(setup.folder / "threads")), dict)


def sqlite(setup: Setup) -> Target:
    """A file."""
    return database("sqlite", setup, str(setup.folder / "chat.db"))


def postgresql(setup: Setup) -> Target:
    """PostgreSQL, with psycopg."""
    return database("postgresql", setup, setup.server("postgres_server").url)


def asyncpg(setup: Setup) -> Target:
    """PostgreSQL, with asyncpg."""
    url = setup.server("postgres_server").url.replace("postgresql:", "postgresql+asyncpg:")
    return database("asyncpg", setup, url)


def mariadb(setup: Setup) -> Target:
    """MariaDB."""
    return database("mariadb", setup, setup.server("mariadb_server").url)


def valkey9(setup: Setup) -> Target:
    """Valkey 9."""
    return redis("valkey9", setup, setup.server("valkey_server").url)


def redis62(setup: Setup) -> Target:
    """Redis 6.2."""
    return redis("redis62", setup, setup.server("redis62_server").url)


def sentinel(setup: Setup) -> Target:
    """Valkey 9, a primary with a replica under a sentinel."""
    group = setup.server("redis_sentinel")
    sentinels = ",".join(f"{host}:{port}" for host, port in group.sentinels)
    url = f"redis+sentinel://:{group.password}@{sentinels}/{group.service_name}/0"
    return redis("sentinel", setup, url)


def cluster(setup: Setup) -> Target:
    """Valkey 9, a cluster of three primaries."""
    url = setup.server("redis_cluster").url.replace("redis://", "redis+cluster://")
    return redis("cluster", setup, url)


def fakeredis(setup: Setup) -> Target:
    """The package fakeredis."""
    library = pytest.importorskip("fakeredis")
    pytest.importorskip("lupa")
    server = library.FakeServer()

    def open_fake() -> MessageLog:
        return setup.opener(
            RedisMessageLog, redis_client=library.FakeAsyncRedis(server=server, host="fake")
        )()

    return Target("fakeredis", open_fake, corrupt=damager(open_fake), advance=passer(open_fake))


def azurite(setup: Setup) -> Target:
    """Azurite's table service; a table of the test's own, as it looks through all of one for each query."""
    server = setup.server("azurite_server")
    opener = setup.opener(
        AzureTableMessageLog, server.connection_string, table_name=f"conformance{uuid.uuid4().hex[:12]}"
    )
    return served("azurite", setup, opener, lambda: {"client_options": {"user_agent": uuid.uuid4().hex}})


def dynamodb(setup: Setup) -> Target:
    """moto's DynamoDB."""
    import agent_stores.backends.tables.dynamodb  # noqa: F401 - the SDK reads files with its import

    server, openings = setup.server("dynamodb_server"), itertools.count(1)
    opener = setup.opener(
        DynamoDBMessageLog,
        f"conformance-{uuid.uuid4().hex[:12]}",
        region_name=server.region,
        endpoint_url=server.endpoint,
    )
    return served("dynamodb", setup, opener, lambda: {"timeout": 10 + next(openings) / 1000})


def served(name: str, setup: Setup, opener: Opener, apart: Callable[[], dict[str, Any]]) -> Target:
    """A target that other processes reach.

    Each opening is a client of its own, as on another host: `apart` returns options that are different each
    time, which keeps their connections apart.
    """

    def open_log() -> MessageLog:
        return opener(**apart(), clock=setup.clock)

    return Target(name, open_log, partial(opener, timeout=60), damager(open_log), setup.clock.advance)


def database(name: str, setup: Setup, url: str) -> Target:
    """A target in an SQL database."""
    opener = setup.opener(DatabaseMessageLog, url)
    return served(name, setup, opener, lambda: {"engine_options": {"logging_name": uuid.uuid4().hex}})


def redis(name: str, setup: Setup, url: str) -> Target:
    """A target on Redis or Valkey, whose time is the server's."""
    opener = setup.opener(RedisMessageLog, url)

    def open_log() -> MessageLog:
        return opener(client_options={"client_name": uuid.uuid4().hex})

    return Target(name, open_log, partial(opener, timeout=60), damager(open_log), passer(open_log))


def open_table(held: MemoryTable, clock: Clock, **options: Any) -> MessageLog:
    """A log on a table in memory."""
    return MessageLog(TablesBackend(held, clock=clock), clock=clock, **options)


def damager(open_log: Callable[[], MessageLog]) -> Callable[[ThreadKey, int], Awaitable[None]]:
    """What damages a stored message; see `damage`."""

    async def corrupt(key: ThreadKey, position: int) -> None:
        log = open_log()
        await damage(log, key, position)
        await log.aclose()

    return corrupt


async def damage(log: MessageLog, key: ThreadKey, position: int) -> None:
    """Damage the body of a message below encryption and attachments."""
    backend = innermost(log.backend)
    found = await backend.rows(key, RowRange(after=position - 1, before=position + 1))
    assert found is not None
    put = [replace(row, body=b'{"role": ') for row in found.rows]
    await backend.commit(key, Change(found.thread, found.version, put))


def innermost(backend: Backend) -> Backend:
    """The database below encryption and attachments."""
    while isinstance(backend, WrappedBackend):
        backend = backend.inner
    return backend


def passer(open_log: Callable[[], MessageLog]) -> Callable[[float], Awaitable[None]]:
    """What lets time pass on a Redis server: everything that expires there, expires that much earlier.

    tests/integration/test_redis_faults.py waits for the server's own clock instead.
    """

    async def advance(seconds: float) -> None:
        log = open_log()
        client = cast("RedisBackend", innermost(log.backend))._clients.get()
        passed = round(seconds * 1000)
        keys = [key for kind in ("hash", "list", "zset") for key in await client.scan("*", kind)]
        left = await client.pipeline([("PTTL", key) for key in keys])
        timed = {key: int(each) for key, each in zip(keys, left, strict=True) if int(each) >= 0}
        metas = [key for key in timed if b"}:meta:" in key]
        states = await client.pipeline([("HGET", key, "state") for key in metas])
        commands: list[tuple[Any, ...]] = []
        for key, state in zip(metas, states, strict=True):
            if state is None:  # expired meanwhile
                continue
            *others, expires, listed_until = state.split(b",")
            times = (b"%d" % (int(each) - passed) for each in (expires, listed_until))
            commands.append(("HSET", key, "state", b",".join([*others, *times])))
        commands += [("PEXPIRE", key, each - passed) for key, each in timed.items()]
        await client.pipeline(commands)
        await log.aclose()

    return advance


BACKENDS: Mapping[str, Callable[[Setup], Target]] = {
    "memory": memory,
    "memory-limited": memory_limited,
    "table": table,
    "table-small": table_small,
    "folder": folder,
    "sqlite": sqlite,
    "postgresql": postgresql,
    "asyncpg": asyncpg,
    "mariadb": mariadb,
    "valkey9": valkey9,
    "redis62": redis62,
    "sentinel": sentinel,
    "cluster": cluster,
    "fakeredis": fakeredis,
    "azurite": azurite,
    "dynamodb": dynamodb,
}
"""What opens the target of each backend."""
