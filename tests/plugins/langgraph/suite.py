"""LangGraph's own conformance suite, run on a log."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncGenerator

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer

from agent_stores.langgraph import AgentStoresSaver
from agent_stores.log import MessageLog


async def check(log: MessageLog) -> str:
    """Run all of the suite; returns what it says.

    Raises:
        AssertionError: when a test fails or is skipped.
    """
    tenants = (f"{uuid.uuid4().hex}-{number}" for number in itertools.count())

    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield AgentStoresSaver(log, tenant=next(tenants))

    report = await validate(RegisteredCheckpointer("AgentStoresSaver", factory))
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert failures == []
    assert report.conformance_level() == "FULL"
    assert {name for name, result in report.results.items() if result.passed} == {
        capability.value for capability in ALL_CAPABILITIES
    }
    passed = sum(result.tests_passed for result in report.results.values())
    skipped = sum(result.tests_skipped for result in report.results.values())
    assert (passed, skipped) == (81, 0)
    server = log.location.partition(":")[0]
    return f"langgraph-checkpoint-conformance on {server}: {passed} passed, {skipped} skipped"
