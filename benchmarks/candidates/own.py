"""agent-stores, and the lower bounds: the same work without any of what a store promises."""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import msgspec
import redis
import redis.asyncio as aioredis

from agent_stores import ChatMessage, DatabaseChatMessageStore, KeyRing
from agent_stores.inline import run_inline
from agent_stores.message_format import encode_message
from agent_stores.store import ChatMessageStore
from agent_stores.sync import SyncChatMessageStore
from candidates.base import LAST, PRAGMAS, SYNCHRONOUS, Candidate, messages, sqlite_path

_DAY = 86_400.0
_AT_ONCE = 500
_KEY = os.urandom(32)

Turn = list[dict[str, str]]


def _plain(question: str, answer: str) -> Turn:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


class _Raw(Candidate):
    """Plain dicts, as JSON."""

    thread = ""

    def turn(self, question: str, answer: str) -> Turn:
        return _plain(question, answer)

    def document(self, turn: Turn) -> list[str | bytes]:
        return [json.dumps(message) for message in turn]

    def _rows(self) -> list[str]:
        return [json.dumps({"role": role, "content": text}) for role, text in messages(self.length)]


class RawRedis(_Raw):
    """One MULTI of RPUSH and LTRIM; LRANGE and json.loads."""

    client: aioredis.Redis | None = None

    async def open(self, thread: str) -> None:
        self.thread = f"raw:{thread}"
        if self.client is None:
            self.client = aioredis.Redis.from_url(self.url)

    async def fill(self) -> None:
        assert self.client is not None
        rows = self._rows()
        for first in range(0, len(rows), _AT_ONCE):
            await self.client.rpush(self.thread, *rows[first : first + _AT_ONCE])

    async def add(self, turn: Turn) -> None:
        assert self.client is not None
        async with self.client.pipeline(transaction=True) as pipe:
            pipe.rpush(self.thread, *[json.dumps(message) for message in turn])
            pipe.ltrim(self.thread, -self.length, -1)
            await pipe.execute()

    async def read(self) -> list[Any]:
        assert self.client is not None
        return [json.loads(row) for row in await self.client.lrange(self.thread, -LAST, -1)]

    async def read_all(self) -> list[Any]:
        assert self.client is not None
        return [json.loads(row) for row in await self.client.lrange(self.thread, 0, -1)]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, str])


class RawRedisMsgspec(RawRedis):
    """The same with msgspec in the place of json."""

    async def add(self, turn: Turn) -> None:
        assert self.client is not None
        async with self.client.pipeline(transaction=True) as pipe:
            pipe.rpush(self.thread, *[_encoder.encode(message) for message in turn])
            pipe.ltrim(self.thread, -self.length, -1)
            await pipe.execute()

    async def read(self) -> list[Any]:
        assert self.client is not None
        return [_decoder.decode(row) for row in await self.client.lrange(self.thread, -LAST, -1)]

    async def read_all(self) -> list[Any]:
        assert self.client is not None
        return [_decoder.decode(row) for row in await self.client.lrange(self.thread, 0, -1)]


class RawRedisSync(_Raw):
    """The lower bound with redis-py's synchronous client."""

    is_sync = True
    client: redis.Redis | None = None

    async def open(self, thread: str) -> None:
        self.thread = f"raw-sync:{thread}"
        if self.client is None:
            self.client = redis.Redis.from_url(self.url)

    async def fill(self) -> None:
        assert self.client is not None
        rows = self._rows()
        for first in range(0, len(rows), _AT_ONCE):
            self.client.rpush(self.thread, *rows[first : first + _AT_ONCE])

    def add(self, turn: Turn) -> None:
        assert self.client is not None
        with self.client.pipeline(transaction=True) as pipe:
            pipe.rpush(self.thread, *[json.dumps(message) for message in turn])
            pipe.ltrim(self.thread, -self.length, -1)
            pipe.execute()

    def read(self) -> list[Any]:
        assert self.client is not None
        return [json.loads(row) for row in self.client.lrange(self.thread, -LAST, -1)]

    def read_all(self) -> list[Any]:
        assert self.client is not None
        return [json.loads(row) for row in self.client.lrange(self.thread, 0, -1)]


