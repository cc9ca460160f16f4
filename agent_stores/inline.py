"""Coroutines that run on the caller's thread without an event loop, and block where others wait."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar, cast

T = TypeVar("T")

_may_block: ContextVar[bool] = ContextVar("agent_stores_may_block", default=False)


def may_block() -> bool:
    """Whether the running coroutine is driven by `run_inline`, so that it may block and cannot wait."""
    return _may_block.get()


async def sleep(seconds: float) -> None:
    """Wait as `asyncio.sleep` does, or block where that is allowed."""
    if may_block():
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop to block
    else:
        import asyncio  # takes a third of the time of `import agent_stores`

        await asyncio.sleep(seconds)


def run_inline(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that blocks, where others wait, on this thread and without an event loop."""
    token = _may_block.set(True)
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    finally:
        _may_block.reset(token)
        work.close()
    raise RuntimeError("a coroutine that should block waits for an event loop")
