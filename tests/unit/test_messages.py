"""Messages and their JSON format."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
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
from agent_stores import _checks as check
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
        (
            lambda: ChatMessage("robot", "x"),  # type: ignore[arg-type]
            ArgumentError,
            "role must be one of system, developer, user, assistant, tool, got 'robot'",
        ),
        (lambda: ChatMessage("user", 7), ArgumentTypeError, "text must be a str or None, got int"),  # type: ignore[arg-type]
        (
            lambda: ChatMessage("user", "a", contents=["b"]),
            ArgumentError,
            "text and contents must not be given together",
        ),
        (
            lambda: ChatMessage("user", contents=[7]),  # type: ignore[list-item]
            ArgumentTypeError,
            r"contents\[0\] must be a str or a content part, got int",
        ),
        (
            lambda: ChatMessage("user", "x", message_id=""),
            ArgumentError,
            "message_id must be a non-empty str, got an empty one",
        ),
        (lambda: ChatMessage("user", "x", pinned=True), ArgumentError, "only system and developer"),
        (lambda: ChatMessage("user", "x", created_at=datetime(2026, 1, 1)), ArgumentError, "time zone"),
        (
            lambda: ChatMessage("user", "x", additional_properties={"a": [{"b": {1, 2}}]}),
            ArgumentTypeError,
            r"additional_properties\['a'\]\[0\]\['b'\] must be .*, got set",
        ),
        (
            lambda: ChatMessage("user", "x", additional_properties={"a": float("nan")}),
            ArgumentError,
            r"additional_properties\['a'\] must be a finite number, got nan",
        ),
        (
            lambda: ToolResultContent("c", {1: 2}),
            ArgumentTypeError,
            "ToolResultContent.result must have keys of type str, got 1",
        ),
        (lambda: ToolCallContent("", "f"), ArgumentError, "ToolCallContent.call_id must be a non-empty str"),
        (
            lambda: UsageContent(-1),
            ArgumentError,
            "UsageContent.input_tokens must be a non-negative int or None, got -1",
        ),
        (lambda: OpaqueContent({"a": 1}), ArgumentError, r"data\['type'\] must be a non-empty str, got None"),
        (lambda: OpaqueContent({"type": "text"}), ArgumentError, "use TextContent"),
    ],
)
def test_bad_values_are_named(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        make()
    assert isinstance(caught.value, AgentStoresError)


_field_names = st.sampled_from(
    [
        *("role", "pinned", "contents", "message_id", "v", "type", "text", "data", "call_id", "tool_call"),
        *("result", "additional_properties", "$unknown", "unknown_fields", "mood"),
    ]
)
_field_values = json_values | st.sampled_from(
    [
        *("system", "robot", True, 2, "tool_call", "$opaque", "hologram", "approval_request", {}, []),
        *({"role": "system", "pinned": True}, {"type": "text", "text": "other"}, {"type": "mcp"}),
        [{"type": "text", "text": "other"}],
    ]
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Documents of messages, in which up to three fields at any place are replaced or added."""
    document: dict[str, Any] = json.loads(draw(messages).to_json())
    for _ in range(draw(st.integers(0, 3))):
        inner = objects_in(document)
        inner[draw(st.integers(0, min(len(inner), 8) - 1))][draw(_field_names)] = copy.deepcopy(
            draw(_field_values)
        )
    return document


def objects_in(value: Any) -> list[dict[str, Any]]:
    found = [value] if isinstance(value, dict) else []
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list)):
            found.extend(objects_in(item))
    return found


def readers(document: dict[str, Any]) -> list[Callable[[], ChatMessage]]:
    """The ways to read a document: as data, as JSON in ASCII, and as other JSON."""
    return [
        lambda: ChatMessage.from_dict(document),
        lambda: ChatMessage.from_json(json.dumps(document)),
        lambda: ChatMessage.from_json(json.dumps(document, ensure_ascii=False)),
    ]


