"""From a Responses item to the parts of a neutral message, and back for the kinds that are ours to know.

Each kind has two functions: one that reads an item of it into parts, and one that builds the plainest item of
that kind from such parts. What an item has beyond the plain one is its difference (`plugins.json_diff`), so
that neither function has to know every field. A kind that is not here becomes an opaque part, whole.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    DataContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.plugins.media import decode_base64, media_url, part_of_url
from agent_stores.plugins.parts import opaque_part, own_part

FRAMEWORK = "openai_agents"

Item = dict[str, Any]
"""An item of the Responses API, as JSON."""


class Kind(NamedTuple):
    """How items of a kind are read and built.

    Attributes:
        role: who speaks.
        read: the parts of an item; raises where the item is not as expected.
        build: the plainest item of parts; raises where the parts are not those of such an item.
    """

    role: str
    read: Callable[[Item], Sequence[AnyContent]]
    build: Callable[[Sequence[AnyContent]], Item]


def part_of(part: Any) -> AnyContent:
    """The neutral part of a part of a message or output."""
    kind = part["type"]
    if kind in ("input_text", "output_text", "text"):
        return TextContent(part["text"])
    if kind == "refusal":
        return TextContent(part["refusal"])
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return part_of_url(part["image_url"], kind="image")
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        return part_of_url(part["file_data"], kind="file", filename=part.get("filename"))
    if kind == "input_file" and isinstance(part.get("file_url"), str):
        return part_of_url(part["file_url"], kind="file", filename=part.get("filename"))
    if kind == "input_audio":
        audio = part["input_audio"]
        data = decode_base64(audio["data"])
        if data is not None:
            return DataContent(data, media_type=f"audio/{audio['format']}")
    return opaque_part(FRAMEWORK, kind, part)


def item_part(part: AnyContent, *, text_type: str = "input_text") -> Item | None:
    """The part of a message or output for a neutral part; None where there is none for it."""
    if isinstance(part, TextContent):
        plain: Item = {"type": text_type, "text": part.text}
        return {**plain, "annotations": []} if text_type == "output_text" else plain
    if isinstance(part, OpaqueContent):
        own = own_part(FRAMEWORK, part)
        return own if isinstance(own, dict) else None
    if not isinstance(part, (DataContent, UriContent)) or part.kind == "video":
        return None
    if part.kind == "image":
        return {"type": "input_image", "image_url": media_url(part), "detail": "auto"}
    if part.kind == "audio":
        if isinstance(part, UriContent):
            return None
        name = part.media_type.partition("/")[2]
        return {"type": "input_audio", "input_audio": {"data": _base64(part.data), "format": name}}
    where = "file_url" if isinstance(part, UriContent) and not part.uri.startswith("data:") else "file_data"
    file: Item = {"type": "input_file", where: media_url(part)}
    return file if part.filename is None else {**file, "filename": part.filename}


def output_of(result: ToolResultContent) -> str | list[Item]:
    """The output of a call: text, or parts where there is more than text."""
    text = "" if result.result is None else result.result_text()
    parts = [found for part in result.contents if (found := item_part(part)) is not None]
    if not parts:
        return text
    return [{"type": "input_text", "text": text}, *parts] if text else parts


def _read_message(item: Item) -> Sequence[AnyContent]:
    return [part_of(part) for part in item["content"]]


def _build_message(role: str) -> Callable[[Sequence[AnyContent]], Item]:
    text_type = "output_text" if role == "assistant" else "input_text"

    def build(parts: Sequence[AnyContent]) -> Item:
        found = [item_part(part, text_type=text_type) for part in parts]
        if None in found:
            raise ValueError("a part has no form here")
        return {"role": role, "content": found}

    return build


def _read_text(item: Item) -> Sequence[AnyContent]:
    return [TextContent(item["content"])]


def _build_text(role: str) -> Callable[[Sequence[AnyContent]], Item]:
    def build(parts: Sequence[AnyContent]) -> Item:
        (part,) = parts
        return {"role": role, "content": _as(TextContent, part).text}

    return build


def _read_function_call(item: Item) -> Sequence[AnyContent]:
    return [ToolCallContent(item["call_id"], item["name"], item["arguments"])]


def _build_function_call(parts: Sequence[AnyContent]) -> Item:
    (call,) = parts
    return function_call(_as(ToolCallContent, call))


def function_call(call: ToolCallContent) -> Item:
    """The item of a tool call."""
    return {
        "type": "function_call",
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments if isinstance(call.arguments, str) else _compact(call.arguments),
    }


def _read_output(item: Item) -> Sequence[AnyContent]:
    output = item["output"]
    if isinstance(output, str):
        return [ToolResultContent(item["call_id"], output)]
    parts = [part_of(part) for part in output]
    text = "".join(part.text for part in parts if isinstance(part, TextContent))
    rest = [part for part in parts if not isinstance(part, TextContent)]
    return [ToolResultContent(item["call_id"], text, contents=tuple(rest))]


def _build_output(parts: Sequence[AnyContent]) -> Item:
    (part,) = parts
    result = _as(ToolResultContent, part)
    return {"type": "function_call_output", "call_id": result.call_id, "output": output_of(result)}


def _read_reasoning(item: Item) -> Sequence[AnyContent]:
    texts = [part["text"] for part in item.get("content") or item.get("summary") or [{"text": ""}]]
    sealed = item.get("encrypted_content")
    return [
        ReasoningContent(text, protected_data=sealed if index == len(texts) - 1 else None)
        for index, text in enumerate(texts)
    ]


def reasoning(parts: Sequence[AnyContent]) -> Item:
    """The item of a model's reasoning.

    It has no id: the service looks an item with an id up, and does not know one that it did not make.
    """
    found = [_as(ReasoningContent, part) for part in parts]
    item: Item = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": part.text} for part in found if part.text],
    }
    sealed = found[-1].protected_data
    return item if sealed is None else {**item, "encrypted_content": sealed}


def _read_custom_call(item: Item) -> Sequence[AnyContent]:
    return [ToolCallContent(item["call_id"], item["name"], item["input"])]


def _build_custom_call(parts: Sequence[AnyContent]) -> Item:
    (part,) = parts
    call = _as(ToolCallContent, part)
    return {"type": "custom_tool_call", "call_id": call.call_id, "name": call.name, "input": call.arguments}


def _tool(kind: str) -> Kind:
    """A tool of the API's own: its action is the arguments of the call."""
    aside = ("type", "id", "call_id", "status", "caller")

    def read(item: Item) -> Sequence[AnyContent]:
        arguments = {name: value for name, value in item.items() if name not in aside}
        return [ToolCallContent(item["call_id"], kind.removesuffix("_call"), arguments)]

    def build(parts: Sequence[AnyContent]) -> Item:
        (part,) = parts
        call = _as(ToolCallContent, part)
        return {"type": kind, "call_id": call.call_id, **call.parse_arguments()}

    return Kind("assistant", read, build)


