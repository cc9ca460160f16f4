"""What users import: complete, plain and cheap."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import agent_stores

DESIGNED = {
    "ChatMessage",
    "ChatMessageStoreProtocol",
    "ContextProvider",
    "Context",
    "AgentThread",
    "ChatAgent",
    "OpenAIChatClient",
    "InMemoryChatMessageStore",
    "DatabaseChatMessageStore",
    "RedisChatMessageStore",
    "AzureTableChatMessageStore",
    "DynamoDBChatMessageStore",
    "MessageLog",
    "RecallProvider",
    "SummaryProvider",
}


def test_the_designed_names_are_there() -> None:
    assert set(agent_stores.__all__) >= DESIGNED
    for name in agent_stores.__all__:
        assert getattr(agent_stores, name) is not None
    assert len(set(agent_stores.__all__)) == len(agent_stores.__all__)


def test_importing_brings_no_optional_package() -> None:
    optional = ("sqlalchemy", "openai", "redis", "typer", "rich", "tiktoken", "azure", "aiobotocore", "mem0")
    code = f"import sys, agent_stores; print([n for n in {optional!r} if n in sys.modules])"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("name", sorted(agent_stores.__all__))
def test_everything_public_has_a_docstring(name: str) -> None:
    value = getattr(agent_stores, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)


# Microsoft Agent Framework warns of its session store where a class is made of it.
@pytest.mark.filterwarnings("ignore:.*SessionStore is experimental:FutureWarning")
def test_every_module_can_be_imported_by_itself() -> None:
    skipped = {
        "agent_stores.cli.__main__",  # runs the command line
        "agent_stores.agent_framework_beta",  # for a version beside which 1.x cannot be installed
    }
    for module in pkgutil.walk_packages(agent_stores.__path__, "agent_stores."):
        if module.name not in skipped:
            importlib.import_module(module.name)
