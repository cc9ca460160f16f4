"""What the tests run on: Python, the machine, and the servers that are there."""

from __future__ import annotations

import importlib
import os
import platform
import sqlite3

_SERVERS = {
    "PostgreSQL": ("postgres",),
    "PgBouncer": ("pgbouncer",),
    "MariaDB": ("mariadb",),
    "Valkey 9": ("redis", "valkey9"),
    "Redis 6.2": ("redis", "redis62"),
    "DynamoDB's emulator": ("dynamodb",),
    "Azurite": ("azurite",),
}


def lines() -> list[str]:
    """A line for the machine, one for the servers that are there, and one for each that is missing."""
    missing = {
        name: reason
        for name, (module, *arguments) in _SERVERS.items()
        if (reason := _why(module, *arguments))
    }
    present = ", ".join(name for name in _SERVERS if name not in missing)
    return [
        f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} processors",
        f"SQLite {sqlite3.sqlite_version}, {present or 'no server'}",
        *missing.values(),
    ]


def _why(module: str, *arguments: str) -> str | None:
    """Why a server cannot run here, or None when it can; installs nothing."""
    try:
        server = importlib.import_module(f"tests.servers.{module}")
        if module == "azurite":
            return (
                None if server.main_script().exists() else "Azurite: the first test that needs it installs it"
            )
        if module == "dynamodb":
            importlib.import_module("moto")
            return None
        return server.available(*arguments)  # type: ignore[no-any-return]
    except ImportError as error:
        return f"{module}: {error}"
