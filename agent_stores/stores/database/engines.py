"""The SQLAlchemy engines that we make ourselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from agent_stores.stores.database.address import Address

_READERS = 4  # connections that read one SQLite file at once; one more writes, as SQLite lets only one write


class Settings(NamedTuple):
    """What makes our engines what they are.

    Attributes:
        address: the database.
        timeout: seconds that an operation may take, waiting for a connection included.
        max_connections: how many connections at most.
        options: the caller's further options for SQLAlchemy's `create_engine`.
    """

    address: Address
    timeout: float
    max_connections: int
    options: Mapping[str, Any]


def make_engine(settings: Settings) -> Engine:
    """An engine for a driver that blocks."""
    if settings.address.dialect == "sqlite":
        # Transactions are begun by hand: BEGIN IMMEDIATE waits for the lock, an upgrade cannot.
        arguments: dict[str, Any] = {
            "timeout": settings.timeout * 0.8,  # before ours, as SQLite says what it waited for
            "check_same_thread": False,
            "isolation_level": None,
        }
    else:
        arguments = _connect_arguments(settings)
    return create_engine(settings.address.url, **_all_options(settings, arguments))


def make_async_engine(settings: Settings) -> AsyncEngine:
    """An engine for a driver that runs on an event loop."""
    return create_async_engine(settings.address.url, **_all_options(settings, _connect_arguments(settings)))


def count_readers(engine: Engine, settings: Settings) -> int:
    """How many connections read an SQLite database beside the one that writes; 0 if that serves all."""
    if isinstance(engine.pool, StaticPool):
        return 0  # a second connection would be another database in memory
    size = settings.options.get("pool_size") or settings.max_connections
    return max(0, min(_READERS, size - 1, settings.max_connections - 1))


def _all_options(settings: Settings, arguments: dict[str, Any]) -> dict[str, Any]:
    given = dict(settings.options)
    given["connect_args"] = {**arguments, **given.get("connect_args", {})}
    return {"hide_parameters": True, **_pool_options(settings), **given}


def _pool_options(settings: Settings) -> dict[str, Any]:
    if settings.address.is_memory:
        return {"poolclass": StaticPool}
    options: dict[str, Any] = {
        "pool_size": settings.max_connections,
        "max_overflow": 0,
        "pool_timeout": settings.timeout,
    }
    if settings.address.dialect == "mariadb":
        options["isolation_level"] = "READ COMMITTED"  # no gap locks, hence fewer deadlocks
    return options


def _connect_arguments(settings: Settings) -> dict[str, Any]:
    seconds = max(1, math.ceil(settings.timeout))
    names = {
        "psycopg": ("connect_timeout",),
        "psycopg2": ("connect_timeout",),
        "asyncpg": ("timeout", "command_timeout"),
        "pymysql": ("connect_timeout", "read_timeout", "write_timeout"),
    }.get(settings.address.url.get_driver_name(), ("connect_timeout",))
    return {name: seconds for name in names if name not in settings.address.url.query}
