"""Clients that send the whole conversation again, on the framework's own provider and on ours."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import AgentResponse, AgentSession, InMemoryHistoryProvider, Message, SessionContext

from agent_stores import InMemoryMessageLog
from agent_stores.agent_framework import AgentStoresHistoryProvider

pytestmark = pytest.mark.anyio

Turn = tuple[list[str], str]


def message(text: str) -> Message:
    """A message without an id; "u" begins those of the user."""
    return Message("user" if text.startswith("u") else "assistant", [text])


async def stored(provider: Any, *turns: Turn) -> list[str]:
    """What is stored after runs, each with the texts of its input and its answer."""
    session = AgentSession(session_id="s")
    state: dict[str, Any] = {}
    for inputs, answer in turns:
        context = SessionContext(session_id="s", input_messages=[message(text) for text in inputs])
        context._response = AgentResponse(messages=[message(answer)])
        await provider.after_run(agent=None, session=session, context=context, state=state)
    return [one.text for one in await provider.get_messages("s", state=state)]


@pytest.fixture(params=["theirs", "ours"])
def provider(request: pytest.FixtureRequest) -> Any:
    ours = request.param == "ours"
    return AgentStoresHistoryProvider(InMemoryMessageLog()) if ours else InMemoryHistoryProvider()


async def test_a_whole_transcript(provider: Any) -> None:
    turns = (["u1"], "a1"), (["u1", "a1", "u2"], "a2"), (["u1", "a1", "u2", "a2", "u3"], "a3")
    assert await stored(provider, *turns) == ["u1", "a1", "u2", "a2", "u3", "a3"]


async def test_the_end_of_a_transcript(provider: Any) -> None:
    turns = (["u1"], "a1"), (["u2"], "a2"), (["u2", "a2", "u3"], "a3")
    assert await stored(provider, *turns) == ["u1", "a1", "u2", "a2", "u3", "a3"]


async def test_another_conversation_is_stored(provider: Any) -> None:
    turns = (["u1"], "a1"), (["u8", "a8", "u9"], "a9")
    assert await stored(provider, *turns) == ["u1", "a1", "u8", "a8", "u9", "a9"]


async def test_a_turn_that_says_the_same_is_kept() -> None:
    ours = AgentStoresHistoryProvider(InMemoryMessageLog())
    assert await stored(ours, (["u"], "a"), (["u"], "a"), (["u"], "a")) == ["u", "a"] * 3


async def test_a_trimmed_transcript() -> None:
    ours = AgentStoresHistoryProvider(InMemoryMessageLog(), max_messages=2)
    turns = (["u1"], "a1"), (["u2"], "a2"), (["u1", "a1", "u2", "a2", "u3"], "a3")
    assert await stored(ours, *turns) == ["u3", "a3"]


async def test_excluded_messages_and_clearing() -> None:
    ours = AgentStoresHistoryProvider(InMemoryMessageLog(), skip_excluded=True)
    hidden = Message("user", ["old"], additional_properties={"_excluded": True})
    await ours.save_messages("s", [hidden, message("u1")])
    assert [one.text for one in await ours.get_messages("s")] == ["u1"]
    assert await ours.store("s").count() == 2
    await ours.clear("s")
    assert await ours.store("s").count() == 0
