"""The tenants that have threads, from the names of the keys of their shards."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agent_stores.backends.redis.keys import unquote_name

_INDEX = re.compile(rb":\{([^{}]*)\.\d\d\}:index\Z")
_SPECIAL = re.compile(r"([\\*?\[\]^-])")  # of the patterns of SCAN


def index_pattern(prefix: str) -> str:
    """The pattern of the keys that hold the thread ids of a shard, for SCAN."""
    return _SPECIAL.sub(r"\\\1", prefix) + ":{*}:index"


def sort_tenants(keys: Iterable[bytes], after: str | None) -> list[str | None]:
    """The tenants of keys that `index_pattern` found, after a name, by name; None, for none, comes first.

    A name that is too long for a key is not known, as the key holds its digest.
    """
    names = {found[1] for key in keys if (found := _INDEX.search(key)) is not None}
    tenants = {unquote_name(name) if name else None for name in names if not name.startswith(b"~")}
    ordered = sorted(tenants, key=lambda name: (name is not None, name or ""))
    return [name for name in ordered if after is None or (name is not None and name > after)]