def _tool_output(kind: str, field: str = "output", id_field: str = "call_id") -> Kind:
    def read(item: Item) -> Sequence[AnyContent]:
        return [ToolResultContent(item[id_field], item[field])]

    def build(parts: Sequence[AnyContent]) -> Item:
        (part,) = parts
        result = _as(ToolResultContent, part)
        return {"type": kind, id_field: result.call_id, field: result.result}

    return Kind("tool", read, build)


def _read_screenshot(item: Item) -> Sequence[AnyContent]:
    shot = part_of_url(item["output"]["image_url"], kind="image")
    return [ToolResultContent(item["call_id"], contents=(shot,))]


def _build_screenshot(parts: Sequence[AnyContent]) -> Item:
    (part,) = parts
    result = _as(ToolResultContent, part)
    (shot,) = result.contents
    output = {"type": "computer_screenshot", "image_url": media_url(_as_media(shot))}
    return {"type": "computer_call_output", "call_id": result.call_id, "output": output}


def _read_image(item: Item) -> Sequence[AnyContent]:
    data = decode_base64(item["result"])
    if data is None:
        raise ValueError("the image is not canonical Base64")
    return [DataContent(data, media_type=f"image/{item.get('output_format') or 'png'}")]


def _build_image(parts: Sequence[AnyContent]) -> Item:
    (part,) = parts
    return {"type": "image_generation_call", "result": _base64(_as(DataContent, part).data)}


