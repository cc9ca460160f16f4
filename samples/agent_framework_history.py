"""Microsoft Agent Framework 1.x: a session that goes on after its JSON was put away.

Without an OpenAI key in the environment, a local test model answers.

Run it with ``python samples/agent_framework_history.py``; it needs ``agent-framework-openai`` and
``agent-stores[agent-framework,database]``.
"""

import asyncio
import json
import tempfile
from pathlib import Path

from agent_framework import Agent, AgentSession
from agent_framework.openai import OpenAIChatCompletionClient
from openai import AsyncOpenAI

from agent_stores.agent_framework import AgentStoresHistoryProvider
from agent_stores.testing.local_model import local_model


async def main(url: str) -> None:
    async with AsyncOpenAI() as openai, AgentStoresHistoryProvider(url, max_messages=100) as history:
        client = OpenAIChatCompletionClient(async_client=openai)
        agent = Agent(client=client, context_providers=[history])
        session = agent.create_session()
        print("agent:", (await agent.run("Hello, my name is Alice", session=session)).text)

        state = json.dumps(session.to_dict())  # names the session, and holds no message
        restored = AgentSession.from_dict(json.loads(state))
        print("agent:", (await agent.run("What's my name?", session=restored)).text)
        store = history.store(session.session_id)
        print(await store.count(), "messages in", store.location)


if __name__ == "__main__":
    with local_model(), tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{Path(folder) / 'chat.db'}"))
