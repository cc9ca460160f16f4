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

# All modules of the library that `import agent_stores` loads. A new one must be needed by every program:
# otherwise import it where it is used.
LOADED = """
    _attached _checks _encrypted _json _part_checks _version append_plan backend backends backends.memory
    capabilities committer content_base contents errors failed_calls forking inline lineage listing log memory
    message_format message_rows messages operations protocols retention sealing search states store
    store_base store_options store_settings thread_updates tokens urls watching window writer_queue
""".split()  # noqa: SIM905


def loaded(code: str) -> list[str]:
    """The heavy modules that code loads in a process of its own."""
    script = f"{code}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_nothing_heavy_is_loaded() -> None:
    assert {"asyncio", "sqlite3"} <= set(loaded("import asyncio, sqlite3"))
    # Before Python 3.11, uuid loads subprocess, and msgspec uuid.
    assert loaded("import agent_stores") == loaded("import msgspec")


def test_exactly_these_modules_are_loaded() -> None:
    """A count of modules instead of a time, as times depend on the machine."""
    script = (
        "import sys, msgspec",
        "old = set(sys.modules)",
        "import agent_stores",
        "print(*set(sys.modules) - old)",
    )
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, check=True
    )
    names = result.stdout.split()
    own = sorted(name.removeprefix("agent_stores.") for name in names if name.startswith("agent_stores."))
    assert own == LOADED
    third_party = {name.partition(".")[0] for name in names} - {"agent_stores"} - sys.stdlib_module_names
    assert not third_party
    assert len(names) - len(own) - 1 <= 40  # modules of Python itself; the number differs by version
