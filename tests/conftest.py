"""What all tests share: the event loop, and the servers (see tests/servers)."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import blockbuster
import hypothesis
import pytest

from tests.plugins import judges
from tests.servers import overview, ports

# mem0 makes a folder for its settings when it is imported, in the user's home unless it is told otherwise.
_mem0 = tempfile.TemporaryDirectory(prefix="agent-stores-mem0-")
atexit.register(_mem0.cleanup)
os.environ["MEM0_DIR"] = _mem0.name

# Hundreds of processes import the library and frameworks: none of them is to compile these once more.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

pytest_plugins = ["tests.servers.fixtures"]

# Time is no subject of a test: a busy machine is slow.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this project."""
    parser.addoption(
        "--matrix",
        action="store_true",
        help="run the conformance suite on every backend with encryption and attachments",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Write on the tests of the frameworks' suites which one they are of."""
    judges.mark(items)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what the tests ran on, and what the frameworks' own suites say of our classes."""
    terminalreporter.section("ran on")
    for line in overview.lines():
        terminalreporter.write_line(line)
    found = judges.lines(terminalreporter.stats)
    if found:
        terminalreporter.section("suites of the frameworks")
        for line in found:
            terminalreporter.write_line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """How many workers `-n auto` starts: more than processors, as many tests wait for servers and clocks."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    return (os.cpu_count() or 1) + 2


@pytest.fixture
def anyio_backend() -> str:
    """The library runs on asyncio."""
    return "asyncio"


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port of this machine where nothing listens."""
    lease = ports.PortLease()
    yield lease.port
    lease.release()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[blockbuster.BlockBuster]:
    """Code of the library that would block a running event loop raises `blockbuster.BlockingError`.

    A test of methods that block, as their documentation says, deactivates it.
    """
    excluded = ["agent_stores.testing", "agent_stores.cli"]
    with blockbuster.blockbuster_ctx("agent_stores", excluded_modules=excluded) as guard:
        # asyncpg looks for certificates in the user's home when it connects.
        for name in ("os.path.abspath", "os.stat", "os.readlink"):
            guard.functions[name].can_block_in("asyncpg/connect_utils.py", "_dot_postgresql_path")
            guard.functions[name].can_block_in("asyncpg/connect_utils.py", "_parse_connect_dsn_and_args")
        for function in guard.functions.values():  # redis-py looks up its own version for each connection
            function.can_block_in("fsspec/__init__.py", "<module>")  # with the import
            function.can_block_in("redis/utils.py", "get_lib_version")
            function.can_block_in("agent_stores/backends/redis/layout.py", "<module>")  # with the import
            function.can_block_in("agent_stores/backends/tables/dynamodb.py", "make_client")  # on a thread
        yield guard
