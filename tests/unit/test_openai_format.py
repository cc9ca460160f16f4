"""Conversations on their way to the Chat Completions API, judged by the independent rules of that API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_stores.agent.openai_format import (
    from_openai_message,
    from_openai_usage,
    to_openai_messages,
    to_openai_tools,
)
from agent_stores.agent.tools import Tool
from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
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
from agent_stores.messages import ROLES, ChatMessage
from agent_stores.retention import repair
from agent_stores.testing.chat_rules import chat_violations

ids = st.sampled_from(["a", "b", "c", "\ud83d", "long" * 20])
texts = st.text(st.characters(exclude_categories=()), max_size=4)
calls = st.builds(ToolCallContent, ids, texts.filter(bool), texts | st.just({"x": "\ud800"}))
media: st.SearchStrategy[AnyContent] = st.one_of(
    st.builds(
        DataContent,
        st.binary(max_size=3),
        st.sampled_from(["image/png", "audio/wav", "audio/mpeg", "audio/ogg", "application/pdf", "\ud800"]),
        st.none() | texts,
    ),
    st.builds(
        UriContent,
        st.sampled_from(
            ["https://host/a.png", "file", "data:audio/wav;base64,AA", "data:,x", "http://[x", "\ud800"]
        ),
        st.none() | st.sampled_from(["image/png", "audio/wav", "x"]),
    ),
)
parts: st.SearchStrategy[AnyContent] = st.one_of(
    calls,
    calls,
    st.builds(ToolResultContent, ids, texts | st.just({"n": [1, None]}), st.booleans()),
    st.builds(ToolResultContent, ids, contents=st.lists(st.builds(TextContent, texts) | media, max_size=2)),
    st.builds(TextContent, texts),
    media,
    st.builds(ReasoningContent, texts),
    st.builds(ErrorContent, texts),
    st.builds(UsageContent, st.integers(0, 9)),
    st.builds(ApprovalRequestContent, ids, calls),
    st.builds(ApprovalResponseContent, ids, st.booleans()),
    st.builds(OpaqueContent, st.just({"type": "later"})),
)
messages = st.builds(
    ChatMessage,
    st.sampled_from(ROLES),
    contents=st.lists(parts, max_size=5),
    author_name=st.none() | texts,
)


def broken(conversation: list[ChatMessage]) -> list[str]:
    wire = to_openai_messages(conversation)
    json.dumps(wire, ensure_ascii=False).encode()  # as the client sends it
    return [line for line in chat_violations(wire) if wire or "at least one message" not in line]


@given(st.lists(messages, max_size=8), st.sampled_from(["synthesize", "drop"]))
def test_a_repaired_conversation_is_accepted(conversation: list[ChatMessage], policy: Any) -> None:
    assert broken(repair(conversation, policy)) == []


@given(st.lists(messages, max_size=8))
def test_a_conversation_that_is_not_repaired_is_accepted_too(conversation: list[ChatMessage]) -> None:
    assert broken(conversation) == []


@given(st.lists(messages, max_size=8))
def test_every_call_that_is_not_pending_is_sent_once(conversation: list[ChatMessage]) -> None:
    view = repair(conversation, "synthesize")
    wire = to_openai_messages(view)
    sent = sum(len(message.get("tool_calls", ())) for message in wire)
    assert sent == sum(message["role"] == "tool" for message in wire)
    results = sum(len(message.tool_results) for message in view)
    assert sent == results


def test_plain_messages() -> None:
    conversation = [
        ChatMessage("system", "Be brief."),
        ChatMessage("developer", "Really."),
        ChatMessage("user", "Hi", author_name="Ann <the /user>"),
        ChatMessage("assistant", "Hello"),
        ChatMessage("user", ""),
        ChatMessage("user", contents=["a", "b"]),
    ]
    assert to_openai_messages(conversation) == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Really."},
        {"role": "user", "content": "Hi", "name": "Ann_the_user_"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]


def call(call_id: str, name: str = "f", arguments: Any = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_calls_and_results() -> None:
    conversation = [
        ChatMessage(
            "assistant",
            contents=[
                ReasoningContent("hm"),
                TextContent("Let me see."),
                ToolCallContent("1", "get weather", '{"city": '),
                ToolCallContent("2", "f", {"a": "é"}),
                ToolCallContent("3", "f", " "),
            ],
        ),
        ChatMessage("tool", contents=[ToolResultContent("1", "sunny")]),
        ChatMessage(
            "tool", contents=[ToolResultContent("3", None), ToolResultContent("2", {"é": [1, None]})]
        ),
        ChatMessage("assistant", "Sunny."),
    ]
    assert to_openai_messages(conversation) == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [call("1", "get_weather", '{"city": '), call("2", "f", '{"a": "é"}'), call("3")],
        },
        result("1", "sunny"),
        result("2", '{"é": [1, null]}'),
        result("3", "null"),
        {"role": "assistant", "content": "Sunny."},
    ]


def test_a_message_with_everything_is_split() -> None:
    message = ChatMessage(
        "assistant",
        contents=[
            TextContent("one"),
            ToolCallContent("1", "f"),
            ToolResultContent("1", "r1"),
            TextContent("two"),
            ToolCallContent("2", "f"),
            ToolCallContent("2", "f"),
            ToolResultContent("2", "r2"),
            ToolResultContent("2", "r3"),
        ],
    )
    expected: list[dict[str, Any]] = [
        {"role": "assistant", "content": "one", "tool_calls": [call("1")]},
        result("1", "r1"),
        {"role": "assistant", "content": "two", "tool_calls": [call("2"), call("2_2")]},
        result("2", "r2"),
        result("2_2", "r3"),
    ]
    assert to_openai_messages([message]) == expected
    (asked, first, *rest) = to_openai_messages([message.replace(role="user")])
    assert (asked, first["role"], first["content"]) == ({"role": "user", "content": "one"}, "assistant", None)
    assert [item["role"] for item in rest] == ["tool", "user", "assistant", "tool", "tool"]


def test_long_ids_are_shortened() -> None:
    asked = [ToolCallContent(f"{'x' * 60}{end}", "f") for end in "ab"]
    answers = [ToolResultContent(one.call_id, one.call_id[-1]) for one in asked]
    message, *results = to_openai_messages(
        [ChatMessage("assistant", contents=asked), ChatMessage("tool", contents=answers)]
    )
    sent = [one["id"] for one in message["tool_calls"]]
    assert [one["tool_call_id"] for one in results] == sent
    assert len(set(sent)) == 2
    assert all(len(one) <= 40 for one in sent)


def test_what_is_not_sent() -> None:
    waiting = ToolCallContent("1", "f")
    conversation = [
        ChatMessage("assistant", contents=[waiting, ApprovalRequestContent("r", waiting)]),
        ChatMessage("user", "later"),
        ChatMessage("assistant", contents=[ReasoningContent("hm"), UsageContent(1), ErrorContent("no")]),
        ChatMessage("assistant", contents=[OpaqueContent({"type": "x"}), TextContent("")]),
        ChatMessage("tool", contents=[ToolResultContent("unknown", "r")]),
        ChatMessage("tool", "left over"),
    ]
    assert to_openai_messages(repair(conversation, "synthesize")) == [
        {"role": "user", "content": "later"},
        {"role": "user", "content": "left over"},
    ]


def test_media() -> None:
    message = ChatMessage(
        "user",
        contents=[
            DataContent(b"\x01", "image/png"),
            UriContent("https://host/cat", "image/jpeg"),
            UriContent("https://host/cat.gif?x=1"),
            DataContent(b"\x01", "audio/x-wav"),
            UriContent("data:audio/mpeg;base64,AQ=="),
            DataContent(b"\x01", "application/pdf"),
            DataContent(b"\x01", "audio/ogg", "song.ogg"),
            UriContent("https://host/a.pdf", "application/pdf", "a.pdf"),
            DataContent(b"", "image/png"),
        ],
    )
    assert to_openai_messages([message])[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQ=="}},
        {"type": "image_url", "image_url": {"url": "https://host/cat"}},
        {"type": "image_url", "image_url": {"url": "https://host/cat.gif?x=1"}},
        {"type": "input_audio", "input_audio": {"data": "AQ==", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "AQ==", "format": "mp3"}},
        {"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,AQ=="}},
        {"type": "file", "file": {"filename": "song.ogg", "file_data": "data:audio/ogg;base64,AQ=="}},
        {"type": "text", "text": "[a.pdf: https://host/a.pdf]"},
        {"type": "text", "text": "[image/png: empty]"},
    ]


def test_media_of_others_come_from_the_user() -> None:
    picture = DataContent(b"\x01", "image/png")
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQ=="}}
    conversation = [
        ChatMessage("assistant", contents=["Look:", picture]),
        ChatMessage("assistant", contents=[ToolCallContent("1", "draw"), ToolCallContent("2", "say")]),
        ChatMessage("tool", contents=[ToolResultContent("1", contents=(picture,))]),
        ChatMessage("tool", contents=[ToolResultContent("2", "x", contents=(TextContent("y"),))]),
    ]
    assert to_openai_messages(conversation) == [
        {"role": "assistant", "content": "Look:"},
        {"role": "user", "content": [shown]},
        {"role": "assistant", "content": None, "tool_calls": [call("1", "draw"), call("2", "say")]},
        result("1", "See below."),
        result("2", "x\ny"),
        {"role": "user", "content": [{"type": "text", "text": "From the tool draw:"}, shown]},
    ]


def test_half_an_emoji_can_be_sent() -> None:
    wire = to_openai_messages([ChatMessage("user", "a\ud83db \ud83d\ude00 \U0001f600")])
    assert wire[0]["content"] == "a\ufffdb \U0001f600 \U0001f600"


def test_tools() -> None:
    def add(a: int) -> int:
        """Add one.

        To a number.
        """
        return a + 1

    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    described = {"name": "add", "description": "Add one.", "parameters": schema}
    assert to_openai_tools([Tool(add)]) == [{"type": "function", "function": described}]


def test_answers() -> None:
    message = from_openai_message(
        {
            "role": "assistant",
            "content": "Hi",
            "reasoning_content": "hm",
            "refusal": None,
            "annotations": [{"type": "url_citation"}],
            "audio": None,
            "tool_calls": [
                call("1", "f", '{"a": 1}'),
                call("1", "g", ""),
                {"id": None, "type": "function", "function": {"name": None, "arguments": None}},
                {"id": "3", "type": "custom", "custom": {"name": "x", "input": "y"}},
            ],
        }
    )
    reasoning, text, first, second, third, other = message.contents
    assert (message.role, reasoning, text) == ("assistant", ReasoningContent("hm"), TextContent("Hi"))
    assert first == ToolCallContent("1", "f", '{"a": 1}')
    assert isinstance(second, ToolCallContent)
    assert isinstance(third, ToolCallContent)
    assert len({"1", second.call_id, third.call_id}) == 3
    assert (second.name, third.name, other.type) == ("g", "unnamed", "openai.custom")
    assert message.additional_properties == {"openai": {"annotations": [{"type": "url_citation"}]}}
    assert from_openai_message({"content": None, "refusal": "No."}).text == "No."
    assert from_openai_message({"content": [{"type": "text", "text": "a"}]}).text == "a"
    assert from_openai_message({"content": ""}).contents == ()


@given(st.lists(st.builds(ToolCallContent, st.uuids().map(str), st.just("f"), st.just("{}")), max_size=3))
def test_an_answer_goes_back_as_it_came(made: list[ToolCallContent]) -> None:
    wire: dict[str, Any] = {"role": "assistant", "content": "x"}
    if made:
        wire["tool_calls"] = [call(one.call_id) for one in made]
    answers = [ChatMessage("tool", contents=[ToolResultContent(one.call_id, "r")]) for one in made]
    assert to_openai_messages([from_openai_message(wire), *answers])[0] == wire


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, UsageContent(3, 2, 5)),
        ({"prompt_tokens": 3, "completion_tokens": None, "total_tokens": -1}, UsageContent(3)),
    ],
)
def test_usage(usage: Any, expected: Any) -> None:
    assert from_openai_usage(usage) == expected
