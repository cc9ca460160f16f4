"""The Lua scripts: each is one atomic step on the server, in one round trip.

The files are in ``lua/``. In their place, lines ``-- include name`` become those of another file.
"""

from __future__ import annotations

import hashlib
import pkgutil
import re
from typing import NamedTuple


class Script(NamedTuple):
    """A script as EVALSHA and EVAL take it.

    Attributes:
        source: its text.
        sha: the digest by which the server knows it.
        keys: how many of a thread's keys it takes: a slot that moves is waited for if one of them is missing.
        writes: whether it changes threads, other than to renew a time-to-live.
        repeats: whether it may run twice.
    """

    source: bytes
    sha: str
    keys: int
    writes: bool
    repeats: bool


def _read(name: str) -> bytes:
    # Read as modules are: the first import may be on an event loop, where other reads raise under a guard.
    text = pkgutil.get_data("agent_stores.backends.redis", f"lua/{name}.lua") or b""
    return re.sub(rb"-- include (\w+)\n", lambda found: _read(found[1].decode()), text)


def _script(name: str, *, keys: int = 6, writes: bool = True, repeats: bool = True) -> Script:
    source = _read(name)
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest(), keys, writes, repeats)


APPEND = _script("append")
COMMIT = _script("commit", repeats=False)
DELETE = _script("delete", repeats=False)
LOAD = _script("load", keys=2, writes=False)
READ = _script("read", keys=3, writes=False)
LATEST = _script("latest", writes=False)
