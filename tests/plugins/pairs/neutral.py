"""This library's own messages, as `ChatAgent` and the stores take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import (
    ApprovalRequestContent,
    ApprovalResponseContent,
    Content,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    UsageContent,
)
from agent_stores.log import MessageLog
from tests.plugins.pairs.features import BROKEN, BYTES, LINK, PNG, SPACED, Aspect


def _user(*parts: str | Content) -> ChatMessage:
    return ChatMessage("user", contents=list(parts))


def _answer(*parts: str | Content) -> ChatMessage:
    return ChatMessage("assistant", contents=list(parts))


def _call(call_id: str, name: str = "look", arguments: Any = "{}") -> ToolCallContent:
    return ToolCallContent(call_id, name, arguments)


def _results(*results: ToolResultContent) -> ChatMessage:
    return ChatMessage("tool", contents=list(results))


_RED = _results(ToolResultContent("a", "red"))
_IMAGE = DataContent(PNG, "image/png")


class Neutral:
    """`ChatMessageStore`."""

    label = "`ChatMessage`"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [_user("Hello."), _answer("Hi.")],
        "system": [ChatMessage("system", "Be brief.")],
        "developer": [ChatMessage("developer", "Be brief.")],
        "image": [_user("See.", _IMAGE)],
        "image_link": [_user("See.", UriContent(f"{LINK}.png", "image/png"))],
        "answer_image": [_answer(_IMAGE)],
        "audio": [_user(DataContent(BYTES, "audio/wav"))],
        "audio_link": [_user(UriContent(f"{LINK}.wav", "audio/wav"))],
        "video": [_user(DataContent(BYTES, "video/mp4"))],
        "file": [_user(DataContent(BYTES, "application/pdf"))],
        "file_link": [_user(UriContent(f"{LINK}.pdf", "application/pdf"))],
        "file_name": [_user(DataContent(BYTES, "application/pdf", "b.pdf"))],
        "image_name": [_user(DataContent(PNG, "image/png", "b.png"))],
        "reasoning": [_answer(ReasoningContent("Hm."))],
        "sealed": [_answer(ReasoningContent("Hm.", "c2ln"), ReasoningContent("So.", "c2ln2"))],
        "calls": [
            _answer(_call("a"), _call("b", "see")),
            _results(ToolResultContent("a", "red"), ToolResultContent("b", "red")),
        ],
        "arguments_text": [_answer(_call("a", arguments=SPACED)), _RED],
        "arguments_object": [_answer(_call("a", arguments={"at": 1})), _RED],
        "arguments_broken": [_answer(_call("a", arguments=BROKEN)), _RED],
        "results": [
            _answer(_call("a"), _call("b")),
            _results(ToolResultContent("a", "red"), ToolResultContent("b", "blue")),
        ],
        "result_data": [_answer(_call("a")), _results(ToolResultContent("a", {"n": 1}))],
        "result_image": [_answer(_call("a")), _results(ToolResultContent("a", "red", contents=(_IMAGE,)))],
        "result_own_part": [
            _answer(_call("a")),
            _results(ToolResultContent("a", "red", contents=(OpaqueContent({"type": "poll"}),))),
        ],
        "failed": [_answer(_call("a")), _results(ToolResultContent("a", "no", is_error=True))],
        "author": [ChatMessage("user", "Hello.", author_name="Ada")],
        "usage": [_answer("Hi.", UsageContent(5, 7, 12))],
        "error": [_answer(ErrorContent("Slow down", "rate", "60 s"))],
        "request": [_answer(ApprovalRequestContent("r", _call("a")))],
        "response": [_user(ApprovalResponseContent("r", True, _call("a")))],
        "own_part": [_answer("Hi.", OpaqueContent({"type": "poll", "of": "colours"}))],
        "message_id": [ChatMessage("user", "Hello.", message_id="m1")],
        "own_fields": [ChatMessage("user", "Hello.", additional_properties={"own": 1})],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        await ChatMessageStore(log, thread_id="s").add_messages(messages)

    async def read(self, log: MessageLog) -> list[Any]:
        return await ChatMessageStore(log, thread_id="s").list_messages()

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As an application that edits a conversation, which it reads as it is stored."""
        store = ChatMessageStore(log, thread_id="s", dangling_calls="keep")
        await store.replace_all(await store.list_messages())

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        return [aspect for message in messages for aspect in _say(message)]

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [message.replace(message_id=None, created_at=None).to_dict() for message in messages]


def _say(message: ChatMessage) -> list[Aspect]:
    said: list[Aspect] = [("id", message.message_id)]
    if message.author_name is not None:
        said.append(("author", message.author_name))
    if message.additional_properties:
        said.append(("own",))
    for part in message.contents:
        said += _say_part(message.role, part)
    return said


def _say_part(role: str, part: Content) -> list[Aspect]:
    if isinstance(part, TextContent):
        return [(role, "text", part.text)]
    if isinstance(part, (DataContent, UriContent)):
        what = "file" if part.kind == "text" else part.kind
        value = part.data if isinstance(part, DataContent) else part.uri
        name: list[Aspect] = [] if part.filename is None else [("filename", part.filename)]
        return [(role, what, value), *name]
    if isinstance(part, ReasoningContent):
        sealed = part.protected_data
        return [("reasoning", part.text), *([] if sealed is None else [("sealed", part.text, sealed)])]
    if isinstance(part, ToolCallContent):
        kind = "JSON text" if isinstance(part.arguments, str) else "an object"
        return [("call", part.call_id, part.name), (kind, part.arguments)]
    if isinstance(part, ToolResultContent):
        said: list[Aspect] = [("result", part.call_id, part.result)]
        for inner in part.contents:
            said += _say_part("result", inner)
        return said + ([("failed", part.call_id)] if part.is_error else [])
    if isinstance(part, UsageContent):
        return [("usage", part.input_tokens, part.output_tokens, part.total_tokens)]
    if isinstance(part, ErrorContent):
        return [("error", part.message, part.code, part.details)]
    if isinstance(part, ApprovalRequestContent):
        return [("request", part.request_id, part.tool_call.name)]
    if isinstance(part, ApprovalResponseContent):
        return [("response", part.request_id, part.approved)]
    return [("an opaque part", part.type)]
