"""The validator of chat-completions messages, against conversations that the API accepts or refuses."""

from __future__ import annotations

from typing import Any

import pytest

from agent_stores.testing.chat_rules import chat_violations

Message = dict[str, Any]


def user(content: Any = "Hello", **fields: Any) -> Message:
    return {"role": "user", "content": content, **fields}


def call(call_id: Any = "a", name: Any = "f", arguments: Any = "{}", **fields: Any) -> Message:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def calling(*calls: Message, **fields: Any) -> Message:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(call_id: Any = "a", content: Any = "done", **fields: Any) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **fields}


def said(content: Any = "Hi", **fields: Any) -> Message:
    return {"role": "assistant", "content": content, **fields}


ACCEPTED: dict[str, list[Message]] = {
    "one user message": [user()],
    "an empty text": [user("")],
    "all roles": [
        {"role": "system", "content": "Be kind.", "name": "rules"},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        user(name="Ann_1"),
        calling(call()),
        result(),
        said(),
    ],
    "parallel calls answered in another order": [
        user(),
        calling(call("a"), call("b")),
        result("b"),
        result("a"),
        user(),
    ],
    "two rounds with the same id": [user(), calling(call()), result(), calling(call()), result()],
    "text beside tool calls": [user(), calling(call(), content="Let me look."), result()],
    "empty text beside tool calls": [user(), calling(call(), content=""), result()],
    "no content key beside tool calls": [
        user(),
        {"role": "assistant", "tool_calls": [call()]},
        result(content=[{"type": "text", "text": "done"}]),
    ],
    "arguments that are not JSON": [user(), calling(call(arguments="{oops")), result()],
    "an empty answer": [user(), said("")],
    "a refusal": [user(), said([{"type": "refusal", "refusal": "No."}], refusal=None)],
    "an earlier audio answer": [user(), {"role": "assistant", "audio": {"id": "audio_1"}}, user()],
    "every part of a user": [
        user(
            [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                {"type": "file", "file": {"file_id": "file_1"}},
                {"type": "file", "file": {"file_data": "data:text/plain;base64,AA==", "filename": "a.txt"}},
            ]
        )
    ],
    "a name of another script": [user(name="Zoë-太郎")],
}

