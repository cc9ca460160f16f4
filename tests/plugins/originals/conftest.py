"""Servers that the test that runs this folder has started; it needs packages of its own."""

from __future__ import annotations

import os
import uuid

import pytest

collect_ignore_glob = [] if "ORIGINALS_REDIS" in os.environ else ["test_*.py"]


@pytest.fixture(params=["the original", "ours"])
def whose(request: pytest.FixtureRequest) -> str:
    """Whose class is tested."""
    return str(request.param)


@pytest.fixture
def redis_url() -> str:
    """A server whose keys are shared: each test has names of its own."""
    return os.environ["ORIGINALS_REDIS"]


@pytest.fixture
def azure() -> str:
    """The connection string of an account of Azure Tables."""
    return os.environ["ORIGINALS_AZURE"]


@pytest.fixture
def name() -> str:
    """A name that no other test uses, of letters and digits."""
    return f"t{uuid.uuid4().hex}"
