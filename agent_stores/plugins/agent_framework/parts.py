"""The contents of a framework's message as parts of ours, and back.

Both ways work on the framework's JSON form. What the plain reading of a part lacks is kept beside it (see
`agent_stores.plugins.json_diff`), so that every content comes back exactly, and one that was written by
another framework reads as plainly as this one can say it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec.structs import replace as structs_replace

from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    Content,
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
from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.plugins.framework_data import framework_data, with_framework_data, without_framework_data
from agent_stores.plugins.json_diff import changed, difference
from agent_stores.plugins.media import data_url, decode_base64

FRAMEWORK = "agent_framework"
"""The name under which messages keep what is this framework's own, in all of its versions."""

FAILED = "FunctionInvocationError"
"""What stands for the exception of a tool that failed; the framework's own constant."""

_PREFIX = f"{FRAMEWORK}."
_DATA_URI = re.compile(r"data:([^;,]+);base64,([A-Za-z0-9+/=]*)")
_USAGE = {
    "input_tokens": "input_token_count",
    "output_tokens": "output_token_count",
    "total_tokens": "total_token_count",
}

Data = dict[str, Any]
Fields = Collection[str]
"""The names of the fields that a version's contents have."""


def to_part(data: Mapping[str, Any], fields: Fields) -> AnyContent:
    """Our part for a content.

    A content of which nothing has a neutral form becomes an opaque part.
    """
    read = _READERS.get(data["type"])
    try:
        part = None if read is None else read(data, fields)
    except (ArgumentError, ArgumentTypeError):
        part = None  # an empty id, or a value of another type than the framework says
    if part is None:
        return OpaqueContent({**data, "type": _PREFIX + data["type"]})
    properties = data.get("additional_properties")
    part = structs_replace(
        part,
        additional_properties=without_framework_data(properties, FRAMEWORK)
        if isinstance(properties, dict)
        else {},
    )
    rest = difference(_plain(part, fields) or {}, data)
    return structs_replace(
        part, additional_properties=with_framework_data(part.additional_properties, FRAMEWORK, rest)
    )


def from_part(part: Content, fields: Fields) -> Data | None:
    """The framework's JSON form of a part; None where it has none."""
    data = _plain(part, fields)
    rest = framework_data(part, FRAMEWORK)
    if data is None or not rest:
        return data
    try:
        return changed(data, rest)
    except (LookupError, TypeError, ValueError):
        return data  # another client changed the part, so that the difference does not apply


# -- from the framework -----------------------------------------------------------------------------------


def _text(data: Mapping[str, Any], _: Fields) -> AnyContent:
    return TextContent(data.get("text") or "")


def _reasoning(data: Mapping[str, Any], _: Fields) -> AnyContent:
    return ReasoningContent(data.get("text") or "", data.get("protected_data"))


def _media(data: Mapping[str, Any], _: Fields) -> AnyContent | None:
    uri = data.get("uri")
    if not isinstance(uri, str):
        return None
    found = _DATA_URI.fullmatch(uri)
    binary = decode_base64(found[2]) if found else None
    if found and binary is not None:
        return DataContent(binary, found[1], data.get("name"))
    return UriContent(uri, data.get("media_type"), data.get("name"))


def _call(data: Mapping[str, Any], _: Fields) -> AnyContent | None:
    if data.get("hosted") or data.get("informational_only"):
        return None  # it is neither made nor answered here
    arguments = data.get("arguments")
    return ToolCallContent(data.get("call_id"), data.get("name"), "" if arguments is None else arguments)  # type: ignore[arg-type]


def _result(data: Mapping[str, Any], fields: Fields) -> AnyContent:
    items = data.get("items")
    return ToolResultContent(
        data.get("call_id"),  # type: ignore[arg-type]
        data.get("result"),
        data.get("exception") is not None,
        tuple(
            to_part(item, fields)
            for item in (items if isinstance(items, list) else ())
            if isinstance(item, dict) and item.get("type") != "text"
        ),
    )


