"""The sessions of the OpenAI Agents SDK."""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

import json
import os
from typing import Any

import redis.asyncio as aioredis
from agents import SQLiteSession
from agents.extensions.memory import RedisSession, SQLAlchemySession
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from candidates.base import LAST, PRAGMAS, SYNCHRONOUS, Candidate, messages, sqlite_path

_AT_ONCE = 500


class _Session(Candidate):
    session: Any = None

    async def fill(self) -> None:
        items = [{"role": role, "content": content} for role, content in messages(self.length)]
        for first in range(0, len(items), _AT_ONCE):
            await self.session.add_items(items[first : first + _AT_ONCE])

    def turn(self, question: str, answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    async def add(self, turn: list[dict[str, str]]) -> None:
        await self.session.add_items(turn)

    async def read(self) -> Any:
        return await self.session.get_items(limit=LAST)

    async def read_all(self) -> Any:
        return await self.session.get_items()

    def document(self, turn: list[dict[str, str]]) -> list[str | bytes]:
        return [json.dumps(item, separators=(",", ":")) for item in turn]


class Redis(_Session):
    """RedisSession; with a time-to-live, which is one of its options."""

    client: aioredis.Redis | None = None

    async def open(self, thread: str) -> None:
        if self.client is None:
            self.client = aioredis.Redis.from_url(self.url)
        self.session = RedisSession(thread, redis_client=self.client, ttl=86_400)


class Sqlite(_Session):
    """SQLiteSession, which switches to WAL itself and leaves `synchronous` at SQLite's default."""

    async def open(self, thread: str) -> None:
        if self.session is not None:
            self.session.close()
        path = sqlite_path(self.url, f"openai-{os.getpid()}")
        self.session = SQLiteSession(thread, path)

    def synchronous(self) -> str:
        row = self.session._get_connection().execute("PRAGMA synchronous").fetchone()
        return SYNCHRONOUS[row[0]]


class _SqlAlchemy(_Session):
    engine: AsyncEngine | None = None

    async def open(self, thread: str) -> None:
        if self.engine is None:
            self.engine = self._make_engine()
        self.session = SQLAlchemySession(
            thread,
            engine=self.engine,
            create_tables=True,
            sessions_table="openai_sessions",
            messages_table="openai_messages",
        )

    def _make_engine(self) -> AsyncEngine:
        raise NotImplementedError


class SqlAlchemySqlite(_SqlAlchemy):
    """SQLAlchemySession with aiosqlite."""

    async def fill(self) -> None:
        await super().fill()
        await self._spread("datetime('now', '-' || (2000000 - id) || ' seconds')")

    def synchronous(self) -> str:
        return "FULL"

    async def _spread(self, moment: str) -> None:
        """Give each message a time of its own: the session sorts by it, and a real thread has many times."""
        assert self.engine is not None
        async with self.engine.begin() as connection:
            await connection.execute(
                text(f"UPDATE openai_messages SET created_at = {moment} WHERE session_id = :thread"),
                {"thread": self.session.session_id},
            )

    def _make_engine(self) -> AsyncEngine:
        path = sqlite_path(self.url, f"openai-alchemy-{os.getpid()}")
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

        @event.listens_for(engine.sync_engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            for pragma in PRAGMAS:
                connection.execute(pragma)

        return engine


class SqlAlchemyPostgres(SqlAlchemySqlite):
    """SQLAlchemySession with asyncpg."""

    async def fill(self) -> None:
        await _SqlAlchemy.fill(self)
        await self._spread("localtimestamp - (2000000 - id) * interval '1 second'")
        assert self.engine is not None
        async with self.engine.begin() as connection:
            await connection.execute(text("ANALYZE openai_messages"))

    def synchronous(self) -> str:
        return ""

    def _make_engine(self) -> AsyncEngine:
        return create_async_engine(self.url.replace("postgresql://", "postgresql+asyncpg://"))


CANDIDATES = {
    "openai-redis": Redis,
    "openai-sqlite": Sqlite,
    "openai-alchemy-sqlite": SqlAlchemySqlite,
    "openai-alchemy-postgresql": SqlAlchemyPostgres,
}