REFUSED: dict[str, tuple[list[Any], list[str]]] = {
    "nothing": ([], ["messages:"]),
    "not an object": (["hello"], ["messages[0]:"]),
    "no role": ([{"content": "Hello"}], ["messages[0].role:"]),
    "unknown role": ([{"role": "critic", "content": "Hello"}], ["messages[0].role:"]),
    "function role": ([user(), {"role": "function", "name": "f", "content": "1"}], ["messages[1].role:"]),
    "role of another type": ([{"role": ["user"], "content": "Hello"}], ["messages[0].role:"]),
    "unknown key": ([user(timestamp=1)], ["messages[0].timestamp:"]),
    "tool calls of a user": ([user(tool_calls=[call()])], ["messages[0].tool_calls:"]),
    "function_call": (
        [user(), said(function_call={"name": "f", "arguments": ""})],
        ["messages[1].function_call:"],
    ),
    "name with a space": ([user(name="Ann Lee")], ["messages[0].name:"]),
    "name with a newline at its end": ([user(name="Ann\n")], ["messages[0].name:"]),
    "empty name": ([user(name="")], ["messages[0].name:"]),
    "null name": ([user(name=None)], ["messages[0].name:"]),
    "null content of a user": ([user(None)], ["messages[0].content:"]),
    "no content of a system message": ([{"role": "system"}], ["messages[0].content:"]),
    "null content of a tool": ([user(), calling(call()), result(content=None)], ["messages[2].content:"]),
    "assistant with neither": ([user(), said(None)], ["messages[1].content:"]),
    "assistant with only a refusal field": ([user(), said(None, refusal="No.")], ["messages[1].content:"]),
    "content of another type": ([user({"text": "Hello"})], ["messages[0].content:"]),
    "no parts": ([user([])], ["messages[0].content:"]),
    "part that is a string": ([user(["Hello"])], ["messages[0].content[0]:"]),
    "unknown part": ([user([{"type": "video", "video": {}}])], ["messages[0].content[0].type:"]),
    "image from the assistant": (
        [user(), said([{"type": "image_url", "image_url": {"url": "u"}}])],
        ["messages[1].content[0].type:"],
    ),
    "refusal from the user": (
        [user([{"type": "refusal", "refusal": "x"}])],
        ["messages[0].content[0].type:"],
    ),
    "text part without text": ([user([{"type": "text"}])], ["messages[0].content[0].text:"]),
    "image as a string": (
        [user([{"type": "image_url", "image_url": "u"}])],
        ["messages[0].content[0].image_url:"],
    ),
    "image without a URL": (
        [user([{"type": "image_url", "image_url": {}}])],
        ["messages[0].content[0].image_url.url:"],
    ),
    "audio without anything": (
        [user([{"type": "input_audio", "input_audio": {}}])],
        ["messages[0].content[0].input_audio.data:", "messages[0].content[0].input_audio.format:"],
    ),
    "file without data": (
        [user([{"type": "file", "file": {"filename": "a"}}])],
        ["messages[0].content[0].file:"],
    ),
    "refusal of another type": ([user(), said(refusal=1)], ["messages[1].refusal:"]),
    "audio without an id": ([user(), said(audio={})], ["messages[1].audio:"]),
    "no tool calls in the list": ([user(), said(tool_calls=[])], ["messages[1].tool_calls:"]),
    "null tool calls": ([user(), said(tool_calls=None)], ["messages[1].tool_calls:"]),
    "tool call that is a string": ([user(), said(tool_calls=["f"])], ["messages[1].tool_calls[0]:"]),
    "tool call without an id": ([user(), calling(call(""))], ["messages[1].tool_calls[0].id:"]),
    "two calls with one id": ([user(), calling(call(), call()), result()], ["messages[1].tool_calls[1].id:"]),
    "custom tool call": (
        [user(), calling(call(type="custom")), result()],
        ["messages[1].tool_calls[0].type:"],
    ),
    "call without a function": (
        [user(), calling({"id": "a", "type": "function"}), result()],
        ["messages[1].tool_calls[0].function:"],
    ),
    "function name with a dot": (
        [user(), calling(call(name="a.b")), result()],
        ["messages[1].tool_calls[0].function.name:"],
    ),
    "function name with a newline at its end": (
        [user(), calling(call(name="f\n")), result()],
        ["messages[1].tool_calls[0].function.name:"],
    ),
    "function name of 65 characters": (
        [user(), calling(call(name="f" * 65)), result()],
        ["messages[1].tool_calls[0].function.name:"],
    ),
    "arguments as an object": (
        [user(), calling(call(arguments={})), result()],
        ["messages[1].tool_calls[0].function.arguments:"],
    ),
    "call without a result at the end": ([user(), calling(call())], ["messages[1].tool_calls: the call 'a'"]),
    "call without a result in the middle": (
        [user(), calling(call()), user()],
        ["messages[1].tool_calls: the call 'a'"],
    ),
    "one of two results": (
        [user(), calling(call("a"), call("b")), result("b"), user()],
        ["messages[1].tool_calls: the call 'a'"],
    ),
    "result after another message": (
        [user(), calling(call()), user(), result()],
        ["messages[1].tool_calls: the call 'a'", "messages[3].tool_call_id:"],
    ),
    "result first": ([result(), user()], ["messages[0].tool_call_id:"]),
    "result after a plain answer": ([user(), said(), result()], ["messages[2].tool_call_id:"]),
    "result for an unknown call": (
        [user(), calling(call()), result(), result("z")],
        ["messages[3].tool_call_id: 'z' is not a call"],
    ),
    "result given twice": (
        [user(), calling(call()), result(), result()],
        ["messages[3].tool_call_id: 'a' is answered"],
    ),
    "result without an id": (
        [user(), calling(call()), {"role": "tool", "content": "done"}],
        ["messages[2].tool_call_id:", "messages[1].tool_calls: the call 'a'"],
    ),
    "calls in a row": (
        [user(), calling(call("a")), calling(call("b")), result("a"), result("b")],
        ["messages[1].tool_calls: the call 'a'", "messages[3].tool_call_id: 'a' is not a call"],
    ),
}


@pytest.mark.parametrize("messages", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(messages: list[Message]) -> None:
    assert chat_violations(messages) == []


@pytest.mark.parametrize(("messages", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(messages: list[Any], expected: list[str]) -> None:
    found = chat_violations(messages)
    assert len(found) == len(expected), found
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True)), found
