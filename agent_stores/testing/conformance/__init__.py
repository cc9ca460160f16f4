"""The conformance suite: what a store is, as tests that any `MessageLog` can run.

A backend's own test module needs five lines::

    from agent_stores.testing.conformance import *

    @pytest.fixture
    def target():
        return Target("mine", open_log=lambda: MessageLog(MyBackend("server")))

Each test opens logs through the ``target`` fixture; `Target` says what else a backend may offer, so that more
can be tested. The suite needs the extra ``testing``, and runs on anyio's pytest plugin.
"""

from __future__ import annotations

import pytest

for _name in (
    "content",
    "idempotency",
    "isolation",
    "listing",
    "metadata",
    "operations",
    "order",
    "reference",
    "retention",
    "retries",
    "states",
):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")

from agent_stores.log import MessageLog  # noqa: E402
from agent_stores.testing.conformance.content import TestContent, TestCorruption, TestSizes  # noqa: E402
from agent_stores.testing.conformance.idempotency import TestCancellation, TestIdempotency  # noqa: E402
from agent_stores.testing.conformance.isolation import TestIsolation  # noqa: E402
from agent_stores.testing.conformance.listing import TestListing  # noqa: E402
from agent_stores.testing.conformance.metadata import TestMetadata  # noqa: E402
from agent_stores.testing.conformance.operations import TestLifecycle, TestOperations  # noqa: E402
from agent_stores.testing.conformance.order import TestOrder  # noqa: E402
from agent_stores.testing.conformance.reference import TestAgainstReference  # noqa: E402
from agent_stores.testing.conformance.retention import TestTimeToLive, TestTrimming, TestWindow  # noqa: E402
from agent_stores.testing.conformance.retries import TestRetries  # noqa: E402
from agent_stores.testing.conformance.states import TestStates  # noqa: E402
from agent_stores.testing.conformance.target import Clock, Target, anyio_backend, make_store  # noqa: E402

__all__ = [
    "Clock",
    "MessageLog",
    "Target",
    "TestAgainstReference",
    "TestCancellation",
    "TestContent",
    "TestCorruption",
    "TestIdempotency",
    "TestIsolation",
    "TestLifecycle",
    "TestListing",
    "TestMetadata",
    "TestOperations",
    "TestOrder",
    "TestRetries",
    "TestSizes",
    "TestStates",
    "TestTimeToLive",
    "TestTrimming",
    "TestWindow",
    "anyio_backend",
    "make_store",
]
