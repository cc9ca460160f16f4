"""An example, or several, of every kind of message of LangChain, and of the blocks that providers use."""

from __future__ import annotations

import base64
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)

from tests.plugins.conftest import PNG

IMAGE = base64.b64encode(PNG).decode()


def call(name: str, args: Any, call_id: str | None) -> Any:
    return {"name": name, "args": args, "id": call_id, "type": "tool_call"}


MESSAGES: dict[str, BaseMessage] = {
    "human": HumanMessage("Hello 🦜 \x00", id="h1"),
    "human with everything": HumanMessage(
        "Hi",
        id="h2",
        name="alice",
        additional_kwargs={"a": [1, 1.0, True, None, {"b": 2**60}], "lc_source": "x"},
        response_metadata={"r": 1},
        extra_field={"kept": True},
    ),
    "empty": HumanMessage("", id="h3"),
    "empty list": HumanMessage([], id="h4"),
    "strings and blocks": HumanMessage(["Look:", {"type": "text", "text": "here"}], id="h5"),
    "image urls": HumanMessage(
        [
            {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
            {"type": "image_url", "image_url": "https://example.com/b"},
        ],
        id="h6",
    ),
    "standard blocks": HumanMessage(
        [
            {"type": "image", "base64": IMAGE, "mime_type": "image/png", "id": "lc_1"},
            {"type": "image", "url": "https://example.com/a.jpg"},
            {"type": "image", "file_id": "file-1"},
            {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"},
            {"type": "video", "url": "https://example.com/a.mp4", "mime_type": "video/mp4"},
            {"type": "file", "base64": "AAAA", "mime_type": "application/pdf", "extras": {"filename": "a"}},
            {"type": "text-plain", "text": "plain", "mime_type": "text/plain"},
            {"type": "non_standard", "value": {"x": 1}},
        ],
        id="h7",
    ),
    "blocks before 1.0": HumanMessage(
        [
            {"type": "image", "source_type": "base64", "data": IMAGE, "mime_type": "image/png"},
            {"type": "file", "source_type": "url", "url": "https://example.com/a.pdf"},
            {"type": "file", "source_type": "id", "id": "file-1"},
        ],
        id="h8",
    ),
    "providers' blocks": HumanMessage(
        [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/c.png"}},
            {"type": "document", "source": {"type": "text", "data": "x"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
            {"type": "media", "mime_type": "image/png", "data": IMAGE},
            {"no": "type"},
        ],
        id="h9",
    ),
    "system": SystemMessage("Be brief.", id="s1"),
    "developer": SystemMessage("Be brief.", id="s2", additional_kwargs={"__openai_role__": "developer"}),
    "ai": AIMessage("Hi!", id="run-1"),
    "ai with everything": AIMessage(
        "Let me look.",
        id="run-2",
        name="guide",
        tool_calls=[call("weather", {"city": "Oslo", "n": 1.0}, "a"), call("weather", {}, "b")],
        invalid_tool_calls=[
            {
                "name": "f",
                "args": "{oops",
                "id": "c",
                "error": "not JSON",
                "type": "invalid_tool_call",
            }
        ],
        usage_metadata={
            "input_tokens": 3,
            "output_tokens": 4,
            "total_tokens": 7,
            "input_token_details": {"cache_read": 1},
        },
        response_metadata={"model_name": "m", "finish_reason": "tool_calls", "logprobs": None},
        additional_kwargs={"refusal": None},
    ),
    "ai without text": AIMessage("", id="run-3", tool_calls=[call("weather", {"city": "Oslo"}, "a")]),
    "calls without ids": AIMessage("", id="run-4", tool_calls=[call("f", {}, None)]),
    "a call twice": AIMessage("", id="run-5", tool_calls=[call("f", {}, "a"), call("f", {"x": 1}, "a")]),
    "an invalid call that parses": AIMessage(
        "",
        id="run-6",
        invalid_tool_calls=[
            {"name": "f", "args": "{}", "id": "a", "error": "no such tool", "type": "invalid_tool_call"},
            {"name": None, "args": None, "id": None, "error": "?", "type": "invalid_tool_call"},
        ],
    ),
    "raw calls": AIMessage(
        "",
        id="run-7",
        additional_kwargs={
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":  1}'}}
            ]
        },
    ),
    "anthropic": AIMessage(
        [
            {"type": "thinking", "thinking": "Hm.", "signature": "sealed"},
            {"type": "redacted_thinking", "data": "xxx"},
            {"type": "text", "text": "Let me look.", "citations": [{"a": 1}]},
            {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Oslo"}, "index": 2},
        ],
        id="run-8",
        tool_calls=[call("weather", {"city": "Oslo"}, "a"), call("other", {}, "b")],
    ),
    "standard reasoning": AIMessage(
        [
            {"type": "reasoning", "reasoning": "Hm.", "extras": {"signature": "s"}},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "text", "text": "Yes.", "annotations": []},
            {"type": "tool_call", "id": "a", "name": "f", "args": {}},
        ],
        id="run-9",
        tool_calls=[call("f", {}, "a")],
        response_metadata={"output_version": "v1"},
    ),
    "reasoning aside": AIMessage("Yes.", id="run-10", additional_kwargs={"reasoning_content": "Hm.", "x": 1}),
    "usage of zeros": AIMessage(
        "", id="run-11", usage_metadata={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    ),
    "tool": ToolMessage("3 °C", tool_call_id="a", id="t1", name="weather"),
    "tool with everything": ToolMessage(
        "failed",
        tool_call_id="b",
        id="t2",
        artifact={"rows": [[1, 2.5], None], "big": "x" * 1000},
        status="error",
        additional_kwargs={"k": "v"},
        response_metadata={"r": 1},
    ),
    "tool with blocks": ToolMessage(
        [
            {"type": "text", "text": "a map", "x": 1},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
            "and more",
            {"type": "json", "json": {}},
        ],
        tool_call_id="c",
        id="t3",
    ),
    "tool without id": ToolMessage("?", tool_call_id="", id="t4"),
    "empty tool": ToolMessage("", tool_call_id="d", id="t5"),
    "tool with an empty list": ToolMessage([], tool_call_id="d", id="t6"),
    "function": FunctionMessage(content="3 °C", name="weather", id="f1"),
    "chat": ChatMessage(content="Hm.", role="critic", id="c1"),
    "chat assistant": ChatMessage(content="Hi.", role="assistant", id="c2"),
    "remove": RemoveMessage(id="h1"),
    "ai chunk": AIMessageChunk(
        content="Hel",
        id="run-20",
        tool_call_chunks=[
            {"name": "f", "args": '{"x', "id": "a", "index": 0, "type": "tool_call_chunk"},
        ],
    ),
    "another ai chunk": AIMessageChunk(content="lo", id="run-20"),
    "human chunk": HumanMessageChunk(content="Hi", id="x1"),
    "system chunk": SystemMessageChunk(content="Be", id="x2"),
    "tool chunk": ToolMessageChunk(content="3", tool_call_id="a", id="x3", artifact=[1]),
    "function chunk": FunctionMessageChunk(content="3", name="f", id="x4"),
    "chat chunk": ChatMessageChunk(content="Hm", role="critic", id="x5"),
}
