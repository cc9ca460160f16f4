"""Haystack."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from haystack.dataclasses import ChatMessage as Message
from haystack.dataclasses import (
    FileContent,
    ImageContent,
    ReasoningContent,
    TextContent,
    ToolCall,
    ToolCallResult,
)

from agent_stores import ChatMessageStore
from agent_stores.haystack import AgentStoresChatMessageStore, HaystackMessageCodec
from agent_stores.log import MessageLog
from tests.plugins.pairs.features import ENCODED, IMAGE, Aspect

_IMAGE = ImageContent(IMAGE, mime_type="image/png")
_CALL = ToolCall("look", {}, id="a")
_SECOND = ToolCall("look", {}, id="b")


def _file(name: str | None = None) -> Message:
    return Message.from_user(content_parts=[FileContent(ENCODED, "application/pdf", filename=name)])


def _calls(*calls: ToolCall) -> Message:
    return Message.from_assistant(tool_calls=list(calls))


class Haystack:
    """`AgentStoresChatMessageStore`."""

    label = "Haystack"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [Message.from_user("Hello."), Message.from_assistant("Hi.")],
        "image": [Message.from_user(content_parts=["See.", _IMAGE])],
        "file": [_file()],
        "file_name": [_file("b.pdf")],
        "reasoning": [Message.from_assistant(reasoning="Hm.")],
        "calls": [
            _calls(_CALL, ToolCall("see", {}, id="b")),
            Message.from_tool("red", _CALL),
            Message.from_tool("red", ToolCall("see", {}, id="b")),
        ],
        "arguments_object": [
            _calls(ToolCall("look", {"at": 1}, id="a")),
            Message.from_tool("red", ToolCall("look", {"at": 1}, id="a")),
        ],
        "results": [
            _calls(_CALL, _SECOND),
            Message.from_tool("red", _CALL),
            Message.from_tool("blue", _SECOND),
        ],
        "result_image": [_calls(_CALL), Message.from_tool([TextContent("red"), _IMAGE], _CALL)],
        "failed": [_calls(_CALL), Message.from_tool("no", _CALL, error=True)],
        "author": [Message.from_user("Hello.", name="Ada")],
        "message_id": [Message.from_user("Hello.", meta={"chat_message_id": "m1"})],
        "own_fields": [Message.from_assistant("Hi.", meta={"own": 1})],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        AgentStoresChatMessageStore(log).write_messages("s", list(messages))

    async def read(self, log: MessageLog) -> list[Any]:
        stored = [one.message async for one in ChatMessageStore(log, thread_id="s").iter_messages()]
        return HaystackMessageCodec().decode(stored)

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a pipeline that writes its whole history again: by their ids the messages are known."""
        await self.write(log, AgentStoresChatMessageStore(log).retrieve_messages("s"))

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        said: list[Aspect] = []
        for message in messages:
            said += [("id", message.meta["chat_message_id"])] if "chat_message_id" in message.meta else []
            said += [("own",)] if "own" in message.meta else []
            said += [("author", message.name)] if message.name else []
            said += [aspect for part in message._content for aspect in _say(message.role.value, part)]
        return said

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        dumped = [message.to_dict() for message in messages]
        return [{**one, "meta": {k: v for k, v in one["meta"].items() if "_id" not in k}} for one in dumped]


def _say(role: str, part: Any) -> list[Aspect]:
    if isinstance(part, TextContent):
        return [(role, "text", part.text)]
    if isinstance(part, ReasoningContent):
        return [("reasoning", part.reasoning_text)]
    if isinstance(part, ToolCall):
        return [("call", part.id, part.tool_name), ("an object", part.arguments)]
    if isinstance(part, ToolCallResult):
        first, *more = [TextContent(part.result)] if isinstance(part.result, str) else part.result
        said: list[Aspect] = [("result", part.origin.id, getattr(first, "text", None))]
        said += [aspect for inner in more for aspect in _say("result", inner)]
        return said + ([("failed", part.origin.id)] if part.error else [])
    if isinstance(part, ImageContent):
        return [(role, "image", base64.b64decode(part.base64_image))]
    assert isinstance(part, FileContent)
    name: list[Aspect] = [] if part.filename is None else [("filename", part.filename)]
    top = (part.mime_type or "").partition("/")[0]
    kind = top if top in ("audio", "video") else "file"
    return [(role, kind, base64.b64decode(part.base64_data)), *name]
