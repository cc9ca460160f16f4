"""`StrandsMessageCodec`: messages of Strands' sessions, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, cast

from strands.types.session import SessionMessage

from agent_stores.contents import ReasoningContent, ToolResultContent
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape
from agent_stores.plugins.json_diff import digest
from agent_stores.plugins.strands.blocks import FRAMEWORK, build_block, read_block
from agent_stores.store import StoredMessage

_REDACTED = "redact_message"
_NO_PLACE = ("author_name",)


class StrandsMessageCodec:
    """A `MessageCodec` of `SessionMessage`. Its ``message_id`` is not kept: it follows from the position.

    The neutral form of a message that was redacted is what replaces it.
    """

    def __init__(self) -> None:
        self.json = JsonCodec(FRAMEWORK, "Strands", _read, _build, _NO_PLACE)

    def to_chat_message(self, message: SessionMessage) -> ChatMessage:
        """Our message for one of Strands'; the same message gets the same id.

        Raises:
            ArgumentTypeError, ArgumentError: when it is none, or holds what JSON cannot.
        """
        if not isinstance(message, SessionMessage):
            raise ArgumentTypeError(f"a message must be a SessionMessage, got {type(message).__name__}")
        data = message.to_dict()
        name = digest(data)
        del data["message_id"]
        if data.get(_REDACTED) is None:
            del data[_REDACTED]
        return self.json.encode(data, message_id=f"{FRAMEWORK}-{name}")

    def from_chat_message(self, message: ChatMessage) -> list[SessionMessage]:
        """Strands' message for ours; none for a message that has no form there."""
        return self.from_stored([StoredMessage(1, message)])

    def from_stored(self, stored: Sequence[StoredMessage[ChatMessage]]) -> list[SessionMessage]:
        """Strands' messages for rows, with ids that follow from the positions.

        Rows of another framework that Strands has one message for, such as the results of parallel calls, are
        one message, with the id of the last of them.
        """
        shown: list[SessionMessage] = []
        joinable = False  # whether the last one is another framework's
        for position, message in stored:
            found = self.json.decode(message)
            if found is None:
                continue
            made = _session_message(found.data, message, position - 1)
            if joinable and not found.exact and _belong_together(shown[-1], made):
                made.message["content"] = [*shown.pop().message["content"], *made.message["content"]]
            shown.append(made)
            joinable = not found.exact
        return shown


def _read(data: Data) -> Shape:
    hints: Data = {"redacted": True} if _REDACTED in data else {}
    message = data[_REDACTED] if hints else data["message"]
    parts = [read_block(block) for block in message["content"]]
    role = message["role"]
    if role == "user" and parts and all(isinstance(part, ToolResultContent) for part in parts):
        role = "tool"
    created_at = datetime.fromisoformat(data["created_at"])
    if created_at.tzinfo is None:
        created_at = created_at.replace(tzinfo=timezone.utc)
    return Shape(ChatMessage(cast("Role", role), contents=parts, created_at=created_at), hints)


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    if message.role in ("system", "developer"):
        for part in message.contents:
            leave_out(part, "its sessions hold no system prompts; they are options of the agent")
        return None
    shown: list[Data] = []
    for part in message.contents:
        if isinstance(part, ReasoningContent) and not hints.get("own"):
            leave_out(part, "providers reject reasoning that they have not signed")
        elif (block := build_block(part, leave_out)) is not None:
            shown.append(block)
    if message.contents and not shown:
        return None
    role = "assistant" if message.role == "assistant" else "user"
    return {_REDACTED if hints.get("redacted") else "message": {"role": role, "content": shown}}


def _session_message(data: Data, message: ChatMessage, message_id: int) -> SessionMessage:
    created_at = (message.created_at or datetime.now(timezone.utc)).isoformat()
    times = {"created_at": created_at, "updated_at": created_at}
    return SessionMessage.from_dict({"message": {}, **times, **data, "message_id": message_id})


def _belong_together(before: SessionMessage, after: SessionMessage) -> bool:
    """Whether two messages of another framework are one of Strands'.

    Parts of an answer are, and the results of calls; what a user says is not.
    """
    one, other = before.to_message(), after.to_message()
    if one["role"] != other["role"]:
        return False
    return one["role"] == "assistant" or all(
        "toolResult" in block for block in (*one["content"], *other["content"])
    )
