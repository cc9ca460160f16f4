"""Opening a log by its URL, as the command line and applications name one."""

from __future__ import annotations

import os
from typing import Any

from agent_stores.errors import ArgumentError
from agent_stores.log import MessageLog

SCHEMES = (
    "sqlite:///file (or a file's name), postgresql://…, mariadb://…, redis://…, rediss://…, unix:///socket, "
    "redis+sentinel://… or redis+cluster://…"
)
_REDIS = ("redis", "rediss", "valkey", "valkeys", "unix")


def open_log(url: str | os.PathLike[str], **options: Any) -> MessageLog:
    """The log of a URL; nothing connects before its first operation.

    Args:
        url: ``sqlite:///chat.db`` or a file's name, ``postgresql://user:password@host/database``,
            ``mariadb://…``, ``redis://…`` and what else `RedisChatMessageStore` accepts, or ``memory:`` for
            an empty one in this process.
        options: those of the backend's log.

    Raises:
        ArgumentError: when the URL is not of a kind that is known.
        MissingDependencyError: when the backend's packages are not installed; names the extra.
    """
    if isinstance(url, str) and url.rstrip("/") == "memory:":
        from agent_stores.stores.memory import InMemoryMessageLog

        return InMemoryMessageLog(**options)
    scheme = url.partition("://")[0].partition("+")[0] if isinstance(url, str) and "://" in url else "sqlite"
    if isinstance(url, str) and scheme in _REDIS:
        from agent_stores.stores.redis.log import RedisMessageLog

        return RedisMessageLog(url, **options)
    if scheme not in ("sqlite", "postgresql", "postgres", "mariadb", "mysql"):
        raise ArgumentError(f"the store's URL begins with {scheme!r}; accepted are {SCHEMES}")
    from agent_stores.stores.database.log import DatabaseMessageLog

    return DatabaseMessageLog(url, **options)
