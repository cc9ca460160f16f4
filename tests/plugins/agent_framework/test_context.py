"""Our context providers in agents of Agent Framework 1.x."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from agent_framework import Agent, AgentSession
from agent_framework.openai import OpenAIChatCompletionClient
from openai import AsyncOpenAI

from agent_stores import ChatMessage, Context, ContextProvider, InMemoryMessageLog, tool
from agent_stores.agent_framework import AgentStoresHistoryProvider, ContextProviderAdapter
from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.testing.model_server import ModelServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[Any]:
    async with AsyncOpenAI(api_key="k", base_url=model_server.base_url) as openai:
        yield OpenAIChatCompletionClient(model="test-model", async_client=openai)


class Names(ContextProvider):
    """Remembers what users say, for all threads."""

    def __init__(self) -> None:
        self.facts: list[str] = []
        self.seen: list[Any] = []

    async def thread_created(self, thread_id: str | None) -> None:
        self.seen.append(("thread", thread_id))

    async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
        self.seen.append(("invoking", [message.text for message in messages], kwargs["thread_id"]))
        return Context(messages=[ChatMessage("user", "; ".join(self.facts))] if self.facts else ())

    async def invoked(
        self,
        request_messages: Sequence[ChatMessage],
        response_messages: Sequence[ChatMessage] | None = None,
        invoke_exception: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        self.facts += [message.text for message in request_messages]
        self.seen.append(("invoked", [message.text for message in response_messages or ()]))

    async def __aenter__(self) -> Names:
        self.seen.append("entered")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.seen.append("left")


async def test_memory_across_sessions(model: Any) -> None:
    names = Names()
    history = AgentStoresHistoryProvider(InMemoryMessageLog())
    async with ContextProviderAdapter(names) as memory:
        agent = Agent(client=model, context_providers=[history, memory])
        first, second = agent.create_session(), agent.create_session()
        await agent.run("My name is Alice", session=first)
        answer = await agent.run("What's my name?", session=second)
        assert answer.text == "Your name is Alice."
        await agent.run("repeat: x", session=second)
    assert names.seen == [
        "entered",
        ("thread", first.session_id),
        ("invoking", ["My name is Alice"], first.session_id),
        ("invoked", ["Nice to meet you, Alice!"]),
        ("thread", second.session_id),
        ("invoking", ["What's my name?"], second.session_id),
        ("invoked", ["Your name is Alice."]),
        ("invoking", ["repeat: x"], second.session_id),
        ("invoked", ["x"]),
        "left",
    ]
    assert memory.source_id == "Names"
    # What providers add is not stored, unless the history is told to.
    assert await history.store(second.session_id).count() == 4


async def test_instructions_and_tools(model: Any, model_server: ModelServer) -> None:
    @tool(name="weather_now", description="The weather.")
    def measure(city: str) -> str:
        return f"{city}: 11 degrees"

    async def tell_time(zone: str) -> str:
        """The time."""
        return f"12:00 in {zone}"

    class Equipped(ContextProvider):
        async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
            return Context(instructions="Call me Bob.", tools=[measure, tell_time])

    agent = Agent(
        client=model, instructions="Be brief.", context_providers=[ContextProviderAdapter(Equipped())]
    )
    answer = await agent.run("What is the weather in Oslo?", session=agent.create_session())
    assert "Oslo: 11 degrees" in answer.text
    request = model_server.requests[0]
    system = [m["content"] for m in request["messages"] if m["role"] in ("system", "developer")]
    assert "Be brief." in str(system)
    assert "Call me Bob." in str(system)
    assert {t["function"]["name"]: t["function"].get("description") for t in request["tools"]} == {
        "weather_now": "The weather.",
        "tell_time": "The time.",
    }
    answer = await agent.run("What time is it?", session=AgentSession())
    assert "12:00" in answer.text


async def test_one_that_fails(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ContextProvider):
        async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
            raise RuntimeError("the secret text")

    names = Names()
    names.facts = ["My name is Alice"]
    memory = ContextProviderAdapter([Broken(), names], source_id="memory")
    agent = Agent(client=model, context_providers=[memory])
    answer = await agent.run("What's my name?", session=agent.create_session())
    assert answer.text == "Your name is Alice."
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "Broken failed in invoking with RuntimeError" in warnings[0]
    assert memory.source_id == "memory"
    await memory.aclose()
    assert names.seen[-1] == "left"


async def test_arguments() -> None:
    with pytest.raises(
        ArgumentTypeError, match=r"context_providers\[0\] must have the methods of ContextProvider, got int"
    ):
        ContextProviderAdapter([3])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="source_id must be a non-empty str"):
        ContextProviderAdapter(Names(), source_id="")
