"""The Redis history of langchain-community, which is synchronous."""

# ruff: noqa: D102 - `Candidate` describes the methods.

from __future__ import annotations

import json
from typing import Any

from langchain_community.chat_message_histories import RedisChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, message_to_dict

from candidates.base import Candidate, messages

_AT_ONCE = 500


class Redis(Candidate):
    """RedisChatMessageHistory; it takes one message a command, and knows no limit for reading."""

    is_sync = True
    reads_all = True
    history: Any = None

    async def open(self, thread: str) -> None:
        if self.history is None:
            self.history = RedisChatMessageHistory(thread, url=self.url, ttl=86_400)
        self.history.session_id = thread

    async def fill(self) -> None:
        rows = [json.dumps(message_to_dict(message)) for message in self._messages()]
        for first in range(0, len(rows), _AT_ONCE):
            self.history.redis_client.lpush(self.history.key, *rows[first : first + _AT_ONCE])

    def turn(self, question: str, answer: str) -> list[BaseMessage]:
        return [HumanMessage(question), AIMessage(answer)]

    def add(self, turn: list[BaseMessage]) -> None:
        self.history.add_messages(turn)

    def read(self) -> Any:
        return self.read_all()

    def read_all(self) -> Any:
        return self.history.messages

    def document(self, turn: list[BaseMessage]) -> list[str | bytes]:
        return [json.dumps(message_to_dict(message)) for message in turn]

    def _messages(self) -> list[BaseMessage]:
        return [
            HumanMessage(text) if role == "user" else AIMessage(text) for role, text in messages(self.length)
        ]


CANDIDATES = {"langchain-redis": Redis}
