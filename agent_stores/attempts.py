"""Attempts: what fails on the way to a server is tried again where that may succeed, until the time is up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from agent_stores.errors import OutcomeUnknownError, StoreUnavailableError
from agent_stores.inline import may_block, sleep

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout  # pyright: ignore[reportMissingImports]

T = TypeVar("T")

_LONGEST_PAUSE = 0.5  # seconds


class FailedAttempt(NamedTuple):
    """What the error of an attempt means.

    Attributes:
        error: what is raised when there is no other attempt, and nothing was written.
        detail: what the server or its client says; shows no secret.
        cause: the driver's error; None where it may show a secret.
        may_retry: whether another attempt may succeed.
        may_have_applied: whether the server may have carried out the attempt.
        wait: how many seconds the server asks to wait.
    """

    error: Exception
    detail: str
    cause: Exception | None = None
    may_retry: bool = False
    may_have_applied: bool = False
    wait: float = 0.0


class Attempts:
    """How a server is asked: how often, and for how long in all.

    Args:
        place: the server, without secrets, for errors.
        timeout: seconds that a call may take, attempts and pauses included.
        limit: the largest number of attempts.
        first_pause: seconds before the second attempt, at most; they double up to half a second.
    """

    def __init__(self, place: str, *, timeout: float, limit: float, first_pause: float) -> None:
        self.place, self.timeout = place, timeout
        self._limit, self._first_pause = limit, first_pause

    async def run(
        self,
        attempt: Callable[[float], Awaitable[T]],
        explain: Callable[[Exception], FailedAttempt | None],
        *,
        write: bool,
        repeatable: bool,
    ) -> T:
        """Make attempts until one succeeds, or another one is of no use.

        Args:
            attempt: is given the time, by `time.monotonic`, at which it has to raise `asyncio.TimeoutError`.
            explain: what its error means; None for one that is raised as it is.
            write: whether an attempt writes.
            repeatable: whether a write may be tried again when it may have been carried out.

        Raises:
            StoreUnavailableError: there was no answer in time; nothing was written.
            OutcomeUnknownError: it may or may not have been carried out.
        """
        deadline = time.monotonic() + self.timeout
        failures, is_unknown = 0, False
        while True:
            try:
                return await attempt(deadline)
            except Exception as error:
                failed = explain(error)
                if failed is None:
                    raise
                failures += 1
                is_unknown |= write and failed.may_have_applied
                longest = min(_LONGEST_PAUSE, self._first_pause * 2 ** min(failures - 1, 10))
                pause = failed.wait + longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                is_over = failures >= self._limit or time.monotonic() + pause > deadline
                if is_over or not failed.may_retry or (is_unknown and not repeatable):
                    late = isinstance(error, asyncio.TimeoutError)
                    detail = f"did not answer within {self.timeout:g} seconds" if late else failed.detail
                    final = failed.error
                    if is_unknown:
                        final = OutcomeUnknownError(
                            f"{self.place} did not confirm a write ({detail}): it may or may not be stored; "
                            "adding the same messages again is safe"
                        )
                    elif late:
                        end = "; nothing was written" if write else ""
                        final = StoreUnavailableError(f"{self.place} {detail}{end}")
                    raise final from failed.cause
            await sleep(pause)


def time_limit(deadline: float) -> contextlib.AbstractAsyncContextManager[object]:
    """Raises `asyncio.TimeoutError` at a time by `time.monotonic`; not where the coroutine may block.

    Before Python 3.12, `asyncio.wait_for` may lose a cancellation.
    """
    return contextlib.nullcontext() if may_block() else timeout(deadline - time.monotonic())
