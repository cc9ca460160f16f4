"""`EventCodec`: events of AG2's streams, and our messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ag2.events import BaseEvent, UnknownEvent
from ag2.events._serialization import deserialize_value, serialize_value

from agent_stores.contents import AnyContent, DataContent, TextContent, ToolCallContent, ToolResultContent
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.ag2.parts import (
    EVENT,
    FRAMEWORK,
    RESULT_EVENTS,
    TOOL_CALLS,
    TOOL_RESULTS,
    build_call,
    build_input,
    build_result,
    read_call,
    read_input,
    read_result,
)
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape, ignore
from agent_stores.plugins.media import decode_base64, encode_base64

_REQUEST = "ag2.events.input_events.ModelRequest"
_REQUESTS = (_REQUEST, "ag2.events.input_events.DrainedModelRequest")
_RESPONSE = "ag2.events.types.ModelResponse"
_MESSAGE = "ag2.events.types.ModelMessage"
_FILE = "ag2.events.types.BinaryResult"
_SUMMARY = "ag2.compact.CompactionSummary"
_SUMMARY_TEXT = "[Summary of earlier conversation]\n"  # as AG2 shows it to models


class EventCodec:
    """A `MessageCodec` of AG2's events.

    Requests, responses, tool results and summaries become messages that every plug-in reads. Other events are
    kept whole.
    """

    def __init__(self) -> None:
        self.json = JsonCodec(FRAMEWORK, "AG2", _read, _build, ["author_name"])

    def to_chat_message(self, message: BaseEvent) -> ChatMessage:
        """Our message for an event.

        Raises:
            ArgumentTypeError, ArgumentError: when it is no event, or holds what JSON cannot.
        """
        return self.encode(event_to_json(message))

    def from_chat_message(self, message: ChatMessage) -> list[BaseEvent]:
        """The event for a message; none for a message that has no form in AG2."""
        found = self.json.decode(message)
        return [] if found is None else [event_from_json(found.data)]

    def encode(self, data: Data, *, message_id: str | None = None) -> ChatMessage:
        """Our message for an event as JSON."""
        name = str(data.get(EVENT)).rpartition(".")[2]
        return self.json.encode(data, message_id=message_id, kind=name)


def event_to_json(event: BaseEvent) -> Data:
    """An event as AG2's own storages write it.

    Raises:
        ArgumentTypeError: when it is no event.
    """
    if not isinstance(event, BaseEvent):
        raise ArgumentTypeError(f"an event must be an ag2.events.BaseEvent, got {type(event).__name__}")
    if isinstance(event, UnknownEvent) and EVENT in event.data:
        return event.data
    data: Data = serialize_value(event)
    return data


def event_from_json(data: Data) -> BaseEvent:
    """The event of its JSON; an `UnknownEvent` for a class that is not installed."""
    try:
        event = deserialize_value(data)
    except (ImportError, TypeError, ValueError):
        event = None
    if isinstance(event, BaseEvent):
        return event
    return UnknownEvent(type_name=str(data.get(EVENT)), data=data)


def _read(event: Data) -> Shape:
    kind = event[EVENT]
    hints: Data = {}
    parts: list[AnyContent]
    if kind in _REQUESTS:
        role = "user"
        parts = [read_input(part) for part in event["parts"]]
    elif kind == _RESPONSE:
        role = "assistant"
        message, calls = event["message"], event["tool_calls"]["calls"]
        parts = [] if message is None else [TextContent(message["content"])]
        parts += [_read_file(file) for file in event.get("files", ())]
        parts += [read_call(call) for call in calls]
    elif kind in RESULT_EVENTS:
        role, hints = "tool", {"result": True}
        parts = [read_result(event)]
    elif kind == TOOL_RESULTS:
        role = "tool"
        parts = [read_result(result) for result in event["results"]]
        if not parts:
            raise ValueError("the event says nothing")
    elif kind == _SUMMARY:
        role, hints = "user", {"summary": True}
        parts = [TextContent(f"{_SUMMARY_TEXT}{event['summary']}")]
    else:
        raise ValueError("the event is no message")
    created_at = event.get("created_at")
    time = None
    if isinstance(created_at, (int, float)) and math.isfinite(created_at):
        time = datetime.fromtimestamp(created_at, timezone.utc)
    return Shape(ChatMessage(role, contents=parts, created_at=time), hints)  # type: ignore[arg-type]


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    parts = message.contents
    if hints.get("summary"):
        return {EVENT: _SUMMARY, "summary": message.text.removeprefix(_SUMMARY_TEXT)}
    if message.role in ("system", "developer"):
        for part in parts:
            leave_out(part, "its streams hold no system prompts; they are the agent's")
        return None
    if message.role == "assistant":
        return _build_response(message, leave_out)
    results = [build_result(part, leave_out) for part in parts if isinstance(part, ToolResultContent)]
    if results:
        for part in parts:
            if not isinstance(part, ToolResultContent):
                leave_out(part, "an event with tool results holds nothing else")
        return results[0] if hints.get("result") else {EVENT: TOOL_RESULTS, "results": results}
    inputs = [found for part in parts if (found := build_input(part, leave_out)) is not None]
    return None if parts and not inputs else {EVENT: _REQUEST, "parts": inputs}


def _build_response(message: ChatMessage, leave_out: LeaveOut) -> Data | None:
    texts: list[str] = []
    calls: list[Data] = []
    files: list[Data] = []
    for part in message.contents:
        if isinstance(part, ToolCallContent):
            calls.append(build_call(part))
        elif isinstance(part, DataContent):
            files.append(_build_file(part))
        else:
            shown = build_input(part, ignore)
            if shown is not None and "content" in shown:
                texts.append(shown["content"])
            else:
                leave_out(part, "a response holds text, files and tool calls")
    if message.contents and not (texts or calls or files):
        return None
    said: Data | None = {EVENT: _MESSAGE, "content": "".join(texts)} if texts else None
    found: Data = {EVENT: _RESPONSE, "message": said, "tool_calls": {EVENT: TOOL_CALLS, "calls": calls}}
    return {**found, "files": files} if files else found


def _read_file(file: Data) -> AnyContent:
    data = decode_base64(file["data"]["data"]["__bytes__"])
    if data is None:
        raise ValueError("the file is not canonical Base64")
    metadata = file["data"].get("metadata", {})
    name, media_type = metadata.get("filename"), metadata.get("media_type")
    return DataContent(
        data,
        media_type=media_type if isinstance(media_type, str) and media_type else "application/octet-stream",
        filename=name if isinstance(name, str) else None,
    )


def _build_file(part: DataContent) -> Data:
    metadata = {"media_type": part.media_type}
    if part.filename is not None:
        metadata["filename"] = part.filename
    data = {"data": {"__bytes__": encode_base64(part.data)}, "metadata": metadata}
    return {"__dataclass__": _FILE, "data": data}
