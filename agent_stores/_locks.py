"""Locks that a fork of the process leaves free."""

from __future__ import annotations

import os
import threading


def make_lock() -> threading.Lock:
    """A lock for a module: a fork waits until it is free, so no child waits for a thread of its parent."""
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
