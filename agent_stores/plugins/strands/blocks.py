"""Content blocks of Strands' messages, which are those of Bedrock's Converse API, and our parts.

Blocks are JSON here: bytes are the objects that Strands' own session files have for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent_stores.contents import (
    AnyContent,
    DataContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.plugins.json_codec import Data, LeaveOut
from agent_stores.plugins.media import decode_base64, encode_base64
from agent_stores.plugins.parts import opaque_part, own_part

FRAMEWORK = "strands"

_OFFICE = "application/vnd.openxmlformats-officedocument"
_MEDIA_TYPES = {
    "document": {
        "pdf": "application/pdf",
        "csv": "text/csv",
        "doc": "application/msword",
        "docx": f"{_OFFICE}.wordprocessingml.document",
        "xls": "application/vnd.ms-excel",
        "xlsx": f"{_OFFICE}.spreadsheetml.sheet",
        "html": "text/html",
        "txt": "text/plain",
        "md": "text/markdown",
    },
    "image": {},
    "audio": {"mp3": "audio/mpeg"},
    "video": {
        "mov": "video/quicktime",
        "three_gp": "video/3gpp",
        "wmv": "video/x-ms-wmv",
        "flv": "video/x-flv",
    },
}
_FORMATS = {kind: {name: form for form, name in names.items()} for kind, names in _MEDIA_TYPES.items()}
_NO_BLOCK = "its messages have no block for it"
_NO_ADDRESS = "its blocks hold bytes, or an address in S3"


def read_block(block: Any) -> AnyContent:
    """The part of a block; opaque for a kind that has no neutral form."""
    kind = next(iter(block)) if isinstance(block, dict) and len(block) == 1 else None
    try:
        found = _READERS[kind](block[kind]) if kind in _READERS else None
    except (LookupError, TypeError, ValueError, AttributeError):
        found = None
    return found or opaque_part(FRAMEWORK, kind or "block", block)


def build_block(part: AnyContent, leave_out: LeaveOut) -> Data | None:
    """The plainest block of a part; None when there is none for it."""
    if isinstance(part, TextContent):
        return {"text": part.text}
    if isinstance(part, ReasoningContent):
        if not part.text and part.protected_data is not None:
            return {"reasoningContent": {"redactedContent": _bytes(part.protected_data)}}
        said = {"text": part.text}
        if part.protected_data is not None:
            said["signature"] = part.protected_data
        return {"reasoningContent": {"reasoningText": said}}
    if isinstance(part, ToolCallContent):
        return {"toolUse": {"toolUseId": part.call_id, "name": part.name, "input": _input(part)}}
    if isinstance(part, ToolResultContent):
        return {"toolResult": _build_result(part, leave_out)}
    if isinstance(part, (DataContent, UriContent)):
        return _build_media(part, leave_out)
    if isinstance(own := own_part(FRAMEWORK, part), dict):
        return own
    leave_out(part, _NO_BLOCK)
    return None


def _read_reasoning(block: Data) -> AnyContent | None:
    if "redactedContent" in block:
        data = block["redactedContent"]["data"]
        return ReasoningContent("", protected_data=data) if decode_base64(data) is not None else None
    said = block["reasoningText"]
    return ReasoningContent(said["text"], protected_data=said.get("signature"))


def _read_use(block: Data) -> AnyContent:
    return ToolCallContent(block["toolUseId"], block["name"], block["input"])


def _read_result(block: Data) -> AnyContent:
    result: Any = None
    parts: list[AnyContent] = []
    for inner in block["content"]:
        if "json" in inner and result is None:
            result = inner["json"]
        elif "text" in inner and (result is None or isinstance(result, str)):
            result = (result or "") + inner["text"]
        else:
            parts.append(read_block(inner))
    failed = block.get("status") == "error"
    return ToolResultContent(block["toolUseId"], result, is_error=failed, contents=tuple(parts))


def _build_result(part: ToolResultContent, leave_out: LeaveOut) -> Data:
    content: list[Data] = []
    if isinstance(part.result, str):
        content.append({"text": part.result})
    elif part.result is not None:
        content.append({"json": part.result})
    for inner in part.contents:
        block = build_block(inner, leave_out)
        if block is not None:
            content.append(block)
    status = "error" if part.is_error else "success"
    return {"toolUseId": part.call_id, "status": status, "content": content}


def _read_media(kind: str) -> Callable[[Data], AnyContent | None]:
    def read(block: Data) -> AnyContent | None:
        form, source, name = block["format"], block["source"], block.get("name")
        media_type = _MEDIA_TYPES[kind].get(form)
        if media_type is None:
            if kind == "document":
                return None
            media_type = f"{kind}/{form}"
        if "location" in source:
            return UriContent(source["location"]["uri"], media_type=media_type, filename=name)
        data = decode_base64(source["bytes"]["data"])
        return None if data is None else DataContent(data, media_type=media_type, filename=name)

    return read


def _build_media(part: DataContent | UriContent, leave_out: LeaveOut) -> Data | None:
    kind = part.kind if part.kind in _MEDIA_TYPES else "document"
    form = _FORMATS[kind].get(part.media_type or "")
    if form is None and kind != "document":
        form = (part.media_type or "").partition("/")[2]
    if not form or form == "*":
        leave_out(part, "it does not take files of this type")
        return None
    source: Data
    if isinstance(part, DataContent):
        source = {"bytes": _bytes(encode_base64(part.data))}
    elif part.uri.startswith("s3://"):
        source = {"location": {"type": "s3", "uri": part.uri}}
    else:
        leave_out(part, _NO_ADDRESS)
        return None
    block: Data = {"format": form, "source": source}
    if kind == "document":
        block["name"] = part.filename or "document"
    return {kind: block}


def _input(call: ToolCallContent) -> Any:
    try:
        return call.parse_arguments()
    except ValueError:  # malformed JSON text of a model
        return call.arguments


def _bytes(encoded: str) -> Data:
    return {"__bytes_encoded__": True, "data": encoded}


_READERS: dict[str | None, Callable[[Any], AnyContent | None]] = {
    "text": TextContent,
    "reasoningContent": _read_reasoning,
    "toolUse": _read_use,
    "toolResult": _read_result,
    **{kind: _read_media(kind) for kind in _MEDIA_TYPES},
}
