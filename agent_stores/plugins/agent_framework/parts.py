"""The framework's messages as JSON, and ours; needs no package of the framework.

The neutral form is read from the JSON that 1.x and the betas write of a message, without its id, with its
role as text. The betas' ``chat_message`` has another layout: a tool's result is any data there, and a call
does not say whether a server makes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from msgspec.structs import replace as structs_replace

from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    UsageContent,
)
from agent_stores.messages import ROLES, ChatMessage, Role
from agent_stores.plugins.framework_data import without_framework_data
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape
from agent_stores.plugins.media import data_url, decode_base64
from agent_stores.plugins.parts import opaque_part, own_part

FRAMEWORK = "agent_framework"
"""The name under which messages keep what is this framework's own, in all of its versions."""

BETA_TYPE = "chat_message"
"""The type of the betas' messages."""

FAILED = "FunctionInvocationError"
"""What stands for the exception of a tool that failed; the framework's own constant."""

_DATA_URI = re.compile(r"data:([^;,]+);base64,([A-Za-z0-9+/=]*)")
_USAGE = {
    "input_tokens": "input_token_count",
    "output_tokens": "output_token_count",
    "total_tokens": "total_token_count",
}


def message_codec(title: str, *, is_beta: bool = False) -> JsonCodec:
    """Converts messages without loss.

    Args:
        title: the framework, for the log.
        is_beta: whether messages of others are shown in the layout of the betas.
    """

    def build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data:
        beta = bool(hints.get("beta")) if hints.get("own") else is_beta
        return _build_message(message, beta, leave_out)

    return JsonCodec(FRAMEWORK, title, _read_message, build, has_errors=True, marks_own=False)


def result_fields(part: ToolResultContent, leave_out: LeaveOut) -> Data:
    """What a tool's result says, as 1.x's own `from_function_result` makes it: text, and contents."""
    text = "" if part.result is None else part.result_text()
    items = _build_parts(part.contents, False, leave_out, "a tool's result cannot hold it")
    if text or not items:
        items.insert(0, {"type": "text", "text": text, "additional_properties": {}})
    return {"result": text, "items": items}


# -- from the framework -----------------------------------------------------------------------------------


def _read_message(data: Data) -> Shape:
    role = data["role"]
    message = ChatMessage(
        cast("Role", role if role in ROLES else "user"),
        contents=[_read_part(content) for content in data["contents"]],
        author_name=data.get("author_name"),
        additional_properties=without_framework_data(data["additional_properties"], FRAMEWORK),
    )
    return Shape(message, {"beta": True} if data["type"] == BETA_TYPE else {})


def _read_part(data: Data) -> AnyContent:
    """Our part for a content; an opaque one where nothing of it has a neutral form."""
    read = _READERS.get(data["type"])
    try:
        part = None if read is None else read(data)
    except (ValueError, TypeError, LookupError):
        part = None  # an empty id, or a value of another type than the framework says
    if part is None:
        return opaque_part(FRAMEWORK, data["type"], data)
    properties = data.get("additional_properties")
    return structs_replace(part, additional_properties=properties) if isinstance(properties, dict) else part


def _text(data: Data) -> AnyContent:
    return TextContent(data.get("text") or "")


def _reasoning(data: Data) -> AnyContent:
    return ReasoningContent(data.get("text") or "", data.get("protected_data"))


def _media(data: Data) -> AnyContent:
    uri = data["uri"]
    found = _DATA_URI.fullmatch(uri)
    binary = decode_base64(found[2]) if found else None
    if found and binary is not None:
        return DataContent(binary, found[1], data.get("name"))
    return UriContent(uri, data.get("media_type"), data.get("name"))


def _call(data: Data) -> AnyContent | None:
    if data.get("hosted") or data.get("informational_only"):
        return None  # it is neither made nor answered here
    arguments = data.get("arguments")
    return ToolCallContent(data["call_id"], data["name"], "" if arguments is None else arguments)


def _result(data: Data) -> AnyContent:
    items = data.get("items") or ()
    parts = [_read_part(item) for item in items if item["type"] != "text"]
    failed = data.get("exception") is not None
    return ToolResultContent(data["call_id"], data.get("result"), failed, tuple(parts))


def _request(data: Data) -> AnyContent | None:
    call = _read_part(data["function_call"])
    return ApprovalRequestContent(data["id"], call) if isinstance(call, ToolCallContent) else None


