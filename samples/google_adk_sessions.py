"""Sessions of Google ADK in SQLite: state, a second writer, and another framework on the same conversation.

No model is called. Run it with ``python samples/google_adk_sessions.py``; it needs
``agent-stores[google-adk,database]``.
"""

import asyncio
import tempfile
from typing import Any

from google.adk.errors import StaleSessionError
from google.adk.events.event import Event

from agent_stores.database import DatabaseChatMessageStore
from agent_stores.google_adk import AgentStoresSessionService


def said(text: str) -> Event:
    return Event.model_validate({"author": "user", "message": text})


async def main(url: str) -> None:
    names: Any = {"app_name": "weather", "user_id": "alice", "session_id": "s1"}
    async with AgentStoresSessionService(url) as service:
        session = await service.create_session(**names, state={"user:city": "Oslo"})
        other: Any = await service.get_session(**names)
        await service.append_event(session, said("Will it rain?"))
        try:
            await service.append_event(other, said("Hello?"))
        except StaleSessionError:
            print("the other writer has to load the session again")
        print("state:", await service.get_user_state(app_name="weather", user_id="alice"))
    async with DatabaseChatMessageStore(url, thread_id="weather/alice/s1") as store:
        for message in await store.list_messages():
            print(f"{message.role}: {message.text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
