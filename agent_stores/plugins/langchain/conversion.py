"""A LangChain message in neutral form, and the plainest LangChain message for a neutral form, as JSON.

The hints are what the plain message needs to be near: the type, where it does not follow from the role, and
the shapes of the content's blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, repeat
from typing import Any, cast

from agent_stores.contents import (
    AnyContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UsageContent,
)
from agent_stores.messages import ROLES, ChatMessage, Role
from agent_stores.plugins.json_codec import Data, LeaveOut, Shape
from agent_stores.plugins.langchain.blocks import FRAMEWORK, build_block, read_block
from agent_stores.plugins.parts import result_parts
from agent_stores.retention import SYNTHESIZED, is_synthesized

CHUNK = "MessageChunk"

_ROLES: Mapping[str, Role] = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "remove": "system",
}
_TYPES: Mapping[Role, str] = {"assistant": "ai", "system": "system", "developer": "system"}
_DEVELOPER = {"__openai_role__": "developer"}  # langchain-openai's marker of the role
_REASONING = "reasoning_content"  # where some integrations put a model's reasoning
_NAMELESS = f"{FRAMEWORK}.call_without_names"  # a call without an id or a name; no block has such a type


def role_of(data: Data) -> Role:
    """The role of a message."""
    kind = str(data["type"])
    named = str(data.get("role"))
    role: Any = _ROLES.get(kind) or _ROLES.get(kind.removesuffix(CHUNK).lower()) or _ROLES.get(named, named)
    if role == "system" and _has(data, _DEVELOPER):
        return "developer"
    return cast("Role", role) if role in ROLES else "user"


def read_message(data: Data) -> Shape:
    """The neutral form of a message without its id; raises where it has none."""
    kind, content = data["type"], data["content"]
    if kind == "remove":
        raise ValueError("the message says nothing")
    role, hints = role_of(data), Data()
    contents: list[AnyContent] = []
    aside = (data.get("additional_kwargs") or {}).get(_REASONING)
    if role == "assistant" and isinstance(aside, str) and aside:
        contents.append(ReasoningContent(aside))
        hints[_REASONING] = True
    given = [*(data.get("tool_calls") or ()), *(data.get("invalid_tool_calls") or ())]
    named = [call for call in given if call.get("id") and call.get("name")]
    calls = [
        ToolCallContent(call["id"], call["name"], "" if call.get("args") is None else call["args"])
        for call in named
    ]
    if isinstance(content, list):
        blocks = [read_block(block, {call.call_id: call for call in calls}) for block in content]
        contents += [part for _, part in blocks]
        if blocks:
            hints["blocks"] = [name for name, _ in blocks]
    elif content:
        contents.append(TextContent(content))
    in_blocks = {part.call_id for part in contents if isinstance(part, ToolCallContent)}
    contents += [call for call in calls if call.call_id not in in_blocks]
    contents += [OpaqueContent({"type": _NAMELESS, "call": call}) for call in given if call not in named]
    if isinstance(usage := data.get("usage_metadata"), dict):
        contents.append(_read_usage(usage))
    if kind in ("tool", "ToolMessageChunk") and data.get("tool_call_id"):
        contents = [_read_result(data, contents)]
    message = ChatMessage(role, contents=contents, author_name=data.get("name"))
    return Shape(message, hints if _type(message) == kind else {**hints, "type": kind})


def build_message(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    """The plainest message of LangChain's for a neutral form; None when there is nothing to show."""
    data: Data = {"type": hints.get("type") or _type(message)}
    if message.author_name is not None:
        data["name"] = message.author_name
    contents, shapes = list(message.contents), hints.get("blocks", ())
    more: Data = {**_DEVELOPER} if message.role == "developer" else {}
    first = contents[0] if contents else None
    if isinstance(first, ToolResultContent):
        data["tool_call_id"] = first.call_id
        if first.is_error:
            data["status"] = "error"
        if is_synthesized(first):
            more |= SYNTHESIZED
        contents = result_parts(first, shapes)
    elif hints.get(_REASONING) and isinstance(first, ReasoningContent):
        more[_REASONING] = first.text
        del contents[0]
    if more:
        data["additional_kwargs"] = more
    if len(shapes) > len(contents):  # the parts were changed since
        shapes = ()
    for part in contents:
        if isinstance(part, ToolCallContent):
            _add_call(data, _build_call(part))
        elif isinstance(part, OpaqueContent) and part.type == _NAMELESS:
            _add_call(data, part.data["call"])
        elif isinstance(part, UsageContent):
            _add_usage(data, part, leave_out)
    blocks = [
        block
        for part, shape in zip(contents, chain(shapes, repeat("")), strict=False)
        if not isinstance(part, UsageContent) and part.type != _NAMELESS
        if (block := build_block(part, shape, leave_out)) is not None
    ]
    only = blocks[0] if len(blocks) == 1 else None
    is_text = not shapes and isinstance(only, dict) and only["type"] == "text"
    data["content"] = only["text"] if is_text and isinstance(only, dict) else blocks or ""
    says = data.keys() & {"tool_call_id", "tool_calls", "invalid_tool_calls", "usage_metadata"}
    return data if blocks or says or _REASONING in more or not message.contents else None


def _type(message: ChatMessage) -> str:
    if message.contents and isinstance(message.contents[0], ToolResultContent):
        return "tool"
    return _TYPES.get(message.role, "human")


def _has(data: Data, mark: Mapping[str, Any]) -> bool:
    more = data.get("additional_kwargs") or {}
    return all(more.get(name) == value for name, value in mark.items())


def _read_result(data: Data, parts: list[AnyContent]) -> ToolResultContent:
    return ToolResultContent(
        data["tool_call_id"],
        "".join(part.text for part in parts if isinstance(part, TextContent)),
        is_error=data.get("status") == "error",
        contents=tuple(part for part in parts if not isinstance(part, TextContent)),
        additional_properties=SYNTHESIZED if _has(data, SYNTHESIZED) else {},
    )


def _build_call(call: ToolCallContent) -> Data:
    """A call, or an invalid one where LangChain would not parse its arguments."""
    data = {"type": "tool_call", "id": call.call_id, "name": call.name}
    try:
        return {**data, "args": call.parse_arguments()}
    except ValueError:
        return {**data, "type": "invalid_tool_call", "args": call.arguments, "error": None}


def _add_call(data: Data, call: Data) -> None:
    data.setdefault(f"{call['type']}s", []).append(call)


def _read_usage(usage: Data) -> UsageContent:
    counts: list[int | None] = [
        value if type(value := usage.get(name)) is int and value >= 0 else None
        for name in ("input_tokens", "output_tokens", "total_tokens")
    ]
    return UsageContent(input_tokens=counts[0], output_tokens=counts[1], total_tokens=counts[2])


def _add_usage(data: Data, usage: UsageContent, leave_out: LeaveOut) -> None:
    if not data["type"].lower().startswith("ai"):
        leave_out(usage, "only an AIMessage has a place for it")
        return
    if "usage_metadata" in data:
        leave_out(usage, "an AIMessage holds one, and is shown the last")
    taken, given = usage.input_tokens or 0, usage.output_tokens or 0
    total = taken + given if usage.total_tokens is None else usage.total_tokens
    data["usage_metadata"] = {"input_tokens": taken, "output_tokens": given, "total_tokens": total}
