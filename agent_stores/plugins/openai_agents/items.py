"""Items of the Responses API, and the parts of our messages.

An item is read into parts, and built from them as plainly as its kind allows; what it has beyond that is its
difference (`plugins.json_diff`), so that nothing here has to know every field. An item of a kind that is not
here is kept whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    DataContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.json_codec import Data, LeaveOut, Shape, ignore
from agent_stores.plugins.media import decode_base64, encode_base64, media_url, part_of_url
from agent_stores.plugins.parts import opaque_part, own_part

FRAMEWORK = "openai_agents"

P = TypeVar("P", bound=AnyContent)

_ROLES: Mapping[Any, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}
# Of each kind of call: its fields with the id and with the arguments.
_CALLS = {
    "function_call": ("call_id", "arguments"),
    "custom_tool_call": ("call_id", "input"),
    "mcp_call": ("id", "arguments"),
}
# Calls of the API's own tools, whose arguments are all other fields than these.
_TOOLS = (
    *("computer_call", "local_shell_call", "shell_call", "apply_patch_call"),
    *("tool_search_call", "program"),
)
_NO_ARGUMENTS = ("type", "id", "call_id", "status", "caller")
# Of each kind of result: its fields with the call's id and with the result.
_RESULTS = {
    "function_call_output": ("call_id", "output"),
    "custom_tool_call_output": ("call_id", "output"),
    "computer_call_output": ("call_id", "output"),
    "local_shell_call_output": ("id", "output"),
    "shell_call_output": ("call_id", "output"),
    "apply_patch_call_output": ("call_id", "output"),
    "tool_search_output": ("call_id", "tools"),
    "program_output": ("call_id", "result"),
}
_FUNCTION, _SCREENSHOT = "function_call_output", "computer_call_output"


def read_item(item: Data) -> Shape:
    """The neutral form of an item; raises where it has none."""
    kind = item.get("type", "message")
    role: Role = "assistant"
    parts: Sequence[AnyContent]
    if kind == "message":
        role, content = _ROLES[item["role"]], item["content"]
        if is_text := isinstance(content, str):
            parts = [TextContent(content)]
        else:
            parts = [_read_part(part) for part in content]
        kind = "text" if is_text else kind
    elif kind in _CALLS:
        name, field = _CALLS[kind]
        parts = [ToolCallContent(item[name], item["name"], item[field])]
        failed = item.get("error") is not None
        said = item["error"] if failed else item.get("output")
        if kind == "mcp_call" and said is not None:
            parts = [*parts, ToolResultContent(item[name], said, is_error=failed)]
    elif kind in _TOOLS:
        arguments = {name: value for name, value in item.items() if name not in _NO_ARGUMENTS}
        parts = [ToolCallContent(item["call_id"], kind.removesuffix("_call"), arguments)]
    elif kind in _RESULTS:
        role, (name, field) = "tool", _RESULTS[kind]
        parts = [_read_result(kind, item[name], item[field])]
    elif kind == "reasoning":
        parts = _read_reasoning(item)
    elif kind == "image_generation_call":
        data = decode_base64(item["result"])
        if data is None:
            raise ValueError("the image is not canonical Base64")
        parts = [DataContent(data, media_type=f"image/{item.get('output_format') or 'png'}")]
    elif kind == "mcp_approval_request":
        call = ToolCallContent(item["id"], item["name"], item["arguments"])
        parts = [ApprovalRequestContent(request_id=item["id"], tool_call=call)]
    elif kind == "mcp_approval_response":
        role = "user"
        parts = [ApprovalResponseContent(request_id=item["approval_request_id"], approved=item["approve"])]
    else:
        raise ValueError("the item is of another kind")
    return Shape(ChatMessage(role, contents=parts), {"kind": kind})


def build_item(kind: Any, message: ChatMessage, leave_out: LeaveOut = ignore) -> Data | None:
    """The plainest item of a kind for a message; None where its parts are not those of such an item."""
    try:
        return _build(kind, message.role, message.contents, leave_out)
    except (ValueError, TypeError, LookupError):
        return None


def build_part(part: AnyContent, text_type: str = "input_text") -> Data | None:
    """The part of a message or output for a neutral part; None where there is none for it."""
    own = own_part(FRAMEWORK, part)
    if isinstance(own, dict):
        return own
    if isinstance(part, TextContent):
        plain: Data = {"type": text_type, "text": part.text}
        return {**plain, "annotations": []} if text_type == "output_text" else plain
    if not isinstance(part, (DataContent, UriContent)) or part.kind == "video":
        return None
    if part.kind == "image":
        return {"type": "input_image", "image_url": media_url(part), "detail": "auto"}
    if part.kind == "audio":
        if isinstance(part, UriContent):
            return None
        audio = {"data": encode_base64(part.data), "format": part.media_type.partition("/")[2]}
        return {"type": "input_audio", "input_audio": audio}
    where = "file_url" if isinstance(part, UriContent) and not part.uri.startswith("data:") else "file_data"
    file: Data = {"type": "input_file", where: media_url(part)}
    return file if part.filename is None else {**file, "filename": part.filename}


def _build(kind: Any, role: str, parts: Sequence[AnyContent], leave_out: LeaveOut) -> Data:
    if kind == "text":
        return {"role": role, "content": _only(TextContent, parts).text}
    if kind == "message":
        text_type = "output_text" if role == "assistant" else "input_text"
        content = [build_part(part, text_type) for part in parts]
        if None in content:
            raise ValueError("a part has no form here")
        return {"role": role, "content": content}
    if kind in _CALLS:
        call, (name, field) = _only(ToolCallContent, parts[:1]), _CALLS[kind]
        item: Data = {"type": kind, name: call.call_id, "name": call.name, field: _text(call)}
        if kind == "mcp_call" and parts[1:]:
            said = _only(ToolResultContent, parts[1:])
            item["error" if said.is_error else "output"] = said.result
        return item
    if kind in _TOOLS:
        call = _only(ToolCallContent, parts)
        return {"type": kind, "call_id": call.call_id, **call.parse_arguments()}
    if kind in _RESULTS:
        result, (name, field) = _only(ToolResultContent, parts), _RESULTS[kind]
        return {"type": kind, name: result.call_id, field: _build_result(kind, result, leave_out)}
    if kind == "reasoning":
        return _build_reasoning(parts)
    item = {"type": kind}
    if kind == "image_generation_call":
        return {**item, "result": encode_base64(_only(DataContent, parts).data)}
    if kind == "mcp_approval_request":
        request = _only(ApprovalRequestContent, parts)
        call = request.tool_call
        return {**item, "id": request.request_id, "name": call.name, "arguments": call.arguments}
    response = _only(ApprovalResponseContent, parts)
    return {**item, "approval_request_id": response.request_id, "approve": response.approved}


def _read_part(part: Data) -> AnyContent:
    kind = part["type"]
    if kind in ("input_text", "output_text", "text"):
        return TextContent(part["text"])
    if kind == "refusal":
        return TextContent(part["refusal"])
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return part_of_url(part["image_url"], kind="image")
    if kind == "input_file":
        for url in (part.get("file_data"), part.get("file_url")):
            if isinstance(url, str):
                return part_of_url(url, kind="file", filename=part.get("filename"))
    if kind == "input_audio":
        audio = part["input_audio"]
        data = decode_base64(audio["data"])
        if data is not None:
            return DataContent(data, media_type=f"audio/{audio['format']}")
    return opaque_part(FRAMEWORK, kind, part)


def _read_result(kind: str, call_id: str, output: Any) -> AnyContent:
    if kind == _SCREENSHOT:
        return ToolResultContent(call_id, contents=(part_of_url(output["image_url"], kind="image"),))
    if kind != _FUNCTION or isinstance(output, str):
        return ToolResultContent(call_id, output)
    parts = [_read_part(part) for part in output]
    text = "".join(part.text for part in parts if isinstance(part, TextContent))
    others = tuple(part for part in parts if not isinstance(part, TextContent))
    return ToolResultContent(call_id, text, contents=others)


def _build_result(kind: str, result: ToolResultContent, leave_out: LeaveOut) -> Any:
    if kind == _SCREENSHOT:
        (shot,) = result.contents
        if not isinstance(shot, (DataContent, UriContent)):
            raise ValueError(f"expected an image, got {type(shot).__name__}")
        return {"type": "computer_screenshot", "image_url": media_url(shot)}
    if kind != _FUNCTION:
        return result.result
    text = "" if result.result is None else result.result_text()
    shown = []
    for part in result.contents:
        if (built := build_part(part)) is None:
            leave_out(part, "a tool's output cannot hold it")
        else:
            shown.append(built)
    return [{"type": "input_text", "text": text}] * bool(text) + shown if shown else text


def _read_reasoning(item: Data) -> list[AnyContent]:
    texts = [part["text"] for part in item.get("content") or item.get("summary") or [{"text": ""}]]
    sealed = item.get("encrypted_content")
    return [*map(ReasoningContent, texts[:-1]), ReasoningContent(texts[-1], protected_data=sealed)]


def _build_reasoning(parts: Sequence[AnyContent]) -> Data:
    """Without an id: the service looks an item with an id up, and does not know one that it did not make."""
    found = [_only(ReasoningContent, [part]) for part in parts]
    summary = [{"type": "summary_text", "text": part.text} for part in found if part.text]
    item: Data = {"type": "reasoning", "summary": summary}
    sealed = found[-1].protected_data
    return item if sealed is None else {**item, "encrypted_content": sealed}


def _only(kind: type[P], parts: Sequence[AnyContent]) -> P:
    (part,) = parts
    if not isinstance(part, kind):
        raise ValueError(f"expected {kind.__name__}, got {type(part).__name__}")
    return part


def _text(call: ToolCallContent) -> str:
    if isinstance(call.arguments, str):
        return call.arguments
    return json.dumps(call.arguments, ensure_ascii=False, separators=(",", ":"))
