"""Content blocks of LangChain's messages, and our parts.

Blocks are dicts whose shape depends on the provider and on LangChain's version; each shape that is known
here has a name, and a message keeps the names of its blocks. Each block becomes one part, so that the plain
form of a message has as many blocks as the message had, and differs in small things only.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from agent_stores.contents import (
    AnyContent,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    UriContent,
)
from agent_stores.plugins.media import decode_base64, media_url, part_of_url

FRAMEWORK = "langchain"

Block = str | dict[str, Any]

_MEDIA = ("image", "audio", "video", "file", "text-plain")


def read_block(block: Any, calls: Mapping[str, ToolCallContent]) -> tuple[str, AnyContent]:
    """The name of a block's shape, and its part.

    Args:
        block: text or a dict.
        calls: the message's tool calls by id, which some providers' blocks repeat.
    """
    if isinstance(block, str):
        return "str", TextContent(block)
    try:
        found = _read(block, str(block["type"]), calls)
    except (KeyError, TypeError, ValueError, AttributeError):
        found = None
    return found or ("opaque", OpaqueContent({"type": f"{FRAMEWORK}.{_name(block)}", "block": block}))


def build_block(shape: str, part: AnyContent) -> Block | None:
    """The plainest block of that shape for a part; None when they do not go together."""
    if shape == "opaque":
        own = part.data.get("block") if isinstance(part, OpaqueContent) else None
        return own if isinstance(own, dict) else None
    if isinstance(part, TextContent):
        if shape == "str":
            return part.text
        return {"type": "text", "text": part.text} if shape == "text" else None
    if isinstance(part, ReasoningContent):
        return _reasoning(shape, part)
    if isinstance(part, ToolCallContent):
        return _call(shape, part)
    if isinstance(part, (DataContent, UriContent)):
        return _media(shape, part)
    return None


def shape_for(part: AnyContent) -> str | None:
    """The shape in which a part that another framework wrote is shown; None when there is none for it."""
    if isinstance(part, (TextContent, ErrorContent)):
        return "text"
    if isinstance(part, ReasoningContent):
        return "reasoning"
    if isinstance(part, OpaqueContent) and part.type.startswith(f"{FRAMEWORK}."):
        return "opaque" if "block" in part.data else None
    if isinstance(part, (DataContent, UriContent)):
        return "image_url" if part.kind == "image" else "standard"
    return None


def _name(block: Any) -> str:
    kind = block.get("type") if isinstance(block, Mapping) else None
    return kind if isinstance(kind, str) and kind else "block"


def _read(
    block: dict[str, Any], kind: str, calls: Mapping[str, ToolCallContent]
) -> tuple[str, AnyContent] | None:
    if kind == "text":
        return "text", TextContent(block["text"])
    if kind == "reasoning":
        extras = block.get("extras") or {}
        return "reasoning", ReasoningContent(block["reasoning"], protected_data=extras.get("signature"))
    if kind == "thinking":
        return "thinking", ReasoningContent(block["thinking"], protected_data=block.get("signature"))
    if kind in ("tool_call", "tool_use", "function_call"):
        name = block["call_id" if kind == "function_call" else "id"]
        return kind, calls[name]
    if kind == "image_url":
        where = block["image_url"]
        shape = "image_url" if isinstance(where, dict) else "image_url_text"
        return shape, part_of_url(where["url"] if isinstance(where, dict) else where, kind="image")
    if kind == "input_audio":
        audio = block["input_audio"]
        data = decode_base64(audio["data"])
        return None if data is None else (kind, DataContent(data, media_type=f"audio/{audio['format']}"))
    if kind == "file" and isinstance(block.get("file"), dict):
        file = block["file"]
        return "file", part_of_url(file["file_data"], kind="file", filename=file.get("filename"))
    if kind in _MEDIA:
        return _read_media(block, kind)
    return None


def _read_media(block: dict[str, Any], kind: str) -> tuple[str, AnyContent] | None:
    what = "file" if kind == "text-plain" else kind
    if "source" in block:  # Anthropic's
        source = block["source"]
        if source["type"] == "url":
            return "source", part_of_url(source["url"], kind=what)
        data = decode_base64(source["data"])
        return None if data is None else ("source", DataContent(data, media_type=source["media_type"]))
    type_field, shape = block.get("mime_type"), "standard"
    named = (block.get("extras") or {}).get("filename")
    name = named if isinstance(named, str) else None
    encoded = block.get("base64")
    if "source_type" in block:  # LangChain's before 1.0
        shape = "v0"
        encoded = block["data"] if block["source_type"] == "base64" else None
        if block["source_type"] not in ("base64", "url"):
            return None
        name = None
    if encoded is not None:
        data = decode_base64(encoded)
        return None if data is None else (shape, DataContent(data, media_type=type_field, filename=name))  # type: ignore[arg-type]
    return shape, part_of_url(block["url"], kind=what, media_type=type_field, filename=name)


def _reasoning(shape: str, part: ReasoningContent) -> Block | None:
    if shape == "reasoning":
        plain: dict[str, Any] = {"type": "reasoning", "reasoning": part.text}
        signed = {"extras": {"signature": part.protected_data}}
        return plain if part.protected_data is None else {**plain, **signed}
    if shape == "thinking":
        plain = {"type": "thinking", "thinking": part.text}
        return plain if part.protected_data is None else {**plain, "signature": part.protected_data}
    return None


def _call(shape: str, part: ToolCallContent) -> Block | None:
    plain: dict[str, Any] = {"type": shape, "name": part.name}
    if shape == "tool_call":
        return {**plain, "id": part.call_id, "args": part.arguments}
    if shape == "tool_use":
        return {**plain, "id": part.call_id, "input": part.arguments}
    return {**plain, "call_id": part.call_id} if shape == "function_call" else None


def _media(shape: str, part: DataContent | UriContent) -> Block | None:
    kind = part.kind if part.kind in ("image", "audio", "video") else "file"
    if shape == "image_url":
        return {"type": "image_url", "image_url": {"url": media_url(part)}}
    if shape == "image_url_text":
        return {"type": "image_url", "image_url": media_url(part)}
    if shape == "input_audio" and isinstance(part, DataContent):
        name = part.media_type.partition("/")[2]
        return {"type": "input_audio", "input_audio": {"data": _base64(part), "format": name}}
    if shape == "file":
        file = {"file_data": media_url(part)}
        return {"type": "file", "file": {**file, "filename": part.filename} if part.filename else file}
    if shape == "source" and isinstance(part, DataContent):
        source = {"type": "base64", "media_type": part.media_type, "data": _base64(part)}
        return {"type": kind, "source": source}
    if shape == "source":
        return {"type": kind, "source": {"type": "url", "url": media_url(part)}}
    named: dict[str, Any] = (
        {} if part.media_type is None or part.media_type.endswith("/*") else {"mime_type": part.media_type}
    )
    if shape == "v0" and isinstance(part, DataContent):
        return {"type": kind, "source_type": "base64", "data": _base64(part), **named}
    if shape == "v0":
        return {"type": kind, "source_type": "url", "url": media_url(part)}
    if shape != "standard":
        return None
    if part.filename is not None:
        named["extras"] = {"filename": part.filename}
    if isinstance(part, DataContent):
        return {"type": kind, "base64": _base64(part), **named}
    return {"type": kind, "url": part.uri, **named}


def _base64(part: DataContent) -> str:
    return base64.b64encode(part.data).decode()
