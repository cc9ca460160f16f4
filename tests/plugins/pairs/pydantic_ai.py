"""Pydantic AI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import (
    AudioUrl,
    BinaryContent,
    DocumentUrl,
    FilePart,
    ImageUrl,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    NativeToolReturnPart,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
    VideoUrl,
)

from agent_stores.log import MessageLog
from agent_stores.pydantic_ai import AgentStoresConversationStore
from tests.plugins.pairs.features import BROKEN, BYTES, LINK, PNG, SPACED, Aspect

_TIME = datetime(2026, 1, 2, tzinfo=timezone.utc)
_IMAGE = BinaryContent(PNG, media_type="image/png")
_URLS = {"image-url": "image", "audio-url": "audio", "video-url": "video", "document-url": "file"}


def _user(*content: Any) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(list(content), timestamp=_TIME)])


def _answer(*parts: Any, **fields: Any) -> ModelResponse:
    return ModelResponse(parts=list(parts), timestamp=_TIME, **fields)


def _call(call_id: str, name: str = "look", args: Any = None) -> ToolCallPart:
    return ToolCallPart(name, args or {}, call_id)


def _results(**results: Any) -> ModelRequest:
    parts = [ToolReturnPart("look", value, name, timestamp=_TIME) for name, value in results.items()]
    return ModelRequest(parts=parts)


class PydanticAI:
    """`AgentStoresConversationStore`."""

    label = "Pydantic AI"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [ModelRequest(parts=[UserPromptPart("Hello.", timestamp=_TIME)]), _answer(TextPart("Hi."))],
        "system": [ModelRequest(parts=[SystemPromptPart("Be brief.", timestamp=_TIME)])],
        "image": [_user("See.", _IMAGE)],
        "image_link": [_user("See.", ImageUrl(f"{LINK}.png"))],
        "answer_image": [_answer(FilePart(_IMAGE))],
        "audio": [_user(BinaryContent(BYTES, media_type="audio/wav"))],
        "audio_link": [_user(AudioUrl(f"{LINK}.wav"))],
        "video": [_user(BinaryContent(BYTES, media_type="video/mp4"))],
        "file": [_user(BinaryContent(BYTES, media_type="application/pdf"))],
        "file_link": [_user(DocumentUrl(f"{LINK}.pdf"))],
        "reasoning": [_answer(ThinkingPart("Hm."))],
        "sealed": [_answer(ThinkingPart("Hm.", signature="c2ln"), ThinkingPart("So.", signature="c2ln2"))],
        "calls": [_answer(_call("a"), _call("b", "see")), _results(a="red", b="red")],
        "arguments_text": [_answer(_call("a", args=SPACED)), _results(a="red")],
        "arguments_object": [_answer(_call("a", args={"at": 1})), _results(a="red")],
        "arguments_broken": [_answer(_call("a", args=BROKEN)), _results(a="red")],
        "results": [_answer(_call("a"), _call("b")), _results(a="red", b="blue")],
        "result_data": [_answer(_call("a")), _results(a={"n": 1})],
        "failed": [
            _answer(_call("a")),
            ModelRequest(parts=[ToolReturnPart("look", "no", "a", timestamp=_TIME, outcome="failed")]),
        ],
        "own_part": [
            _answer(TextPart("Hi."), NativeToolReturnPart("web_search", {"r": 1}, "x", timestamp=_TIME))
        ],
        "own_fields": [_answer(TextPart("Hi."), metadata={"own": 1})],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        conversation = Conversation(conversation_id="s", messages=list(messages))
        await AgentStoresConversationStore(log).save(conversation)

    async def read(self, log: MessageLog) -> list[Any]:
        loaded = await AgentStoresConversationStore(log).load("s")
        return [] if loaded is None else loaded.messages

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a run without new messages saves what it loaded."""
        store = AgentStoresConversationStore(log)
        if (loaded := await store.load("s")) is not None:
            await store.save(loaded)

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        return [aspect for message in messages for part in message.parts for aspect in _say(part)]

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return list(ModelMessagesTypeAdapter.dump_python(list(messages), mode="json"))


def _say(part: Any) -> list[Aspect]:
    kind = part.part_kind
    if kind == "system-prompt":
        return [("system", "text", part.content)]
    if kind == "user-prompt":
        items = [part.content] if isinstance(part.content, str) else part.content
        return [aspect for item in items for aspect in _say_item("user", item)]
    if kind == "text":
        return [("assistant", "text", part.content)]
    if kind == "thinking":
        sealed: list[Aspect] = [] if part.signature is None else [("sealed", part.content, part.signature)]
        return [("reasoning", part.content), *sealed]
    if kind in ("tool-call", "builtin-tool-call"):
        how = "JSON text" if isinstance(part.args, str) else "an object"
        return [("call", part.tool_call_id, part.tool_name), (how, part.args)]
    if kind in ("tool-return", "builtin-tool-return"):
        content, *more = part.content if isinstance(part.content, list) else [part.content]
        said: list[Aspect] = [("result", part.tool_call_id, content)]
        said += [aspect for item in more for aspect in _say_item("result", item)]
        return said + ([("failed", part.tool_call_id)] if part.outcome != "success" else [])
    if kind == "file":
        return _say_item("assistant", part.content)
    raise AssertionError(f"a part that should not be shown here: {part}")


def _say_item(role: str, item: Any) -> list[Aspect]:
    if isinstance(item, str):
        return [(role, "text", item)]
    name: list[Aspect] = [("filename", item.identifier)] if "." in item.identifier else []
    if isinstance(item, BinaryContent):
        top = item.media_type.partition("/")[0]
        return [(role, top if top in ("image", "audio", "video") else "file", item.data), *name]
    if isinstance(item, (ImageUrl, AudioUrl, VideoUrl, DocumentUrl)):
        return [(role, _URLS[item.kind], item.url), *name]
    raise AssertionError(f"an item that should not be shown here: {item}")
