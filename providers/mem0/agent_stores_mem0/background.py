"""Writing to mem0: with a time limit, and in the background with retries and a queue."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from agent_stores import ChatMessage
from agent_stores_mem0.scopes import Entities

logger = logging.getLogger("agent_stores.mem0")

T = TypeVar("T")

_ATTEMPTS = 4  # for each turn, the first included
_FIRST_PAUSE = 0.5  # seconds before the second attempt; doubles, with jitter
_LONGEST_PAUSE = 30.0  # seconds
_POLL_SECONDS = 0.02  # seconds between two looks for space in the queue

# Non-retryable errors: mem0's own errors by name, as mem0 is imported late, and mistakes in calls.
_PERMANENT = frozenset(
    {
        "AuthenticationError",
        "ConfigurationError",
        "DependencyError",
        "MemoryQuotaExceededError",
        "ValidationError",
    }
)


class Write(NamedTuple):
    """A turn to store in mem0.

    Attributes:
        messages: of one turn, with ``role`` and ``content``.
        entities: the ids to store it under.
    """

    messages: tuple[Mapping[str, str], ...]
    entities: Entities


def said_in(messages: Iterable[ChatMessage]) -> tuple[Mapping[str, str], ...]:
    """The messages that mem0 learns from, as it takes them: text of users and assistants, in order."""
    return tuple(
        {"role": message.role, "content": message.text}
        for message in messages
        if message.role in ("user", "assistant") and message.text.strip()
    )


class UnwrittenTurn(NamedTuple):
    """A turn that was not stored in mem0.

    Attributes:
        messages: with ``role`` and ``content``.
        scope: the ids to store it under, keyed by mem0's parameter names.
        error: the name of the last error's type.
    """

    messages: tuple[Mapping[str, str], ...]
    scope: dict[str, str]
    error: str


async def with_timeout(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Run something for at most *n* seconds, even if it does not heed its cancellation.

    Raises:
        asyncio.TimeoutError: when it took longer.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise asyncio.TimeoutError
    return task.result()


@contextmanager
def suppress_shutdown_warnings() -> Iterator[None]:
    """Lets HTTP clients work while an event loop shuts down, as providers that were not closed do then.

    They use asynchronous generators, and the loop warns of each that begins so late. No other task runs by
    then whose warnings this could hide.
    """
    if not getattr(asyncio.get_running_loop(), "_asyncgens_shutdown_called", False):
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*was scheduled after loop.shutdown_asyncgens", ResourceWarning)
        yield


class BackgroundWriter:
    """Writes one turn after the other, in order, on a task of its own.

    What was accepted stays in the queue until it is written or given up, so that neither a cancelled task nor
    the end of an event loop loses it: the next loop, or `flush`, goes on with it.

    Args:
        write: writes a turn.
        capacity: how many turns may wait.
        attempt_seconds: how long one attempt may take.
        lost: called with each turn that was given up, and the last error.
    """

    def __init__(
        self,
        write: Callable[[Write], Coroutine[Any, Any, None]],
        *,
        capacity: int,
        attempt_seconds: float,
        lost: Callable[[Write, BaseException], None],
    ) -> None:
        self._write = write
        self._capacity = capacity
        self._attempt_seconds = attempt_seconds
        self._lost = lost
        self._pending: deque[Write] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def accept(self, write: Write, *, seconds: float) -> bool:
        """Take a turn; waits up to *n* seconds for space, and says whether there was any."""
        deadline = time.monotonic() + seconds
        self._work()
        while len(self._pending) >= self._capacity:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
            self._work()
        self._pending.append(write)
        self._work()
        return True

    async def flush(self, *, seconds: float) -> None:
        """Write what waits, for at most *n* seconds; what is left then is given up."""
        deadline = time.monotonic() + seconds
        while self._pending:
            left = deadline - time.monotonic()
            if left <= 0:
                await self._stop()
                while self._pending:
                    self._lost(self._pending.popleft(), asyncio.TimeoutError())
                return
            worker = self._work()
            if worker is None:  # that of another loop, which is running
                await asyncio.sleep(min(left, _POLL_SECONDS))
            else:
                await asyncio.wait({worker}, timeout=left)

    def _work(self) -> asyncio.Task[None] | None:
        """The task that writes, started if need be; None where it runs in another event loop."""
        loop = asyncio.get_running_loop()
        worker = self._worker
        if worker is not None and not worker.done() and worker.get_loop() is not loop:
            if worker.get_loop().is_running():
                return None
            worker = None
        if worker is None or worker.done():
            worker = self._worker = loop.create_task(self._drain())
        return worker

    async def _stop(self) -> None:
        worker = self._worker
        if worker is not None and not worker.done() and worker.get_loop() is asyncio.get_running_loop():
            worker.cancel()
            await asyncio.wait({worker}, timeout=1.0)

    async def _drain(self) -> None:
        while self._pending:
            write = self._pending[0]
            error = await self._try(write)
            if self._pending and self._pending[0] is write:
                self._pending.popleft()
                if error is not None:
                    self._lost(write, error)

    async def _try(self, write: Write) -> Exception | None:
        """Write a turn, trying again where that may help; returns the last error."""
        for attempt in range(_ATTEMPTS):
            try:
                await with_timeout(self._attempt_seconds, self._write(write))
                return None
            except Exception as error:
                if attempt == _ATTEMPTS - 1 or is_permanent(error):
                    return error
                pause = _pause(error, attempt)
                logger.info(
                    "mem0 did not take a turn (%s); trying again in %.1f s", type(error).__name__, pause
                )
            await asyncio.sleep(pause)
        return None


def is_permanent(error: Exception) -> bool:
    """Whether the same call would fail again."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (ValueError, TypeError)) or bool(_PERMANENT & names)


def _pause(error: Exception, attempt: int) -> float:
    """Seconds to wait: what the service asks for, or more each time."""
    asked = (getattr(error, "debug_info", None) or {}).get("retry_after")
    if isinstance(asked, (int, float)) and asked > 0:
        return min(float(asked), _LONGEST_PAUSE)
    return float(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