class RawSqlite(_Raw):
    """Two INSERTs in a transaction, and one SELECT, by sqlite3 on one worker thread."""

    connection: sqlite3.Connection

    def __init__(self, url: str, length: int) -> None:
        super().__init__(url, length)
        self._executor = ThreadPoolExecutor(1)

    async def open(self, thread: str) -> None:
        if not self.thread:
            await self._run(self._connect)
        self.thread = thread

    async def fill(self) -> None:
        await self._run(self._insert, self._rows())

    async def add(self, turn: Turn) -> None:
        await self._run(self._insert, [json.dumps(message) for message in turn])

    async def read(self) -> Any:
        return await self._run(self._select, LAST)

    async def read_all(self) -> Any:
        return await self._run(self._select, -1)

    def synchronous(self) -> str:
        mode = self._executor.submit(self.connection.execute, "PRAGMA synchronous").result()
        return SYNCHRONOUS[self._executor.submit(mode.fetchone).result()[0]]

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _connect(self) -> None:
        path = sqlite_path(self.url, f"{type(self).__name__}-{os.getpid()}")
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in PRAGMAS:
            self.connection.execute(pragma)
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS messages "
            "(id INTEGER PRIMARY KEY, thread TEXT NOT NULL, body TEXT NOT NULL)"
        )
        self.connection.execute("CREATE INDEX IF NOT EXISTS ix_messages ON messages (thread, id)")

    def _insert(self, rows: list[str]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "INSERT INTO messages (thread, body) VALUES (?, ?)", [(self.thread, row) for row in rows]
        )
        self.connection.execute("COMMIT")

    def _select(self, limit: int) -> list[Any]:
        rows = self.connection.execute(
            "SELECT body FROM messages WHERE thread = ? ORDER BY id DESC LIMIT ?", (self.thread, limit)
        ).fetchall()
        return [json.loads(row[0]) for row in reversed(rows)]


class RawSqliteSync(RawSqlite):
    """The same without the worker thread."""

    is_sync = True

    def add(self, turn: Turn) -> None:  # type: ignore[override]
        self._insert([json.dumps(message) for message in turn])

    def read(self) -> Any:  # type: ignore[override]
        return self._select(LAST)

    def read_all(self) -> Any:  # type: ignore[override]
        return self._select(-1)


_RECENT = 32  # calls that a thread remembers, so that a retry adds nothing
_TABLES = (
    "CREATE TABLE IF NOT EXISTS threads (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
    "messages INTEGER NOT NULL, bytes INTEGER NOT NULL, updated INTEGER NOT NULL, recent TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS thread_messages (id INTEGER PRIMARY KEY, thread INTEGER NOT NULL, "
    "message_id TEXT NOT NULL, created INTEGER NOT NULL, body TEXT NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS ix_thread_messages ON thread_messages (thread, message_id)",
)


class ContractSqlite(RawSqlite):
    """RawSqlite with positions, counters, ids of messages and of the last calls, in as few statements."""

    def _connect(self) -> None:
        super()._connect()
        for table in _TABLES:
            self.connection.execute(table)

    def _insert(self, rows: list[str]) -> None:
        execute, request, now = self.connection.execute, os.urandom(12).hex(), time.time_ns()
        execute("BEGIN IMMEDIATE")
        head = "SELECT id, messages, recent FROM threads WHERE name = ?"
        found = execute(head, (self.thread,)).fetchone()
        if found is None:
            execute("INSERT INTO threads VALUES (NULL, ?, 0, 0, 0, '')", (self.thread,))
            found = execute(head, (self.thread,)).fetchone()
        number, count, recent = found
        calls = recent.split()
        if request not in calls:
            self.connection.executemany(
                "INSERT INTO thread_messages VALUES (?, ?, ?, ?, ?)",
                [
                    (number << 28 | count + n, number, f"{now}{os.urandom(8).hex()}", now, row)
                    for n, row in enumerate(rows, 1)
                ],
            )
            recent = " ".join([*calls[1 - _RECENT :], request])
            execute(
                "UPDATE threads SET messages = ?, bytes = bytes + ?, updated = ?, recent = ? WHERE id = ?",
                (count + len(rows), sum(map(len, rows)), now, recent, number),
            )
        execute("COMMIT")

    def _select(self, limit: int) -> list[Any]:
        rows = self.connection.execute(
            "SELECT m.body FROM threads t, thread_messages m WHERE t.name = ? "
            "AND m.id > t.id << 28 AND m.id < t.id + 1 << 28 ORDER BY m.id DESC LIMIT ?",
            (self.thread, limit),
        ).fetchall()
        return [json.loads(row[0]) for row in reversed(rows)]


class ContractSqliteSync(RawSqliteSync, ContractSqlite):
    """The same without the worker thread."""


