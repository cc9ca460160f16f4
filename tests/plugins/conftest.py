"""What the tests of all plug-ins share; they also run alone, in environments with older frameworks."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent_stores.log import MessageLog
from agent_stores.testing.model_server import ModelServer
from agent_stores.urls import open_log

# Haystack reports the use of pipelines to its makers unless it is told not to before it is imported.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def anyio_backend() -> str:
    """The library runs on asyncio."""
    return "asyncio"


@pytest.fixture(params=["memory", "sqlite"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MessageLog]:
    """A log of its own for each test."""
    opened = open_log("memory:" if request.param == "memory" else tmp_path / "chat.db")
    yield opened
    await opened.aclose()


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """The local model, which refuses conversations that the real one refuses."""
    with ModelServer() as server:
        yield server
