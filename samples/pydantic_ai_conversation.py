"""A conversation of Pydantic AI in SQLite, begun by another framework, with a second writer.

The model is Pydantic AI's `FunctionModel`. Run it with ``python samples/pydantic_ai_conversation.py``; it
needs ``agent-stores[pydantic-ai,database]``.
"""

import asyncio
import tempfile

from pydantic_ai import Agent
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from agent_stores import ChatMessage
from agent_stores.database import DatabaseChatMessageStore
from agent_stores.pydantic_ai import AgentStoresConversationStore

agent = Agent(FunctionModel(lambda seen, _: ModelResponse([TextPart(f"I remember {len(seen)} messages.")])))


async def main(url: str) -> None:
    async with DatabaseChatMessageStore(url, thread_id="user_123") as history:
        hello = [ChatMessage("user", "Hello from another framework."), ChatMessage("assistant", "Hello!")]
        await history.add_messages(hello)
        async with AgentStoresConversationStore(url) as store:
            first, second = await store.load("user_123"), await store.load("user_123")
            await store.save(await agent.run("What do you remember?", conversation=first))
            try:
                await store.save(await agent.run("And me?", conversation=second))
            except ConversationConflict:
                print("the other writer has to load the conversation again")
        for message in await history.list_messages():
            print(f"{message.role}: {message.text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
