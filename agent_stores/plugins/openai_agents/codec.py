"""`ResponsesItemCodec`: items of the Responses API, and our messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from agent_stores._json import json_value
from agent_stores.contents import (
    AnyContent,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ROLES, ChatMessage, Role
from agent_stores.plugins.framework_data import framework_data
from agent_stores.plugins.json_diff import apply_diff, attach_diff, digest, json_equal
from agent_stores.plugins.openai_agents.item_converters import (
    FRAMEWORK,
    KINDS,
    Item,
    function_call,
    item_part,
    output_of,
    reasoning,
)
from agent_stores.plugins.unsupported import UnsupportedWarnings, error_text
from agent_stores.retention import is_synthesized

_NO_ID = "__fake_id__"  # what the SDK writes where a provider gives items no ids


class ItemOf(NamedTuple):
    """An item that a message is shown as.

    Attributes:
        item: the item.
        parts: the indexes of the message's parts that it shows.
    """

    item: Item
    parts: tuple[int, ...]


class ResponsesItemCodec:
    """A `MessageCodec` of the Responses API's items, which are plain JSON objects.

    An item becomes one message, and comes back as it was. A message that another framework wrote may hold
    what takes several items, such as text and two tool calls: messages are therefore read as lists of items.
    """

    def __init__(self) -> None:
        self._unsupported = UnsupportedWarnings("The OpenAI Agents SDK")

    def to_chat_message(self, message: Mapping[str, Any]) -> ChatMessage:
        """Our message for an item.

        Raises:
            ArgumentTypeError: when it is not a JSON object.
            ArgumentError: when it holds a number that JSON cannot.
        """
        if not isinstance(message, Mapping):
            raise ArgumentTypeError(
                f"an item must be a dict, as the SDK gives them, got {type(message).__name__}"
            )
        item = cast("Item", json_value(message, "the item"))
        found = self._read(item, _kind(item))
        if found is not None:
            return found
        role = item.get("role")
        data = {"type": f"{FRAMEWORK}.{item.get('type') or 'item'}", "item": item}
        return ChatMessage(
            cast("Role", role) if isinstance(role, str) and role in ROLES else "assistant",
            contents=[OpaqueContent(data)],
            message_id=_message_id(item),
        )

    def from_chat_message(self, message: ChatMessage) -> list[Item]:
        """The items for a message of ours: one where an item was written."""
        return [found.item for found in self.items_of(message)]

    def items_of(self, message: ChatMessage) -> list[ItemOf]:
        """The items for a message, with the parts that each of them shows."""
        kept = framework_data(message, FRAMEWORK)
        every = tuple(range(len(message.contents)))
        kind = kept.get("kind")
        if isinstance(kind, str) and kind in KINDS:
            try:
                base = KINDS[kind].build(message.contents)
            except (ValueError, TypeError, LookupError):  # its parts were changed since
                pass
            else:
                return [ItemOf(apply_diff(message, FRAMEWORK, base), every)]
        plain = list(self._plain(message))
        if len(plain) == 1 and kept:
            return [ItemOf(apply_diff(message, FRAMEWORK, plain[0].item), every)]
        return plain

    def _read(self, item: Item, kind: str) -> ChatMessage | None:
        """The message of an item of a kind; None when the item is not what the kind's items are."""
        if kind not in KINDS:
            return None
        role, read, build = KINDS[kind]
        try:
            message = ChatMessage(cast("Role", role), contents=read(item), message_id=_message_id(item))
            base = build(message.contents)
        except (ValueError, TypeError, LookupError, AttributeError):
            return None
        plain = list(self._plain(message, warn=False))
        if len(plain) == 1 and json_equal(plain[0].item, base):
            return attach_diff(message, FRAMEWORK, base, item)
        return attach_diff(message, FRAMEWORK, base, item, kind=kind)

    def _plain(self, message: ChatMessage, *, warn: bool = True) -> Iterator[ItemOf]:
        """A message of any framework as items."""
        role = "user" if message.role == "tool" else message.role
        name = message.message_id
        if message.author_name is not None and warn:
            self._unsupported.field("author_name", "its items have no place for it", message_id=name)
        run: list[int] = []  # neighbours that share an item: text and media, or reasoning
        for index, part in enumerate(message.contents):
            single = self._single(part)
            if run and (single is not None or not _together(message.contents[run[-1]], part)):
                yield from _shared(message, role, run)
                run = []
            fits = single is not None or _is_reasoning(part) or self._fits(part, role)
            if single is not None:
                yield ItemOf(single, (index,))
            elif fits:
                run.append(index)
            if not warn:
                continue
            if fits:
                self._tell_fields(part, name)
            else:
                self._unsupported(part.type, _why(part, role), message_id=name)
        if run:
            yield from _shared(message, role, run)

    def _single(self, part: AnyContent) -> Item | None:
        """The item of a part that is an item by itself."""
        if isinstance(part, ToolCallContent):
            return function_call(part)
        if isinstance(part, ToolResultContent):
            return {"type": "function_call_output", "call_id": part.call_id, "output": output_of(part)}
        if isinstance(part, OpaqueContent) and part.type.startswith(f"{FRAMEWORK}."):
            item = part.data.get("item")
            return item if isinstance(item, dict) else None
        return None

    def _tell_fields(self, part: AnyContent, message_id: str | None) -> None:
        """Say what the item of a part that is shown does not hold of it."""
        if not isinstance(part, ToolResultContent):
            if isinstance(part, (DataContent, UriContent)) and part.filename is not None:
                self._unsupported.filename(part, item_part(part), message_id=message_id)
            return
        if part.is_error and not is_synthesized(part):
            why = "a tool's output does not say that the tool failed"
            self._unsupported.field("tool_result.is_error", why, message_id=message_id)
        for inner in part.contents:
            shown = item_part(inner)
            if shown is None:
                self._unsupported(inner.type, "a tool's output cannot hold it", message_id=message_id)
            else:
                self._unsupported.filename(inner, shown, message_id=message_id)

    def _fits(self, part: AnyContent, role: str) -> bool:
        if isinstance(part, (TextContent, ErrorContent)):
            return True
        return role != "assistant" and item_part(part) is not None


