"""Stores for the tests of the plug-in for Agent Framework, in any of its versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where conversations are kept: a database of this test's own, and a server that the session shares."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'chat.db'}"
    return redis_url(request)


def redis_url(request: pytest.FixtureRequest) -> str:
    """The Redis server of the session."""
    given = os.environ.get("AGENT_STORES_TEST_REDIS")  # in an environment of its own: see test_versions.py
    return given or str(request.getfixturevalue("valkey_server").url)
