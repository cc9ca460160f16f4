"""Events of AG2, and what a run of one of its agents needs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from ag2 import Context
from ag2.compact import CompactionSummary
from ag2.events import (
    BaseEvent,
    BinaryInput,
    BinaryResult,
    BinaryType,
    DataInput,
    DrainedModelRequest,
    FileIdInput,
    HumanInputRequest,
    HumanMessage,
    ImageInput,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextInput,
    ToolCallEvent,
    ToolCallsEvent,
    ToolErrorEvent,
    ToolNotFoundEvent,
    ToolResult,
    ToolResultEvent,
    ToolResultsEvent,
    UrlInput,
    Usage,
    UsageEvent,
)

from tests.plugins.conftest import PNG

STREAM = UUID("5f5b5c0e-6d4f-4d1c-9a51-6f4b7b1f6a10")


def context(stream: Any = STREAM) -> Context:
    """The context of an event that is sent on a stream."""
    return cast("Context", SimpleNamespace(stream=SimpleNamespace(id=stream)))


def call(number: str, **arguments: Any) -> ToolCallEvent:
    import json

    return ToolCallEvent("weather", id=number, arguments=json.dumps(arguments))


def result(number: str, *parts: Any) -> ToolResultEvent:
    return ToolResultEvent(parent_id=number, name="weather", result=ToolResult(*parts))


IMAGE = ImageInput(data=PNG, media_type="image/png")
CALLS = [call("t1", city="Oslo"), call("t2", city="Bergen")]
RESULTS = [result("t1", "rain", IMAGE), result("t2", {"rain": [True, 1.0]})]

TURN: list[BaseEvent] = [
    ModelRequest([TextInput("The weather in Oslo and Bergen?"), IMAGE]),
    ModelResponse(
        ModelMessage("I look.", metadata={"a": 1}),
        tool_calls=ToolCallsEvent(CALLS),
        usage=Usage(prompt_tokens=3, completion_tokens=4),
        model="m",
    ),
    UsageEvent(Usage(prompt_tokens=3)),
    ToolCallsEvent(CALLS),
    CALLS[0].handled_by("function:weather"),
    CALLS[1],
    RESULTS[1],
    RESULTS[0],
    ToolResultsEvent(RESULTS),
    ModelResponse(ModelMessage("It rains.")),
]

UNUSUAL: list[BaseEvent] = [
    ModelRequest([]),
    ModelRequest([DataInput({"a": [1, 1.0]}), FileIdInput("file-1", filename="a.txt")]),
    ModelRequest([UrlInput("https://e.org/a", kind=BinaryType.DOCUMENT), ImageInput("https://e.org/a.png")]),
    ModelRequest(
        [BinaryInput(b"\x00\xff", media_type="application/x", vendor_metadata={"filename": "a", "n": 1})]
    ),
    ModelRequest([TextInput("a", metadata={"k": [None]})]),
    DrainedModelRequest([TextInput("a")]),
    ModelResponse(),
    ModelResponse(ModelMessage("")),
    ModelResponse(files=[BinaryResult(PNG, metadata={"filename": "a.png"}), BinaryResult(b"")]),
    ModelResponse(tool_calls=ToolCallsEvent([ToolCallEvent("f", id="t", arguments="not JSON")])),
    ToolCallsEvent([]),
    ToolCallsEvent([call("t")]),
    call("t", **{"$ref": "x"}),
    result("t"),
    result("t", "a", "b", {"$ref": "call:t"}),
    ToolResultsEvent([]),
    ToolResultsEvent([result("t", {"$ref": "call:t"})]),
    ToolErrorEvent.from_call(call("t"), Exception("failed")),
    ToolNotFoundEvent.from_call(call("t"), Exception("no such tool")),
    HumanInputRequest("Sure?", timeout=1.5),
    HumanMessage("Yes"),
    CompactionSummary(summary="They talked.", event_count=4),
]
