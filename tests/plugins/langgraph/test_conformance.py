"""LangGraph's own conformance suite."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import validate as suite
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer

from agent_stores.langgraph import AgentStoresSaver
from agent_stores.log import MessageLog

pytestmark = pytest.mark.anyio


async def test_the_whole_suite(log: MessageLog, capsys: pytest.CaptureFixture[str]) -> None:
    tenants = map(str, itertools.count())

    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield AgentStoresSaver(log, tenant=next(tenants))

    report = await suite(RegisteredCheckpointer("AgentStoresSaver", factory))
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert failures == []
    assert report.conformance_level() == "FULL"
    assert {name for name, result in report.results.items() if result.passed} == {
        capability.value for capability in ALL_CAPABILITIES
    }
    passed = sum(result.tests_passed for result in report.results.values())
    skipped = sum(result.tests_skipped for result in report.results.values())
    with capsys.disabled():
        print(f"\nlanggraph-checkpoint-conformance: {passed} passed, {skipped} skipped")
    assert (passed, skipped) == (81, 0)
