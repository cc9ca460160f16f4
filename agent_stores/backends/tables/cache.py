"""What a process remembers of threads, so that a write needs no read before it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from agent_stores.backend import ThreadKey
from agent_stores.backends.tables.records import StoredHead, StoredRow
from agent_stores.writer_queue import WriterQueue

_THREADS = 1024
MAX_OLDEST = 256
"""How many of a thread's oldest messages are remembered."""


class Known(NamedTuple):
    """A thread as it was read or written last; another process may have changed it since.

    Attributes:
        stored: its head.
        oldest: its oldest messages that are not pinned, for trimming, without bodies.
        has_all: whether `oldest` holds all messages that are not pinned.
    """

    stored: StoredHead
    oldest: Sequence[StoredRow] = ()
    has_all: bool = False


class ThreadCache:
    """What is known of the threads of one table. Usable from any thread and event loop.

    Attributes:
        queue: turns for the writers of a thread.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[ThreadKey, Known] = OrderedDict()
        self._lock = threading.Lock()
        self.queue = WriterQueue()

    def get(self, key: ThreadKey) -> Known | None:
        """What is known of a thread."""
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
            return known

    def put(self, key: ThreadKey, known: Known) -> None:
        """Remember a thread as it was read or written."""
        with self._lock:
            old = self._known.get(key)
            if old is not None and old.stored.version == known.stored.version and not known.oldest:
                known = old
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > _THREADS:
                self._known.popitem(last=False)

    def renew(self, key: ThreadKey, version: str, stored: StoredHead) -> None:
        """Remember a head whose messages are those of a version."""
        known = self.get(key)
        if known is not None and known.stored.version == version:
            self.put(key, known._replace(stored=stored))
        else:
            self.put(key, Known(stored))

    def drop(self, key: ThreadKey) -> None:
        """Forget a thread."""
        with self._lock:
            self._known.pop(key, None)
