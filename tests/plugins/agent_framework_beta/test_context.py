"""Our context providers in agents of Agent Framework's betas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from openai import AsyncOpenAI

from agent_stores import ChatMessage, Context, ContextProvider, tool
from agent_stores.agent_framework_beta import ContextProviderAdapter
from agent_stores.testing.model_server import ModelServer
from tests.plugins.agent_framework_beta.agents import agent_of, framework, message

pytestmark = pytest.mark.anyio


@pytest.fixture
async def openai(model_server: ModelServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="k", base_url=model_server.base_url) as client:
        yield client


class Names(ContextProvider):
    """Remembers what users say, for all threads."""

    def __init__(self) -> None:
        self.facts: list[str] = []
        self.seen: list[str] = []

    async def thread_created(self, thread_id: str | None) -> None:
        self.seen.append(f"thread {thread_id}")

    async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
        return Context(messages=[ChatMessage("user", "; ".join(self.facts))] if self.facts else ())

    async def invoked(
        self,
        request_messages: Sequence[ChatMessage],
        response_messages: Sequence[ChatMessage] | None = None,
        invoke_exception: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        self.facts += [one.text for one in request_messages]
        self.seen += [one.text for one in response_messages or ()]

    async def __aenter__(self) -> Names:
        self.seen.append("entered")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.seen.append("left")


async def test_memory_across_threads(openai: AsyncOpenAI) -> None:
    names = Names()
    async with ContextProviderAdapter(names) as memory:
        assert isinstance(memory, framework.ContextProvider)
        agent = agent_of(openai, context_provider=memory)
        await agent.run("My name is Alice", thread=agent.get_new_thread())
        answer = await agent.run("What's my name?", thread=agent.get_new_thread())
        assert answer.text == "Your name is Alice."
        await memory.thread_created("t")
    assert names.seen == ["entered", "Nice to meet you, Alice!", "Your name is Alice.", "thread t", "left"]


async def test_instructions_and_tools(openai: AsyncOpenAI, model_server: ModelServer) -> None:
    @tool(name="weather_now", description="The weather.")
    def measure(city: str) -> str:
        return f"{city}: 11 degrees"

    def tell_time(zone: str) -> str:
        """The time."""
        return f"12:00 in {zone}"

    class Equipped(ContextProvider):
        async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
            return Context(instructions="Call me Bob.", tools=[measure, tell_time])

    adapter = ContextProviderAdapter([Equipped(), Names()])
    agent = agent_of(openai, instructions="Be brief.", context_provider=adapter)
    answer = await agent.run("What is the weather in Oslo?")
    assert "Oslo: 11 degrees" in answer.text
    assert "12:00" in (await agent.run("What time is it?")).text
    assert "Call me Bob." in str(model_server.requests[0]["messages"])
    await adapter.aclose()


async def test_single_messages() -> None:
    names = Names()
    adapter = ContextProviderAdapter(names)
    await adapter.invoked(message("user", "a fact"), message("assistant", "noted"))
    context = await adapter.invoking(message("user", "hi"))
    assert [one.text for one in context.messages] == ["a fact"]
    await adapter.aclose()
