"""One Lua script for each operation: one atomic step on the server, in one round trip.

The scripts are in ``lua/``: each says what it takes and replies. Several share the parts that are named here;
they are put in front of it. A script for the common case may come before all of them, and return first.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files


class Script:
    """A script as `EVALSHA` and `EVAL` take it.

    Attributes:
        name: the operation.
        source: the script.
        sha: the name under which the server keeps it.
        writes: whether it writes, other than to renew a time-to-live.
    """

    __slots__ = ("name", "sha", "source", "writes")

    def __init__(self, name: str, *parts: str, common: str | None = None, writes: bool = True) -> None:
        folder = files("agent_stores.stores.redis") / "lua"
        self.name = name
        self.source = b"\n".join((folder / f"{part}.lua").read_bytes() for part in (*parts, name))
        if common is not None:
            self.source = b"%b\nlocal function general()\n%b\nend\nreturn general()\n" % (
                (folder / f"{common}.lua").read_bytes(),
                self.source,
            )
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()
        self.writes = writes

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


_CHANGES = ("head", "time", "entries", "links", "places")

APPEND = Script("append", *_CHANGES, common="append_plain")
REWRITE = Script("append", *_CHANGES, "rewrite")
READ = Script("read", "head", "time", writes=False)
GET = Script("get", "head", "places", writes=False)
REPLACE = Script("replace", *_CHANGES, "recut")
DELETE = Script("delete", *_CHANGES, "recut")
POP_LAST = Script("pop_last", *_CHANGES, "recut")
CLEAR = Script("clear", "head", "time")
STATS = Script("stats", writes=False)
SET_TTL = Script("set_ttl", "head", "time")
DUMP = Script("dump", "head", writes=False)
RESTORE = Script("restore", *_CHANGES, "recut")
DELETE_THREAD = Script("delete_thread")
FORGET = Script("forget")
