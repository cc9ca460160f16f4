"""A plug-in of pytest for environments with older frameworks: nothing there guards the event loop."""

from __future__ import annotations

from unittest.mock import Mock

import pytest


@pytest.fixture
def no_blocking_calls() -> Mock:
    """Takes the place of the guard of tests/conftest.py, for the tests that deactivate it."""
    return Mock()
