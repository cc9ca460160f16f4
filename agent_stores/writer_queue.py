"""Writers of one process take turns on a thread, whatever event loops they run on."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Hashable
from typing import TYPE_CHECKING, TypeAlias

from agent_stores.inline import may_block

if TYPE_CHECKING:
    import asyncio  # takes a third of the time of `import agent_stores`

_LONGEST_WAIT = 10.0  # seconds; a turn only avoids conflicts, which the version check detects in any case

_Line: TypeAlias = "deque[asyncio.Future[None]]"
"""Those who wait for a turn on a key; while one has the turn, the key has a line."""


class WriterQueue:
    """Turns per key, first come, first served. Usable from any thread and any event loop."""

    def __init__(self) -> None:
        self.reset()
        _queues.add(self)

    def reset(self) -> None:
        """Forget all turns: after a fork, they belong to the parent."""
        self._lock = threading.Lock()
        self._lines: dict[Hashable, _Line] = {}

    @contextlib.asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for the turn on a key, and pass it on afterwards."""
        if may_block():  # synchronous calls have no loop to wait on
            yield
            return
        turn: asyncio.Future[None] | None = None
        with self._lock:
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = deque()
            else:
                from asyncio import get_running_loop

                turn = get_running_loop().create_future()
                line.append(turn)
        has_turn = turn is None
        try:
            if turn is not None:
                has_turn = await self._wait(key, line, turn)
            yield
        finally:
            if has_turn:
                self._pass_on(key, line)

    async def _wait(self, key: Hashable, line: _Line, turn: asyncio.Future[None]) -> bool:
        """Wait for a turn; False when it took too long, and the caller goes on without."""
        from asyncio import wait

        try:
            # Not `wait_for`, which before Python 3.12 may ignore that the task is cancelled.
            done, _ = await wait([turn], timeout=_LONGEST_WAIT)
        except BaseException:
            if not self._leave(line, turn):
                self._pass_on(key, line)
            raise
        if done:
            return True
        # The one that has the turn may be on a loop that no longer runs: others do not wait for it.
        self._close(key, line)
        return not self._leave(line, turn)

    def _leave(self, line: _Line, turn: asyncio.Future[None]) -> bool:
        """Leave a line; False when the turn was given already."""
        with self._lock:
            try:
                line.remove(turn)
            except ValueError:
                return False
            return True

    def _close(self, key: Hashable, line: _Line) -> None:
        """Let those who come later begin a line of their own."""
        with self._lock:
            if self._lines.get(key) is line:
                del self._lines[key]

    def _pass_on(self, key: Hashable, line: _Line) -> None:
        while True:
            with self._lock:
                if not line:
                    if self._lines.get(key) is line:
                        del self._lines[key]
                    return
                turn = line.popleft()
            try:
                turn.get_loop().call_soon_threadsafe(_give, turn)
            except RuntimeError:  # that loop is closed
                continue
            return


def _give(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _reset_all() -> None:
    for queue in list(_queues):
        queue.reset()


_queues: weakref.WeakSet[WriterQueue] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
