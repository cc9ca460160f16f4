"""A user's script is checked by mypy and pyright as the user would."""

from __future__ import annotations

import json
import os
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


def check(tool: list[str], folder: Path, scripts: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Check scripts in one go, since reading the packages that they import is what takes the time."""
    for name, script in scripts.items():
        (folder / f"{name}.py").write_text(script)
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "providers" / "mem0")]
    # Where the package is not installed but on the path, as in a check-out, pyright has to be told.
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": paths}))
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(paths), "MYPY_CACHE_DIR": str(folder / "cache")}
    command = [*tool, *(f"{name}.py" for name in scripts)] if "mypy" in tool else tool
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


TOOLS = [
    [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"],
    [sys.executable, "-m", "pyright", "--project", ".", "--pythonpath", sys.executable],
]


@pytest.mark.parametrize("tool", TOOLS, ids=["mypy", "pyright"])
def test_a_factory_of_each_store_and_providers(tool: list[str], tmp_path: Path) -> None:
    scripts = {
        make.replace(".", "_"): SCRIPT.format(store=make.partition(".")[0], make=make, arguments=arguments)
        for make, arguments in STORES.items()
    }
    result = check(tool, tmp_path, {**scripts, "providers_of_context": PROVIDERS})
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("tool", TOOLS, ids=["mypy", "pyright"])
def test_mistakes_are_found(tool: list[str], tmp_path: Path) -> None:
    result = check(tool, tmp_path, {"wrong_stores": WRONG, "wrong_providers": WRONG_PROVIDER})
    assert result.returncode == 1
    for mistake in ("robot", "max_message", '"user"', "ignore"):
        assert mistake in result.stdout
