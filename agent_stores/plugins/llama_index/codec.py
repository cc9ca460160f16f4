"""`LlamaIndexCodec`: LlamaIndex's messages, and ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llama_index.core.base.llms import types as llama_types
from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from pydantic import BaseModel, ValidationError

from agent_stores._json import json_value
from agent_stores.contents import (
    AnyContent,
    ErrorContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
)
from agent_stores.errors import ArgumentTypeError, MessageFormatError
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.framework_data import framework_data, with_framework_data
from agent_stores.plugins.json_diff import apply_diff, attach_diff, json_equal
from agent_stores.plugins.llama_index.blocks import FRAMEWORK, Block, build_block, read_block, shape_for
from agent_stores.plugins.unsupported import UnsupportedWarnings, error_text
from agent_stores.retention import is_synthesized

Data = dict[str, Any]

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
    "chatbot": "assistant",
    "model": "assistant",
}
_NO_PLACE = "its messages have no place for it"
_SHAPE = ("blocks", "calls", "paths", "bytes")
_KNOWN = {
    shape: hasattr(llama_types, name)
    for shape, name in (
        ("thinking", "ThinkingBlock"),
        ("tool_call", "ToolCallBlock"),
        ("video", "VideoBlock"),
        ("audio", "AudioBlock"),
        ("document", "DocumentBlock"),
    )
}


class MessageOf(NamedTuple):
    """A message of LlamaIndex's that a message of ours is shown as.

    Attributes:
        message: LlamaIndex's.
        parts: the indexes of the parts that it shows.
    """

    message: LlamaMessage
    parts: tuple[int, ...]


class LlamaIndexCodec:
    """A `MessageCodec` of LlamaIndex's `ChatMessage`.

    A message becomes one of ours, and comes back as it was; of `additional_kwargs`, objects of pydantic come
    back as dicts, as in LlamaIndex's own JSON, and tuples as lists. A message that another framework wrote
    may take several, as one with two tool results does: messages are therefore read as lists.
    """

    def __init__(self) -> None:
        self._unsupported = UnsupportedWarnings("LlamaIndex")

    def to_chat_message(self, message: LlamaMessage) -> ChatMessage:
        """Our message for one of LlamaIndex's.

        Raises:
            ArgumentTypeError, ArgumentError: when it is none, or holds what JSON cannot; the field is named.
        """
        if not isinstance(message, LlamaMessage):
            raise ArgumentTypeError(
                f"a message must be LlamaIndex's ChatMessage, got {type(message).__name__}"
            )
        data, shape = _dump(message)
        ours = _neutral(data, shape)
        base = _plain(ours, shape) or {}
        found = attach_diff(ours, FRAMEWORK, base, data, **shape)
        again = self.from_chat_message(found)
        if len(again) != 1 or not json_equal(_dump(again[0])[0], data):
            kept = {**shape, "original": data}
            found = ours.replace(additional_properties=with_framework_data({}, FRAMEWORK, kept))
        return found

    def from_chat_message(self, message: ChatMessage) -> list[LlamaMessage]:
        """LlamaIndex's messages for one of ours: one where one was written.

        Raises:
            MessageFormatError: when it is not one that the installed version of LlamaIndex reads.
        """
        return [found.message for found in self.messages_of(message)]

    def messages_of(self, message: ChatMessage) -> list[MessageOf]:
        """LlamaIndex's messages for one of ours, with the parts that each of them shows."""
        kept = framework_data(message, FRAMEWORK)
        every = tuple(range(len(message.contents)))
        if "original" in kept:
            return [MessageOf(_construct(message, kept["original"], kept), every)]

        def leave_out(part: AnyContent, shown: Block | None) -> None:
            if shown is None:
                self._unsupported(part.type, _NO_PLACE, message_id=message.message_id)
            else:
                self._unsupported.filename(part, shown, message_id=message.message_id)

        shape = {name: kept[name] for name in _SHAPE if name in kept}
        runs = _runs(message)
        found = []
        for run in runs:
            own = len(runs) == 1
            one = message if own else message.replace(contents=[message.contents[index] for index in run])
            base = _plain(one, shape if own else {}, leave_out)
            if base is not None:
                data = apply_diff(message, FRAMEWORK, base) if own else base
                found.append(MessageOf(_construct(message, data, kept), tuple(run)))
                self._tell_fields(one, data)
        return found

    def _tell_fields(self, message: ChatMessage, data: Data) -> None:
        """Say what LlamaIndex's message does not hold of ours."""
        name = message.author_name
        if name is not None and data.get("additional_kwargs", {}).get("name") != name:
            self._unsupported.field("author_name", _NO_PLACE, message_id=message.message_id)
        result = message.contents[0] if message.contents else None
        if isinstance(result, ToolResultContent) and result.is_error and not is_synthesized(result):
            self._unsupported.field("tool_result.is_error", _NO_PLACE, message_id=message.message_id)


