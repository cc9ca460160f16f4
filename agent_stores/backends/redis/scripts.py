"""The Lua scripts: each is one atomic step on the server, in one round trip.

The files are in ``lua/``. In their place, lines ``-- include name`` become those of another file.
"""

from __future__ import annotations

import hashlib
import pkgutil
import re


class Script:
    """A script as EVALSHA and EVAL take it.

    Args:
        name: the name of its file.
        keys: how many of a thread's keys it takes: a slot that moves is waited for if one of them is missing.
        writes: whether it changes threads, other than to renew a time-to-live.
        repeats: whether it may run twice.

    Attributes:
        source: its text.
        sha: the digest by which the server knows it.
    """

    def __init__(self, name: str, *, keys: int = 6, writes: bool = True, repeats: bool = True) -> None:
        self.keys, self.writes, self.repeats = keys, writes, repeats
        self.source = _read(name)
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


def _read(name: str) -> bytes:
    # Read as modules are: the first import may be on an event loop, where other reads raise under a guard.
    text = pkgutil.get_data("agent_stores.backends.redis", f"lua/{name}.lua") or b""
    return re.sub(rb"-- include (\w+)\n", lambda found: _read(found[1].decode()), text)


APPEND = Script("append")
COMMIT = Script("commit", repeats=False)
DELETE = Script("delete", repeats=False)
LOAD = Script("load", keys=2, writes=False)
READ = Script("read", keys=3, writes=False)
LATEST = Script("latest", writes=False)
