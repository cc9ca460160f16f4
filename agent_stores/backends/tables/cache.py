"""What a process remembers of threads, so that a write needs no read before it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from agent_stores.backend import Row, ThreadKey
from agent_stores.backends.tables.layout import Head
from agent_stores.writer_queue import WriterQueue

_THREADS = 1024


class Known(NamedTuple):
    """A thread as it was read or written last; another process may have changed it since.

    Attributes:
        head: its head; None when it does not exist.
        oldest: its oldest messages that are not pinned, for trimming, without bodies.
    """

    head: Head | None
    oldest: Sequence[Row] = ()


class ThreadCache:
    """What is known of the threads of one table. Usable from any thread and event loop.

    Attributes:
        queue: turns for the writers of a thread.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[ThreadKey, Known] = OrderedDict()
        self._lock = threading.Lock()
        self.queue = WriterQueue()

    def get(self, key: ThreadKey) -> Known:
        """What is known of a thread."""
        with self._lock:
            return self._known.get(key, Known(None))

    def put(self, key: ThreadKey, head: Head | None, oldest: Sequence[Row] = ()) -> None:
        """Remember a thread as it was read or written; None forgets it."""
        with self._lock:
            old = self._known.pop(key, None)
            if head is not None:
                is_known = old is not None and old.head is not None and old.head.version == head.version
                self._known[key] = old if old is not None and is_known and not oldest else Known(head, oldest)
            if len(self._known) > _THREADS:
                self._known.popitem(last=False)
