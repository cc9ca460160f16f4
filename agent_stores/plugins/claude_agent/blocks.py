"""Content blocks of Anthropic's Messages API, and our parts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from agent_stores.contents import (
    AnyContent,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.plugins.json_codec import Data, LeaveOut
from agent_stores.plugins.media import decode_base64, part_of_url
from agent_stores.plugins.unsupported import error_text

_NO_BLOCK = "the Messages API has no block for it"
_NOT_HERE = "an assistant's message holds text, reasoning and tool calls only"


def read_block(block: Any, framework: str) -> AnyContent:
    """The part of a block; opaque for a kind that has no neutral form."""
    try:
        found = _read(block, block["type"], framework)
    except (KeyError, TypeError, ValueError):
        found = None
    if found is not None:
        return found
    kind = block.get("type") if isinstance(block, dict) else None
    return OpaqueContent({"type": f"{framework}.{kind or 'block'}", "block": block})


def build_block(part: AnyContent, framework: str, role: str, leave_out: LeaveOut) -> Data | None:
    """The plainest block of a part; None when there is none for it."""
    if isinstance(part, ErrorContent):
        part = error_text(part)
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text}
    if isinstance(part, OpaqueContent) and part.type.startswith(f"{framework}."):
        block = part.data.get("block")
        if isinstance(block, dict):
            return block
    if isinstance(part, ReasoningContent) and role == "assistant":
        if not part.text and part.protected_data is not None:
            return {"type": "redacted_thinking", "data": part.protected_data}
        # Without a signature the API rejects the block.
        return {"type": "thinking", "thinking": part.text, "signature": part.protected_data or ""}
    if isinstance(part, ToolCallContent) and role == "assistant":
        return {"type": "tool_use", "id": part.call_id, "name": part.name, "input": _arguments(part)}
    if isinstance(part, ToolResultContent) and role == "user":
        return _build_result(part, framework, leave_out)
    if isinstance(part, (DataContent, UriContent)) and (media := _media(part)) is not None:
        if role == "user":
            return media
        leave_out(part, _NOT_HERE)
        return None
    leave_out(part, _NO_BLOCK)
    return None


def blocks_of_result(block: Data) -> bool:
    """Whether a block is a tool result whose text is in a list of blocks."""
    return block.get("type") == "tool_result" and isinstance(block.get("content"), list)


def in_blocks(block: Data) -> Data:
    """A tool result with its text in a list of blocks."""
    text = block.get("content")
    return {**block, "content": [{"type": "text", "text": text}]} if isinstance(text, str) else block


def _read(block: Data, kind: str, framework: str) -> AnyContent | None:
    if kind == "text":
        return TextContent(block["text"])
    if kind == "thinking":
        return ReasoningContent(block["thinking"], protected_data=block.get("signature"))
    if kind == "redacted_thinking":
        return ReasoningContent("", protected_data=block["data"])
    if kind == "tool_use":
        return ToolCallContent(block["id"], block["name"], block["input"])
    if kind == "tool_result":
        return _read_result(block, framework)
    if kind in ("image", "document"):
        source = block["source"]
        title = block.get("title") if kind == "document" else None
        name = title if isinstance(title, str) else None
        if source["type"] == "url":
            return part_of_url(source["url"], kind="file" if kind == "document" else kind, filename=name)
        data = decode_base64(source["data"]) if source["type"] == "base64" else None
        return None if data is None else DataContent(data, media_type=source["media_type"], filename=name)
    return None


def _read_result(block: Data, framework: str) -> ToolResultContent:
    content = block.get("content", "")
    parts = [read_block(inner, framework) for inner in content] if isinstance(content, list) else []
    texts = [part.text for part in parts if isinstance(part, TextContent)]
    return ToolResultContent(
        block["tool_use_id"],
        content if isinstance(content, str) else "".join(texts),
        is_error=block.get("is_error") is True,
        contents=tuple(part for part in parts if not isinstance(part, TextContent)),
    )


def _build_result(part: ToolResultContent, framework: str, leave_out: LeaveOut) -> Data:
    text = "" if part.result is None else part.result_text()
    inner = _build_all(part.contents, framework, leave_out)
    block: Data = {"type": "tool_result", "tool_use_id": part.call_id, "content": text}
    if inner:
        block["content"] = [{"type": "text", "text": text}, *inner] if text else inner
    return {**block, "is_error": True} if part.is_error else block


def _build_all(parts: Sequence[AnyContent], framework: str, leave_out: LeaveOut) -> list[Data]:
    found = [build_block(part, framework, "user", leave_out) for part in parts]
    return [block for block in found if block is not None]


def _arguments(call: ToolCallContent) -> Data:
    try:
        return call.parse_arguments()
    except ValueError:  # malformed JSON text of a model; a block takes objects only
        return {"arguments": call.arguments}


def _media(part: DataContent | UriContent) -> Data | None:
    kind = "image" if part.kind == "image" else "document"
    if part.kind in ("audio", "video"):
        return None
    named = {"title": part.filename} if kind == "document" and part.filename is not None else {}
    if isinstance(part, UriContent):
        return {"type": kind, "source": {"type": "url", "url": part.uri}, **named}
    data = base64.b64encode(part.data).decode()
    return {"type": kind, "source": {"type": "base64", "media_type": part.media_type, "data": data}, **named}
