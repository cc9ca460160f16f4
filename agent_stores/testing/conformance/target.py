"""What the suite needs to know of a backend, and the stores that its tests use."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from agent_stores.contents import ToolCallContent, ToolResultContent
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore


@dataclass
class Target:
    """A backend under test.

    Attributes:
        name: for the names of tests.
        open_log: opens a new client of the same server, as another host would.
        open_in_process: the same, as a picklable callable, for tests with several processes; None where the
            data lives in this process.
        corrupt: makes the body of the message at a position unreadable; None where that cannot be done.
        advance: lets seconds pass; waits by default. With `Clock`, tests of expiry take no time, and do not
            depend on how fast the machine is.
        shortened: whether the longest tests do less of the same: for emulators that are much slower than a
            server, and for variants of a backend that passes the suite at its full length.
    """

    name: str
    open_log: Callable[[], MessageLog]
    open_in_process: Callable[[], MessageLog] | None = None
    corrupt: Callable[[ThreadKey, int], Awaitable[None]] | None = None
    advance: Callable[[float], Awaitable[None]] = asyncio.sleep
    shortened: bool = False

    @property
    def unit(self) -> float:
        """The seconds that tests of expiry count in: few where they wait, many where a clock is moved."""
        return 1 if self.advance is asyncio.sleep else 100


class Clock:
    """A clock that tests move, for backends on servers without one: ``MessageLog(backend, clock=clock)``."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Seconds since 1970 UTC."""
        return time.time() + self.ahead

    async def advance(self, seconds: float) -> None:
        """Let time pass; see `Target.advance`."""
        self.ahead += seconds


class MakeStore(Protocol):
    """Makes a store on a client of its own, on a thread of its own unless one is named."""

    def __call__(self, log: MessageLog | None = None, **options: Any) -> ChatMessageStore:
        """Make a store; `log` shares a client."""
        ...


@pytest.fixture
def anyio_backend() -> str:
    """The stores run on asyncio."""
    return "asyncio"


@pytest.fixture
async def make_store(target: Target) -> AsyncIterator[MakeStore]:
    """A factory of stores, which closes what it opened."""
    async with AsyncExitStack() as stack:

        def make(log: MessageLog | None = None, **options: Any) -> ChatMessageStore:
            if log is None:
                log = target.open_log()
                stack.push_async_callback(log.aclose)
            options.setdefault("thread_id", f"t-{uuid.uuid4().hex}")
            return ChatMessageStore(log, **options)

        yield make


def user(text: str, **fields: Any) -> ChatMessage:
    """A user's message."""
    return ChatMessage("user", text, **fields)


def call(*call_ids: str, **fields: Any) -> ChatMessage:
    """An assistant's message that calls a tool, once for each id."""
    return ChatMessage("assistant", contents=[ToolCallContent(i, "f", "{}") for i in call_ids], **fields)


def result(call_id: str, **fields: Any) -> ChatMessage:
    """A tool's message that answers a call."""
    return ChatMessage("tool", contents=[ToolResultContent(call_id, f"result of {call_id}")], **fields)


def label(message: ChatMessage) -> str:
    """A message in short: its text, or the ids of its calls and results."""
    calls = [f"call {part.call_id}" for part in message.tool_calls]
    results = [f"{'no ' if part.is_error else ''}result {part.call_id}" for part in message.tool_results]
    return " ".join([*calls, *results]) or message.text


async def labels(store: ChatMessageStore, **limits: Any) -> list[str]:
    """What a store lists, in short."""
    return [label(message) for message in await store.list_messages(**limits)]


async def stored(store: ChatMessageStore) -> list[str]:
    """What a store holds, in short."""
    return [label(item.message) async for item in store.iter_messages(page_size=7)]
