"""Messages and their JSON format."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_stores import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    ChatMessage,
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
from agent_stores.errors import (
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    MessageFormatError,
    UnsupportedVersionError,
)

# Any code point, unpaired surrogates included.
texts = st.text(st.characters(codec=None, exclude_categories=()))
names = texts.filter(bool)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, json_values, max_size=3)
extra = {"additional_properties": objects}
unknown = st.dictionaries(names.filter(lambda name: len(name) > 20), json_values, max_size=2)
calls = st.builds(ToolCallContent, names, names, texts | objects, **extra)
simple_parts: st.SearchStrategy[AnyContent] = st.one_of(
    st.builds(TextContent, texts, **extra, unknown_fields=unknown),
    st.builds(ReasoningContent, texts, protected_data=st.none() | texts),
    st.builds(DataContent, st.binary(), names, filename=st.none() | texts),
    st.builds(UriContent, names, media_type=st.none() | texts),
    calls,
    st.builds(ErrorContent, texts, code=st.none() | texts, details=st.none() | texts),
    st.builds(UsageContent, st.none() | st.integers(0, 2**60), st.none() | st.integers(0, 2**60)),
    st.builds(lambda data: OpaqueContent({**data, "type": "x-custom"}), objects),
    st.builds(ApprovalRequestContent, names, calls),
    st.builds(ApprovalResponseContent, names, st.booleans(), st.none() | calls),
)
parts = simple_parts | st.builds(
    ToolResultContent, names, json_values, is_error=st.booleans(), contents=st.lists(simple_parts, max_size=2)
)
messages = st.builds(
    ChatMessage,
    st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    contents=st.lists(parts, max_size=4),
    author_name=st.none() | texts,
    message_id=st.none() | names,
    created_at=st.none() | st.datetimes(timezones=st.just(timezone.utc)),
    additional_properties=objects,
    unknown_fields=unknown,
)


@given(messages)
def test_any_message_survives_its_json(message: ChatMessage) -> None:
    document = message.to_json()
    assert ChatMessage.from_json(document) == message
    assert ChatMessage.from_json(document).to_json() == document
    assert ChatMessage.from_dict(json.loads(document)) == message
    assert ChatMessage.from_dict(message.to_dict()) == message
    assert pickle.loads(pickle.dumps(message)) == message
    assert copy.deepcopy(message) == message
    assert hash(copy.copy(message)) == hash(message)
    assert repr(message)


@given(json_values)
def test_any_other_document_is_refused_clearly(value: Any) -> None:
    with contextlib.suppress(MessageFormatError, UnsupportedVersionError):
        ChatMessage.from_dict(value)
        assert isinstance(value, dict)


def test_two_ways_to_say_the_same() -> None:
    assert ChatMessage("user", "Hello") == ChatMessage(role="user", text="Hello")
    assert ChatMessage("user", "Hello") == ChatMessage("user", contents=["Hello"])
    assert ChatMessage("user", "Hello") == ChatMessage("user", contents="Hello")
    assert ChatMessage("user", "Hello") != ChatMessage("user", "Hello", message_id="a")
    assert ChatMessage("user").contents == ()
    assert ChatMessage("user", contents=["a", DataContent(b"", "x/y"), "b"]).text == "ab"
    assert ChatMessage("user", "Hello").replace(text="Bye") == ChatMessage("user", "Bye")
    assert {ChatMessage("user", "a"), ChatMessage("user", "a")} == {ChatMessage("user", "a")}


def test_repr_is_readable() -> None:
    assert repr(ChatMessage("user", "Hello")) == "ChatMessage('user', 'Hello')"
    assert repr(ChatMessage("assistant", contents=[ToolCallContent("c", "f", "{}")])) == (
        "ChatMessage('assistant', contents=[ToolCallContent(call_id='c', name='f', arguments='{}')])"
    )
    assert len(repr(ChatMessage("user", "x" * 10_000))) < 300
    assert len(repr(ChatMessage("user", contents=[DataContent(b"x" * 10_000, "a/b")]))) < 300


def test_messages_are_immutable() -> None:
    message = ChatMessage("user", "Hello", additional_properties={"a": [1]})
    with pytest.raises(AttributeError):
        message.role = "system"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        message.contents[0].text = "x"  # type: ignore[misc, union-attr]
    given: dict[str, Any] = {"a": [1]}
    message = ChatMessage("user", "Hello", additional_properties=given)
    given["a"].append(2)
    assert message.additional_properties == {"a": [1]}


def test_times_are_kept_in_utc() -> None:
    there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    message = ChatMessage("user", "x", created_at=there)
    assert message.created_at == there
    assert message.created_at is not None
    assert message.created_at.tzinfo is timezone.utc
    assert b'"created_at":"2026-01-01T10:00:00Z"' in message.to_json()

    class Stamp(datetime):
        """As some libraries have one of their own."""

    stamp = Stamp(2026, 1, 1, 10, 0, 0, 5, tzinfo=timezone.utc)
    stamped = ChatMessage("user", "x", created_at=stamp)
    assert type(stamped.created_at) is datetime
    assert stamped.created_at == stamp
    assert ChatMessage.from_json(stamped.to_json()) == stamped


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ChatMessage("robot", "x"), ArgumentError, "role is 'robot'; accepted are system"),  # type: ignore[arg-type]
        (lambda: ChatMessage("user", 7), ArgumentTypeError, "text is of type int"),  # type: ignore[arg-type]
        (lambda: ChatMessage("user", "a", contents=["b"]), ArgumentError, "text and contents are both given"),
        (lambda: ChatMessage("user", contents=[7]), ArgumentTypeError, r"contents\[0\] is of type int"),  # type: ignore[list-item]
        (lambda: ChatMessage("user", "x", message_id=""), ArgumentError, "message_id is empty"),
        (lambda: ChatMessage("user", "x", pinned=True), ArgumentError, "only system and developer"),
        (lambda: ChatMessage("user", "x", created_at=datetime(2026, 1, 1)), ArgumentError, "time zone"),
        (
            lambda: ChatMessage("user", "x", additional_properties={"a": [{"b": {1, 2}}]}),
            ArgumentTypeError,
            r"additional_properties\['a'\]\[0\]\['b'\] is of type set",
        ),
        (
            lambda: ChatMessage("user", "x", additional_properties={"a": float("nan")}),
            ArgumentError,
            r"additional_properties\['a'\] is nan",
        ),
        (lambda: ToolResultContent("c", {1: 2}), ArgumentTypeError, "has the key 1 of type int"),
        (lambda: ToolCallContent("", "f"), ArgumentError, "ToolCallContent.call_id is empty"),
        (lambda: UsageContent(-1), ArgumentError, "UsageContent.input_tokens is -1"),
        (lambda: OpaqueContent({"a": 1}), ArgumentError, "has no 'type'"),
        (lambda: OpaqueContent({"type": "text"}), ArgumentError, "use TextContent"),
    ],
)
def test_bad_values_are_named(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        make()
    assert isinstance(caught.value, AgentStoresError)


def test_data_that_refers_to_itself() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(ArgumentError, match="nested too deeply"):
        ChatMessage("user", "x", additional_properties=loop)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "not a JSON document"),
        (b'{"role":"user"', "truncated"),
        (b'{"role":"user",}', r"byte 15"),
        (b"[]", "expected an object, got an array"),
        (b"{}", "role: missing"),
        (b'{"role":"robot"}', "role: invalid enum value 'robot'"),
        (b'{"v":"1","role":"user"}', "v: expected a version number"),
        (b'{"v":1,"role":"user","contents":{}}', "contents: expected an array, got an object"),
        (b'{"role":"user","contents":[{"type":"text","text":"a"},7]}', r"contents\[1\]: expected an object"),
        (b'{"role":"user","contents":[{"text":"a"}]}', r"contents\[0\]\.type: expected the part's type"),
        (b'{"role":"user","contents":[{"type":"text"}]}', r"contents\[0\]: .*missing required field `text`"),
        (b'{"role":"user","contents":[{"type":"text","text":1}]}', r"contents\[0\]\.text: expected `str`"),
        (b'{"role":"user","contents":[{"type":"data","data":"%","media_type":"a"}]}', r"contents\[0\]\.data"),
        (
            b'{"role":"tool","contents":[{"type":"tool_result","call_id":"c","contents":[{"type":"uri"}]}]}',
            r"contents\[0\]\.contents\[0\]",
        ),
        (b'{"role":"user","created_at":"2026-01-01T00:00:00"}', "created_at: .*timezone"),
        (b'{"role":"user","message_id":7}', "message_id: expected `str"),
        (b"\xff\xfe", "not a JSON document"),
        (b'{"role":"user","message_id":""}', "message_id: .*length >= 1"),
        (b'{"role":"user","pinned":true}', "only system and developer"),
        (
            b'{"role":"assistant","contents":[{"type":"tool_call","call_id":"","name":"f"}]}',
            r"contents\[0\]\.call_id",
        ),
        (
            b'{"role":"assistant","contents":[{"type":"usage","input_tokens":-1}]}',
            r"contents\[0\]\.input_tokens",
        ),
        (b'{"role":"user","created_at":"0001-01-01T00:00:00+05:00"}', "which UTC cannot say"),
    ],
)
def test_malformed_documents_name_field_and_position(document: bytes, words: str) -> None:
    with pytest.raises(MessageFormatError, match=words):
        ChatMessage.from_json(document)


def test_times_of_documents_are_in_utc() -> None:
    message = ChatMessage.from_json(b'{"role":"user","created_at":"2026-01-01T12:00:00+05:00"}')
    assert message.created_at == datetime(2026, 1, 1, 7, tzinfo=timezone.utc)
    assert b"07:00:00Z" in message.to_json()


def test_documents_of_newer_versions() -> None:
    newer = {
        "v": 1,
        "role": "assistant",
        "mood": {"value": 0.5},
        "contents": [
            {"type": "text", "text": "Hi", "language": "en"},
            {"type": "hologram", "frames": [1, 2]},
            {
                "type": "tool_result",
                "call_id": "c",
                "result": 1,
                "contents": [{"type": "smell", "of": "rose"}, {"type": "text", "text": "x", "new": None}],
            },
            {
                "type": "approval_request",
                "request_id": "r",
                "tool_call": {
                    "type": "tool_call",
                    "call_id": "c",
                    "name": "f",
                    "arguments": "",
                    "sandbox": 1,
                },
            },
        ],
    }
    message = ChatMessage.from_dict(newer)
    assert message.text == "Hi"
    assert message.unknown_fields == {"mood": {"value": 0.5}}
    assert isinstance(message.contents[1], OpaqueContent)
    assert message.contents[1].type == "hologram"
    written = json.loads(message.to_json())
    assert written["mood"] == newer["mood"]
    assert written["contents"][:2] == newer["contents"][:2]  # type: ignore[index]
    assert written["contents"][2]["contents"] == newer["contents"][2]["contents"]  # type: ignore[index]
    assert written["contents"][3]["tool_call"]["sandbox"] == 1
    assert ChatMessage.from_dict(written) == message
    with pytest.raises(UnsupportedVersionError, match="version 2"):
        ChatMessage.from_dict({"v": 2, "role": "user"})


def test_arguments_of_a_call() -> None:
    assert ToolCallContent("c", "f", '{"a": 1}').parse_arguments() == {"a": 1}
    assert ToolCallContent("c", "f", {"a": 1}).parse_arguments() == {"a": 1}
    assert ToolCallContent("c", "f").parse_arguments() == {}
    for bad in ("{", "[1]", "7"):
        with pytest.raises(ArgumentError, match="arguments of 'f'"):
            ToolCallContent("c", "f", bad).parse_arguments()


def test_what_media_are() -> None:
    assert DataContent(b"", "image/png").kind == "image"
    assert UriContent("https://example.com/a", "AUDIO/mpeg").kind == "audio"
    assert UriContent("https://example.com/a").kind == "file"
    assert DataContent(bytearray(b"x"), "application/pdf").data == b"x"  # type: ignore[arg-type]


def test_struct_fields_are_those_of_the_format() -> None:
    """docs/message-format.md lists them: whoever adds one documents it there."""
    assert ChatMessage.__struct_encode_fields__[:-1] == (
        "role",
        "contents",
        "author_name",
        "message_id",
        "created_at",
        "pinned",
        "additional_properties",
    )
    assert msgspec.json.decode(ChatMessage("user", "Hello").to_json()) == {
        "v": 1,
        "role": "user",
        "contents": [{"type": "text", "text": "Hello"}],
    }
