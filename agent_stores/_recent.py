"""`RecentDict`: what a process remembers of what it used last."""

from __future__ import annotations

from typing import TypeVar

from agent_stores._locks import make_lock

K = TypeVar("K")
V = TypeVar("V")

_lock = make_lock()


class RecentDict(dict[K, V]):
    """A dictionary that keeps the entries that were set last. It may be changed from any thread.

    Args:
        size: how many entries it keeps.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def __setitem__(self, key: K, value: V) -> None:
        with _lock:
            super().pop(key, None)
            super().__setitem__(key, value)
            if len(self) > self._size:
                del self[next(iter(self))]

    def discard(self, key: K) -> None:
        """Remove an entry, if it is there."""
        with _lock:
            super().pop(key, None)
