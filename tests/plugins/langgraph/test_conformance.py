"""LangGraph's own conformance suite."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent_stores.log import MessageLog
from tests.plugins.langgraph.suite import check

pytestmark = pytest.mark.anyio


async def test_the_whole_suite(log: MessageLog, record_property: Callable[[str, object], None]) -> None:
    record_property("judge", await check(log))
