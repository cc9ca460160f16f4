"""A store of your own: a JSON file for each conversation, in a class that derives from nothing.

Any class with these five methods is a store. Without an OpenAI key, a local test model answers.

Run it with ``python samples/custom_store.py``; it needs ``agent-stores[openai]``.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from agent_stores import ChatAgent, ChatMessage, ChatMessageStoreProtocol, OpenAIChatClient
from agent_stores.testing.local_model import local_model

State = MutableMapping[str, Any]


class JsonFileStore:
    """One conversation in a file, for one process at a time."""

    def __init__(self, folder: str) -> None:
        self.folder, self.name = Path(folder), uuid.uuid4().hex

    async def list_messages(self) -> list[ChatMessage]:
        """All messages, in order."""
        file = self.folder / f"{self.name}.json"
        return [ChatMessage.from_dict(item) for item in json.loads(file.read_text())] if file.exists() else []

    async def add_messages(self, messages: Sequence[ChatMessage]) -> None:
        """Add all or none, by renaming a complete file; a message that is there already is left out."""
        kept = {message.message_id: message for message in await self.list_messages()}
        for message in messages:
            message = message if message.message_id else message.replace(message_id=uuid.uuid4().hex)
            kept.setdefault(message.message_id, message)
        new = self.folder / f"{self.name}.new"
        new.write_text(json.dumps([message.to_dict() for message in kept.values()]))
        new.replace(self.folder / f"{self.name}.json")

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        """The name, and no secret or path."""
        return {"type": "json_file", "name": self.name}

    async def update_from_state(self, serialized_store_state: State, **kwargs: Any) -> None:
        """Turn to another conversation; a state may come from outside, and cannot name another folder."""
        self.name = uuid.UUID(serialized_store_state["name"]).hex

    @classmethod
    async def deserialize(cls, serialized_store_state: State, **kwargs: Any) -> JsonFileStore:
        """A store for a state."""
        store = cls(**kwargs)
        await store.update_from_state(serialized_store_state)
        return store


async def main(folder: str) -> None:
    agent = ChatAgent(
        chat_client=OpenAIChatClient(), chat_message_store_factory=lambda: JsonFileStore(folder)
    )
    thread = agent.get_new_thread()
    print("is a store:", isinstance(thread.message_store, ChatMessageStoreProtocol))
    await agent.run("Hello, my name is Alice", thread=thread)
    state = json.dumps(await thread.serialize())

    restored = await agent.deserialize_thread(json.loads(state))
    response = await agent.run("What's my name?", thread=restored)
    print("agent:", response.text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary, local_model():
        asyncio.run(main(temporary))
