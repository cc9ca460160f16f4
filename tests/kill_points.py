"""Moments at which a process is killed, for tests of work that has to be resumable."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable
from typing import Any


class KillPoints:
    """The beginnings and ends of calls, of which one kills the process.

    Args:
        killed_at: which one, from 1 up; 0 for none.

    Attributes:
        passed: how many there were.
    """

    def __init__(self, killed_at: int) -> None:
        self.killed_at, self.passed = killed_at, 0

    def watch(self, kind: type, name: str, *, is_step: Callable[..., bool] = lambda *_: True) -> None:
        """Make the beginning and the end of a method's calls such moments.

        `is_step` is given the arguments of a call, and says whether it counts.
        """
        method: Any = getattr(kind, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not is_step(*args):
                return method(*args, **kwargs)
            self._pass()
            result = method(*args, **kwargs)
            self._pass()
            return result

        async def waiting(*args: Any, **kwargs: Any) -> Any:
            if not is_step(*args):
                return await method(*args, **kwargs)
            self._pass()
            result = await method(*args, **kwargs)
            self._pass()
            return result

        setattr(kind, name, waiting if inspect.iscoroutinefunction(method) else wrapper)

    def _pass(self) -> None:
        self.passed += 1
        if self.passed == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