@settings(max_examples=300)
@given(documents())
def test_any_accepted_document_is_read_back_as_it_was_validated(document: dict[str, Any]) -> None:
    found = []
    for read in readers(document):
        try:
            message = read()
        except (MessageFormatError, UnsupportedVersionError):
            continue
        found.append(message)
        assert ChatMessage.from_json(message.to_json()) == message
        assert ChatMessage.from_dict(message.to_dict()) == message
        assert (message.role, message.pinned) == (document["role"], document.get("pinned", False))
        assert len(message.contents) == len(document.get("contents", []))
        for part, given_part in zip(message.contents, document.get("contents", []), strict=True):
            assert part.type == given_part["type"]
        assert message.replace() == message
        assert pickle.loads(pickle.dumps(message)) == message
        assert copy.deepcopy(message) == message
    assert len(found) in (0, 3)
    assert found.count(found[0]) == 3 if found else True


SYSTEM = {"role": "system", "pinned": True}
TEXT = {"type": "text", "text": "x"}
RESULT = {"type": "tool_result", "call_id": "c", "result": "real"}
CALL = {"type": "tool_call", "call_id": "c", "name": "f"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"role": "user", "$unknown": SYSTEM}, r"^\$unknown: the name is reserved"),
        ({"role": "user", "$unknown": {"v": 99}}, r"^\$unknown"),
        ({"role": "user", "$unknown": {"contents": [TEXT]}}, r"^\$unknown"),
        ({"role": "user", "$unknown": {"$unknown": SYSTEM}}, r"^\$unknown"),
        ({"role": "user", "$unknown": SYSTEM, "mood": 1}, r"^\$unknown"),
        ({"role": "user", "$unknown": None}, r"^\$unknown"),
        (
            {"role": "user", "contents": [{**TEXT, "$unknown": {"type": "tool_call", "text": "y"}}]},
            r"contents\[0\]\.\$unknown",
        ),
        (
            {"role": "tool", "contents": [{**RESULT, "contents": [{**TEXT, "$unknown": {"text": "y"}}]}]},
            r"contents\[0\]\.contents\[0\]\.\$unknown",
        ),
        (
            {
                "role": "assistant",
                "contents": [
                    {
                        "type": "approval_request",
                        "request_id": "r",
                        "tool_call": {**CALL, "$unknown": {"name": "delete_everything"}},
                    }
                ],
            },
            r"contents\[0\]\.tool_call\.\$unknown",
        ),
    ],
)
def test_documents_do_not_hide_known_fields(document: dict[str, Any], words: str) -> None:
    with pytest.raises(MessageFormatError, match=words):
        ChatMessage.from_dict(document)
    with pytest.raises(MessageFormatError, match=words):
        ChatMessage.from_json(json.dumps(document))


@pytest.mark.parametrize("name", ["role", "contents", "pinned", "message_id", "v", "$unknown"])
def test_unknown_fields_of_a_message_are_no_known_ones(name: str) -> None:
    with pytest.raises(
        ArgumentError, match=f"unknown_fields must not have the name .*, got '{re.escape(name)}'"
    ):
        ChatMessage("user", "x", unknown_fields={"mood": 1, name: "system"})
    with pytest.raises(ArgumentError, match="unknown_fields"):
        ChatMessage("user", "x").replace(unknown_fields={name: "system"})


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda fields: TextContent("x", unknown_fields=fields), "text"),
        (lambda fields: TextContent("x", unknown_fields=fields), "type"),
        (lambda fields: ToolCallContent("c", "f", unknown_fields=fields), "name"),
        (lambda fields: ToolResultContent("c", unknown_fields=fields), "contents"),
        (
            lambda fields: ApprovalRequestContent("r", ToolCallContent("c", "f"), unknown_fields=fields),
            "tool_call",
        ),
        (lambda fields: DataContent(b"", "a/b", unknown_fields=fields), "$unknown"),
    ],
)
def test_unknown_fields_of_a_part_are_no_known_ones(make: Any, field: str) -> None:
    assert make({"mood": 1}).unknown_fields == {"mood": 1}
    with pytest.raises(ArgumentError, match=f"Content.unknown_fields .*, got '{re.escape(field)}'"):
        make({field: "other"})


def test_encoding_never_replaces_known_fields() -> None:
    """Even for a message whose constructor was circumvented."""
    part = msgspec.structs.replace(
        TextContent("real"), unknown_fields={"mood": 1, "text": "x", "type": "uri"}
    )
    message = msgspec.structs.replace(ChatMessage("user", "x"), contents=(part,), unknown_fields=SYSTEM)
    found = ChatMessage.from_json(message.to_json())
    assert (found.role, found.pinned, found.text) == ("user", False, "real")
    assert found.contents[0].unknown_fields == {"mood": 1}
    assert ChatMessage.from_dict(message.to_dict()) == found


