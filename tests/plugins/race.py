"""A process that writes to a session at the same time as another one.

    python -m tests.plugins.race google_adk|pydantic_ai URL NAME COUNT

It adds one message after the other, each to the session as it has loaded it. A line says that it is ready; a
line on the input lets it begin. Each message that it has added, and each conflict, is a line on the output.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

warnings.simplefilter("ignore", DeprecationWarning)


async def google_adk(url: str, name: str, count: int) -> None:
    """Add events to a session of Google ADK."""
    from google.adk.errors import StaleSessionError
    from google.adk.events.event import Event
    from google.genai import types

    from agent_stores.google_adk import AgentStoresSessionService

    async with AgentStoresSessionService(url) as service:

        async def load() -> Any:
            return await service.get_session(app_name="app", user_id="u", session_id="s")

        async def add(session: Any, text: str) -> None:
            content = types.Content(role="user", parts=[types.Part(text=text)])
            await service.append_event(session, Event(author="user", invocation_id=text, content=content))

        await work(load, add, StaleSessionError, name, count)


async def pydantic_ai(url: str, name: str, count: int) -> None:
    """Add messages to a conversation of Pydantic AI."""
    from pydantic_ai.conversation_store import ConversationConflict
    from pydantic_ai.messages import ModelRequest, UserPromptPart

    from agent_stores.pydantic_ai import AgentStoresConversationStore

    async with AgentStoresConversationStore(url) as store:

        async def add(conversation: Any, text: str) -> None:
            conversation.messages.append(ModelRequest(parts=[UserPromptPart(text)]))
            await store.save(conversation)

        await work(lambda: store.load("c"), add, ConversationConflict, name, count)


async def work(
    load: Callable[[], Awaitable[Any]],
    add: Callable[[Any, str], Awaitable[None]],
    conflict: type[Exception],
    name: str,
    count: int,
) -> None:
    """Load, add, and after a conflict load again; the first message is added to what was loaded before."""
    loaded = await load()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for number in range(count):
        while True:
            try:
                await add(loaded, f"{name}{number}")
            except conflict:
                print("conflict", flush=True)
                loaded = await load()
            else:
                print(f"{name}{number}", flush=True)
                break
        loaded = await load()


if __name__ == "__main__":
    framework, url, name, count = sys.argv[1:]
    asyncio.run({"google_adk": google_adk, "pydantic_ai": pydantic_ai}[framework](url, name, int(count)))
