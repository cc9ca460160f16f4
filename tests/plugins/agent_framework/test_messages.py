"""Every message of the installed Agent Framework, through the codec, JSON and stores, and back."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_stores import ChatMessage, DatabaseChatMessageStore
from agent_stores.contents import (
    DataContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.plugins.agent_framework import compat
from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from tests.plugins.agent_framework import kinds
from tests.plugins.agent_framework.kinds import Content, dump, message, text

codec: Any = AgentFrameworkCodec()


def through_json(given: Any) -> tuple[ChatMessage, Any]:
    plain = codec.to_chat_message(given)
    read = ChatMessage.from_json(plain.to_json())
    assert read == plain
    return plain, codec.from_chat_message(read)


def test_every_kind_is_there() -> None:
    known = compat.CONTENT_TYPES
    assert known
    assert known - {"shell_command_output"} <= {content.type for content in kinds.KINDS.values()}


@pytest.mark.parametrize("name", kinds.KINDS)
def test_a_content_comes_back(name: str) -> None:
    content = kinds.KINDS[name]
    before = content.to_dict()
    _, read = through_json(message("assistant", [content]))
    assert read.contents[0].to_dict() == before
    if content.to_dict().get("exception") is None:
        assert read.contents == [content]
    assert content.to_dict() == before


@pytest.mark.parametrize("index", range(len(kinds.messages())))
def test_a_message_comes_back(index: int) -> None:
    wanted = kinds.messages()[index]
    before = wanted.to_dict()
    _, read = through_json(wanted)
    assert read.to_dict() == before
    assert type(read) is type(wanted)


@pytest.mark.anyio
async def test_all_of_them_through_a_store(tmp_path: Path) -> None:
    given = kinds.messages()
    path = tmp_path / "chat.db"
    async with DatabaseChatMessageStore(path, thread_id="t", codec=codec, dangling_calls="keep") as store:
        await store.add_messages(given)
    async with DatabaseChatMessageStore(path, thread_id="t", codec=codec, dangling_calls="keep") as store:
        read = await store.list_messages()
    for one, other in zip(given, read, strict=True):
        assert other.message_id
        one.message_id = other.message_id
        assert dump(other) == dump(one)


def test_the_neutral_form() -> None:
    plain = codec.to_chat_message(
        message(
            "assistant",
            [
                Content.from_text_reasoning(text="because", protected_data="sealed"),
                text("Look:"),
                Content.from_data(kinds.PIXEL, "image/png"),
                Content.from_uri("https://example.org/a.png", media_type="image/png"),
                kinds.call("call_1"),
                kinds.call("call_2"),
            ],
            author_name="Bob",
            message_id="m1",
        )
    )
    assert list(plain.additional_properties) == (["agent_framework"] if kinds.is_beta else [])
    assert plain.replace(additional_properties={}) == ChatMessage(
        "assistant",
        contents=[
            ReasoningContent("because", "sealed"),
            TextContent("Look:"),
            DataContent(kinds.PIXEL, "image/png"),
            UriContent("https://example.org/a.png", "image/png"),
            ToolCallContent("call_1", "weather", '{"city": "Oslo"}'),
            ToolCallContent("call_2", "weather", '{"city": "Oslo"}'),
        ],
        author_name="Bob",
        message_id="m1",
    )
    result = codec.to_chat_message(message("tool", [Content.from_function_result("call_1", result="11")]))
    assert result.contents == (ToolResultContent("call_1", "11"),)
    failed = Content.from_function_result("call_1", result="Error: x", exception="ValueError: x")
    assert codec.to_chat_message(message("tool", [failed])).tool_results[0].is_error


def test_what_others_wrote_reads_plainly(caplog: pytest.LogCaptureFixture) -> None:
    read = codec.from_chat_message(
        ChatMessage(
            "assistant",
            contents=[
                TextContent("Hello", additional_properties={"langchain": {"x": 1}}),
                DataContent(kinds.PIXEL, "image/png", "a.png"),
                ToolCallContent("c", "weather", {"city": "Oslo"}),
                ToolResultContent("c", {"t": 11}, contents=(DataContent(kinds.PIXEL, "image/png"),)),
                ToolResultContent("d", "no such city", is_error=True),
                OpaqueContent({"type": "llama_index.cache", "size": 3}),
            ],
            message_id="m1",
        )
    )
    kinds_read = [content.type for content in read.contents]
    assert kinds_read == ["text", "data", "function_call", "function_result", "function_result"]
    assert read.contents[1].uri.startswith("data:image/png;base64,")
    assert read.contents[2].arguments == {"city": "Oslo"}
    assert read.contents[4].exception
    if kinds.is_beta:
        assert read.contents[3].result == {"t": 11}
    else:
        assert read.contents[3].result == '{"t": 11}'
        assert [item.type for item in read.contents[3].items] == ["text", "data"]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    # The betas have no place for the image in the result either, and say so.
    assert len(warnings) == (2 if kinds.is_beta else 1)
    [said] = [text for text in (one.getMessage() for one in warnings) if "'llama_index.cache'" in text]
    assert "message 'm1'" in said


def test_a_part_that_was_changed_reads_as_changed() -> None:
    wanted = Content.from_text("secret", additional_properties={"agent_framework": 1, "a": 2})
    plain = codec.to_chat_message(message("user", [wanted]))
    (part,) = plain.contents
    shown = TextContent("***", additional_properties=part.additional_properties)
    read = codec.from_chat_message(plain.replace(contents=[shown]))
    assert read.contents[0].text == "***"
    assert read.contents[0].additional_properties == {"agent_framework": 1, "a": 2}


def test_what_json_cannot_hold() -> None:
    def refused(error: type[Exception], match: str, content: Any, **fields: Any) -> None:
        with pytest.raises(error, match=match):
            codec.to_chat_message(message("user", [content], **fields))

    refused(
        ArgumentTypeError,
        r"\['contents'\]\[0\]\['result'\] must be .*, got bytes",
        Content("function_result", call_id="c", result=b"x"),
    )
    refused(
        ArgumentTypeError,
        r"\['contents'\]\[0\]\['arguments'\]\['a'\] must be .*, got object",
        Content.from_function_call("c", "n", arguments={"a": object()}),
    )
    refused(
        ArgumentTypeError,
        r"\['additional_properties'\]\['k'\] must be .*, got object",
        text("x"),
        additional_properties={"k": object()},
    )
    refused(
        ArgumentError,
        r"\['additional_properties'\]\['k'\] must be a finite number, got nan",
        text("x"),
        additional_properties={"k": float("nan")},
    )
    with pytest.raises(ArgumentTypeError, match="a message must be agent_framework's"):
        codec.to_chat_message(ChatMessage("user", "x"))


def test_values_that_have_a_json_form_of_the_framework() -> None:
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    given = message("user", [text("x")], additional_properties={"when": when, "inner": [text("y")]})
    _, read = through_json(given)
    assert read.additional_properties["when"] == str(when)
    assert read.additional_properties["inner"] == [text("y").to_dict()]


def test_raw_representations_are_not_stored() -> None:
    content = Content.from_text(
        "x", annotations=[{"type": "citation", "raw_representation": object()}], raw_representation=object()
    )
    _, read = through_json(message("user", [content], raw_representation=object()))
    assert read.raw_representation is None
    assert read.contents[0].annotations == [{"type": "citation"}]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
properties = st.dictionaries(st.text() | st.just("agent_framework"), values, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    words=st.text(),
    arguments=st.text() | st.dictionaries(st.text(), values, max_size=2),
    extra=properties,
    result=values,
)
def test_any_values(words: str, arguments: Any, extra: dict[str, Any], result: Any) -> None:
    given = message(
        "assistant",
        [
            Content.from_text(words, additional_properties=extra),
            Content.from_function_call("c", "n", arguments=arguments, additional_properties=extra),
            Content("function_result", call_id="c", result=result, additional_properties=extra),
        ],
        additional_properties=extra,
    )
    _, read = through_json(given)
    assert read.to_dict() == given.to_dict()
