"""The message store of Agent Framework's beta."""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

from typing import Any

import redis.asyncio as aioredis
from agent_framework import ChatMessage
from agent_framework.redis import RedisChatMessageStore

from candidates.base import Candidate, messages

_AT_ONCE = 500


class Redis(Candidate):
    """RedisChatMessageStore; it takes a URL, makes a client of its own, and knows no limit for reading."""

    reads_all = True
    store: Any = None
    client: aioredis.Redis | None = None

    async def open(self, thread: str) -> None:
        if self.client is None:
            self.client = aioredis.Redis.from_url(self.url)
        if self.store is not None:
            await self.store.aclose()
        self.store = RedisChatMessageStore(
            redis_url=self.url, thread_id=thread, key_prefix="beta", max_messages=self.length
        )

    async def fill(self) -> None:
        assert self.client is not None
        rows = [ChatMessage(role=role, text=text).to_json() for role, text in messages(self.length)]
        for first in range(0, len(rows), _AT_ONCE):
            await self.client.rpush(self.store.redis_key, *rows[first : first + _AT_ONCE])
        await self.store.ping()  # connects

    def turn(self, question: str, answer: str) -> list[ChatMessage]:
        return [ChatMessage(role="user", text=question), ChatMessage(role="assistant", text=answer)]

    async def add(self, turn: list[ChatMessage]) -> None:
        await self.store.add_messages(turn)

    async def read(self) -> Any:
        return await self.read_all()

    async def read_all(self) -> Any:
        return await self.store.list_messages()

    def document(self, turn: list[ChatMessage]) -> list[str | bytes]:
        return [message.to_json() for message in turn]


CANDIDATES = {"beta-redis": Redis}
