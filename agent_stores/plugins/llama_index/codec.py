"""`LlamaIndexCodec`: LlamaIndex's messages, and ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from pydantic import BaseModel, ValidationError

from agent_stores.contents import AnyContent, TextContent, ToolCallContent, ToolResultContent
from agent_stores.errors import ArgumentTypeError, MessageFormatError
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape
from agent_stores.plugins.json_diff import without_defaults
from agent_stores.plugins.llama_index.blocks import FRAMEWORK, build_block, is_known, read_block
from agent_stores.plugins.parts import result_parts, results_apart

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
_NO_PLACE = ("author_name", "tool_result.is_error")


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
        self._json = JsonCodec(FRAMEWORK, "LlamaIndex", _read, _build, _NO_PLACE, split=results_apart)

    def to_chat_message(self, message: LlamaMessage) -> ChatMessage:
        """Our message for one of LlamaIndex's.

        Raises:
            ArgumentTypeError, ArgumentError: when it is none, or holds what JSON cannot; the field is named.
        """
        if not isinstance(message, LlamaMessage):
            raise ArgumentTypeError(
                f"a message must be LlamaIndex's ChatMessage, got {type(message).__name__}"
            )
        return self._json.encode(_dump(message), what="the ChatMessage")

    def from_chat_message(self, message: ChatMessage) -> list[LlamaMessage]:
        """LlamaIndex's messages for one of ours: one where one was written.

        Raises:
            MessageFormatError: when it is not one that the installed version of LlamaIndex reads.
        """
        return [found.message for found in self.messages_of(message)]

    def messages_of(self, message: ChatMessage) -> list[MessageOf]:
        """LlamaIndex's messages for one of ours, with the parts that each of them shows."""
        return [
            MessageOf(_construct(message, found.data), found.parts)
            for found in self._json.decode_all(message)
        ]


def _dump(message: LlamaMessage) -> Data:
    """A message as JSON without what is so by default, and where its paths and bytes are."""
    try:
        blocks = [
            without_defaults(block, block.model_dump(mode="json"), "block_type") for block in message.blocks
        ]
    except ValueError as error:
        raise ArgumentTypeError(f"the ChatMessage's blocks cannot be JSON: {error}") from None
    binary: list[list[str | int]] = []
    data = {
        "role": str(getattr(message.role, "value", message.role)),
        "blocks": blocks,
        "additional_kwargs": _plain_value(message.additional_kwargs, [], binary),
        "bytes": binary,
        "paths": [
            index
            for index, block in enumerate(message.blocks)
            if block.block_type == "document" and isinstance(block.path, Path)
        ],
    }
    return {name: value for name, value in data.items() if value}


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


def _read(data: Data) -> Shape:
    role = _ROLES.get(data["role"], "user")
    read = [read_block(block) for block in data.get("blocks", ())]
    contents = [part for _, part in read]
    more = data.get("additional_kwargs", {})
    call_id, name = more.get("tool_call_id"), more.get("name")
    hints: Data = {"blocks": [shape for shape, _ in read]}
    if role == "tool" and isinstance(call_id, str) and call_id:
        texts = [part.text for shape, part in read if shape == "text" and isinstance(part, TextContent)]
        rest = tuple(part for shape, part in read if shape != "text")
        contents = [ToolResultContent(call_id, "".join(texts), contents=rest)]
    elif calls := _kwargs_calls(more.get("tool_calls"), contents):
        hints["calls"] = len(calls)
        contents += calls
    author = name if isinstance(name, str) else None
    return Shape(ChatMessage(role, contents=contents, author_name=author), hints)


def _kwargs_calls(given: Any, contents: Sequence[AnyContent]) -> list[ToolCallContent]:
    """The tool calls that are in `additional_kwargs`, as OpenAI has them, and not in a block."""
    known = {part.call_id for part in contents if isinstance(part, ToolCallContent)}
    try:
        return [
            ToolCallContent(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in given or ()
            if call["id"] not in known
        ]
    except (KeyError, TypeError, ValueError):
        return []


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    data: Data = {"role": message.role}
    contents, more = list(message.contents), Data()
    shapes, count = hints.get("blocks", ()), hints.get("calls", 0)
    calls: list[AnyContent] = []
    if contents and isinstance(result := contents[0], ToolResultContent):
        data["role"], more["tool_call_id"] = "tool", result.call_id
        contents = result_parts(result, shapes)
    elif message.role == "tool" and not hints:
        data["role"] = "user"
    if count and all(isinstance(part, ToolCallContent) for part in contents[-count:]):
        contents, calls = contents[:-count], contents[-count:]
    elif not hints and not is_known("tool_call"):
        calls = [part for part in contents if isinstance(part, ToolCallContent)]
        contents = [part for part in contents if not isinstance(part, ToolCallContent)]
    if len(shapes) != len(contents):
        shapes = [""] * len(contents)
    built = [build_block(part, shape, leave_out) for part, shape in zip(contents, shapes, strict=True)]
    if blocks := [block for block in built if block is not None]:
        data["blocks"] = blocks
    if calls:
        more["tool_calls"] = [_openai_call(call) for call in calls if isinstance(call, ToolCallContent)]
    if more:
        data["additional_kwargs"] = more
    return data if blocks or calls or not message.contents else None


def _openai_call(call: ToolCallContent) -> Data:
    text = isinstance(call.arguments, str)
    arguments = call.arguments if text else json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _construct(message: ChatMessage, data: Data) -> LlamaMessage:
    blocks = [dict(block) for block in data.get("blocks", ())]
    # A path is put in afterwards: LlamaIndex rejects one whose file is not there, as in another process.
    paths = [block.pop("path", None) for block in blocks]
    more = data.get("additional_kwargs", {})
    for place in data.get("bytes", ()):
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
            is_path = block.block_type != "document" or index in data.get("paths", ())
            object.__setattr__(block, "path", Path(path) if is_path else path)
    return found


def _with_bytes(value: Any, place: Sequence[Any]) -> Any:
    """A value with the bytes back at a place."""
    if not place:
        return base64.b64decode(value)
    copied = dict(value) if isinstance(value, Mapping) else list(value)
    copied[place[0]] = _with_bytes(copied[place[0]], place[1:])
    return copied
