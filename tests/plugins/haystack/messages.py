"""Messages of Haystack of every kind."""

from __future__ import annotations

import base64

from haystack.dataclasses import (
    ChatMessage,
    ChatRole,
    FileContent,
    ImageContent,
    ReasoningContent,
    TextContent,
    ToolCall,
)

from tests.plugins.conftest import PNG

IMAGE = ImageContent(base64.b64encode(PNG).decode(), mime_type="image/png")
CALLS = [
    ToolCall("weather", {"city": "Oslo"}, id="t1"),
    ToolCall("weather", {"city": "Bergen"}, id="t2", extra={"signature": "c2ln"}),
]

CONVERSATION: list[ChatMessage] = [
    ChatMessage.from_user(content_parts=["The weather in Oslo and Bergen?", IMAGE], name="Alice"),
    ChatMessage.from_assistant(
        "I look.",
        tool_calls=CALLS,
        reasoning=ReasoningContent("Two calls.", extra={"id": "r"}),
        meta={"model": "m"},
    ),
    ChatMessage.from_tool([TextContent("rain"), IMAGE], CALLS[0]),
    ChatMessage.from_tool("no such city", CALLS[1], error=True),
    ChatMessage.from_assistant("It rains.", meta={"usage": {"total_tokens": 7, "cost": 1.0}}),
]

UNUSUAL: list[ChatMessage] = [
    ChatMessage.from_user(""),
    ChatMessage.from_system("Be brief."),
    ChatMessage(ChatRole.ASSISTANT, []),
    ChatMessage.from_assistant(tool_calls=[ToolCall("f", {})]),
    ChatMessage.from_tool("x", ToolCall("f", {})),
    ChatMessage.from_tool("x", ToolCall("f", {}, id="t")),
    ChatMessage.from_tool([TextContent("a"), TextContent("b")], CALLS[0]),
    ChatMessage.from_tool([IMAGE], CALLS[0]),
    ChatMessage.from_tool([], CALLS[0]),
    ChatMessage.from_user(
        content_parts=[
            FileContent(base64.b64encode(b"%PDF-1").decode(), mime_type="application/pdf", filename="a.pdf"),
            FileContent("AA==", validation=False),
            ImageContent("AA==", mime_type="image/png", detail="low", meta={"page": 1}, validation=False),
        ]
    ),
    ChatMessage.from_user("a", meta={"chat_message_id": 5, "n": 1.0}),
    ChatMessage.from_assistant(reasoning="only"),
]
