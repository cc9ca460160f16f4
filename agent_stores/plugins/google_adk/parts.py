"""Parts of Gemini's contents, as JSON, and our parts."""

from __future__ import annotations

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
from agent_stores.plugins.parts import object_arguments, opaque_part, own_part

FRAMEWORK = "google_adk"

_NO_PLACE = "Gemini's contents have no part for it"


def read_part(part: Data) -> AnyContent:
    """Our part for one of Gemini's; opaque for a kind that has no neutral form."""
    try:
        found = _read(part)
    except (KeyError, TypeError, ValueError):
        found = None
    return found or opaque_part(FRAMEWORK, "part", part)


def build_part(part: AnyContent, leave_out: LeaveOut) -> Data | None:
    """The plainest of Gemini's parts for ours; None when there is none for it."""
    if isinstance(part, TextContent):
        return {"text": part.text}
    if isinstance(part, ReasoningContent):
        sealed = part.protected_data  # bytes
        is_bytes = sealed is not None and decode_base64(sealed, urlsafe=True) is not None
        signed = {"thought_signature": sealed} if is_bytes else {}
        return {"text": part.text, "thought": True, **signed}
    if isinstance(part, ToolCallContent):
        return {"function_call": {"id": part.call_id, "name": part.name, "args": object_arguments(part)}}
    if isinstance(part, ToolResultContent):
        return {"function_response": _build_result(part, leave_out)}
    if isinstance(part, (DataContent, UriContent)):
        return _build_media(part)
    if isinstance(own := own_part(FRAMEWORK, part), dict):
        return dict(own)
    leave_out(part, _NO_PLACE)
    return None


def _read(part: Data) -> AnyContent | None:
    if "text" in part:
        if part.get("thought"):
            return ReasoningContent(part["text"], protected_data=part.get("thought_signature"))
        return TextContent(part["text"])
    if "function_call" in part:
        call = part["function_call"]
        return ToolCallContent(call["id"], call["name"], call.get("args") or {})
    if "function_response" in part:
        return _read_result(part["function_response"])
    return _read_media(part)


def _read_result(answer: Data) -> ToolResultContent:
    response = answer.get("response", {})
    contents = [media for one in answer.get("parts") or () if (media := _read_media(one)) is not None]
    if list(response) == ["error"] and isinstance(response["error"], str):
        return ToolResultContent(answer["id"], response["error"], is_error=True, contents=tuple(contents))
    result = response["result"] if list(response) == ["result"] else response
    return ToolResultContent(answer["id"], result, contents=tuple(contents))


def _build_result(part: ToolResultContent, leave_out: LeaveOut) -> Data:
    if part.is_error:
        response: Any = {"error": part.result_text()}
    else:
        response = part.result if isinstance(part.result, dict) else {"result": part.result}
    answer: Data = {"id": part.call_id, "response": response}
    media = []
    for inner in part.contents:
        if isinstance(inner, (DataContent, UriContent)):
            media.append(_build_media(inner))
        else:
            leave_out(inner, _NO_PLACE)
    return {**answer, "parts": media} if media else answer


def _read_media(part: Data) -> DataContent | UriContent | None:
    if "inline_data" in part:
        blob = part["inline_data"]
        data = decode_base64(blob["data"], urlsafe=True)
        return None if data is None else DataContent(data, blob["mime_type"], blob.get("display_name"))
    if "file_data" in part:
        file = part["file_data"]
        return UriContent(file["file_uri"], file.get("mime_type"), file.get("display_name"))
    return None


def _build_media(part: DataContent | UriContent) -> Data:
    named = {} if part.filename is None else {"display_name": part.filename}
    if isinstance(part, DataContent):
        data = encode_base64(part.data, urlsafe=True)
        return {"inline_data": {"data": data, "mime_type": part.media_type, **named}}
    typed = {} if part.media_type is None else {"mime_type": part.media_type}
    return {"file_data": {"file_uri": part.uri, **typed, **named}}
