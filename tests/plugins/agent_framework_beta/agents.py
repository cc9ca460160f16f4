"""Agents of the installed beta, which renamed them in 1.0.0b260210."""

from __future__ import annotations

from typing import Any

import agent_framework as framework
from agent_framework.openai import OpenAIChatClient

framework: Any = framework  # type: ignore[no-redef] # what is type-checked is another version


def agent_of(openai: Any, **options: Any) -> Any:
    """An agent whose model is behind a client of the openai package."""
    client: Any = OpenAIChatClient
    model = client(model_id="test-model", async_client=openai)
    if hasattr(framework, "ChatAgent"):
        return framework.ChatAgent(chat_client=model, **options)
    return framework.Agent(client=model, **options)


def message(role: str, words: str, **fields: Any) -> Any:
    """A message of one text."""
    kind = getattr(framework, "ChatMessage", None) or framework.Message
    return kind(role=role, text=words, **fields)
