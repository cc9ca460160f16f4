"""An example, or several, of every kind of block of LlamaIndex's messages."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from llama_index.core.base.llms import types
from llama_index.core.llms import ChatMessage

from tests.plugins.conftest import PNG

IMAGE = base64.b64encode(PNG).decode()
HERE = Path(__file__)


def message(*blocks: Any, role: str = "user", **more: Any) -> ChatMessage | None:
    """A message; None where this version of LlamaIndex has not all of its blocks."""
    if any(block is None for block in blocks):
        return None
    return ChatMessage(role=role, blocks=list(blocks), additional_kwargs=more)


def new(name: str, **fields: Any) -> Any:
    """A block that not every version has."""
    kind = getattr(types, name, None)
    return None if kind is None else kind(**fields)


def text(words: str) -> Any:
    return types.TextBlock(text=words)


_EVERY: dict[str, ChatMessage | None] = {
    "user": message(text("Hello 🦜 \x00")),
    "no blocks": message(),
    "empty text": message(text("")),
    "two texts": message(text("a"), text("b"), role="assistant"),
    **{f"role {role.value}": message(text("Hi"), role=role.value) for role in types.MessageRole},
    "kwargs": message(
        text("Hi"),
        a=[1, 1.0, True, None, {"b": 2**60}],
        raw=b"\x00\xff",
        deep={"x": [b"y", "z"]},
        name="alice",
    ),
    "image bytes": message(text("This?"), types.ImageBlock(image=PNG, detail="high")),
    "image url": message(types.ImageBlock(url="https://example.com/a.png")),
    "image without type": message(types.ImageBlock(url="https://example.com/a")),
    "image data url": message(types.ImageBlock(url=f"data:image/png;base64,{IMAGE}")),
    "image path": message(types.ImageBlock(path=HERE)),
    "odd image": message(types.ImageBlock(image=b"not an image")),
    "empty image": message(types.ImageBlock()),
    "audio": message(types.AudioBlock(audio=b"RIFF....WAV", format="wav")),
    "audio url": message(types.AudioBlock(url="https://example.com/a.mp3")),
    "document": message(types.DocumentBlock(data=b"%PDF-1.7", title="a.pdf")),
    "document path": message(types.DocumentBlock(path=HERE)),
    "document path as text": message(types.DocumentBlock(path=str(HERE))),
    "document url": message(types.DocumentBlock(url="https://example.com/a.pdf")),
    "openai calls": message(
        text("Let me look."),
        role="assistant",
        tool_calls=[
            {
                "id": "a",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":  "Oslo"}'},
            },
            {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "{oops"}},
        ],
        refusal=None,
    ),
    "calls without text": message(
        role="assistant",
        tool_calls=[{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    ),
    "odd calls": message(text("Hm."), role="assistant", tool_calls=[{"id": 1}], other=1),
    "tool": message(text("3 °C"), role="tool", tool_call_id="a", name="weather"),
    "tool with an image": message(text("a map"), types.ImageBlock(image=PNG), role="tool", tool_call_id="a"),
    "tool with texts": message(
        types.ImageBlock(image=PNG), text("a"), text("b"), role="tool", tool_call_id="a"
    ),
    "tool without blocks": message(role="tool", tool_call_id="a"),
    "tool without id": message(text("?"), role="tool"),
    "video": message(new("VideoBlock", video=b"....", video_mimetype="video/mp4", fps=2)),
    "video url": message(new("VideoBlock", url="https://example.com/a.mp4")),
    "cache": message(text("long"), new("CachePoint", cache_control={"type": "ephemeral", "ttl": "5m"})),
    "citable": message(new("CitableBlock", title="t", source="s", content="words")),
    "citable with an image": message(
        new("CitableBlock", title="t", source="s", content=[types.ImageBlock(image=PNG)])
    ),
    "citation": message(
        new(
            "CitationBlock",
            cited_content="words",
            source="s",
            title="t",
            additional_location_info={"page": 1},
        ),
        role="assistant",
    ),
    "thinking": message(
        new(
            "ThinkingBlock",
            content="Hm.",
            num_tokens=3,
            additional_information={"signature": "sealed", "x": 1},
        ),
        text("Yes."),
        role="assistant",
    ),
    "thinking nothing": message(new("ThinkingBlock"), role="assistant"),
    "tool calls": message(
        text("Let me look."),
        new("ToolCallBlock", tool_call_id="a", tool_name="weather", tool_kwargs={"city": "Oslo", "n": 1.0}),
        new("ToolCallBlock", tool_call_id="b", tool_name="weather", tool_kwargs='{"city": 1'),
        role="assistant",
        tool_calls=[{"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    ),
    "tool call without id": message(new("ToolCallBlock", tool_name="f"), role="assistant"),
}
MESSAGES = {name: example for name, example in _EVERY.items() if example is not None}