def _response(data: Data) -> AnyContent | None:
    call = None if data.get("function_call") is None else _read_part(data["function_call"])
    if isinstance(call, ToolCallContent) or call is None:
        return ApprovalResponseContent(data["id"], data["approved"], call)
    return None


def _error(data: Data) -> AnyContent:
    return ErrorContent(data.get("message") or "", data.get("error_code"), data.get("error_details"))


def _usage(data: Data) -> AnyContent:
    details = data.get("usage_details") or {}
    counted: Data = {}
    for name, theirs in _USAGE.items():
        if type(details.get(theirs)) is int and details[theirs] >= 0:
            counted[name] = details[theirs]
    return UsageContent(**counted)


_READERS: Mapping[str, Callable[[Data], AnyContent | None]] = {
    "text": _text,
    "text_reasoning": _reasoning,
    "data": _media,
    "uri": _media,
    "function_call": _call,
    "function_result": _result,
    "function_approval_request": _request,
    "function_approval_response": _response,
    "error": _error,
    "usage": _usage,
}


# -- to the framework -------------------------------------------------------------------------------------


def _build_message(message: ChatMessage, beta: bool, leave_out: LeaveOut) -> Data:
    contents = _build_parts(message.contents, beta, leave_out, "it has no such content")
    data = {
        "type": BETA_TYPE if beta else "message",
        "role": message.role,
        "contents": contents,
        "additional_properties": without_framework_data(message.additional_properties, FRAMEWORK),
    }
    return data if message.author_name is None else {**data, "author_name": message.author_name}


def _build_parts(parts: Sequence[AnyContent], beta: bool, leave_out: LeaveOut, why: str) -> list[Data]:
    """The contents of parts, without those for which there is none."""
    built = []
    for part in parts:
        content = _build_part(part, beta, leave_out)
        if content is None:
            leave_out(part, why)
        else:
            built.append(content)
    return built


def _build_part(part: AnyContent, beta: bool, leave_out: LeaveOut) -> Data | None:
    """The plainest content for a part; None where there is none."""
    if isinstance(part, OpaqueContent):
        own = own_part(FRAMEWORK, part)
        return own if isinstance(own, dict) else None
    data = _fields_of(part, beta, leave_out)
    data = {name: value for name, value in data.items() if value is not None}
    return {**data, "additional_properties": dict(part.additional_properties)}


def _fields_of(part: AnyContent, beta: bool, leave_out: LeaveOut) -> Data:
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text}
    if isinstance(part, ReasoningContent):
        return {"type": "text_reasoning", "text": part.text, "protected_data": part.protected_data}
    if isinstance(part, DataContent):
        uri = data_url(part)
        return {"type": "data", "uri": uri, "media_type": part.media_type, "name": part.filename}
    if isinstance(part, UriContent):
        return {"type": "uri", "uri": part.uri, "media_type": part.media_type, "name": part.filename}
    if isinstance(part, ToolCallContent):
        call = {"type": "function_call", "call_id": part.call_id, "name": part.name}
        return {**call, "arguments": part.arguments, "hosted": None if beta else False}
    if isinstance(part, ToolResultContent):
        exception = FAILED if part.is_error else None
        result = {"type": "function_result", "call_id": part.call_id, "exception": exception}
        if not beta:
            return {**result, **result_fields(part, leave_out)}
        for inner in part.contents:
            leave_out(inner, "a tool's result cannot hold it")
        return {**result, "result": part.result}
    if isinstance(part, ApprovalRequestContent):
        asked = _build_part(part.tool_call, beta, leave_out)
        request = {"type": "function_approval_request", "id": part.request_id, "function_call": asked}
        return {**request, "user_input_request": True}
    if isinstance(part, ApprovalResponseContent):
        asked = None if part.tool_call is None else _build_part(part.tool_call, beta, leave_out)
        response = {"type": "function_approval_response", "id": part.request_id, "function_call": asked}
        return {**response, "approved": part.approved}
    if isinstance(part, ErrorContent):
        error = {"type": "error", "message": part.message}
        return {**error, "error_code": part.code, "error_details": part.details}
    usage = {theirs: getattr(part, name) for name, theirs in _USAGE.items()}
    return {"type": "usage", "usage_details": {name: n for name, n in usage.items() if n is not None}}
