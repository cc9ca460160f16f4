"""The chat stores of LlamaIndex."""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

import os
from typing import Any

import redis
import redis.asyncio as aioredis
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from llama_index.storage.chat_store.redis import RedisChatStore
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from candidates.base import PRAGMAS, Candidate, messages, sqlite_path

_AT_ONCE = 500


class _LlamaIndex(Candidate):
    reads_all = True
    thread = ""
    store: Any = None

    def turn(self, question: str, answer: str) -> list[ChatMessage]:
        return [ChatMessage(role="user", content=question), ChatMessage(role="assistant", content=answer)]

    async def read(self) -> Any:
        return await self.read_all()

    def document(self, turn: list[ChatMessage]) -> list[str | bytes]:
        return [message.model_dump_json() for message in turn]

    def _messages(self) -> list[ChatMessage]:
        return [ChatMessage(role=role, content=content) for role, content in messages(self.length)]


class Redis(_LlamaIndex):
    """RedisChatStore, asynchronous methods; it takes one message a call, and knows no limit."""

    client: aioredis.Redis | None = None

    async def open(self, thread: str) -> None:
        self.thread = f"llama:{thread}"
        if self.client is None:
            self.client = aioredis.Redis.from_url(self.url)
            self.store = RedisChatStore(
                redis_client=redis.Redis.from_url(self.url), aredis_client=self.client
            )

    async def fill(self) -> None:
        assert self.client is not None
        rows = [message.model_dump_json() for message in self._messages()]
        for first in range(0, len(rows), _AT_ONCE):
            await self.client.rpush(self.thread, *rows[first : first + _AT_ONCE])

    async def add(self, turn: list[ChatMessage]) -> None:
        for message in turn:
            await self.store.async_add_message(self.thread, message)

    async def read_all(self) -> Any:
        return await self.store.aget_messages(self.thread)


class SqlAlchemySqlite(_LlamaIndex):
    """SQLAlchemyChatStore with aiosqlite; its limit takes the oldest messages, so a context reads all."""

    async def open(self, thread: str) -> None:
        self.thread = thread
        if self.store is None:
            self.store = SQLAlchemyChatStore("llama_messages", async_engine=self._make_engine())

    async def fill(self) -> None:
        batch = self._messages()
        for first in range(0, len(batch), _AT_ONCE):
            await self.store.add_messages(self.thread, batch[first : first + _AT_ONCE])

    async def add(self, turn: list[ChatMessage]) -> None:
        await self.store.add_messages(self.thread, turn)

    async def read_all(self) -> Any:
        return await self.store.get_messages(self.thread)

    def synchronous(self) -> str:
        return "FULL"

    def _make_engine(self) -> AsyncEngine:
        path = sqlite_path(self.url, f"llama-{os.getpid()}")
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

        @event.listens_for(engine.sync_engine, "connect")
        def configure(connection: Any, _: Any) -> None:
            for pragma in PRAGMAS:
                connection.execute(pragma)

        return engine


class SqlAlchemyPostgres(SqlAlchemySqlite):
    """SQLAlchemyChatStore with asyncpg."""

    engine: AsyncEngine

    async def fill(self) -> None:
        await super().fill()
        async with self.engine.begin() as connection:
            await connection.execute(text("ANALYZE llama_messages"))

    def synchronous(self) -> str:
        return ""

    def _make_engine(self) -> AsyncEngine:
        self.engine = create_async_engine(self.url.replace("postgresql://", "postgresql+asyncpg://"))
        return self.engine


CANDIDATES = {
    "llama-redis": Redis,
    "llama-alchemy-sqlite": SqlAlchemySqlite,
    "llama-alchemy-postgresql": SqlAlchemyPostgres,
}