def test_documents_of_an_opaque_part_do_not_hide_a_known_one() -> None:
    hidden = {"role": "user", "contents": [{"type": "$opaque", "data": {"type": "text", "text": "other"}}]}
    message = ChatMessage.from_json(json.dumps(hidden))
    assert message == ChatMessage.from_dict(hidden)
    assert json.loads(message.to_json())["contents"] == hidden["contents"]
    for field in ("additional_properties", "unknown_fields"):
        with pytest.raises(ArgumentError, match=f"OpaqueContent.{field} must be empty"):
            OpaqueContent({"type": "x"}, **{field: {"a": 1}})


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def in_results(levels: int) -> dict[str, Any]:
    """A tool result in a tool result, and so on."""
    part: dict[str, Any] = {"type": "tool_result", "call_id": "c"}
    for _ in range(levels - 1):
        part = {"type": "tool_result", "call_id": "c", "contents": [part]}
    return part


def json_text(levels: int) -> str:
    """A document whose encoder would not go so deep."""
    return f'{{"role":"user","additional_properties":{{"a":{"[" * levels}{"]" * levels}}}}}'


@pytest.mark.parametrize("levels", [101, 1_500, 5_000, 200_000])
def test_documents_that_are_nested_too_deep(levels: int) -> None:
    for document in (json_text(levels - 2), json_text(levels - 2).replace("role", "x", 1), "[" * levels):
        for form in (document, document.encode(), document.replace('"a"', r'"\ud800"')):
            with pytest.raises(MessageFormatError, match="at most 100 levels deep"):
                ChatMessage.from_json(form)
    with pytest.raises(MessageFormatError, match="at most 100 levels deep"):
        ChatMessage.from_dict({"role": "user", "additional_properties": {"a": nested(levels - 2)}})


def test_the_deepest_documents() -> None:
    """The limit is the same for constructors and documents, wherever the value is."""
    cases: list[tuple[int, Callable[[Any], ChatMessage]]] = [
        (98, lambda value: ChatMessage("user", additional_properties={"a": value})),
        (99, lambda value: ChatMessage("user", unknown_fields={"a": value})),
        (
            96,
            lambda value: ChatMessage("user", contents=[TextContent("", additional_properties={"a": value})]),
        ),
        (97, lambda value: ChatMessage("user", contents=[TextContent("", unknown_fields={"a": value})])),
        (97, lambda value: ChatMessage("tool", contents=[ToolResultContent("c", value)])),
        (96, lambda value: ChatMessage("assistant", contents=[ToolCallContent("c", "f", {"a": value})])),
        (97, lambda value: ChatMessage("user", contents=[OpaqueContent({"type": "x", "a": value})])),
        (
            95,
            lambda value: ChatMessage(
                "user", contents=[ApprovalRequestContent("r", ToolCallContent("c", "f", {"a": value}))]
            ),
        ),
        (
            95,
            lambda value: ChatMessage(
                "user", contents=[ToolResultContent("c", contents=(ToolResultContent("d", value),))]
            ),
        ),
    ]
    for limit, make in cases:
        message = make(nested(limit))
        assert ChatMessage.from_json(message.to_json()) == message
        assert ChatMessage.from_dict(message.to_dict()) == message
        assert copy.deepcopy(message) == message
        with pytest.raises(ArgumentError, match=r"must be nested at most \d+ levels deep"):
            make(nested(limit + 1))
        deeper = message.to_json().replace(b"[]", b"[[]]", 1)
        assert deeper != message.to_json()
        with pytest.raises(MessageFormatError, match="at most 100 levels deep"):
            ChatMessage.from_json(deeper)


def test_results_in_results() -> None:
    message = ChatMessage.from_dict({"role": "tool", "contents": [in_results(49)]})
    assert message.replace() == message
    assert copy.deepcopy(message) == message
    assert ChatMessage.from_json(message.to_json()) == message
    with pytest.raises(MessageFormatError, match="at most 100 levels deep"):
        ChatMessage.from_dict({"role": "tool", "contents": [in_results(50)]})
    with pytest.raises(ArgumentError, match="contents must be nested at most 96 levels"):
        ToolResultContent("c", contents=message.contents)


