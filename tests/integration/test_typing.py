"""A user's script is checked by mypy and pyright as the user would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from collections.abc import Callable

from agent_stores import ChatAgent, ChatMessageStoreProtocol, OpenAIChatClient, {store}


def create_store() -> {store}:
    return {make}({arguments})


factory: Callable[[], ChatMessageStoreProtocol] = create_store
inline: Callable[[], ChatMessageStoreProtocol] = lambda: {make}({arguments})
agent = ChatAgent(chat_client=OpenAIChatClient(), chat_message_store_factory=create_store)
"""

PROVIDERS = """
import asyncio

from typing_extensions import assert_type

from agent_stores import (
    AgentResponse,
    ChatAgent,
    ContextProvider,
    OpenAIChatClient,
    RecallProvider,
    SearchableLog,
    SummaryProvider,
)
from agent_stores.database import DatabaseMessageLog
from agent_stores.mem0 import Mem0Provider
from agent_stores_mem0 import Mem0Provider as TheSame

memory = Mem0Provider(api_key="...", user_id="user_123", application_id="my_app", on_error="raise")
providers: list[ContextProvider] = [memory, TheSame(user_id="u"), SummaryProvider(), RecallProvider()]
agent = ChatAgent(chat_client=OpenAIChatClient(), context_providers=memory)
agent = ChatAgent(chat_client=OpenAIChatClient(), context_providers=[memory, SummaryProvider()])
log: SearchableLog = DatabaseMessageLog("chat.db")


async def main() -> None:
    assert_type(await agent.run("Hello"), AgentResponse)
    async with memory as entered:
        assert_type(entered, Mem0Provider)


asyncio.run(main())
"""

FOUR_METHODS = """
import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from typing_extensions import assert_type

from agent_stores import ChatAgent, ChatMessage, ChatMessageStoreProtocol, OpenAIChatClient


class DatabaseMessageStore(ChatMessageStoreProtocol):
    def __init__(self, connection_string: str) -> None:
        self.connection_string = connection_string
        self._messages: list[ChatMessage] = []

    async def add_messages(self, messages: Sequence[ChatMessage]) -> None:
        self._messages.extend(messages)

    async def list_messages(self) -> list[ChatMessage]:
        return self._messages

    async def serialize(self, **kwargs: Any) -> Any:
        return {"connection_string": self.connection_string}

    async def update_from_state(self, serialized_store_state: Any, **kwargs: Any) -> None:
        if serialized_store_state:
            self.connection_string = serialized_store_state["connection_string"]


def create_store() -> DatabaseMessageStore:
    return DatabaseMessageStore("first")


factory: Callable[[], ChatMessageStoreProtocol] = create_store
agent = ChatAgent(chat_client=OpenAIChatClient(api_key="k"), chat_message_store_factory=create_store)


async def main() -> None:
    store = DatabaseMessageStore("first")
    state = await store.serialize()
    again = await DatabaseMessageStore.deserialize(state, connection_string="second")
    assert isinstance(again, DatabaseMessageStore)
    assert again.connection_string == "first"
    thread = agent.get_new_thread()
    assert isinstance(thread.message_store, DatabaseMessageStore)
    await thread.message_store.add_messages([ChatMessage("user", "Hello")])
    restored = await agent.deserialize_thread(await thread.serialize())
    assert isinstance(restored.message_store, DatabaseMessageStore)


asyncio.run(main())
"""

OPTIONS = """
from agent_stores.ag2 import AgentStoresStorage
from agent_stores.agent_framework import AgentStoresCheckpointStorage, AgentStoresHistoryProvider
from agent_stores.agent_framework import AgentStoresSessionStore as Sessions
from agent_stores.chatkit import AgentStoresChatKitStore
from agent_stores.claude_agent import AgentStoresSessionStore
from agent_stores.google_adk import AgentStoresSessionService
from agent_stores.haystack import AgentStoresChatMessageStore
from agent_stores.langchain import AgentStoresChatMessageHistory
from agent_stores.langgraph import AgentStoresSaver
from agent_stores.llama_index import AgentStoresChatStore, AgentStoresDBChatStore, AgentStoresMemory
from agent_stores.openai_agents import AgentStoresSession
from agent_stores.pydantic_ai import AgentStoresConversationStore
from agent_stores.strands import AgentStoresSessionManager

AgentStoresStorage("memory:", {option}=3)
AgentStoresHistoryProvider("memory:", {option}=3)
AgentStoresCheckpointStorage("memory:", {option}=3)
Sessions("memory:", {option}=3)
AgentStoresChatKitStore("memory:", {option}=3)
AgentStoresSessionStore("memory:", {option}=3)
AgentStoresSessionService("memory:", {option}=3)
AgentStoresChatMessageStore("memory:", {option}=3)
AgentStoresChatMessageHistory("s", "memory:", {option}=3)
AgentStoresSaver("memory:", {option}=3)
AgentStoresChatStore("memory:", {option}=3)
AgentStoresDBChatStore("memory:", {option}=3)
AgentStoresMemory("memory:", {option}=3)
AgentStoresMemory.from_defaults("memory:", {option}=3)
AgentStoresSession("s", "memory:", {option}=3)
AgentStoresConversationStore("memory:", {option}=3)
AgentStoresSessionManager("s", "memory:", {option}=3)
"""
PLUGINS = OPTIONS.count("{option}")

