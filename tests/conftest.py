"""What all tests share: the event loop, and the servers (see tests/servers)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import ports

pytest_plugins = ["tests.servers.fixtures"]


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
