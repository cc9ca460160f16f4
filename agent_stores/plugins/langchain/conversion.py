"""What a LangChain message says in neutral form, and the plainest LangChain message that says it.

Both sides are data here: a dump of a LangChain message without its id. What a message has beyond the plain
one is its difference (`plugins.json_diff`). A *shape* is what the plain form needs to know to be near: the
type, where it does not follow from the role, and the shapes of the content's blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UsageContent,
)
from agent_stores.messages import ROLES, ChatMessage, Role
from agent_stores.plugins.langchain.blocks import FRAMEWORK, Block, build_block, read_block, shape_for
from agent_stores.plugins.unsupported import error_text
from agent_stores.retention import SYNTHESIZED, is_synthesized

Data = dict[str, Any]
Shape = dict[str, Any]


class LeaveOut(Protocol):
    """Receives the parts of a message that LangChain cannot represent."""

    def part(self, part: AnyContent, why: str) -> None:
        """A part is left out."""

    def filename(self, part: AnyContent, shown: Block) -> None:
        """A part is shown; its file's name may not be."""


_KINDS: Mapping[str, Role] = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "remove": "system",
}
_TYPES: Mapping[str, str] = {"assistant": "ai", "system": "system", "developer": "system"}
_DEVELOPER = ("__openai_role__", "developer")  # langchain-openai's marker of the role
_REASONING = "reasoning_content"  # where some integrations put a model's reasoning
_NAMELESS = f"{FRAMEWORK}.call_without_names"  # a call without an id or a name; no block has such a type
_NO_PLACE = "LangChain's messages have no place for it"


def neutral(data: Data) -> tuple[ChatMessage, Shape]:
    """The neutral form of a message, without its id, and its shape."""
    kind = data["type"]
    role, shape = _role(kind, data), Shape()
    if kind == "remove":
        return ChatMessage(role, contents=[OpaqueContent({"type": f"{FRAMEWORK}.remove"})]), {"type": kind}
    more = data.get("additional_kwargs") or {}
    if more.get(_DEVELOPER[0]) == _DEVELOPER[1] and role == "system":
        role = "developer"
    calls = _calls(data)
    contents: list[AnyContent] = []
    if role == "assistant" and isinstance(more.get(_REASONING), str) and more[_REASONING]:
        contents.append(ReasoningContent(more[_REASONING]))
        shape[_REASONING] = True
    content = data["content"]
    in_blocks: set[str] = set()
    if isinstance(content, list):
        blocks = [read_block(block, {call.call_id: call for call in calls}) for block in content]
        shape["blocks"] = [name for name, _ in blocks]
        contents += [part for _, part in blocks]
        in_blocks = {part.call_id for _, part in blocks if isinstance(part, ToolCallContent)}
    elif content:
        contents.append(TextContent(content))
    contents += [call for call in calls if call.call_id not in in_blocks]
    contents += [
        OpaqueContent({"type": _NAMELESS, "call": call}) for call in _all_calls(data) if not _has_names(call)
    ]
    usage = data.get("usage_metadata")
    if isinstance(usage, dict):
        contents.append(_usage(usage))
    if kind.startswith(("tool", "ToolMessage")) and data.get("tool_call_id"):
        contents = [_result(data, contents)]
    message = ChatMessage(role, contents=contents, author_name=data.get("name"))
    if _type(message) != kind:
        shape["type"] = kind
    return message, shape


def plain(message: ChatMessage, shape: Mapping[str, Any], leave_out: LeaveOut | None = None) -> Data | None:
    """The plainest message of LangChain's for a neutral form; None when there is nothing to show.

    Args:
        message: the neutral form.
        shape: what was kept of a message that was LangChain's.
        leave_out: called with each part that is dropped, and the reason.
    """
    data: Data = {"type": shape.get("type") or _type(message)}
    if data["type"] == "remove":
        return {**data, "content": ""}
    if message.author_name is not None:
        data["name"] = message.author_name
    contents, more = list(message.contents), Data()
    if message.role == "developer":
        more[_DEVELOPER[0]] = _DEVELOPER[1]
    result = contents[0] if contents else None
    if isinstance(result, ToolResultContent):
        data |= _plain_result(result, shape, leave_out)
        if is_synthesized(result):
            more |= SYNTHESIZED
    else:
        if shape.get(_REASONING) and isinstance(result, ReasoningContent):
            more[_REASONING] = result.text
            del contents[0]
        shown = _plain_contents(contents, shape, data, leave_out)
        if message.contents and not shown:
            return None
    return {**data, "additional_kwargs": more} if more else data


def _role(kind: str, data: Data) -> Role:
    if kind in _KINDS:
        return _KINDS[kind]
    if kind.endswith("MessageChunk") and (role := _KINDS.get(kind.removesuffix("MessageChunk").lower())):
        return role
    named = _KINDS.get(str(data.get("role")), data.get("role"))
    return cast("Role", named) if named in ROLES else "user"


def _type(message: ChatMessage) -> str:
    if message.contents and isinstance(message.contents[0], ToolResultContent):
        return "tool"
    return _TYPES.get(message.role, "human")


def _calls(data: Data) -> list[ToolCallContent]:
    """The tool calls, then those that could not be parsed; a call without an id has no neutral form."""
    found = []
    for call in filter(_has_names, _all_calls(data)):
        arguments = call.get("args")
        found.append(ToolCallContent(call["id"], call["name"], "" if arguments is None else arguments))
    return found


def _all_calls(data: Data) -> list[Data]:
    return [*(data.get("tool_calls") or ()), *(data.get("invalid_tool_calls") or ())]