def test_brackets_in_text_are_no_levels() -> None:
    for text in ("[" * 500, '"{' * 500, "\\[" * 500, "\\" * 3 + '"[' * 500 + "\ud800"):
        message = ChatMessage("user", text, additional_properties={text: [text, {}, []] * 200})
        assert ChatMessage.from_json(message.to_json()) == message
        assert ChatMessage.from_json(message.to_json().decode()) == message


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"role": "\ud800"}, "role: an unpaired surrogate is not valid here"),
        ({"role": "user", "created_at": "\ud800"}, "created_at: an unpaired surrogate"),
        ({"role": "user", "pinned": "\ud800"}, "pinned: "),
        ({"role": "user", "v": "\ud800"}, "v: expected a version number"),
        (
            {"role": "user", "contents": [{"type": "data", "data": "\ud800", "media_type": "a/b"}]},
            r"contents\[0\]\.data: an unpaired surrogate",
        ),
    ],
)
def test_surrogates_where_no_text_may_be(document: dict[str, Any], words: str) -> None:
    for read in readers(document):
        with pytest.raises(MessageFormatError, match=words):
            read()
    with pytest.raises(ArgumentError, match=r"role must be .*, got '\\ud800'"):
        ChatMessage("\ud800")  # type: ignore[arg-type]


def test_pairs_of_surrogates_are_the_characters_that_they_encode() -> None:
    """JSON cannot tell them apart."""
    pair = "\ud83d\ude00"
    message = ChatMessage(
        "user", pair, author_name=pair, message_id=pair, additional_properties={pair: [pair]}
    )
    assert message.text == message.author_name == message.message_id == "\U0001f600"
    assert message.additional_properties == {"\U0001f600": ["\U0001f600"]}
    assert ChatMessage.from_json(message.to_json()) == message
    assert ChatMessage("user", "\ude00\ud83d").text == "\ude00\ud83d"


def test_numbers_that_json_cannot_hold() -> None:
    largest = 10**4299 - 1
    message = ChatMessage("user", additional_properties={"a": largest, "b": -largest})
    assert ChatMessage.from_json(message.to_json()) == message
    with pytest.raises(ArgumentError, match=r"\['a'\] must be an int of at most 4299 digits"):
        ChatMessage("user", additional_properties={"a": 10**4299})
    with pytest.raises(ArgumentError, match="at most 4299 digits"):
        UsageContent(10**4299)
    for number in ("1e400", "-1e400", "NaN", "Infinity", "1" * 4301):
        for text in ("", r"\ud800"):
            with pytest.raises(MessageFormatError):
                ChatMessage.from_json(f'{{"role":"user","author_name":"{text}","mood":{number}}}')
    with pytest.raises(MessageFormatError, match=r"the message\['mood'\] must be a finite number"):
        ChatMessage.from_dict({"role": "user", "mood": float("nan")})
    with pytest.raises(MessageFormatError, match=r"the message\['mood'\] must be .*, got set"):
        ChatMessage.from_dict({"role": "user", "mood": {1}})


def test_documents_are_utf_8() -> None:
    text = '{"role":"user"}'
    for document in (text.encode("utf-16"), b'{"role":"user","mood":"\xed\xa0\x80"}'):
        with pytest.raises(MessageFormatError, match="not a JSON document"):
            ChatMessage.from_json(document)


def test_sizes_of_objects() -> None:
    assert check.json_object({"a": "ü"}, "metadata", max_bytes=10) == {"a": "ü"}
    with pytest.raises(ArgumentError, match="metadata must be at most 9 bytes as JSON, got 10"):
        check.json_object({"a": "ü"}, "metadata", max_bytes=9)
    with pytest.raises(ArgumentError, match="metadata must be nested at most 100 levels deep"):
        check.json_object({"a": nested(100)}, "metadata")


def test_data_that_refers_to_itself() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(ArgumentError, match="additional_properties must be nested at most 99 levels deep"):
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
        (
            b'{"role":"user","created_at":"0001-01-01T00:00:00+05:00"}',
            "created_at must be between the years 1 and 9999",
        ),
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
