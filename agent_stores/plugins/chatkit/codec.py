"""`ThreadItemCodec`: items of ChatKit's threads, and our messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, cast

from chatkit.types import ThreadItem
from pydantic import BaseModel, TypeAdapter, ValidationError

from agent_stores.contents import (
    AnyContent,
    DataContent,
    ErrorContent,
    OpaqueContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape
from agent_stores.plugins.media import media_url, part_of_url
from agent_stores.plugins.unsupported import error_text

FRAMEWORK = "chatkit"

_NO_NAME = "image"  # an attachment must have one
_ITEM: TypeAdapter[Any] = TypeAdapter(ThreadItem)


class ThreadItemCodec:
    """A `MessageCodec` of thread items; the id of an item is the id of its message.

    What users and assistants say, attachments and client tools are read by every plug-in. Items of other
    types, such as widgets, are kept whole.
    """

    def __init__(self) -> None:
        self.json = JsonCodec(FRAMEWORK, "ChatKit", _read, _build, ["author_name"])

    def to_chat_message(self, message: ThreadItem) -> ChatMessage:
        """Our message for an item.

        Raises:
            ArgumentTypeError, ArgumentError: when it is no item, or holds what JSON cannot.
        """
        return self.encode(message, "")

    def from_chat_message(self, message: ChatMessage) -> list[ThreadItem]:
        """The item for a message; none for a message that has no form in ChatKit."""
        found = self.item_of(message, "")
        return [] if found is None else [found]

    def encode(self, item: ThreadItem, thread_id: str) -> ChatMessage:
        """Our message for an item in a thread; raises as `to_chat_message` does."""
        if not isinstance(item, BaseModel) or not isinstance(getattr(item, "type", None), str):
            raise ArgumentTypeError(f"an item must be a ThreadItem, got {type(item).__name__}")
        data = item.model_dump(mode="json")
        if item.thread_id == thread_id:
            del data["thread_id"]  # so that the items of a copied thread are the copy's
        return self.json.encode(data, message_id=item.id)

    def item_of(self, message: ChatMessage, thread_id: str) -> ThreadItem | None:
        """The item for a message of a thread; None when it has no form in ChatKit."""
        found = self.json.decode(message)
        if found is None:
            return None
        created_at = (message.created_at or datetime.now(timezone.utc)).isoformat()
        data = {"created_at": created_at, "thread_id": thread_id, **found.data, "id": message.message_id}
        try:
            return cast("ThreadItem", _ITEM.validate_python(data))
        except ValidationError:
            part = OpaqueContent({"type": f"{FRAMEWORK}.{data.get('type') or 'item'}"})
            why = "the installed version does not know such items"
            self.json.unsupported(part.type, why, message_id=message.message_id)
            return None


def _read(item: Data) -> Shape:
    kind = item["type"]
    if kind == "user_message":
        parts: list[AnyContent] = [TextContent(part["text"]) for part in item["content"]]
        parts += [_read_attachment(one) for one in item["attachments"]]
    elif kind == "assistant_message":
        parts = [TextContent(part["text"]) for part in item["content"]]
    elif kind == "client_tool_call":
        parts = [ToolCallContent(item["call_id"], item["name"], item["arguments"])]
        if item["status"] == "completed":
            parts.append(ToolResultContent(item["call_id"], item["output"]))
    elif kind == "generated_image":
        parts = [part_of_url(item["image"]["url"], kind="image")]
    else:
        raise ValueError("the item is no message")
    created_at = datetime.fromisoformat(item["created_at"].replace("Z", "+00:00"))
    if created_at.tzinfo is None:
        created_at = created_at.astimezone()
    role: Role = "user" if kind == "user_message" else "assistant"
    hints = {} if kind in ("user_message", "assistant_message") else {"kind": kind}
    return Shape(ChatMessage(role, contents=parts, created_at=created_at), hints)


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    kind = hints.get("kind")
    if kind == "generated_image":
        url = next(part for part in message.contents if isinstance(part, (DataContent, UriContent)))
        return {"type": kind, "image": {"url": media_url(url)}}
    if kind == "client_tool_call":
        return _build_call(message)
    if message.role == "assistant":
        texts = [shown for part in message.contents if (shown := _text(part, "output_text", leave_out))]
        if message.contents and not texts:
            return None
        return {"type": "assistant_message", "content": texts}
    if message.role != "user":
        for part in message.contents:
            leave_out(part, "its threads hold what users and assistants say")
        return None
    content: list[Data] = []
    attachments: list[Data] = []
    for index, part in enumerate(message.contents):
        attachment = _build_attachment(part, index)
        if attachment is not None:
            attachments.append(attachment)
        elif (shown := _text(part, "input_text", leave_out)) is not None:
            content.append(shown)
    if message.contents and not content and not attachments:
        return None
    return {
        "type": "user_message",
        "content": content,
        "attachments": attachments,
        "inference_options": {},
    }


def _build_call(message: ChatMessage) -> Data:
    call = message.tool_calls[0]
    found: Data = {"type": "client_tool_call", "call_id": call.call_id, "name": call.name}
    found["arguments"] = call.parse_arguments()
    if message.tool_results:
        return {**found, "status": "completed", "output": message.tool_results[0].result}
    return {**found, "status": "pending"}


def _text(part: AnyContent, kind: str, leave_out: LeaveOut) -> Data | None:
    if isinstance(part, ErrorContent):
        part = error_text(part)
    if isinstance(part, TextContent):
        return {"type": kind, "text": part.text}
    leave_out(part, "its messages hold text and attachments")
    return None


def _read_attachment(attachment: Data) -> AnyContent:
    if attachment["type"] == "image":
        name, media_type = attachment["name"], attachment["mime_type"]
        name = None if name == _NO_NAME else name
        return part_of_url(attachment["preview_url"], kind="image", media_type=media_type, filename=name)
    return OpaqueContent({"type": f"{FRAMEWORK}.attachment", "attachment": attachment})


def _build_attachment(part: AnyContent, index: int) -> Data | None:
    if isinstance(part, OpaqueContent) and part.type == f"{FRAMEWORK}.attachment":
        return cast("Data", part.data["attachment"])
    if not isinstance(part, (DataContent, UriContent)) or part.kind != "image":
        return None
    return {
        "type": "image",
        "id": f"attachment_{index}",
        "name": part.filename or _NO_NAME,
        "mime_type": part.media_type or "image/*",
        "preview_url": media_url(part),
    }
