"""The Lua scripts: each is one atomic step on the server, in one round trip.

The files are in ``lua/``. Some are shared: they come first in the scripts that use them.
"""

from __future__ import annotations

import hashlib
import pkgutil
from typing import NamedTuple


class Script(NamedTuple):
    """A script as EVALSHA and EVAL take it.

    Attributes:
        source: its text.
        sha: the digest by which the server knows it.
        keys: how many of a thread's keys it takes.
        writes: whether it changes threads, other than to renew a time-to-live.
    """

    source: bytes
    sha: str
    keys: int
    writes: bool


def _script(*files: str, keys: int = 6, writes: bool = True) -> Script:
    # Read as modules are: the first import may be on an event loop, where other reads raise under a guard.
    parts = [pkgutil.get_data("agent_stores.backends.redis", f"lua/{name}.lua") or b"" for name in files]
    source = b"\n".join(parts)
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest(), keys, writes)


APPEND = _script("thread", "write", "trim", "append")
COMMIT = _script("thread", "write", "list", "commit")
DELETE = _script("thread", "delete")
LOAD = _script("thread", "load", keys=2, writes=False)
READ = _script("thread", "list", "read", keys=3, writes=False)
LATEST = _script("thread", "write", "latest", writes=False)
