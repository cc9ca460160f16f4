"""Sessions of Google ADK in SQLite: state, a second writer, and another framework on the same conversation.

No model is called. Run it with ``python samples/google_adk_sessions.py``; it needs
``agent-stores[google-adk,database]``.
"""

import asyncio
import tempfile
import warnings

warnings.simplefilter("ignore")  # of Google's packages

from google.adk.errors import StaleSessionError  # noqa: E402
from google.adk.events.event import Event  # noqa: E402

from agent_stores.database import DatabaseChatMessageStore  # noqa: E402
from agent_stores.google_adk import AgentStoresSessionService  # noqa: E402


async def main(url: str) -> None:
    names = {"app_name": "weather", "user_id": "alice", "session_id": "s1"}
    async with AgentStoresSessionService(url) as service:
        session = await service.create_session(**names, state={"user:city": "Oslo"})
        other = await service.get_session(**names)
        await service.append_event(session, Event(author="user", message="Will it rain?"))
        try:
            await service.append_event(other, Event(author="user", message="Hello?"))
        except StaleSessionError:
            print("the other writer has to load the session again")
        print("state:", await service.get_user_state(app_name="weather", user_id="alice"))
    async with DatabaseChatMessageStore(url, thread_id="weather/alice/s1") as store:
        for message in await store.list_messages():
            print(f"{message.role}: {message.text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
