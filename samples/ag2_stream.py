"""An agent of AG2 whose conversation is kept in SQLite, and goes on in another process.

Without an OpenAI key in the environment, a local test model answers.

Run it with ``python samples/ag2_stream.py``; it needs ``agent-stores[ag2,database,openai]``.
"""

import asyncio
import os
import tempfile
from uuid import UUID

from ag2 import Agent, MemoryStream
from ag2.config import OpenAIConfig
from openai import DefaultAsyncHttpxClient

from agent_stores.ag2 import AgentStoresStorage
from agent_stores.testing.local_model import local_model

CONVERSATION = UUID("5f5b5c0e-6d4f-4d1c-9a51-6f4b7b1f6a10")


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


async def main(url: str) -> None:
    async with DefaultAsyncHttpxClient() as client:
        config = OpenAIConfig(model=os.environ.get("OPENAI_MODEL", "gpt-5-mini"), http_client=client)
        agent = Agent("guide", config=config, tools=[weather])
        for question in ("My name is Alice", "The weather in Oslo and Bergen?", "What's my name?"):
            async with AgentStoresStorage(url) as storage:  # anew for each question
                reply = await agent.ask(question, stream=MemoryStream(storage, id=CONVERSATION))
                print("agent:", reply.body)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, local_model():
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
