"""`ModelMessageCodec`: Pydantic AI's messages, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter

from agent_stores.contents import OpaqueContent, TextContent, ToolCallContent, ToolResultContent
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape
from agent_stores.plugins.parts import parse_time
from agent_stores.plugins.pydantic_ai.parts import FRAMEWORK, build_parts, plain_layout, read_part


class ModelMessageCodec:
    """A `MessageCodec` of requests and responses.

    Every plug-in reads their text, media, reasoning, tool calls and results. System prompts within a request
    of the user, and what providers' own tools did, are kept as they are, and other frameworks leave them out.
    """

    def __init__(self) -> None:
        self.json = JsonCodec(FRAMEWORK, "Pydantic AI", _read, _build, ["author_name"])

    def to_chat_message(self, message: ModelMessage) -> ChatMessage:
        """Our message for one of Pydantic AI's."""
        return self.encode(message, None)

    def encode(self, message: ModelMessage, message_id: str | None) -> ChatMessage:
        """Our message for one of Pydantic AI's, with an id."""
        data = _dump(message, exclude_none=True)
        if _dump(_validate(data), exclude_none=False) != (whole := _dump(message, exclude_none=False)):
            data = whole
        role: Role = "user" if data["kind"] == "request" else "assistant"
        return self.json.encode(data, message_id=message_id, role=role)

    def from_chat_message(self, message: ChatMessage) -> list[ModelMessage]:
        """Pydantic AI's message for one of ours; none for a message that has no form here."""
        return [found for _, found in self.decode([message])]

    def decode(self, messages: Sequence[ChatMessage]) -> list[tuple[ChatMessage, ModelMessage]]:
        """The messages that have a form here, each with ours."""
        names: dict[str, str] = {}
        found = []
        for message in messages:
            names |= {p.call_id: p.name for p in message.contents if isinstance(p, ToolCallContent)}
            decoded = self.json.decode(message)
            if decoded is None:
                continue
            data = decoded.data
            if not decoded.exact:
                data = _completed(data, message, names)
            try:
                found.append((message, _validate(data)))
            except ValidationError as error:
                if decoded.exact:
                    raise
                part = OpaqueContent({"type": f"{FRAMEWORK}.{data['kind']}"})
                self.json.unsupported(part.type, str(error), message_id=message.message_id)
        return found


def _dump(message: ModelMessage, *, exclude_none: bool) -> Data:
    (data,) = ModelMessagesTypeAdapter.dump_python([message], mode="json", exclude_none=exclude_none)
    return dict(data)


def _validate(data: Data) -> ModelMessage:
    (message,) = ModelMessagesTypeAdapter.validate_python([data])
    return message


def _read(data: Data) -> Shape:
    parts: list[Any] = []
    layout: list[int] = []
    kinds = {part.get("part_kind") for part in data["parts"]}
    if kinds == {"system-prompt"}:
        parts = [TextContent(part["content"]) for part in data["parts"]]
        layout = [0] * len(parts)
        role: Role = "system"
    else:
        for part in data["parts"]:
            ours, count = read_part(part)
            parts += ours
            layout.append(count)
        answers = bool(parts) and all(isinstance(part, ToolResultContent) for part in parts)
        role = "assistant" if data["kind"] == "response" else "tool" if answers else "user"
    times = (data.get("timestamp"), *(part.get("timestamp") for part in data["parts"]))
    created_at = next((found for time in times if (found := parse_time(time)) is not None), None)
    message = ChatMessage(role, contents=parts, created_at=created_at)
    return Shape(message, {} if layout == plain_layout(parts, role) else {"layout": layout})


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    role = {"developer": "system", "tool": "user"}.get(message.role, message.role)
    parts = build_parts(message.contents, hints.get("layout"), role, leave_out)
    if message.contents and not parts:
        return None
    return {"parts": parts, "kind": "response" if role == "assistant" else "request"}


def _completed(data: Data, message: ChatMessage, names: Mapping[str, str]) -> Data:
    """The message of another framework, with what Pydantic AI requires."""
    time = None if message.created_at is None else message.created_at.isoformat()
    parts = []
    for part in data["parts"]:
        part = dict(part)
        kind = part.get("part_kind")
        if kind in ("tool-return", "builtin-tool-return"):
            part.setdefault("tool_name", names.get(part["tool_call_id"], "unknown"))
        if time is not None and data["kind"] == "request":
            part.setdefault("timestamp", time)
        parts.append(part)
    stamped = {} if time is None or data["kind"] == "request" else {"timestamp": time}
    return {**stamped, **data, "parts": parts}
