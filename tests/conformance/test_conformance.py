"""The conformance suite on every backend, plain, and with encryption and attachments.

``make test`` runs the variants with these on five backends, ``make test-matrix`` on all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Target
from tests.conformance.targets import BACKENDS, VARIANTS, Setup

SLOW = ("folder", "azurite", "dynamodb")
IN_EVERY_VARIANT = ("memory", "table", "sqlite", "postgresql", "valkey9")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on its targets."""
    if "target" not in metafunc.fixturenames:
        return
    varied = BACKENDS if metafunc.config.getoption("--matrix") else IN_EVERY_VARIANT
    pairs = [(name, each) for name in BACKENDS for each in VARIANTS if each == "plain" or name in varied]
    ids = [name if each == "plain" else f"{name}-{each}" for name, each in pairs]
    metafunc.parametrize("target", pairs, ids=ids, indirect=True)


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    name, variant = request.param
    made = BACKENDS[name](Setup(request.getfixturevalue, tmp_path, variant))
    made.shortened = variant != "plain" or name in SLOW
    return made
