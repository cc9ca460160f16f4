"""`import agent_stores` loads no framework, driver or server: each is loaded when it is first used."""

from __future__ import annotations

import subprocess
import sys

HEAVY = [
    "asyncio",
    "ssl",
    "sqlite3",
    "subprocess",
    "openai",
    "httpx",
    "sqlalchemy",
    "psycopg",
    "redis",
    "azure",
    "aiohttp",
    "aiobotocore",
    "botocore",
    "langchain_core",
    "llama_index",
    "agents",
    "agent_framework",
    "mem0",
    "pytest",
]


def loaded(code: str) -> list[str]:
    """The heavy modules that code loads in a process of its own."""
    script = f"{code}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_nothing_heavy_is_loaded() -> None:
    assert {"asyncio", "sqlite3"} <= set(loaded("import asyncio, sqlite3"))
    assert loaded("import agent_stores") == []
