"""An agent of the OpenAI Agents SDK whose conversation is kept in SQLite, and goes on in another session.

Without an OpenAI key in the environment, a local test model answers.

Run it with ``python samples/openai_agents_session.py``; it needs ``agent-stores[openai-agents,database]``.
"""

import asyncio
import os
import tempfile

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

from agent_stores.openai_agents import AgentStoresSession
from agent_stores.testing.local_model import local_model


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


async def main(url: str) -> None:
    async with AsyncOpenAI() as client:
        model = OpenAIChatCompletionsModel(os.environ.get("OPENAI_MODEL", "gpt-5-mini"), openai_client=client)
        agent = Agent(name="Guide", model=model, tools=[weather])
        for question in ("My name is Alice", "The weather in Oslo and Bergen?", "What's my name?"):
            async with AgentStoresSession("user_123", url, max_messages=100) as session:  # a new one
                result = await Runner.run(agent, question, session=session)
                print("agent:", result.final_output)
                print(len(await session.get_items()), "items in", session.store.location)


if __name__ == "__main__":
    set_tracing_disabled(True)
    with tempfile.TemporaryDirectory() as folder, local_model():
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
