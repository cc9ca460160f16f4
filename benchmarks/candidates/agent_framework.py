"""The history provider of Agent Framework."""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

from typing import Any

import redis.asyncio as aioredis
from agent_framework import Message
from agent_framework_redis import RedisHistoryProvider

from candidates.base import Candidate, messages

_AT_ONCE = 500


class Redis(Candidate):
    """RedisHistoryProvider as it comes; it has no limit for reading."""

    reads_all = True
    limited = False
    thread = ""
    client: aioredis.Redis | None = None
    provider: Any = None

    async def open(self, thread: str) -> None:
        self.thread = thread
        if self.client is None:
            self.client = aioredis.Redis.from_url(self.url, decode_responses=True)
            self.provider = RedisHistoryProvider(
                "history-limited" if self.limited else "history",
                redis_client=self.client,
                application_id="benchmark",
                max_messages=self.length if self.limited else None,
            )

    async def fill(self) -> None:
        # As save_messages stores them, which would read the thread for each part.
        assert self.client is not None
        key = self.provider._redis_key(self.thread)
        rows = [self.provider._serialize_json(Message(role, [text])) for role, text in messages(self.length)]
        for first in range(0, len(rows), _AT_ONCE):
            await self.client.rpush(key, *rows[first : first + _AT_ONCE])

    def turn(self, question: str, answer: str) -> list[Message]:
        return [Message("user", [question]), Message("assistant", [answer])]

    async def add(self, turn: list[Message]) -> None:
        await self.provider.save_messages(self.thread, turn)

    async def read(self) -> Any:
        return await self.read_all()

    async def read_all(self) -> Any:
        return await self.provider.get_messages(self.thread)

    def document(self, turn: list[Message]) -> list[str | bytes]:
        return [self.provider._serialize_json(message) for message in turn]


class RedisLimited(Redis):
    """RedisHistoryProvider with `max_messages`."""

    limited = True


CANDIDATES = {"framework-redis": Redis, "framework-redis-limited": RedisLimited}