def _nested_call(data: Mapping[str, Any], fields: Fields) -> ToolCallContent | None:
    call = data.get("function_call")
    part = to_part(call, fields) if isinstance(call, dict) else None
    return part if isinstance(part, ToolCallContent) else None


def _request(data: Mapping[str, Any], fields: Fields) -> AnyContent | None:
    call = _nested_call(data, fields)
    return None if call is None else ApprovalRequestContent(data.get("id"), call)  # type: ignore[arg-type]


def _response(data: Mapping[str, Any], fields: Fields) -> AnyContent | None:
    call = _nested_call(data, fields)
    if call is None and data.get("function_call") is not None:
        return None
    return ApprovalResponseContent(data.get("id"), data.get("approved"), call)  # type: ignore[arg-type]


def _error(data: Mapping[str, Any], _: Fields) -> AnyContent:
    return ErrorContent(data.get("message") or "", data.get("error_code"), data.get("error_details"))


def _usage(data: Mapping[str, Any], _: Fields) -> AnyContent:
    details = data.get("usage_details")
    counted = {
        name: details[theirs]
        for name, theirs in _USAGE.items()
        if isinstance(details, dict) and type(details.get(theirs)) is int and details[theirs] >= 0
    }
    return UsageContent(**counted)


_READERS: Mapping[str, Callable[[Mapping[str, Any], Fields], AnyContent | None]] = {
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


def _plain(part: Content, fields: Fields) -> Data | None:
    """The framework's JSON form of what a part says in neutral terms."""
    if isinstance(part, OpaqueContent):
        kind = part.type
        if not kind.startswith(_PREFIX):
            return None
        return {**part.data, "type": kind[len(_PREFIX) :]}
    data = _fields_of(part, fields)
    if data is None:
        return None
    data = {name: value for name, value in data.items() if value is not None}
    data["additional_properties"] = without_framework_data(part.additional_properties, FRAMEWORK)
    return data


def _fields_of(part: Content, fields: Fields) -> Data | None:
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
        return _call_fields(part, fields)
    if isinstance(part, ToolResultContent):
        return _result_fields(part, fields)
    if isinstance(part, ApprovalRequestContent):
        return {
            "type": "function_approval_request",
            "id": part.request_id,
            "function_call": from_part(part.tool_call, fields),
            "user_input_request": True,
        }
    if isinstance(part, ApprovalResponseContent):
        return {
            "type": "function_approval_response",
            "id": part.request_id,
            "approved": part.approved,
            "function_call": None if part.tool_call is None else from_part(part.tool_call, fields),
        }
    if isinstance(part, ErrorContent):
        return {
            "type": "error",
            "message": part.message,
            "error_code": part.code,
            "error_details": part.details,
        }
    if isinstance(part, UsageContent):
        counted = {theirs: getattr(part, name) for name, theirs in _USAGE.items()}
        return {
            "type": "usage",
            "usage_details": {name: value for name, value in counted.items() if value is not None},
        }
    return None


def _call_fields(part: ToolCallContent, fields: Fields) -> Data:
    data: Data = {
        "type": "function_call",
        "call_id": part.call_id,
        "name": part.name,
        "arguments": part.arguments,
    }
    # Where an older version left the name of a server, the framework works out by itself what it means.
    if "hosted" in fields and "server_label" not in part.additional_properties:
        data["hosted"] = False
    return data


def _result_fields(part: ToolResultContent, fields: Fields) -> Data:
    data: Data = {
        "type": "function_result",
        "call_id": part.call_id,
        "result": part.result,
        "exception": FAILED if part.is_error else None,
    }
    if "items" in fields:  # as the framework's own `from_function_result` makes it
        text = "" if part.result is None else part.result_text()
        items = [from_part(inner, fields) for inner in part.contents]
        data["result"] = text
        data["items"] = [item for item in items if item is not None]
        if text or not data["items"]:
            data["items"].insert(0, {"type": "text", "text": text, "additional_properties": {}})
    return data
