"""Blocks of LlamaIndex's messages as JSON, and our parts.

A block has a shape: its type, with ``.url`` behind it where it names its data by an address. Most follow from
the part; a message keeps the shapes of its blocks where one does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core.base.llms import types as llama_types

from agent_stores.contents import (
    AnyContent,
    DataContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    UriContent,
)
from agent_stores.plugins.json_codec import LeaveOut
from agent_stores.plugins.media import decode_base64, encode_base64, known_type, media_url, part_of_url
from agent_stores.plugins.parts import opaque_part, own_part

FRAMEWORK = "llama_index"

Block = dict[str, Any]

# Of each kind of block: the names of the field of its bytes, and of the field that says their type.
_MEDIA = {
    "image": ("image", "image_mimetype"),
    "audio": ("audio", "format"),
    "video": ("video", "video_mimetype"),
    "document": ("data", "document_mimetype"),
}


def is_known(kind: str) -> bool:
    """Whether the installed version of LlamaIndex has a kind of block."""
    return hasattr(llama_types, f"{kind.title().replace('_', '')}Block")


def read_block(block: Block) -> tuple[str, AnyContent]:
    """The shape of a block, and its part."""
    try:
        found = _read(block, block["block_type"])
    except (KeyError, TypeError, ValueError, AttributeError):
        found = None
    return found or ("opaque", opaque_part(FRAMEWORK, block.get("block_type"), block))


def build_block(part: AnyContent, shape: str, leave_out: LeaveOut) -> Block | None:
    """The plainest block for a part, of a shape if it can have it; None when there is none."""
    own = own_part(FRAMEWORK, part)
    if isinstance(own, dict):
        return own
    if isinstance(part, TextContent):
        text: Block = {"block_type": "text", "text": part.text}
        return {"block_type": "citable", "content": [text]} if shape == "citable" else text
    if isinstance(part, ReasoningContent) and is_known("thinking"):
        block: Block = {"block_type": "thinking", "content": part.text}
        signed = {"additional_information": {"signature": part.protected_data}}
        return block if part.protected_data is None else {**block, **signed}
    if isinstance(part, ToolCallContent) and is_known("tool_call"):
        call = {"tool_call_id": part.call_id, "tool_name": part.name, "tool_kwargs": part.arguments}
        return {"block_type": "tool_call", **call}
    if isinstance(part, (DataContent, UriContent)):
        kind = next((kind for kind in (shape.partition(".")[0], part.kind) if kind in _MEDIA), "document")
        if is_known(kind):
            return _build_media(part, kind, by_url=shape.endswith(".url"))
    leave_out(part, "its messages have no place for it")
    return None


def _build_media(part: DataContent | UriContent, kind: str, *, by_url: bool) -> Block:
    field, type_field = _MEDIA[kind]
    block: Block = {"block_type": kind}
    if isinstance(part, UriContent) or by_url:
        block["url"] = media_url(part)
    else:
        block[field] = encode_base64(part.data)
    if (named := known_type(part)) is not None:
        block[type_field] = named.partition("/")[2] if kind == "audio" else named
    return {**block, "title": part.filename} if kind == "document" and part.filename is not None else block


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
    field, type_field = _MEDIA[kind]
    given = block.get(type_field)
    named = f"audio/{given}" if kind == "audio" and given else given
    title = block.get("title") if kind == "document" else None
    any_type = "application/octet-stream" if kind == "document" else f"{kind}/*"
    if block.get(field):
        data = decode_base64(block[field])
        found = None if data is None else DataContent(data, media_type=named or any_type, filename=title)
        return None if found is None else (kind, found)
    what = "file" if kind == "document" else kind
    if block.get("url"):
        return f"{kind}.url", part_of_url(block["url"], kind=what, media_type=named, filename=title)
    if block.get("path"):
        address = Path(block["path"]).absolute().as_uri()
        return f"{kind}.url", UriContent(address, media_type=named or any_type, filename=title)
    return None
