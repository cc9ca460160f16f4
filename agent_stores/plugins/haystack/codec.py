"""`HaystackMessageCodec`: Haystack's messages, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from haystack.dataclasses import ChatMessage as HaystackMessage

from agent_stores.contents import (
    AnyContent,
    DataContent,
    ErrorContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
)
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape
from agent_stores.plugins.json_diff import digest, json_equal
from agent_stores.plugins.media import decode_base64, encode_base64
from agent_stores.plugins.parts import object_arguments, opaque_part, own_part
from agent_stores.plugins.unsupported import error_text

FRAMEWORK = "haystack"
_NO_PLACE = ("reasoning.protected_data",)
MESSAGE_ID = "chat_message_id"  # of `meta`, as Haystack's own store calls it
PART_OF = "agent_stores_part_of"  # of `meta`: the message that the further messages of one belong to
_EARLIER = "$call"  # a result's origin: the call with that id, which an earlier message has


class HaystackMessageCodec:
    """A `MessageCodec` of Haystack's `ChatMessage`; the ``chat_message_id`` of its meta is the id."""

    def __init__(self) -> None:
        self.json = JsonCodec(FRAMEWORK, "Haystack", _read, _build, _NO_PLACE)

    def to_chat_message(self, message: HaystackMessage) -> ChatMessage:
        """Our message for one of Haystack's.

        Raises:
            ArgumentTypeError, ArgumentError: when it is none, or holds what JSON cannot.
        """
        return self.encode([message])[0]

    def from_chat_message(self, message: ChatMessage) -> list[HaystackMessage]:
        """Haystack's messages for ours; several for a message of others with several tool results."""
        return self.decode([message])

    def encode(self, messages: Sequence[HaystackMessage]) -> list[ChatMessage]:
        """Our messages for those of one call; a tool call that a result directly after it repeats, once."""
        calls: dict[str, Data] = {}
        found = []
        for message in messages:
            if not isinstance(message, HaystackMessage):
                raise ArgumentTypeError(
                    f"a message must be a haystack ChatMessage, got {type(message).__name__}"
                )
            data = message.to_dict()
            for part in data["content"]:
                result = part.get("tool_call_result")
                if result is not None and json_equal(
                    calls.get(str(result["origin"]["id"])), result["origin"]
                ):
                    result["origin"] = {_EARLIER: result["origin"]["id"]}
            if data["role"] != "tool":
                calls.clear()
            _remember_calls(data, calls)
            found.append(self.json.encode(data, message_id=message_id(message)))
        return found

    def decode(self, messages: Sequence[ChatMessage]) -> list[HaystackMessage]:
        """Haystack's messages for ours, in order."""
        calls: dict[str, Data] = {}
        shown: list[HaystackMessage] = []
        for message in messages:
            found = self.json.decode(message)
            if found is None:
                continue
            data = found.data
            for part in data["content"]:
                result = part.get("tool_call_result")
                if result is not None and _EARLIER in result["origin"]:
                    name = result["origin"][_EARLIER]
                    result["origin"] = calls.get(name) or {"tool_name": "", "arguments": {}, "id": name}
            _remember_calls(data, calls)
            if found.exact:
                shown.append(HaystackMessage.from_dict(data))
            else:
                shown += _split(data, message.message_id)
        return shown


def message_id(message: HaystackMessage) -> str | None:
    """The id that a message has in its meta; None when it has none."""
    found = message.meta.get(MESSAGE_ID)
    if found is None:
        return None
    return found if isinstance(found, str) and found else f"{FRAMEWORK}-{digest({'id': found})}"


def _split(data: Data, name: str | None) -> list[HaystackMessage]:
    """The messages for one of another framework; each tool result has a message of its own."""
    content = data["content"]
    results = [part for part in content if "tool_call_result" in part]
    groups = [[part] for part in results] if data["role"] == "tool" and results else [content]
    shown = []
    for number, group in enumerate(groups):
        meta = {MESSAGE_ID: name} if number == 0 else {MESSAGE_ID: f"{name}#{number}", PART_OF: name}
        shown.append(HaystackMessage.from_dict({**data, "content": group, "meta": meta}))
    return shown


def _remember_calls(data: Data, calls: dict[str, Data]) -> None:
    for part in data["content"]:
        call = part.get("tool_call")
        if call is not None and call.get("id"):
            calls[call["id"]] = call


def _read(data: Data) -> Shape:
    name = data.get("name")
    parts = [_read_part(part) for part in data["content"]]
    author = name if isinstance(name, str) else None
    return Shape(ChatMessage(cast("Role", data["role"]), contents=parts, author_name=author))


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    content = [built for part in message.contents if (built := _build_part(part, leave_out)) is not None]
    if message.contents and not content:
        return None
    role = "system" if message.role == "developer" else message.role
    data: Data = {"role": role, "content": content}
    return data if message.author_name is None else {**data, "name": message.author_name}


def _read_part(part: Data) -> AnyContent:
    kind = next(iter(part))
    try:
        found = _read_known(kind, part[kind])
    except (LookupError, TypeError, ValueError, AttributeError):
        found = None
    return found or opaque_part(FRAMEWORK, kind, part)


def _read_known(kind: str, value: Any) -> AnyContent | None:
    if kind == "text":
        return TextContent(value)
    if kind == "reasoning":
        return ReasoningContent(value["reasoning_text"])
    if kind == "tool_call":
        return ToolCallContent(value["id"], value["tool_name"], value["arguments"])
    if kind == "tool_call_result":
        result = value["result"]
        parts = [] if isinstance(result, str) else [_read_part(part) for part in result]
        texts = [part.text for part in parts if isinstance(part, TextContent)]
        origin = value["origin"]
        return ToolResultContent(
            origin.get(_EARLIER) or origin["id"],
            result if isinstance(result, str) else "".join(texts),
            is_error=value["error"] is True,
            contents=tuple(part for part in parts if not isinstance(part, TextContent)),
        )
    if kind in ("image", "file"):
        data = decode_base64(value["base64_image" if kind == "image" else "base64_data"])
        if data is not None:
            name = value.get("filename") if kind == "file" else None
            return DataContent(data, media_type=value["mime_type"], filename=name)
    return None


def _build_part(part: AnyContent, leave_out: LeaveOut) -> Data | None:
    if isinstance(part, ErrorContent):
        part = error_text(part)
    if isinstance(part, TextContent):
        return {"text": part.text}
    if isinstance(part, ReasoningContent):
        return {"reasoning": {"reasoning_text": part.text}}
    if isinstance(part, ToolCallContent):
        call = {"tool_name": part.name, "arguments": object_arguments(part), "id": part.call_id}
        return {"tool_call": call}
    if isinstance(part, ToolResultContent):
        text = "" if part.result is None else part.result_text()
        inner = [found for one in part.contents if (found := _build_part(one, leave_out)) is not None]
        result: Any = ([{"text": text}] if text else []) + inner if inner else text
        origin = {_EARLIER: part.call_id}
        return {"tool_call_result": {"result": result, "origin": origin, "error": part.is_error}}
    if isinstance(part, DataContent):
        encoded = encode_base64(part.data)
        if part.kind == "image":
            return {"image": {"base64_image": encoded, "mime_type": part.media_type}}
        file = {"base64_data": encoded, "mime_type": part.media_type}
        return {"file": file if part.filename is None else {**file, "filename": part.filename}}
    if isinstance(own := own_part(FRAMEWORK, part), dict):
        return own
    leave_out(part, "its messages hold no such part")
    return None