def _has_names(call: Data) -> bool:
    return bool(call.get("id") and call.get("name"))


def _usage(usage: Data) -> UsageContent:
    counts: dict[str, Any] = {}
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        value = usage.get(name)
        counts[name] = value if type(value) is int and value >= 0 else None
    return UsageContent(**counts)


def _result(data: Data, parts: Sequence[AnyContent]) -> ToolResultContent:
    marked = all(
        (data.get("additional_kwargs") or {}).get(name) == mark for name, mark in SYNTHESIZED.items()
    )
    return ToolResultContent(
        data["tool_call_id"],
        "".join(part.text for part in parts if isinstance(part, TextContent)),
        is_error=data.get("status") == "error",
        contents=tuple(part for part in parts if not isinstance(part, TextContent)),
        additional_properties=SYNTHESIZED if marked else {},
    )


def _plain_result(result: ToolResultContent, shape: Mapping[str, Any], leave_out: LeaveOut | None) -> Data:
    data: Data = {"content": _result_content(result, shape, leave_out), "tool_call_id": result.call_id}
    return {**data, "status": "error"} if result.is_error else data


def _result_content(
    result: ToolResultContent, shape: Mapping[str, Any], leave_out: LeaveOut | None
) -> str | list[Block]:
    text = "" if result.result is None else result.result_text()
    if "blocks" in shape:
        texts, others = iter([TextContent(text)]), iter(result.contents)
        blocks: list[Block | None] = []
        for name in shape["blocks"]:
            part = next(texts if name in ("str", "text") else others, TextContent(""))
            blocks.append(build_block(name, part))
        if None not in blocks:
            return [block for block in blocks if block is not None]
    if not result.contents:
        return text
    shown = _shown(result.contents, leave_out)
    return [{"type": "text", "text": text}, *shown] if text or not shown else shown


def _plain_contents(
    contents: Sequence[AnyContent], shape: Mapping[str, Any], data: Data, leave_out: LeaveOut | None
) -> bool:
    """Put contents into a message that is not a tool's; False when all of them were left out."""
    blocks: list[Block | None] | None = None
    if "blocks" in shape and len(shape["blocks"]) <= len(contents):
        blocks = [build_block(name, part) for name, part in zip(shape["blocks"], contents, strict=False)]
    calls = [part for part in contents if isinstance(part, ToolCallContent)]
    usage = [part for part in contents if isinstance(part, UsageContent)]
    if blocks is not None and None not in blocks:
        data["content"] = blocks
    else:
        apart = (ToolCallContent, UsageContent)
        rest = [part for part in contents if not isinstance(part, apart) and part.type != _NAMELESS]
        if len(rest) == 1 and isinstance(rest[0], TextContent):
            data["content"] = rest[0].text
        else:
            shown = _shown(rest, leave_out)
            single = shown[0] if len(shown) == 1 else None
            is_text = isinstance(single, dict) and single["type"] == "text"
            data["content"] = single["text"] if isinstance(single, dict) and is_text else shown or ""
    _put_calls(calls, data)
    for part in contents:
        if isinstance(part, OpaqueContent) and part.type == _NAMELESS:
            call = part.data["call"]
            data.setdefault(f"{call['type']}s", []).append(call)
    if usage and data["type"].lower().startswith("ai"):
        data["usage_metadata"] = _plain_usage(usage[-1])
    elif usage and leave_out is not None:
        leave_out.part(usage[-1], "only an AIMessage has a place for it")
    if len(usage) > 1 and leave_out is not None:
        leave_out.part(usage[0], "an AIMessage holds one, and is shown the last")
    has_calls = bool(data.get("tool_calls") or data.get("invalid_tool_calls"))
    return bool(data["content"] or has_calls or usage or "blocks" in shape or not contents) or (
        len(contents) == 1 and isinstance(contents[0], TextContent)
    )


def _shown(parts: Sequence[AnyContent], leave_out: LeaveOut | None) -> list[Block]:
    """The blocks in which parts that another framework wrote are shown."""
    found: list[Block] = []
    for part in parts:
        shape = shape_for(part)
        said = error_text(part) if isinstance(part, ErrorContent) else part
        block = None if shape is None else build_block(shape, said)
        if block is not None:
            found.append(block)
            if leave_out is not None:
                leave_out.filename(part, block)
        elif leave_out is not None:
            approval = isinstance(part, (ApprovalRequestContent, ApprovalResponseContent))
            leave_out.part(part, "LangChain has no approvals" if approval else _NO_PLACE)
    return found


def _put_calls(calls: Sequence[ToolCallContent], data: Data) -> None:
    parsed, invalid = [], []
    for call in calls:
        arguments = _object(call.arguments)
        if arguments is None:
            invalid.append(
                {
                    "type": "invalid_tool_call",
                    "id": call.call_id,
                    "name": call.name,
                    "args": call.arguments,
                    "error": None,
                }
            )
        else:
            parsed.append({"type": "tool_call", "id": call.call_id, "name": call.name, "args": arguments})
    if parsed:
        data["tool_calls"] = parsed
    if invalid:
        data["invalid_tool_calls"] = invalid


def _object(arguments: str | Data) -> Data | None:
    """Arguments as an object, as LangChain parses them; None when they are none."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _plain_usage(usage: UsageContent) -> Data:
    taken, given = usage.input_tokens or 0, usage.output_tokens or 0
    total = taken + given if usage.total_tokens is None else usage.total_tokens
    return {"input_tokens": taken, "output_tokens": given, "total_tokens": total}