WRONG = """
from agent_stores import ChatMessage, InMemoryChatMessageStore

ChatMessage("robot", "x")
InMemoryChatMessageStore(max_message=3)
"""

WRONG_PROVIDER = """
from agent_stores.mem0 import Mem0Provider

Mem0Provider(user="u")
Mem0Provider(user_id="u", on_error="ignore")
"""

STORES = {
    "RedisChatMessageStore": 'redis_url="redis://localhost:6379", thread_id="t", max_messages=100',
    "InMemoryChatMessageStore": 'thread_id="t", max_messages=100',
    "AzureTableChatMessageStore": '"UseDevelopmentStorage=true", thread_id="t", tenant="acme", ttl=60',
    "AzureTableChatMessageStore.from_connection_string": (
        '"UseDevelopmentStorage=true", table_name="chats", max_messages=100'
    ),
    "AzureTableChatMessageStore.from_account_and_id": '"account", thread_id="t", timeout=5',
    "DynamoDBChatMessageStore": '"chats", region_name="eu-central-1", thread_id="t", ttl=60',
    "DatabaseChatMessageStore": '"chat.db", thread_id="t", tenant="acme", max_messages=100, ttl=60',
}


# The frameworks' own types play no part here, and reading them would take most of the time.
SKIPPED = (
    "ag2", "agent_framework", "agents", "autogen", "chatkit", "claude_agent_sdk", "google", "haystack",
    "haystack_experimental", "langchain_core", "langgraph", "llama_index", "openai", "pydantic_ai", "strands",
)  # fmt: skip
MYPY_CONFIG = "[mypy]\nstrict = True\nfollow_imports = silent\n" + "".join(
    f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in SKIPPED
)
TOOLS = {
    "mypy": [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "."],
    "pyright": [sys.executable, "-m", "pyright", "--project", ".", "--pythonpath", sys.executable],
}


def check(tool: str, folder: Path, scripts: dict[str, str]) -> dict[str, list[str]]:
    """The errors of each script. All are checked in one go: most of the time goes into reading packages."""
    for name, script in scripts.items():
        (folder / f"{name}.py").write_text(script)
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "providers" / "mem0")]
    # Where the package is not installed but on the path, as in a check-out, pyright has to be told.
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": paths}))
    (folder / "mypy.ini").write_text(MYPY_CONFIG)
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(paths), "MYPY_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(TOOLS[tool], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr  # some of the scripts have errors
    errors: dict[str, list[str]] = {name: [] for name in scripts}
    for line in done.stdout.splitlines():
        if found := re.search(r"(\w+)\.py:(\d+).* error: ", line):
            errors[found[1]].append(line)
    return errors


@pytest.mark.parametrize("tool", TOOLS)
def test_programs_of_users(tool: str, tmp_path: Path) -> None:
    """A factory of each store, context providers and the options of plug-ins pass; mistakes are found."""
    right = {
        make.replace(".", "_"): SCRIPT.format(store=make.partition(".")[0], make=make, arguments=arguments)
        for make, arguments in STORES.items()
    }
    right |= {"providers_of_context": PROVIDERS, "four_methods": FOUR_METHODS}
    right["right_option"] = OPTIONS.format(option="max_messages")
    wrong = {"wrong_stores": WRONG, "wrong_providers": WRONG_PROVIDER}
    wrong["wrong_option"] = OPTIONS.format(option="max_message")
    errors = check(tool, tmp_path, right | wrong)
    assert not [error for name in right for error in errors[name]]
    assert len({error.split(":")[1] for error in errors["wrong_option"]}) == PLUGINS
    for name, mistakes in (
        ("wrong_stores", ("robot", "max_message")),
        ("wrong_providers", ('"user"', "ignore")),
    ):
        for mistake in mistakes:
            assert any(mistake in error for error in errors[name])


def test_a_subclass_of_the_protocol_with_four_methods_runs(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text(FOUR_METHODS)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "store.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
