"""A circuit breaker: while mem0 cannot be reached, runs do not wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_UNREACHABLE = ("NetworkError", "ConnectError", "ConnectTimeout", "ReadTimeout", "RemoteProtocolError")
"""The names of mem0's and httpx's errors for a service that cannot be reached."""

_FIRST_PAUSE = 30.0  # seconds
_LONGEST_PAUSE = 300.0


class CircuitOpenError(Exception):
    """mem0 was not called, as it could not be reached a short time ago."""

    def __init__(self) -> None:
        super().__init__("mem0 could not be reached a short time ago")


class CircuitBreaker:
    """Stops calls after one that found the service unreachable or timed out, for a pause that grows.

    After the pause the next call is let through: a success closes the circuit, a failure opens it for twice
    as long (30 to 300 seconds). Other errors (a rejected key, invalid data) do not open it.

    Args:
        clock: returns seconds; monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = _FIRST_PAUSE
        self._open_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls are stopped now."""
        return self._open_until is not None and self._clock() < self._open_until

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Call the service.

        Raises:
            CircuitOpenError: without a call, while the circuit is open.
            Exception: what the call raised.
        """
        if self.is_open:
            raise CircuitOpenError
        try:
            result = await work()
        except Exception as error:
            is_unreachable = (
                isinstance(error, (asyncio.TimeoutError, OSError)) or type(error).__name__ in _UNREACHABLE
            )
            if is_unreachable and not self.is_open:  # of several calls at once, the first one sets the pause
                is_first = self._open_until is None
                self._pause = _FIRST_PAUSE if is_first else min(2 * self._pause, _LONGEST_PAUSE)
                self._open_until = self._clock() + self._pause
            raise
        self._open_until = None
        return result


def reason_of(error: Exception, timeout: float) -> str:
    """Why a call failed, in words; `timeout` is the limit of the call in seconds."""
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {timeout:g} seconds"
    if isinstance(error, asyncio.QueueFull):
        return "too many turns wait to be stored"
    return str(error)
