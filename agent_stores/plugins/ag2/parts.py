"""Inputs, tool calls and results of AG2's events, as its own storages write them in JSON, and our parts."""

from __future__ import annotations

import json
from typing import Any

from agent_stores.contents import (
    AnyContent,
    DataContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.plugins.json_codec import Data, LeaveOut
from agent_stores.plugins.media import decode_base64, encode_base64
from agent_stores.plugins.parts import opaque_part, own_part

FRAMEWORK = "ag2"

EVENT = "__event__"
_INPUTS = "ag2.events.input_events."
_TOOLS = "ag2.events.tool_events."
TOOL_CALLS = f"{_TOOLS}ToolCallsEvent"
TOOL_CALL = f"{_TOOLS}ToolCallEvent"
TOOL_RESULT = f"{_TOOLS}ToolResultEvent"
TOOL_RESULTS = f"{_TOOLS}ToolResultsEvent"
RESULT_EVENTS = (TOOL_RESULT, f"{_TOOLS}ToolErrorEvent", f"{_TOOLS}ToolNotFoundEvent")
_KINDS = ("image", "audio", "video")
_NO_INPUT = "it has no input for it"


def read_input(value: Data) -> AnyContent:
    """The part of an input; opaque for a kind that has no neutral form."""
    kind = value[EVENT].removeprefix(_INPUTS)
    if kind == "TextInput":
        return TextContent(value["content"])
    if kind == "UrlInput":
        kind = value["kind"]["value"]
        return UriContent(value["url"], media_type=f"{kind}/*" if kind in _KINDS else None)
    if kind == "BinaryInput":
        data = decode_base64(value["data"]["__bytes__"])
        if data is not None:
            name = value.get("vendor_metadata", {}).get("filename")
            return DataContent(
                data, media_type=value["media_type"], filename=name if isinstance(name, str) else None
            )
    return opaque_part(FRAMEWORK, kind, value)


def build_input(part: AnyContent, leave_out: LeaveOut) -> Data | None:
    """The plainest input of a part; None when there is none for it."""
    if isinstance(part, TextContent):
        return {EVENT: f"{_INPUTS}TextInput", "content": part.text}
    if isinstance(part, UriContent):
        return {EVENT: f"{_INPUTS}UrlInput", "url": part.uri, "kind": _kind(part)}
    if isinstance(part, DataContent):
        found: Data = {
            EVENT: f"{_INPUTS}BinaryInput",
            "data": {"__bytes__": encode_base64(part.data)},
            "media_type": part.media_type,
            "kind": _kind(part),
        }
        return found if part.filename is None else {**found, "vendor_metadata": {"filename": part.filename}}
    if isinstance(own := own_part(FRAMEWORK, part), dict):
        return own
    leave_out(part, _NO_INPUT)
    return None


def read_call(value: Data) -> ToolCallContent:
    """The part of a tool call."""
    return ToolCallContent(value["id"], value["name"], value["arguments"])


def build_call(call: ToolCallContent) -> Data:
    """The plainest tool call of a part; its arguments are JSON text."""
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    return {EVENT: TOOL_CALL, "id": call.call_id, "name": call.name, "arguments": arguments or "{}"}


def read_result(value: Data) -> ToolResultContent:
    """The part of a tool's result."""
    if value[EVENT] not in RESULT_EVENTS:
        raise ValueError("the event is of another kind")
    result: Any = None
    parts: list[AnyContent] = []
    for part in value["result"]["data"]["parts"]:
        kind = part[EVENT].removeprefix(_INPUTS)
        if kind in ("TextInput", "DataInput") and result is None:
            result = part["content" if kind == "TextInput" else "data"]
        else:
            parts.append(read_input(part))
    failed = value[EVENT] != TOOL_RESULT
    return ToolResultContent(value["parent_id"], result, is_error=failed, contents=tuple(parts))


def build_result(part: ToolResultContent, leave_out: LeaveOut) -> Data:
    """The plainest result of a part."""
    inputs: list[Data] = []
    if isinstance(part.result, str):
        inputs.append({EVENT: f"{_INPUTS}TextInput", "content": part.result})
    elif part.result is not None:
        inputs.append({EVENT: f"{_INPUTS}DataInput", "data": part.result})
    inputs += [found for inner in part.contents if (found := build_input(inner, leave_out)) is not None]
    result: Data = {"__dataclass__": f"{_TOOLS}ToolResult", "data": {"parts": inputs}}
    if not part.is_error:
        return {EVENT: TOOL_RESULT, "parent_id": part.call_id, "result": result}
    said = "" if part.result is None else part.result_text()
    error = {"__exception__": "Exception", "message": said}
    return {EVENT: RESULT_EVENTS[1], "parent_id": part.call_id, "error": error, "result": result}


def _kind(part: DataContent | UriContent) -> Data:
    value = part.kind if part.kind in _KINDS else "document"
    return {"__enum__": f"{_INPUTS}BinaryType", "value": value}
