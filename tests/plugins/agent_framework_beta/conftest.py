"""The tests of the betas run in environments of their own only: see tests/plugins/test_environments.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "AGENT_STORES_TEST_BETA" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where conversations are kept: a database of this test's own, and a server that the session shares."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'chat.db'}"
    return os.environ["AGENT_STORES_TEST_REDIS"]
