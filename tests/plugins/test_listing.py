"""Listing 10,000 sessions reads pages of threads, and no messages, in each framework that lists sessions."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from chatkit.types import ThreadMetadata
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelRequest, UserPromptPart

from agent_stores.chatkit import AgentStoresChatKitStore
from agent_stores.claude_agent import AgentStoresSessionStore
from agent_stores.google_adk import AgentStoresSessionService
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.pydantic_ai import AgentStoresConversationStore
from agent_stores.urls import open_log

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SESSIONS = 10_000
PAGE = 500


async def begin_google_adk(log: MessageLog) -> None:
    service = AgentStoresSessionService(log)
    await service.create_session(app_name="app", user_id="u", session_id="0", state={"a": 1})


async def list_google_adk(log: MessageLog) -> int:
    listed = (await AgentStoresSessionService(log).list_sessions(app_name="app")).sessions
    assert all(session.state == {"a": 1} for session in listed)
    return len(listed)


async def begin_pydantic_ai(log: MessageLog) -> None:
    messages: Any = [ModelRequest(parts=[UserPromptPart("Hello.")])]
    await AgentStoresConversationStore(log).save(Conversation(conversation_id="0", messages=messages))


async def list_pydantic_ai(log: MessageLog) -> int:
    return len(await AgentStoresConversationStore(log).list_conversations())


async def begin_claude_agent(log: MessageLog) -> None:
    entry: Any = {"type": "user", "uuid": "u", "message": {"role": "user", "content": "Hello."}}
    await AgentStoresSessionStore(log).append({"project_key": "p", "session_id": "0"}, [entry])


async def list_claude_agent(log: MessageLog) -> int:
    return len(await AgentStoresSessionStore(log).list_sessions("p"))


async def begin_chatkit(log: MessageLog) -> None:
    store: AgentStoresChatKitStore[Any] = AgentStoresChatKitStore(log)
    await store.save_thread(ThreadMetadata(id="0", created_at=datetime.now(timezone.utc)), None)


async def list_chatkit(log: MessageLog) -> int:
    store: AgentStoresChatKitStore[Any] = AgentStoresChatKitStore(log)
    page = await store.load_threads(20, None, "desc", None)
    assert page.has_more
    return len((await store.load_threads(SESSIONS, page.after, "desc", None)).data) + 20


FRAMEWORKS: dict[str, tuple[Callable[[MessageLog], Awaitable[None]], Callable[[MessageLog], Awaitable[int]]]]
FRAMEWORKS = {
    "google_adk": (begin_google_adk, list_google_adk),
    "pydantic_ai": (begin_pydantic_ai, list_pydantic_ai),
    "claude_agent": (begin_claude_agent, list_claude_agent),
    "chatkit": (begin_chatkit, list_chatkit),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_listing(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, listed = FRAMEWORKS[framework]
    log = open_log("memory:")
    await begin(log)
    (first,) = (await log.list_threads(None)).threads
    rows = await log.read(ThreadKey(None, first.thread_id))
    for number in range(1, SESSIONS):
        key = ThreadKey(None, first.thread_id.removesuffix("0") + str(number))
        if rows:
            await log.append(key, rows)
        await log.update_metadata(key, first.metadata)
    pages: list[Any] = []
    threads = log.backend.threads

    async def counted(*args: Any, **options: Any) -> Any:
        pages.append(options)
        return await threads(*args, **options)

    async def no_rows(*args: Any, **options: Any) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(log.backend, "threads", counted)
    monkeypatch.setattr(log.backend, "rows", no_rows)
    begun = time.process_time()
    assert await listed(log) == SESSIONS
    assert len(pages) <= (2 if framework == "chatkit" else 1) * (SESSIONS // PAGE + 1)
    assert time.process_time() - begun < 10  # a peer takes more than a minute
    await log.aclose()
