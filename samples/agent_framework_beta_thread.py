"""Microsoft Agent Framework's betas: a thread that goes on after its JSON was put away.

Without an OpenAI key, a local test model answers. Needs ``agent-stores[agent-framework-beta,database]``.
"""

# mypy: ignore-errors
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

import asyncio
import json
import tempfile
from pathlib import Path

from agent_framework.openai import OpenAIChatClient
from openai import AsyncOpenAI

from agent_stores.agent_framework_beta import ChatMessageStoreFactory
from agent_stores.testing.local_model import local_model


async def main(url: str) -> None:
    async with (
        AsyncOpenAI() as openai,
        ChatMessageStoreFactory(url, key="a secret", max_messages=100) as stores,
    ):
        client = OpenAIChatClient(model_id="test-model", async_client=openai)
        agent = client.as_agent(chat_message_store_factory=stores)
        thread = agent.get_new_thread()
        print("agent:", (await agent.run("Hello, my name is Alice", thread=thread)).text)

        state = json.dumps(await thread.serialize())  # names the conversation, and holds no message
        restored = await agent.deserialize_thread(json.loads(state))
        print("agent:", (await agent.run("What's my name?", thread=restored)).text)
        print(await restored.message_store.store.count(), "messages in the thread")


if __name__ == "__main__":
    with local_model(), tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{Path(folder) / 'chat.db'}"))
