"""Writers of one process take turns on a thread, whatever event loops they run on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Hashable

from agent_stores.event_loops import may_block

_LONGEST_WAIT = 10.0  # seconds; a turn only avoids conflicts, which the version check detects in any case


class WriterQueue:
    """Turns per key, first come, first served. Usable from any thread and any event loop."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for the turn on a key, and pass it on afterwards."""
        if may_block():  # synchronous calls have no loop to wait on
            yield
            return
        turn: asyncio.Future[None] | None = None
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is None:
                self._waiting[key] = deque()
            else:
                turn = asyncio.get_running_loop().create_future()
                waiting.append(turn)
        has_turn = turn is None
        try:
            if turn is not None:
                has_turn = await self._wait(key, turn)
            yield
        finally:
            if has_turn:
                self._pass_on(key)

    async def _wait(self, key: Hashable, turn: asyncio.Future[None]) -> bool:
        """Wait for a turn; False when it took too long, and the caller goes on without."""
        try:
            await asyncio.wait_for(asyncio.shield(turn), _LONGEST_WAIT)
        except asyncio.TimeoutError:
            return not self._leave(key, turn)
        except BaseException:
            if not self._leave(key, turn):
                self._pass_on(key)
            raise
        return True

    def _leave(self, key: Hashable, turn: asyncio.Future[None]) -> bool:
        """Leave the queue; False when the turn was given already."""
        with self._lock:
            try:
                self._waiting[key].remove(turn)
            except (KeyError, ValueError):
                return False
            return True

    def _pass_on(self, key: Hashable) -> None:
        while True:
            with self._lock:
                waiting = self._waiting.get(key)
                if not waiting:
                    self._waiting.pop(key, None)
                    return
                turn = waiting.popleft()
            try:
                turn.get_loop().call_soon_threadsafe(_give, turn)
            except RuntimeError:  # that loop is closed
                continue
            return


def _give(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
