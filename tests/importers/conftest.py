"""Sources with data that the real packages wrote, and targets to take it over to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.importers import javascript
from tests.plugins.environments import environment
from tests.servers.redis import RedisServer

HERE = Path(__file__).parent
PEERS = (
    "langchain-community>=0.4",
    "langchain-redis>=0.2.6",
    "llama-index-storage-chat-store-redis>=0.8",
    "llama-index-storage-chat-store-azure>=0.6",
    "aiohttp",
    "boto3",
    "agent-framework-redis>=1.0.0b261022",
)
BETA = ("agent-framework-core==1.0.0b260130", "agent-framework-redis==1.0.0b260130")


class Peers:
    """Writes and reads as other libraries do; see peers.py for actions."""

    def __call__(self, layout: str, url: str, *actions: dict[str, Any]) -> list[Any]:
        """What was read."""
        if layout == "langchain-js":
            command = [javascript.node(), str(HERE / "peers.mjs"), url]
            folder = javascript.installed("@langchain/redis@1.1.2", "@langchain/core@1.4.0")
        else:
            is_beta = layout == "agent-framework-beta"
            python = environment("peers-beta", *BETA) if is_beta else environment("peers", *PEERS)
            command, folder = [str(python), str(HERE / "peers.py"), layout, url], HERE
        done = subprocess.run(command, input=json.dumps(actions), capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr[-4000:]
        return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="session")
def peers() -> Peers:
    """The real packages, each in an environment where it can live."""
    return Peers()


@pytest.fixture
def redis_url(valkey_server: RedisServer) -> Iterator[str]:
    """A server with an empty database of this test's own: layouts without a prefix own all of it."""
    client = valkey_server.client()
    client.select(9)
    client.flushdb()
    yield valkey_server.url.removesuffix("/0") + "/9"
    client.flushdb()
    client.close()


@pytest.fixture(params=["sqlite", "redis"])
def target(request: pytest.FixtureRequest, tmp_path: Path, valkey_server: RedisServer) -> Iterator[str]:
    """Where conversations are taken over to."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'target.db'}"
        return
    client = valkey_server.client()
    client.select(8)
    client.flushdb()
    yield valkey_server.url.removesuffix("/0") + "/8"
    client.flushdb()
    client.close()
