"""Sources with data that the real packages wrote, and targets to take it over to."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
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


# The emulator of DynamoDB takes any credentials.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "planted-id", "AWS_SECRET_ACCESS_KEY": "planted-s3cret"}


class Peer:
    """A process of an environment that writes and reads until its input ends; see peers.py."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `close` closes it
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=folder,
            env={**os.environ, **CREDENTIALS},
        )

    def __call__(self, *request: Any) -> list[Any]:
        """What was read."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise AssertionError(self._errors.read()[-4000:])
        return list(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()


class Peers:
    """Writes and reads as other libraries do; see peers.py for actions.

    A process is kept for each environment: to import the packages takes longer than all they do.
    """

    def __init__(self) -> None:
        self._running: dict[str, Peer] = {}

    def __call__(self, layout: str, url: str, *actions: dict[str, Any]) -> list[Any]:
        """What was read."""
        name = layout if layout in ("langchain-js", "agent-framework-beta") else "peers"
        if name not in self._running:
            self._running[name] = self._start(name)
        try:
            return self._running[name](layout, url, actions)
        except AssertionError:
            self._running.pop(name).close()
            raise

    def close(self) -> None:
        """End all processes."""
        for peer in self._running.values():
            peer.close()

    @staticmethod
    def _start(name: str) -> Peer:
        if name == "langchain-js":
            folder = javascript.installed("@langchain/redis@1.1.2", "@langchain/core@1.4.0")
            return Peer([javascript.node(), str(HERE / "peers.mjs")], folder)
        python = environment("peers", *PEERS) if name == "peers" else environment("peers-beta", *BETA)
        return Peer([str(python), str(HERE / "peers.py")], HERE)


@pytest.fixture(scope="session")
def peers() -> Iterator[Peers]:
    """The real packages, each in an environment where it can live."""
    found = Peers()
    yield found
    found.close()


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
