"""What every plug-in says of arguments that it does not take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from agent_stores.ag2 import AgentStoresStorage
from agent_stores.agent_framework import AgentStoresCheckpointStorage, AgentStoresHistoryProvider
from agent_stores.agent_framework import AgentStoresSessionStore as AgentFrameworkSessionStore
from agent_stores.chatkit import AgentStoresChatKitStore
from agent_stores.claude_agent import AgentStoresSessionStore
from agent_stores.errors import ArgumentError
from agent_stores.google_adk import AgentStoresSessionService
from agent_stores.haystack import AgentStoresChatMessageStore
from agent_stores.langchain import AgentStoresChatMessageHistory, RedisChatMessageHistory
from agent_stores.langgraph import AgentStoresSaver, AsyncRedisSaver, RedisSaver
from agent_stores.llama_index import (
    AgentStoresChatStore,
    AgentStoresDBChatStore,
    AgentStoresMemory,
    RedisChatStore,
)
from agent_stores.openai_agents import AgentStoresSession, RedisSession
from agent_stores.plugins.store_resolver import PluginOptions
from agent_stores.pydantic_ai import AgentStoresConversationStore
from agent_stores.strands import AgentStoresSessionManager

NAMED = (AgentStoresSession, AgentStoresChatMessageHistory, AgentStoresSessionManager)
CLASSES: list[Any] = [
    *NAMED,
    AgentFrameworkSessionStore,
    AgentStoresChatKitStore,
    AgentStoresChatMessageStore,
    AgentStoresChatStore,
    AgentStoresCheckpointStorage,
    AgentStoresConversationStore,
    AgentStoresDBChatStore,
    AgentStoresHistoryProvider,
    AgentStoresMemory,
    AgentStoresSaver,
    AgentStoresSessionService,
    AgentStoresSessionStore,
    AgentStoresStorage,
]
OF_REDIS: dict[str, Callable[[], Any]] = {
    "RedisChatStore": lambda: RedisChatStore(redis_url="localhost:6379"),
    "RedisChatMessageHistory": lambda: RedisChatMessageHistory("s", url="localhost:6379"),
    "RedisSession": lambda: RedisSession.from_url("s", url="localhost:6379").store,
    "RedisSaver": lambda: RedisSaver("localhost:6379"),
    "AsyncRedisSaver": lambda: AsyncRedisSaver("localhost:6379"),
}


def made(kind: Any, source: Any, **options: Any) -> Any:
    return kind("s", source, **options) if kind in NAMED else kind(source, **options)


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Nothing is opened here."""


@pytest.mark.parametrize("kind", CLASSES)
def test_an_unknown_argument(kind: Any) -> None:
    with pytest.raises(TypeError, match="'max_message'") as raised:
        made(kind, "memory:", max_message=3)
    own = {
        one.name
        for one in inspect.signature(kind).parameters.values()
        if one.name not in ("store", "source", "session_id", "threads") and one.kind is not one.VAR_KEYWORD
    }
    text = str(raised.value)
    # What a model is shown is decided by LlamaIndex's memory, not by its chat stores.
    is_chat_store = kind in (AgentStoresChatStore, AgentStoresDBChatStore)
    others = {"window", "dangling_calls"} if is_chat_store else set()
    missing = {name for name in [*PluginOptions.__annotations__, *own] if name not in text} - others
    assert not missing, text


@pytest.mark.parametrize("kind", CLASSES)
def test_an_address_that_is_no_url(kind: Any) -> None:
    with pytest.raises(ArgumentError, match="redis://localhost:6379"):
        made(kind, "localhost:6379")


@pytest.mark.parametrize("name", OF_REDIS)
def test_an_address_of_redis_that_is_no_url(name: str) -> None:
    with pytest.raises(ArgumentError, match="redis://localhost:6379"):
        OF_REDIS[name]()
