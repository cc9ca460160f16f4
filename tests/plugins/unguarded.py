"""A plug-in of pytest for environments with older frameworks, where tests/conftest.py is not read."""

from __future__ import annotations

from unittest.mock import Mock

import hypothesis
import pytest

# As there: time is no subject of a test.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


@pytest.fixture
def no_blocking_calls() -> Mock:
    """Takes the place of the guard of tests/conftest.py, for the tests that deactivate it."""
    return Mock()
