"""A conversation is stored in SQLite, its thread becomes JSON, and is restored from it.

The JSON names the conversation and holds none of its messages, so it is small and can be kept anywhere: in a
session, a cookie, a job's arguments. Without an OpenAI key in the environment, a local test model answers.

Run it with ``python samples/serialize_thread.py``; it needs ``agent-stores[database,openai]``.
"""

import asyncio
import json
import tempfile
from pathlib import Path

from agent_stores import ChatAgent, DatabaseChatMessageStore, OpenAIChatClient
from agent_stores.testing.local_model import local_model


def make_agent(database: Path) -> ChatAgent:
    def create_store() -> DatabaseChatMessageStore:
        return DatabaseChatMessageStore(database, max_messages=100)

    return ChatAgent(
        chat_client=OpenAIChatClient(),
        instructions="You are a helpful assistant.",
        chat_message_store_factory=create_store,
    )


async def begin(database: Path) -> str:
    agent = make_agent(database)
    thread = agent.get_new_thread()
    response = await agent.run("Hello, my name is Alice", thread=thread)
    print("agent:", response.text)
    return json.dumps(await thread.serialize())


async def go_on(database: Path, state: str) -> None:
    agent = make_agent(database)  # another agent, as another process would make it
    thread = await agent.deserialize_thread(json.loads(state))
    response = await agent.run("What's my name?", thread=thread)
    print("agent:", response.text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, local_model():
        file = Path(folder) / "chat.db"
        state = asyncio.run(begin(file))
        print("state:", state)
        asyncio.run(go_on(file, state))