def _runs(message: ChatMessage) -> list[list[int]]:
    """The indexes of the parts that share a message: each tool result has one of its own."""
    runs: list[list[int]] = []
    alone = True
    for index, part in enumerate(message.contents):
        is_result = isinstance(part, ToolResultContent)
        if alone or is_result:
            runs.append([])
        runs[-1].append(index)
        alone = is_result
    return runs or [[]]


def _dump(message: LlamaMessage) -> tuple[Data, Data]:
    """A message as JSON without what is so by default, and what JSON does not say of it."""
    shape: Data = {}
    try:
        blocks = [_dump_block(block) for block in message.blocks]
    except ValueError as error:
        raise ArgumentTypeError(f"the ChatMessage's blocks cannot be JSON: {error}") from None
    data: Data = {"role": str(getattr(message.role, "value", message.role))}
    if blocks:
        data["blocks"] = json_value(blocks, "the ChatMessage.blocks")
    paths = [
        index
        for index, block in enumerate(message.blocks)
        if block.block_type == "document" and isinstance(block.path, Path)
    ]
    if paths:
        shape["paths"] = paths
    if message.additional_kwargs:
        binary: list[list[str | int]] = []
        plain = _plain_value(message.additional_kwargs, [], binary)
        data["additional_kwargs"] = json_value(plain, "the ChatMessage.additional_kwargs")
        if binary:
            shape["bytes"] = binary
    return data, shape


def _dump_block(block: Any) -> Block:
    dumped: Block = block.model_dump(mode="json")
    fields = type(block).model_fields
    return {
        name: value
        for name, value in dumped.items()
        if name == "block_type"
        or name not in fields
        or fields[name].is_required()
        or not json_equal(fields[name].get_default(call_default_factory=True), value)
    }


def _plain_value(value: Any, path: list[str | int], binary: list[list[str | int]]) -> Any:
    """A value of `additional_kwargs` as LlamaIndex's own JSON has it; notes where bytes were."""
    if isinstance(value, bytes):
        binary.append(path)
        return base64.b64encode(value).decode()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: _plain_value(item, [*path, name], binary) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_value(item, [*path, index], binary) for index, item in enumerate(value)]
    return value


def _neutral(data: Data, shape: Data) -> ChatMessage:
    """The neutral form of a message; adds to its shape."""
    role = _ROLES.get(data["role"], "user")
    read = [read_block(block) for block in data.get("blocks", ())]
    contents = [part for _, part in read]
    more = data.get("additional_kwargs", {})
    call_id = more.get("tool_call_id")
    if role == "tool" and isinstance(call_id, str) and call_id:
        texts = [part.text for name, part in read if name == "text" and isinstance(part, TextContent)]
        rest = tuple(part for name, part in read if name != "text")
        plain = [*(["text"] if texts or not rest else []), *map(shape_for, rest)]
        if [name for name, _ in read] not in (plain, []):
            shape["blocks"] = [name for name, _ in read]
        contents = [ToolResultContent(call_id, "".join(texts), contents=rest)]
    else:
        if [name for name, _ in read] != [shape_for(part) for part in contents]:
            shape["blocks"] = [name for name, _ in read]
        calls = _kwargs_calls(more.get("tool_calls"), contents)
        if calls:
            shape["calls"] = len(calls)
            contents += calls
    name = more.get("name")
    return ChatMessage(role, contents=contents, author_name=name if isinstance(name, str) else None)


def _kwargs_calls(given: Any, contents: Sequence[AnyContent]) -> list[ToolCallContent]:
    """The tool calls that stand in `additional_kwargs`, as OpenAI has them, and not in a block."""
    known = {part.call_id for part in contents if isinstance(part, ToolCallContent)}
    found = []
    for call in given if isinstance(given, list) else ():
        try:
            function = call["function"]
            if call["id"] not in known:
                found.append(ToolCallContent(call["id"], function["name"], function["arguments"]))
        except (KeyError, TypeError, ValueError):
            return []
    return found


