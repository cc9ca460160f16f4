"""Agents of the installed beta, which renamed them in 1.0.0b260210."""

from __future__ import annotations

from importlib import import_module
from typing import Any

framework: Any = import_module("agent_framework")  # what is type-checked is another version
OpenAIChatClient: Any = import_module("agent_framework.openai").OpenAIChatClient

function_tool: Any = getattr(framework, "tool", None) or framework.ai_function
"""Makes a tool of a function."""


def agent_of(openai: Any, **options: Any) -> Any:
    """An agent whose model is behind a client of the openai package."""
    model = OpenAIChatClient(model_id="test-model", async_client=openai)
    if hasattr(framework, "ChatAgent"):
        return framework.ChatAgent(chat_client=model, **options)
    return framework.Agent(client=model, **options)


def message(role: str, words: str, **fields: Any) -> Any:
    """A message of one text."""
    kind = getattr(framework, "ChatMessage", None) or framework.Message
    return kind(role=role, text=words, **fields)
