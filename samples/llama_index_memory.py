"""Chat engines of LlamaIndex whose conversations are kept in SQLite, one for each user.

The model is LlamaIndex's own mock, which repeats what it is sent.

Run it with ``python samples/llama_index_memory.py``; it needs ``agent-stores[llama-index,database]``.
"""

import asyncio
import tempfile

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import MockLLM

from agent_stores.llama_index import AgentStoresChatStore, AgentStoresMemory


async def main(url: str) -> None:
    for user, question in (("alice", "Hello"), ("bob", "Good morning"), ("alice", "And again")):
        # Anew for each question: all that is kept is in the store.
        memory = AgentStoresMemory.from_defaults(url, chat_store_key=user, token_limit=3000, max_messages=100)
        engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=memory)
        await engine.achat(question)
        await memory.aclose()

    chats = AgentStoresChatStore(url)  # the same conversations, for what takes a chat store
    for user in await chats.aget_keys():
        messages = await chats.aget_messages(user)
        print(f"{user}: {len(messages)} messages, the first {messages[0].content!r}")
    await chats.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