def _plain(message: ChatMessage, shape: Mapping[str, Any], leave_out: Any = None) -> Data | None:
    """The plainest message of LlamaIndex's for a neutral form; None when there is nothing to show."""
    data: Data = {"role": message.role}
    contents = list(message.contents)
    result = contents[0] if contents else None
    if isinstance(result, ToolResultContent):
        data["role"] = "tool"
        data["additional_kwargs"] = {"tool_call_id": result.call_id}
        text = "" if result.result is None else result.result_text()
        contents = list(result.contents)
        if text or not contents:
            contents.insert(0, TextContent(text))
        if "blocks" in shape:
            contents = _by_shape(shape["blocks"], text, result.contents)
    elif message.role == "tool" and not shape:
        data["role"] = "user"
    calls: list[AnyContent] = []
    if (count := shape.get("calls", 0)) and all(isinstance(p, ToolCallContent) for p in contents[-count:]):
        calls = contents[-count:]
        del contents[-count:]
    elif not shape and not _KNOWN["tool_call"]:
        calls = [part for part in contents if isinstance(part, ToolCallContent)]
        contents = [part for part in contents if not isinstance(part, ToolCallContent)]
    shapes = shape.get("blocks", ())
    blocks: list[Block | None] = []
    if len(shapes) == len(contents):
        blocks = [build_block(name, part) for name, part in zip(shapes, contents, strict=True)]
    if len(shapes) != len(contents) or None in blocks:
        blocks = list(_shown(contents, leave_out))
    if blocks:
        data["blocks"] = blocks
    if calls:
        more = {"tool_calls": [_openai_call(call) for call in calls if isinstance(call, ToolCallContent)]}
        data["additional_kwargs"] = {**data.get("additional_kwargs", {}), **more}
    return data if blocks or calls or shape or not message.contents else None


def _by_shape(shapes: Sequence[str], text: str, rest: Sequence[AnyContent]) -> list[AnyContent]:
    texts, others = iter([TextContent(text)]), iter(rest)
    return [next(texts if name == "text" else others, TextContent("")) for name in shapes]


def _shown(parts: Sequence[AnyContent], leave_out: Any) -> Iterator[Block]:
    """The blocks in which parts are shown whose shapes were not kept."""
    for part in parts:
        shape = shape_for(part)
        said = error_text(part) if isinstance(part, ErrorContent) else part
        block = None
        if shape is not None and _KNOWN.get(shape.partition(".")[0], True):
            block = build_block(shape, said)
        if leave_out is not None:
            leave_out(part, block)
        if block is not None:
            yield block


def _openai_call(call: ToolCallContent) -> Data:
    arguments = call.arguments if isinstance(call.arguments, str) else _json(call.arguments)
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _construct(message: ChatMessage, data: Data, shape: Mapping[str, Any]) -> LlamaMessage:
    blocks = [dict(block) for block in data.get("blocks", ())]
    # A path is put in afterwards: LlamaIndex rejects one whose file is not there, as in another process.
    paths = [block.pop("path", None) for block in blocks]
    more = data.get("additional_kwargs", {})
    for place in shape.get("bytes", ()):
        more = _with_bytes(more, place)
    try:
        # Its own images are made blocks already, and would be so again.
        found = LlamaMessage.model_validate({"role": data["role"], "blocks": blocks})
    except ValidationError as error:
        raise MessageFormatError(
            f"the message {message.message_id!r} is not one that this version of LlamaIndex reads: {error}"
        ) from error
    found.additional_kwargs = more
    for index, (block, path) in enumerate(zip(found.blocks, paths, strict=True)):
        if path is not None:
            is_path = block.block_type != "document" or index in shape.get("paths", ())
            object.__setattr__(block, "path", Path(path) if is_path else path)
    return found


def _with_bytes(value: Any, place: Sequence[str | int]) -> Any:
    """A value with the bytes back at a place."""
    if not place:
        return base64.b64decode(value) if isinstance(value, str) else value
    first, rest = place[0], place[1:]
    if isinstance(value, Mapping) and first in value:
        return {**value, first: _with_bytes(value[first], rest)}
    if isinstance(value, list) and isinstance(first, int) and first < len(value):
        return [*value[:first], _with_bytes(value[first], rest), *value[first + 1 :]]
    return value
