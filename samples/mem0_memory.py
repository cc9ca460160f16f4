"""What a user told in one conversation, remembered in another, and for that user only, with mem0.

With a ``MEM0_API_KEY``, mem0's platform remembers (``MEM0_HOST`` names another address). Without one, mem0's
open-source package does, in a temporary folder, with the model and the embeddings that the environment names;
without an OpenAI key, a local test model answers.

Run it with ``python samples/mem0_memory.py``; it needs ``agent-stores[mem0,openai]``.
"""

import asyncio
import logging
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent_stores import ChatAgent, ChatMessage, OpenAIChatClient
from agent_stores.mem0 import Mem0Provider
from agent_stores.testing.local_model import local_model

logging.getLogger("mem0").setLevel(logging.ERROR)  # it warns of optional packages

ProviderOf = Callable[[str], Mem0Provider]


def platform(user_id: str) -> Mem0Provider:
    """A user's memory on the platform; the key is in the environment."""
    return Mem0Provider(host=os.environ.get("MEM0_HOST"), user_id=user_id, application_id="sample")


@asynccontextmanager
async def in_this_process() -> AsyncIterator[ProviderOf]:
    """Users' memories in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MEM0_DIR"] = str(folder)  # mem0 reads it when it is imported
        from mem0 import AsyncMemory

        vectors = {"path": str(folder / "vectors"), "on_disk": True}
        config: dict[str, Any] = {
            "llm": {"provider": "openai", "config": {"model": os.environ.get("OPENAI_MODEL", "gpt-5-mini")}},
            "embedder": {"provider": "openai", "config": {"model": "text-embedding-3-small"}},
            "vector_store": {"provider": "qdrant", "config": vectors},
            "history_db_path": str(folder / "history.db"),
        }
        memory = AsyncMemory.from_config(config)
        try:
            yield lambda user_id: Mem0Provider(
                mem0_client=memory, user_id=user_id, application_id="sample", timeout=60
            )
        finally:
            memory.vector_store.client.close()
            memory.close()


async def ask(provider: Mem0Provider, question: str) -> str:
    """Ask in a conversation of its own."""
    agent = ChatAgent(
        chat_client=OpenAIChatClient(),
        instructions="You are a helpful assistant.",
        context_providers=provider,
    )
    async with agent:
        return (await agent.run(question, thread=agent.get_new_thread())).text


async def main(provider_of: ProviderOf) -> None:
    alice, bob = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("alice", "bob"))
    print("alice is told:", await ask(provider_of(alice), "Hello, my name is Alice"))

    # The platform learns in the background: this waits for it, at most half a minute.
    async with provider_of(alice) as provider:
        for _ in range(15):
            if (await provider.invoking([ChatMessage("user", "What's my name?")])).messages:
                break
            await asyncio.sleep(2)

    print("alice is told:", await ask(provider_of(alice), "What's my name?"))
    print("bob is told:", await ask(provider_of(bob), "What's my name?"))


async def run() -> None:
    if os.environ.get("MEM0_API_KEY"):
        await main(platform)
        return
    async with in_this_process() as provider_of:
        await main(provider_of)


if __name__ == "__main__":
    with local_model():
        asyncio.run(run())
