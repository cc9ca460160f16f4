"""Blocks of LlamaIndex's messages as JSON, and our parts.

A block has a shape: its type, with ``.url`` behind it where it names its data by an address. Most follow from
the part; a message keeps the shapes of its blocks where one does not.
"""

from __future__ import annotations

import base64
from pathlib import Path
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

FRAMEWORK = "llama_index"

Block = dict[str, Any]

# Of each kind of block: the names of the field of its bytes, and of the field that says their type.
_MEDIA = {
    "image": ("image", "image_mimetype"),
    "audio": ("audio", "format"),
    "video": ("video", "video_mimetype"),
    "document": ("data", "document_mimetype"),
}


def read_block(block: Block) -> tuple[str, AnyContent]:
    """The shape of a block, and its part."""
    try:
        found = _read(block, block["block_type"])
    except (KeyError, TypeError, ValueError, AttributeError):
        found = None
    if found is not None:
        return found
    return "opaque", OpaqueContent({"type": f"{FRAMEWORK}.{block.get('block_type')}", "block": block})


def build_block(shape: str, part: AnyContent) -> Block | None:
    """The plainest block of that shape for a part; None when they do not go together."""
    if shape == "opaque":
        own = part.data.get("block") if isinstance(part, OpaqueContent) else None
        return own if isinstance(own, dict) else None
    if isinstance(part, TextContent):
        text: Block = {"block_type": "text", "text": part.text}
        if shape == "citable":
            return {"block_type": "citable", "content": [text]}
        return text if shape == "text" else None
    if isinstance(part, ReasoningContent) and shape == "thinking":
        block: Block = {"block_type": "thinking", "content": part.text}
        signed = {"additional_information": {"signature": part.protected_data}}
        return block if part.protected_data is None else {**block, **signed}
    if isinstance(part, ToolCallContent) and shape == "tool_call":
        return {
            "block_type": "tool_call",
            "tool_call_id": part.call_id,
            "tool_name": part.name,
            "tool_kwargs": part.arguments,
        }
    kind, dot, _ = shape.partition(".")
    if not isinstance(part, (DataContent, UriContent)) or kind not in _MEDIA:
        return None
    where, type_field = _MEDIA[kind]
    media: Block = {"block_type": kind}
    if dot:
        media["url"] = media_url(part)
    elif isinstance(part, DataContent):
        media[where] = base64.b64encode(part.data).decode()
    else:
        return None
    named = part.media_type
    if named is not None and not named.endswith("/*"):
        media[type_field] = named.partition("/")[2] if kind == "audio" else named
    if kind == "document" and part.filename is not None:
        media["title"] = part.filename
    return media


def shape_for(part: AnyContent) -> str | None:
    """The shape in which a part is shown where no shape was kept; None when there is none for it."""
    if isinstance(part, (TextContent, ErrorContent)):
        return "text"
    if isinstance(part, ReasoningContent):
        return "thinking"
    if isinstance(part, ToolCallContent):
        return "tool_call"
    if isinstance(part, OpaqueContent) and part.type.startswith(f"{FRAMEWORK}."):
        return "opaque" if "block" in part.data else None
    if isinstance(part, (DataContent, UriContent)):
        kind = part.kind if part.kind in _MEDIA else "document"
        return kind if isinstance(part, DataContent) else f"{kind}.url"
    return None


def _read(block: Block, kind: str) -> tuple[str, AnyContent] | None:
    if kind == "text":
        return kind, TextContent(block["text"])
    if kind == "thinking":
        signature = (block.get("additional_information") or {}).get("signature")
        sealed = signature if isinstance(signature, str) else None
        return kind, ReasoningContent(block.get("content") or "", protected_data=sealed)
    if kind == "tool_call":
        return kind, ToolCallContent(block["tool_call_id"], block["tool_name"], block.get("tool_kwargs", {}))
    if kind == "citable":
        (text,) = block["content"]
        return (kind, TextContent(text["text"])) if text["block_type"] == "text" else None
    where, type_field = _MEDIA[kind]
    given = block.get(type_field)
    named = f"audio/{given}" if kind == "audio" and given else given
    title = block.get("title") if kind == "document" else None
    any_type = "application/octet-stream" if kind == "document" else f"{kind}/*"
    if block.get(where):
        data = decode_base64(block[where])
        return (
            None if data is None else (kind, DataContent(data, media_type=named or any_type, filename=title))
        )
    what = "file" if kind == "document" else kind
    if block.get("url"):
        return f"{kind}.url", part_of_url(block["url"], kind=what, media_type=named, filename=title)
    if block.get("path"):
        address = Path(block["path"]).absolute().as_uri()
        return f"{kind}.url", UriContent(address, media_type=named or any_type, filename=title)
    return None
