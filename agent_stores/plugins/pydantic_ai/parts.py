"""Parts of Pydantic AI's messages, as JSON, and our parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_stores.contents import (
    AnyContent,
    DataContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.plugins.json_codec import Data, LeaveOut
from agent_stores.plugins.media import decode_base64, encode_base64, known_type
from agent_stores.plugins.parts import opaque_part, own_part

FRAMEWORK = "pydantic_ai"

Layout = list[int]
"""For each part of a message, how many of ours it became; 0 for one, whose content is not a list."""

_NO_PLACE = "Pydantic AI's messages have no part for it"
_URLS = {"image": "image-url", "audio": "audio-url", "video": "video-url"}


def read_part(part: Data) -> tuple[list[AnyContent], int]:
    """Our parts for one of theirs, and its number in the layout."""
    try:
        if part["part_kind"] == "user-prompt" and isinstance(part["content"], list):
            items = [_read_item(item) for item in part["content"]]
            if items:
                return items, len(items)
        found = _read(part, part["part_kind"])
    except (KeyError, TypeError, ValueError):
        found = None
    return [found or opaque_part(FRAMEWORK, "part", part)], 0


def build_parts(
    contents: Sequence[AnyContent], layout: Layout | None, role: str, leave_out: LeaveOut
) -> list[Data]:
    """The plainest parts for ours, in a layout, or in the plainest."""
    if layout is None or sum(count or 1 for count in layout) != len(contents):
        layout = plain_layout(contents, role)
    parts: list[Data] = []
    start = 0
    for count in layout:
        group = contents[start : start + (count or 1)]
        start += count or 1
        if count:
            items = [item for one in group if (item := _build_item(one, leave_out)) is not None]
            if items:
                parts.append({"content": items, "part_kind": "user-prompt"})
        elif (part := _build(group[0], role, leave_out)) is not None:
            parts.append(part)
    return _as_native(parts) if role == "assistant" else parts


def _as_native(parts: list[Data]) -> list[Data]:
    """Calls that an answer itself has results of as those of a provider's own tools."""
    answered = {part["tool_call_id"] for part in parts if part.get("part_kind") == "tool-return"}
    return [
        {**part, "part_kind": f"builtin-{part['part_kind']}"}
        if part.get("part_kind") in ("tool-call", "tool-return") and part["tool_call_id"] in answered
        else part
        for part in parts
    ]


def plain_layout(contents: Sequence[AnyContent], role: str) -> Layout:
    """Everything that is no tool result in one prompt of the user."""
    if role not in ("user", "tool"):
        return [0] * len(contents)
    layout: Layout = []
    for index, part in enumerate(contents):
        alone = isinstance(part, (ToolResultContent, OpaqueContent))
        follows = index > 0 and layout[-1] and not alone
        if follows:
            layout[-1] += 1
        else:
            layout.append(0 if alone else 1)
    return [0] if len(contents) == 1 and isinstance(contents[0], TextContent) else layout


def _read(part: Data, kind: str) -> AnyContent | None:
    if kind in ("user-prompt", "text"):
        return TextContent(part["content"])
    if kind == "thinking":
        return ReasoningContent(part["content"], protected_data=part.get("signature"))
    if kind == "tool-call":
        arguments = part.get("args")
        return ToolCallContent(
            part["tool_call_id"], part["tool_name"], "" if arguments is None else arguments
        )
    if kind == "tool-return":
        failed = part.get("outcome", "success") != "success"
        media = _read_media(part["content"])
        if media is not None:
            return ToolResultContent(part["tool_call_id"], None, is_error=failed, contents=(media,))
        return ToolResultContent(part["tool_call_id"], part["content"], is_error=failed)
    if kind == "retry-prompt" and part.get("tool_name"):
        return ToolResultContent(part["tool_call_id"], part["content"], is_error=True)
    if kind == "file":
        return _read_media(part["content"])
    return None


def _build(part: AnyContent, role: str, leave_out: LeaveOut) -> Data | None:
    if isinstance(part, OpaqueContent) and part.type == f"{FRAMEWORK}.part":
        own = own_part(FRAMEWORK, part)
        return own if isinstance(own, dict) else None
    if isinstance(part, ToolResultContent):
        return _build_result(part, leave_out)
    if role == "system" and isinstance(part, TextContent):
        return {"content": part.text, "part_kind": "system-prompt"}
    if role == "user" and isinstance(part, TextContent):
        return {"content": part.text, "part_kind": "user-prompt"}
    if role == "assistant":
        if isinstance(part, TextContent):
            return {"content": part.text, "part_kind": "text"}
        if isinstance(part, ReasoningContent):
            signed = {} if part.protected_data is None else {"signature": part.protected_data}
            return {"content": part.text, "part_kind": "thinking", **signed}
        if isinstance(part, ToolCallContent):
            call = {"tool_name": part.name, "args": part.arguments, "tool_call_id": part.call_id}
            return {**call, "part_kind": "tool-call"}
        if isinstance(part, DataContent):
            return {"content": _build_media(part), "part_kind": "file"}
    leave_out(part, _NO_PLACE)
    return None


def _build_result(part: ToolResultContent, leave_out: LeaveOut) -> Data:
    content = part.result
    media: list[Any] = []
    for inner in part.contents:
        if isinstance(inner, (DataContent, UriContent)):
            media.append(_build_media(inner))
        else:
            leave_out(inner, _NO_PLACE)
    if media:
        content = media[0] if content in (None, "") and len(media) == 1 else [content, *media]
    return {
        "content": content,
        "tool_call_id": part.call_id,
        "outcome": "failed" if part.is_error else "success",
        "part_kind": "tool-return",
    }


def _read_item(item: Any) -> AnyContent:
    if isinstance(item, str):
        return TextContent(item)
    return _read_media(item) or opaque_part(FRAMEWORK, "item", item)


def _build_item(part: AnyContent, leave_out: LeaveOut) -> Any:
    if isinstance(part, TextContent):
        return part.text
    if isinstance(part, (DataContent, UriContent)):
        return _build_media(part)
    if isinstance(part, OpaqueContent) and part.type == f"{FRAMEWORK}.item":
        return own_part(FRAMEWORK, part)
    leave_out(part, _NO_PLACE)
    return None


def _read_media(item: Any) -> DataContent | UriContent | None:
    if not isinstance(item, dict):
        return None
    kind = item.get("kind")
    if kind == "binary":
        data = decode_base64(item["data"], urlsafe=True)
        return None if data is None else DataContent(data, item["media_type"])
    if kind in ("image-url", "audio-url", "video-url", "document-url"):
        return UriContent(item["url"], item.get("media_type"))
    return None


def _build_media(part: DataContent | UriContent) -> Data:
    named = {} if part.filename is None else {"identifier": part.filename}
    if isinstance(part, DataContent):
        data = encode_base64(part.data, urlsafe=True)
        return {"data": data, "media_type": part.media_type, "kind": "binary", **named}
    typed = {} if (known := known_type(part)) is None else {"media_type": known}
    return {"url": part.uri, "kind": _URLS.get(part.kind, "document-url"), **typed, **named}