def _shared(message: ChatMessage, role: str, run: Sequence[int]) -> Iterator[ItemOf]:
    parts = [message.contents[index] for index in run]
    if _is_reasoning(parts[0]):
        yield ItemOf(reasoning(parts), tuple(run))
        return
    parts = [error_text(part) if isinstance(part, ErrorContent) else part for part in parts]
    content: Any = "".join(part.text for part in parts if isinstance(part, TextContent))
    if not all(isinstance(part, TextContent) for part in parts):
        content = [item_part(part) for part in parts]
    yield ItemOf({"role": role, "content": content}, tuple(run))


def _together(before: AnyContent, part: AnyContent) -> bool:
    """Whether two neighbours share an item; one of reasoning holds a single signature, and ends with it."""
    if isinstance(before, ReasoningContent) and before.protected_data is not None:
        return False
    return _is_reasoning(before) == _is_reasoning(part)


def _is_reasoning(part: AnyContent) -> bool:
    return isinstance(part, ReasoningContent)


def _why(part: AnyContent, role: str) -> str:
    if role == "assistant" and item_part(part) is not None:
        return "an assistant's message holds text only"
    return "the Responses API has no item for it"


def _kind(item: Item) -> str:
    """The name of the kind that an item may be of; not all are in `KINDS`."""
    kind = item.get("type", "message")
    if kind != "message":
        return str(kind)
    return f"{'text' if isinstance(item.get('content'), str) else 'message'}.{item.get('role')}"


def _message_id(item: Item) -> str | None:
    """An id for an item that has one, the same for the same item; another for a later state of it."""
    name = item.get("id")
    if not isinstance(name, str) or not name or name == _NO_ID:
        return None
    return f"{name}:{digest(item)}"
