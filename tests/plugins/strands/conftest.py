"""Strands calls its session managers, which block by their interface, on the event loop of an agent's run."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Allow them."""
