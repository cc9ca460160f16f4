"""Calls of the last message, which a framework's own loop is about to answer: no plug-in answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.chatkit import AgentStoresChatKitStore
from agent_stores.contents import ToolCallContent, ToolResultContent
from agent_stores.log import MessageLog
from agent_stores.retention import NO_RESULT
from tests.plugins import exchange
from tests.plugins.pairs.features import Framework
from tests.plugins.pairs.table import FRAMEWORKS

pytestmark = pytest.mark.anyio


async def _read_chatkit(log: MessageLog) -> Any:
    store: AgentStoresChatKitStore[Any] = AgentStoresChatKitStore(log)
    return (await store.load_thread_items("s", None, 99, "asc", None)).data


def _reader(framework: Framework) -> Callable[[MessageLog], Awaitable[Any]]:
    async def read(log: MessageLog) -> Any:
        return framework.dump(await framework.read(log))

    return read


READERS: dict[str, Callable[[MessageLog], Awaitable[Any]]] = {
    **{name: _reader(one) for name, one in FRAMEWORKS.items() if name != "neutral"},
    "claude_agent": exchange.read_claude,
    "strands": exchange.read_strands,
    "ag2": exchange.read_ag2,
    "haystack": exchange.read_haystack,
    "chatkit": _read_chatkit,
}
SAYS_CALLS = sorted(set(READERS) - {"chatkit"})


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Some frameworks' stores block, by their interface."""


@pytest.mark.parametrize("answered", [[], ["a"]])
@pytest.mark.parametrize("name", READERS)
async def test_they_are_left_alone(
    name: str, answered: list[str], log: MessageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "THREAD", "s" if name != "claude_agent" else exchange.THREAD)
    messages = [
        ChatMessage("user", "The weather?"),
        ChatMessage("assistant", contents=[ToolCallContent(one, "weather", {}) for one in ("a", "b")]),
        *(ChatMessage("tool", contents=[ToolResultContent(one, "sun")]) for one in answered),
    ]
    store = ChatMessageStore(log, thread_id=exchange.THREAD if name == "claude_agent" else "s")
    await store.add_messages(messages)
    shown = repr(await READERS[name](log))
    assert NO_RESULT not in shown
    assert "weather" in shown.lower()
    assert shown.count("sun") >= len(answered) or name not in SAYS_CALLS