class RawPostgres(_Raw):
    """Two INSERTs in a transaction, and one SELECT, by psycopg's AsyncConnection."""

    connection: Any = None

    async def open(self, thread: str) -> None:
        if self.connection is None:
            import psycopg

            self.connection = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
            await self.connection.execute(
                "CREATE TABLE IF NOT EXISTS raw_messages "
                "(id BIGSERIAL PRIMARY KEY, thread TEXT NOT NULL, body TEXT NOT NULL)"
            )
            await self.connection.execute(
                "CREATE INDEX IF NOT EXISTS ix_raw_messages ON raw_messages (thread, id)"
            )
        self.thread = thread

    async def fill(self) -> None:
        await self._insert(self._rows())
        await self.connection.execute("ANALYZE raw_messages")

    async def add(self, turn: Turn) -> None:
        insert = "INSERT INTO raw_messages (thread, body) VALUES (%s, %s)"
        async with self.connection.transaction():
            for message in turn:
                await self.connection.execute(insert, (self.thread, json.dumps(message)))

    async def read(self) -> list[Any]:
        cursor = await self.connection.execute(
            "SELECT body FROM raw_messages WHERE thread = %s ORDER BY id DESC LIMIT %s", (self.thread, LAST)
        )
        return [json.loads(row[0]) for row in reversed(await cursor.fetchall())]

    async def read_all(self) -> list[Any]:
        cursor = await self.connection.execute(
            "SELECT body FROM raw_messages WHERE thread = %s ORDER BY id", (self.thread,)
        )
        return [json.loads(row[0]) for row in await cursor.fetchall()]

    async def _insert(self, rows: list[str]) -> None:
        async with self.connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO raw_messages (thread, body) VALUES (%s, %s)",
                [(self.thread, row) for row in rows],
            )


class RawMariadb(_Raw):
    """Two INSERTs in a transaction, and one SELECT, by PyMySQL on one worker thread."""

    connection: Any = None

    def __init__(self, url: str, length: int) -> None:
        super().__init__(url, length)
        self._executor = ThreadPoolExecutor(1)

    async def open(self, thread: str) -> None:
        if self.connection is None:
            await self._run(self._connect)
        self.thread = thread

    async def fill(self) -> None:
        await self._run(self._insert, self._rows())

    async def add(self, turn: Turn) -> None:
        await self._run(self._insert, [json.dumps(message) for message in turn])

    async def read(self) -> Any:
        return await self._run(self._select, f"LIMIT {LAST}")

    async def read_all(self) -> Any:
        return await self._run(self._select, "")

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _connect(self) -> None:
        import pymysql  # type: ignore[import-untyped, unused-ignore]

        parts = urlsplit(self.url)
        self.connection = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            database=parts.path[1:],
        )
        with self.connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS raw_messages (id BIGINT AUTO_INCREMENT PRIMARY KEY, "
                "thread VARCHAR(100) NOT NULL, body LONGTEXT NOT NULL, INDEX (thread, id))"
            )

    def _insert(self, rows: list[str]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO raw_messages (thread, body) VALUES (%s, %s)",
                [(self.thread, row) for row in rows],
            )
        self.connection.commit()

    def _select(self, limit: str) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT body FROM raw_messages WHERE thread = %s ORDER BY id DESC {limit}", (self.thread,)
            )
            rows = cursor.fetchall()
        self.connection.commit()
        return [json.loads(row[0]) for row in reversed(rows)]


class _Ours(Candidate):
    """A store of agent-stores. One is kept open, as applications do, so that connections stay."""

    limited = False
    encrypted = False
    store: ChatMessageStore
    _first: ChatMessageStore | None = None

    async def open(self, thread: str) -> None:
        self.store = self._make(thread)
        if self._first is None:
            self._first = self.store

    async def fill(self) -> None:
        batch = [ChatMessage(role, text) for role, text in messages(self.length)]
        for first in range(0, len(batch), _AT_ONCE):
            await self.store.add_messages(batch[first : first + _AT_ONCE])

    def turn(self, question: str, answer: str) -> list[ChatMessage]:
        return [ChatMessage("user", question), ChatMessage("assistant", answer)]

    def add(self, turn: list[ChatMessage]) -> Any:
        return self.store.add_messages(turn)

    def read(self) -> Any:
        return self.store.list_messages(last=LAST)

    def read_all(self) -> Any:
        return self.store.list_messages()

    def document(self, turn: list[ChatMessage]) -> list[str | bytes]:
        return [encode_message(message) for message in turn]

    def _make(self, thread: str) -> ChatMessageStore:
        raise NotImplementedError

    def _options(self, thread: str) -> dict[str, Any]:
        limits = {"max_messages": self.length, "ttl": _DAY} if self.limited else {}
        keys = {"encryption": KeyRing({"bench": _KEY}, "bench")} if self.encrypted else {}
        return {"thread_id": thread, **limits, **keys}


class OursRedis(_Ours):
    """RedisChatMessageStore as it comes."""

    def _make(self, thread: str) -> ChatMessageStore:
        from agent_stores.redis import RedisChatMessageStore

        return RedisChatMessageStore(self.url, **self._options(thread))


class OursRedisLimited(OursRedis):
    """RedisChatMessageStore that trims, and lets threads expire."""

    limited = True


