"""Content blocks of LangChain's messages, and our parts.

Blocks are dicts whose shape depends on the provider and on LangChain's version; each shape that is known
here has a name, and a message keeps the names of its blocks. Each block becomes one part, so that the plain
form of a message has as many blocks as the message had, and differs in small things only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    DataContent,
    ErrorContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    UriContent,
)
from agent_stores.plugins.json_codec import Data, LeaveOut
from agent_stores.plugins.media import decode_base64, encode_base64, known_type, media_url, part_of_url
from agent_stores.plugins.parts import opaque_part, own_part
from agent_stores.plugins.unsupported import error_text

FRAMEWORK = "langchain"

Block = str | Data

_CALLS = {"tool_call": ("id", "args"), "tool_use": ("id", "input"), "function_call": ("call_id", None)}
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
    kind = block.get("type") if isinstance(block, dict) else None
    return found or ("opaque", opaque_part(FRAMEWORK, kind, block))


def build_block(part: AnyContent, shape: str, leave_out: LeaveOut) -> Block | None:
    """The plainest block for a part, of a shape if it can have it; None when there is none.

    A call has a block only where a shape says so; it is beside the content anyway.
    """
    own = own_part(FRAMEWORK, part)
    if isinstance(own, dict):
        return own
    part = error_text(part) if isinstance(part, ErrorContent) else part
    if isinstance(part, TextContent):
        return part.text if shape == "str" else {"type": "text", "text": part.text}
    if isinstance(part, ReasoningContent):
        signed = {} if part.protected_data is None else {"signature": part.protected_data}
        if shape == "thinking":
            return {"type": shape, "thinking": part.text, **signed}
        return {"type": "reasoning", "reasoning": part.text, **({"extras": signed} if signed else {})}
    if isinstance(part, ToolCallContent):
        if shape not in _CALLS:
            return None
        name, field = _CALLS[shape]
        arguments = {} if field is None else {field: part.arguments}
        return {"type": shape, "name": part.name, name: part.call_id, **arguments}
    if isinstance(part, (DataContent, UriContent)):
        return _build_media(part, shape)
    approval = isinstance(part, (ApprovalRequestContent, ApprovalResponseContent))
    leave_out(part, "LangChain has no approvals" if approval else "its messages have no place for it")
    return None


def _read(block: Data, kind: str, calls: Mapping[str, ToolCallContent]) -> tuple[str, AnyContent] | None:
    if kind == "text":
        return kind, TextContent(block["text"])
    if kind in ("reasoning", "thinking"):
        signed = (block.get("extras") or {}) if kind == "reasoning" else block
        return kind, ReasoningContent(block[kind], protected_data=signed.get("signature"))
    if kind in _CALLS:
        return kind, calls[block[_CALLS[kind][0]]]
    if kind == "image_url":
        where = block["image_url"]
        shape, url = (kind, where["url"]) if isinstance(where, dict) else ("image_url_text", where)
        return shape, part_of_url(url, kind="image")
    if kind == "input_audio":
        audio = block["input_audio"]
        return _of_bytes(kind, audio["data"], f"audio/{audio['format']}")
    what = "file" if kind == "text-plain" else kind
    if kind == "file" and isinstance(block.get("file"), dict):
        file = block["file"]
        return kind, part_of_url(file["file_data"], kind=kind, filename=file.get("filename"))
    if kind not in _MEDIA:
        return None
    if "source" in block:  # Anthropic's
        source = block["source"]
        if source["type"] == "url":
            return "source", part_of_url(source["url"], kind=what)
        return _of_bytes("source", source["data"], source["media_type"])
    media_type = block.get("mime_type")
    if "source_type" in block:  # LangChain's before 1.0
        if block["source_type"] == "base64":
            return _of_bytes("v0", block["data"], media_type)
        is_url = block["source_type"] == "url"
        return ("v0", part_of_url(block["url"], kind=what, media_type=media_type)) if is_url else None
    named = (block.get("extras") or {}).get("filename")
    name = named if isinstance(named, str) else None
    if block.get("base64") is not None:
        return _of_bytes("standard", block["base64"], media_type, name)
    return "standard", part_of_url(block["url"], kind=what, media_type=media_type, filename=name)


def _of_bytes(
    shape: str, text: str, media_type: Any, filename: str | None = None
) -> tuple[str, AnyContent] | None:
    data = decode_base64(text)
    return None if data is None else (shape, DataContent(data, media_type=media_type, filename=filename))


def _build_media(part: DataContent | UriContent, shape: str) -> Data:
    kind = part.kind if part.kind in ("image", "audio", "video") else "file"
    encoded = encode_base64(part.data) if isinstance(part, DataContent) else None
    url = media_url(part)
    if shape == "image_url_text":
        return {"type": "image_url", "image_url": url}
    if shape == "image_url" or (not shape and kind == "image"):
        return {"type": "image_url", "image_url": {"url": url}}
    if shape == "input_audio" and part.media_type is not None:
        audio = {"data": encoded, "format": part.media_type.partition("/")[2]}
        return {"type": shape, "input_audio": audio}
    if shape == "file":
        named = {} if part.filename is None else {"filename": part.filename}
        return {"type": shape, "file": {"file_data": url, **named}}
    if shape == "source":
        of_bytes = {"type": "base64", "media_type": part.media_type, "data": encoded}
        return {"type": kind, "source": {"type": "url", "url": url} if encoded is None else of_bytes}
    media_type = known_type(part)
    typed = {} if media_type is None else {"mime_type": media_type}
    if shape == "v0":
        if encoded is None:
            return {"type": kind, "source_type": "url", "url": url}
        return {"type": kind, "source_type": "base64", "data": encoded, **typed}
    extras = {} if part.filename is None else {"extras": {"filename": part.filename}}
    return {"type": kind, **({"url": url} if encoded is None else {"base64": encoded}), **typed, **extras}
