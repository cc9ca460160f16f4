"""Live tail by polling, when the server fails at any of its calls."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from agent_stores import ChatMessage, ChatMessageStore, MessageLog, StoreUnavailableError
from agent_stores.backends.memory import MemoryBackend

pytestmark = pytest.mark.anyio


def failing_at(backend: MemoryBackend, failures: set[int]) -> MessageLog:
    """A log on a backend whose calls of these numbers fail; every one is counted, those of pages too."""
    log, calls = MessageLog(backend), itertools.count(1)
    for name in ("load", "rows"):
        method = getattr(backend, name)

        async def call(*args: Any, method: Any = method, **kwargs: Any) -> Any:
            if next(calls) in failures:
                raise StoreUnavailableError("down")
            return await method(*args, **kwargs)

        setattr(log.backend, name, call)
    return log


@pytest.mark.parametrize("failing", range(1, 13))
async def test_whichever_call_fails_nothing_is_missed_or_repeated(failing: int) -> None:
    backend = MemoryBackend()
    writer = ChatMessageStore(MessageLog(backend), thread_id="t")
    await writer.add_messages([ChatMessage("user", f"{n}") for n in range(600)])
    log = failing_at(MemoryBackend(), {failing, failing + 1, failing + 5})
    log.backend.__dict__["_threads"] = backend.__dict__["_threads"]
    seen: list[str] = []
    async for item in ChatMessageStore(log, thread_id="t").watch(after=0, longest_pause=0.05):
        seen.append(item.message.text)
        if len(seen) in (300, 600):
            await writer.add_messages([ChatMessage("user", f"{600 + len(seen) // 300}")])
        if len(seen) == 602:
            break
    assert seen == [f"{n}" for n in [*range(600), 601, 602]]


async def test_trims_edits_and_deletions_repeat_nothing() -> None:
    backend = MemoryBackend()
    writer = ChatMessageStore(MessageLog(backend), thread_id="t", max_messages=3)
    seen: list[tuple[int, str]] = []
    came = asyncio.Event()

    async def follow() -> None:
        async for item in ChatMessageStore(MessageLog(backend), thread_id="t").watch(
            after=0, longest_pause=0.05
        ):
            seen.append((item.position, item.message.text))
            came.set()

    following = asyncio.create_task(follow())
    for n in range(12):
        await writer.add_messages([ChatMessage("user", f"{n}", message_id=f"{n}")])
        await asyncio.wait_for(came.wait(), 30)
        came.clear()
        if n % 4 == 1:
            await writer.replace(f"{n}", ChatMessage("user", "changed"))
        if n % 4 == 2:
            await writer.delete(f"{n}")
        if n == 7:
            await writer.clear()
    await asyncio.sleep(0.3)
    following.cancel()
    assert seen == [(n + 1, f"{n}") for n in range(12)]
