"""AG2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ag2.events import (
    AudioInput,
    BinaryInput,
    DataInput,
    DocumentInput,
    ImageInput,
    ModelMessage,
    ModelReasoning,
    ModelRequest,
    ModelResponse,
    TextInput,
    ToolCallEvent,
    ToolCallsEvent,
    ToolErrorEvent,
    ToolResult,
    ToolResultEvent,
    ToolResultsEvent,
    VideoInput,
)
from ag2.events.input_events import UrlInput

from agent_stores.ag2 import AgentStoresStorage
from agent_stores.log import MessageLog
from tests.plugins.ag2.events import context
from tests.plugins.pairs.features import BYTES, LINK, PNG, SPACED, Aspect

_STREAM = cast("Any", "s")
_KINDS = {"image": "image", "audio": "audio", "video": "video"}


def _user(*inputs: Any) -> ModelRequest:
    return ModelRequest(list(inputs))


def _call(call_id: str, name: str = "look", arguments: str = "{}") -> ToolCallEvent:
    return ToolCallEvent(name, id=call_id, arguments=arguments)


def _calls(*calls: ToolCallEvent) -> ModelResponse:
    return ModelResponse(tool_calls=ToolCallsEvent(list(calls)))


def _results(*results: Any) -> ToolResultsEvent:
    return ToolResultsEvent(list(results))


def _result(call_id: str, *parts: Any, name: str = "look") -> ToolResultEvent:
    return ToolResultEvent(parent_id=call_id, name=name, result=ToolResult(*parts))


class AG2:
    """`AgentStoresStorage`."""

    label = "AG2"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [_user(TextInput("Hello.")), ModelResponse(ModelMessage("Hi."))],
        "image": [_user(TextInput("See."), ImageInput(data=PNG, media_type="image/png"))],
        "image_link": [_user(TextInput("See."), ImageInput(f"{LINK}.png"))],
        "audio": [_user(AudioInput(data=BYTES, media_type="audio/wav"))],
        "audio_link": [_user(AudioInput(f"{LINK}.wav"))],
        "video": [_user(VideoInput(data=BYTES, media_type="video/mp4"))],
        "file": [_user(DocumentInput(data=BYTES, media_type="application/pdf"))],
        "file_link": [_user(DocumentInput(f"{LINK}.pdf"))],
        "calls": [
            _calls(_call("a"), _call("b", "see")),
            _results(_result("a", "red"), _result("b", "red", name="see")),
        ],
        "arguments_text": [_calls(_call("a", arguments=SPACED)), _results(_result("a", "red"))],
        "results": [
            _calls(_call("a"), _call("b")),
            _results(_result("a", "red"), _result("b", "blue")),
        ],
        "result_data": [_calls(_call("a")), _results(_result("a", DataInput({"n": 1})))],
        "result_image": [
            _calls(_call("a")),
            _results(_result("a", "red", ImageInput(data=PNG, media_type="image/png"))),
        ],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        storage = AgentStoresStorage(log)
        for event in messages:
            await storage.save_event(event, context("s"))

    async def read(self, log: MessageLog) -> list[Any]:
        return list(await AgentStoresStorage(log).get_history(_STREAM))

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a stream that replaces its history by what it has read."""
        storage = AgentStoresStorage(log)
        if events := list(await storage.get_history(_STREAM)):
            await storage.set_history(_STREAM, events)

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        return [aspect for event in messages for aspect in _say(event)]

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [event.to_dict() for event in messages]


def _say(event: Any) -> list[Aspect]:
    if isinstance(event, ModelRequest):
        return [aspect for part in event.parts for aspect in _say_input("user", part)]
    if isinstance(event, ModelReasoning):
        return [("reasoning", event.content)]
    if isinstance(event, ModelResponse):
        said: list[Aspect] = [("assistant", "text", event.content)] if event.content else []
        said += [("assistant", _kind(file.metadata), file.data) for file in event.files]
        for call in event.tool_calls.calls:
            said += [("call", call.id, call.name), ("JSON text", call.arguments)]
        return said
    if isinstance(event, ToolResultsEvent):
        return [aspect for one in event.results for aspect in _say_result(one)]
    raise AssertionError(f"an event that should not be shown here: {event}")


def _kind(metadata: Mapping[str, Any]) -> str:
    top = str(metadata.get("media_type", "")).partition("/")[0]
    return _KINDS.get(top, "file")


def _say_result(event: Any) -> list[Aspect]:
    first, *more = event.result.parts or [TextInput("")]
    value = first.content if isinstance(first, TextInput) else first.data
    said: list[Aspect] = [("result", event.parent_id, value)]
    said += [aspect for part in more for aspect in _say_input("result", part)]
    return said + ([("failed", event.parent_id)] if isinstance(event, ToolErrorEvent) else [])


def _say_input(role: str, part: Any) -> list[Aspect]:
    if isinstance(part, TextInput):
        return [(role, "text", part.content)]
    kind = _KINDS.get(getattr(part.kind, "value", part.kind), "file")
    if isinstance(part, BinaryInput):
        name = (part.vendor_metadata or {}).get("filename")
        return [(role, kind, part.data), *([("filename", name)] if name else [])]
    assert isinstance(part, UrlInput), part
    return [(role, kind, part.url)]
