"""The Lua scripts: each is one atomic step on the server, in one round trip.

The files are in ``lua/``. Some are shared: they come first in the scripts that use them.
"""

from __future__ import annotations

import hashlib
import pkgutil


class Script:
    """A script as EVALSHA and EVAL take it.

    Attributes:
        name: its file.
        source: its text.
        sha: the digest by which the server knows it.
        keys: how many of a thread's keys it takes.
        writes: whether it changes threads, other than to renew a time-to-live.
    """

    __slots__ = ("keys", "name", "sha", "source", "writes")

    def __init__(self, name: str, *shared: str, keys: int = 6, writes: bool = True) -> None:
        self.name = name
        self.source = b"\n".join(_read(f"lua/{part}.lua") for part in (*shared, name))
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()
        self.keys = keys
        self.writes = writes

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


def _read(path: str) -> bytes:
    # Read as modules are: the first import may be on an event loop, where other reads raise under a guard.
    source = pkgutil.get_data("agent_stores.backends.redis", path)
    assert source is not None  # noqa: S101
    return source


APPEND = Script("append", "thread", "write", "trim")
COMMIT = Script("commit", "thread", "write", "list")
DELETE = Script("delete", "thread")
LOAD = Script("load", "thread", keys=2, writes=False)
READ = Script("read", "thread", "list", keys=3, writes=False)
LATEST = Script("latest", "thread", "write", writes=False)