class OursRedisEncrypted(OursRedis):
    """RedisChatMessageStore that encrypts."""

    encrypted = True


class OursRedisSync(OursRedisLimited):
    """The synchronous view of RedisChatMessageStore, that trims, and lets threads expire."""

    is_sync = True
    view: SyncChatMessageStore

    async def open(self, thread: str) -> None:
        await super().open(thread)
        self.view = SyncChatMessageStore(self.store)

    def add(self, turn: list[ChatMessage]) -> Any:
        self.view.add_messages(turn)

    def read(self) -> Any:
        return self.view.list_messages(last=LAST)

    def read_all(self) -> Any:
        return self.view.list_messages()


class OursSqlite(_Ours):
    """DatabaseChatMessageStore on a file."""

    def synchronous(self) -> str:
        backend: Any = self.store.log.backend
        database = getattr(backend, "inner", backend).database
        [(mode,)] = run_inline(database.run(("PRAGMA synchronous", ()), write=True))
        return SYNCHRONOUS[mode]  # SQLite's default, which the store leaves alone

    def _make(self, thread: str) -> ChatMessageStore:
        path = sqlite_path(self.url, f"{type(self).__name__}-{os.getpid()}")
        return DatabaseChatMessageStore(path, **self._options(thread))


class OursSqliteLimited(OursSqlite):
    """DatabaseChatMessageStore on a file, that trims, and lets threads expire."""

    limited = True


class OursSqliteEncrypted(OursSqlite):
    """DatabaseChatMessageStore on a file, that encrypts."""

    encrypted = True


class OursSqliteSync(OursSqlite):
    """The synchronous view of DatabaseChatMessageStore on a file."""

    is_sync = True
    view: SyncChatMessageStore

    async def open(self, thread: str) -> None:
        await super().open(thread)
        self.view = SyncChatMessageStore(self.store)

    def add(self, turn: list[ChatMessage]) -> Any:
        self.view.add_messages(turn)

    def read(self) -> Any:
        return self.view.list_messages(last=LAST)

    def read_all(self) -> Any:
        return self.view.list_messages()


class OursPostgres(_Ours):
    """DatabaseChatMessageStore on PostgreSQL, with psycopg."""

    async def fill(self) -> None:
        await super().fill()
        import psycopg

        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await connection.execute("ANALYZE agent_stores_messages")

    def _make(self, thread: str) -> ChatMessageStore:
        return DatabaseChatMessageStore(self.url, **self._options(thread))


class OursPostgresLimited(OursPostgres):
    """DatabaseChatMessageStore on PostgreSQL, that trims, and lets threads expire."""

    limited = True


class OursPostgresEncrypted(OursPostgres):
    """DatabaseChatMessageStore on PostgreSQL, that encrypts."""

    encrypted = True


class OursMariadb(_Ours):
    """DatabaseChatMessageStore on MariaDB, with PyMySQL."""

    def _make(self, thread: str) -> ChatMessageStore:
        return DatabaseChatMessageStore(self.url, **self._options(thread))


class OursMariadbLimited(OursMariadb):
    """DatabaseChatMessageStore on MariaDB, that trims, and lets threads expire."""

    limited = True


class OursPostgresAsyncpg(OursPostgres):
    """DatabaseChatMessageStore on PostgreSQL, with asyncpg."""

    def _make(self, thread: str) -> ChatMessageStore:
        url = self.url.replace("postgresql://", "postgresql+asyncpg://")
        return DatabaseChatMessageStore(url, **self._options(thread))


CANDIDATES = {
    "raw-redis": RawRedis,
    "raw-redis-msgspec": RawRedisMsgspec,
    "raw-redis-sync": RawRedisSync,
    "ours-redis": OursRedis,
    "ours-redis-encrypted": OursRedisEncrypted,
    "ours-redis-limited": OursRedisLimited,
    "ours-redis-sync": OursRedisSync,
    "raw-sqlite": RawSqlite,
    "raw-sqlite-sync": RawSqliteSync,
    "contract-sqlite": ContractSqlite,
    "contract-sqlite-sync": ContractSqliteSync,
    "ours-sqlite": OursSqlite,
    "ours-sqlite-encrypted": OursSqliteEncrypted,
    "ours-sqlite-limited": OursSqliteLimited,
    "ours-sqlite-sync": OursSqliteSync,
    "raw-postgresql": RawPostgres,
    "ours-postgresql": OursPostgres,
    "ours-postgresql-encrypted": OursPostgresEncrypted,
    "ours-postgresql-limited": OursPostgresLimited,
    "ours-postgresql-asyncpg": OursPostgresAsyncpg,
    "raw-mariadb": RawMariadb,
    "ours-mariadb": OursMariadb,
    "ours-mariadb-limited": OursMariadbLimited,
}
