"""`EventCodec`: events of Google ADK, and our messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, cast

from google.adk.events.event import Event

from agent_stores.contents import ToolResultContent
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.google_adk.parts import FRAMEWORK, build_part, read_part
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape

_NOT_ALWAYS = ("author_name", "reasoning.protected_data")  # of agents, and where it is Base64


class EventCodec:
    """A `MessageCodec` of events.

    Every plug-in reads an event's content: text, reasoning, media, function calls and responses. The rest of
    it is kept as it is. Events without content, such as those that only change the state, are kept whole, and
    other frameworks leave them out.
    """

    def __init__(self) -> None:
        self.json = JsonCodec(FRAMEWORK, "Google ADK", _read, _build, _NOT_ALWAYS)

    def to_chat_message(self, message: Event) -> ChatMessage:
        """Our message for an event; its `message_id` is the event's id.

        Raises:
            ArgumentTypeError: when it is not an event, or holds what JSON cannot.
        """
        if not isinstance(message, Event):
            raise ArgumentTypeError(f"an event must be an Event, got {type(message).__name__}")
        data = message.model_dump(mode="json", exclude_none=True)
        return self.json.encode(data, message_id=message.id or None)

    def from_chat_message(self, message: ChatMessage) -> list[Event]:
        """The event of a message; none for a message that has no form here."""
        found = self.decode(message)
        return [] if found is None else [found[0]]

    def decode(self, message: ChatMessage) -> tuple[Event, bool] | None:
        """The event of a message, if it has one, and whether ADK wrote it, unchanged since."""
        found = self.json.decode(message)
        if found is None:
            return None
        data = found.data if found.exact else {**_defaults(message), **found.data}
        return Event.model_validate(data), found.exact


def _read(event: Data) -> Shape:
    content = event["content"]
    parts = [read_part(part) for part in content["parts"]]
    role = content.get("role") or ("user" if event.get("author") == "user" else "model")
    ours: Role = "user" if role == "user" else "assistant"
    if parts and all(isinstance(part, ToolResultContent) for part in parts):
        ours = "tool"
    message = ChatMessage(
        ours,
        contents=parts,
        created_at=datetime.fromtimestamp(event["timestamp"], timezone.utc),
    )
    return Shape(message)


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    if message.role in ("system", "developer"):
        for part in message.contents:
            leave_out(part, "events hold no instructions; they are options of the agent")
        return None
    built = [build_part(part, leave_out) for part in message.contents]
    parts = [part for part in built if part is not None]
    if message.contents and not parts:
        return None
    role = "model" if message.role == "assistant" else "user"
    data: Data = {"content": {"parts": parts, "role": role}}
    if role == "user":
        data["author"] = "user"
    elif message.author_name is not None:
        data["author"] = message.author_name
    return data


def _defaults(message: ChatMessage) -> Data:
    """The fields of an event that another framework's message becomes."""
    name = cast("str", message.message_id)
    created_at = message.created_at or datetime.now(timezone.utc)
    return {"id": name, "invocation_id": f"e-{name}", "timestamp": created_at.timestamp()}