def _read_mcp_call(item: Item) -> Sequence[AnyContent]:
    call = ToolCallContent(item["id"], item["name"], item["arguments"])
    failed = item.get("error") is not None
    said = item["error"] if failed else item.get("output")
    if said is None:
        return [call]
    return [call, ToolResultContent(item["id"], said, is_error=failed)]


def _build_mcp_call(parts: Sequence[AnyContent]) -> Item:
    call = _as(ToolCallContent, parts[0])
    item: Item = {"type": "mcp_call", "id": call.call_id, "name": call.name, "arguments": call.arguments}
    if len(parts) > 1:
        (part,) = parts[1:]
        result = _as(ToolResultContent, part)
        item["error" if result.is_error else "output"] = result.result
    return item


def _read_approval_request(item: Item) -> Sequence[AnyContent]:
    call = ToolCallContent(item["id"], item["name"], item["arguments"])
    return [ApprovalRequestContent(request_id=item["id"], tool_call=call)]


def _build_approval_request(parts: Sequence[AnyContent]) -> Item:
    (part,) = parts
    request = _as(ApprovalRequestContent, part)
    call = request.tool_call
    return {
        "type": "mcp_approval_request",
        "id": request.request_id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _read_approval_response(item: Item) -> Sequence[AnyContent]:
    return [ApprovalResponseContent(request_id=item["approval_request_id"], approved=item["approve"])]


def _build_approval_response(parts: Sequence[AnyContent]) -> Item:
    (part,) = parts
    response = _as(ApprovalResponseContent, part)
    return {
        "type": "mcp_approval_response",
        "approval_request_id": response.request_id,
        "approve": response.approved,
    }


_ROLES = ("system", "developer", "user", "assistant")

KINDS: Mapping[str, Kind] = {
    **{f"text.{role}": Kind(role, _read_text, _build_text(role)) for role in _ROLES},
    **{f"message.{role}": Kind(role, _read_message, _build_message(role)) for role in _ROLES},
    "function_call": Kind("assistant", _read_function_call, _build_function_call),
    "function_call_output": Kind("tool", _read_output, _build_output),
    "reasoning": Kind("assistant", _read_reasoning, reasoning),
    "custom_tool_call": Kind("assistant", _read_custom_call, _build_custom_call),
    "custom_tool_call_output": _tool_output("custom_tool_call_output"),
    "computer_call": _tool("computer_call"),
    "computer_call_output": Kind("tool", _read_screenshot, _build_screenshot),
    "local_shell_call": _tool("local_shell_call"),
    "local_shell_call_output": _tool_output("local_shell_call_output", id_field="id"),
    "shell_call": _tool("shell_call"),
    "shell_call_output": _tool_output("shell_call_output"),
    "apply_patch_call": _tool("apply_patch_call"),
    "apply_patch_call_output": _tool_output("apply_patch_call_output"),
    "tool_search_call": _tool("tool_search_call"),
    "tool_search_output": _tool_output("tool_search_output", "tools"),
    "program": _tool("program"),
    "program_output": _tool_output("program_output", "result"),
    "image_generation_call": Kind("assistant", _read_image, _build_image),
    "mcp_call": Kind("assistant", _read_mcp_call, _build_mcp_call),
    "mcp_approval_request": Kind("assistant", _read_approval_request, _build_approval_request),
    "mcp_approval_response": Kind("user", _read_approval_response, _build_approval_response),
}
"""What is read into neutral parts, by name; messages have one for each role, and one for text and one for
lists of parts."""


def _as(kind: type[Any], part: AnyContent) -> Any:
    if not isinstance(part, kind):
        raise ValueError(f"expected {kind.__name__}, got {type(part).__name__}")
    return part


def _as_media(part: AnyContent) -> DataContent | UriContent:
    if not isinstance(part, (DataContent, UriContent)):
        raise ValueError(f"expected an image, got {type(part).__name__}")
    return part


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
