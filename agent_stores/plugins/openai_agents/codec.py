"""`ResponsesItemCodec`: items of the Responses API, and our messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from agent_stores.contents import (
    AnyContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
)
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ROLES, ChatMessage, Role
from agent_stores.plugins.framework_data import framework_data
from agent_stores.plugins.json_codec import Data, Decoded, JsonCodec, LeaveOut
from agent_stores.plugins.json_diff import digest
from agent_stores.plugins.openai_agents.items import FRAMEWORK, build_item, build_part, read_item

Item = Data
"""An item of the Responses API, as JSON."""

_NO_ID = "__fake_id__"  # what the SDK writes where a provider gives items no ids
_NO_PLACE = ("author_name", "tool_result.is_error")
_KINDS: Mapping[type[Any], str] = {
    ToolCallContent: "function_call",
    ToolResultContent: "function_call_output",
    ReasoningContent: "reasoning",
}


class ResponsesItemCodec:
    """A `MessageCodec` of the Responses API's items, which are plain JSON objects.

    An item becomes one message, and comes back as it was. A message that another framework wrote may hold
    what takes several items, such as text and two tool calls: messages are therefore read as lists of items.
    """

    def __init__(self) -> None:
        self._json = JsonCodec(
            FRAMEWORK, "The OpenAI Agents SDK", read_item, _build, _NO_PLACE, split=_items_apart
        )

    def to_chat_message(self, message: Mapping[str, Any]) -> ChatMessage:
        """Our message for an item; one with an id gets the same id again, and another for a later state.

        Raises:
            ArgumentTypeError: when it is not a JSON object.
            ArgumentError: when it holds a number that JSON cannot.
        """
        if not isinstance(message, Mapping):
            raise ArgumentTypeError(
                f"an item must be a dict, as the SDK gives them, got {type(message).__name__}"
            )
        given = message.get("role")
        role = cast("Role", given) if isinstance(given, str) and given in ROLES else "assistant"
        found = self._json.encode(message, kind=message.get("type") or "item", role=role, what="the item")
        name = message.get("id")
        if not isinstance(name, str) or name in ("", _NO_ID):
            return found
        return found.replace(message_id=f"{name}:{digest(message)}")

    def from_chat_message(self, message: ChatMessage) -> list[Item]:
        """The items for a message of ours: one where an item was written."""
        return [found.data for found in self.items_of(message)]

    def items_of(self, message: ChatMessage) -> list[Decoded]:
        """The items for a message, with the parts that each of them shows."""
        return self._json.decode_all(message)


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Item | None:
    parts = message.contents
    kind = hints.get("kind")
    if kind is not None and (item := build_item(kind, message, leave_out)) is not None:
        return item
    kind = _KINDS.get(type(parts[0])) if parts else None
    if kind is not None:
        return build_item(kind, message, leave_out)
    role = "user" if message.role == "tool" else message.role
    shown: list[AnyContent] = []
    for part in parts:
        if isinstance(part, TextContent) or (role != "assistant" and build_part(part) is not None):
            shown.append(part)
        elif build_part(part) is not None:
            leave_out(part, "an assistant's message holds text only")
        else:
            leave_out(part, "the Responses API has no item for it")
    if not shown:
        return None
    if any(not isinstance(part, TextContent) for part in shown):
        return {"role": role, "content": [build_part(part) for part in shown]}
    return {"role": role, "content": "".join(part.text for part in shown if isinstance(part, TextContent))}


def _items_apart(message: ChatMessage) -> list[list[int]]:
    """The indexes of the parts that share an item."""
    kind = framework_data(message, FRAMEWORK).get("kind")
    if kind is not None and build_item(kind, message) is not None:
        return [list(range(len(message.contents)))]
    runs: list[list[int]] = []
    before: AnyContent | None = None
    for index, part in enumerate(message.contents):
        if before is None or not _share(before, part):
            runs.append([])
        runs[-1].append(index)
        before = part
    return runs


def _share(before: AnyContent, part: AnyContent) -> bool:
    """Whether neighbours share an item: text and media do, or reasoning up to its signature."""
    if isinstance(before, ReasoningContent):
        return isinstance(part, ReasoningContent) and before.protected_data is None
    return _KINDS.keys().isdisjoint([type(before), type(part)]) and not (_is_item(before) or _is_item(part))


def _is_item(part: AnyContent) -> bool:
    return isinstance(part, OpaqueContent) and part.type.startswith(f"{FRAMEWORK}.") and "data" in part.data
