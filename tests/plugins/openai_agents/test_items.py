"""Items of the Responses API, into a store and out of it."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import (
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
from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.log import MessageLog
from agent_stores.openai_agents import ResponsesItemCodec
from tests.plugins.conftest import PNG
from tests.plugins.openai_agents.items import IMAGE, ITEMS


def through_json(message: ChatMessage) -> ChatMessage:
    return ChatMessage.from_json(message.to_json())


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_comes_back(name: str) -> None:
    codec, item = ResponsesItemCodec(), ITEMS[name]
    before = copy.deepcopy(item)
    message = through_json(codec.to_chat_message(item))
    assert item == before
    assert codec.from_chat_message(message) == [item]
    assert json.dumps(codec.from_chat_message(message)[0], sort_keys=True) == json.dumps(item, sort_keys=True)


def test_there_is_an_example_of_every_kind() -> None:
    from openai.types.responses import response_input_item_param as module

    kinds = set()
    for member in get_args(module.ResponseInputItemParam):
        kinds |= {kind for kind in _literals(get_type_hints(member)["type"]) if kind is not None}
    assert kinds <= {item.get("type", "message") for item in ITEMS.values()}


def _literals(hint: Any) -> set[Any]:
    found = set()
    for value in get_args(hint):
        found |= _literals(value) if get_args(value) else {value}
    return {value for value in found if isinstance(value, str)}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(ITEMS)), st.dictionaries(st.text(), json_values, max_size=2), st.data())
def test_items_with_unknown_fields(name: str, extra: dict[str, Any], data: st.DataObject) -> None:
    item = {**ITEMS[name], **extra}
    for field in data.draw(st.sets(st.sampled_from(sorted(ITEMS[name])), max_size=1)):
        item[field] = data.draw(json_values)
    codec = ResponsesItemCodec()
    assert codec.from_chat_message(through_json(codec.to_chat_message(item))) == [item]


def test_images_are_stored_once() -> None:
    message = ResponsesItemCodec().to_chat_message(ITEMS["user parts"])
    assert message.to_json().count(IMAGE.partition(",")[2].encode()) == 1


def test_what_is_neutral() -> None:
    codec = ResponsesItemCodec()

    def parts(name: str) -> tuple[Any, ...]:
        return codec.to_chat_message(ITEMS[name]).contents

    assert codec.to_chat_message(ITEMS["easy user"]) == ChatMessage("user", ITEMS["easy user"]["content"])
    assert codec.to_chat_message(ITEMS["easy assistant"]) == ChatMessage("assistant", "Hi!")
    text, image, linked, by_id, pdf, pdf_url, audio, future = parts("user parts")
    assert text == TextContent("What is this?")
    assert image == DataContent(PNG, media_type="image/png")
    assert linked == UriContent("https://example.com/a.png", media_type="image/png")
    assert by_id.type == "openai_agents.input_image"
    assert pdf == DataContent(b"%PDF-1.7", media_type="application/pdf", filename="a.pdf")
    assert pdf_url == UriContent("https://example.com/a.pdf", media_type="application/pdf")
    assert audio.kind == "audio"
    assert future.type == "openai_agents.input_from_the_future"
    assert parts("function call") == (ToolCallContent("call_1", "weather", '{"city":  "Oslo"}'),)
    assert parts("function output") == (ToolResultContent("call_1", "3 °C"),)
    (result,) = parts("function output parts")
    assert (result.result, result.contents[0]) == ("a map", DataContent(PNG, media_type="image/png"))
    assert parts("reasoning") == (
        ReasoningContent("First this."),
        ReasoningContent("Then that.", protected_data="gAAAA"),
    )
    assert parts("image generation") == (DataContent(PNG, media_type="image/png"),)
    call, outcome = parts("mcp call that failed")
    assert (call.name, outcome.is_error) == ("pay", True)
    assert parts("shell")[0].arguments["action"] == {"commands": ["ls"], "timeout_ms": 10}
    assert parts("computer output")[0].contents == (DataContent(PNG, media_type="image/png"),)
    assert [codec.to_chat_message(ITEMS[name]).role for name in ("function output", "reasoning")] == [
        "tool",
        "assistant",
    ]


def test_what_another_framework_wrote(caplog: pytest.LogCaptureFixture) -> None:
    codec = ResponsesItemCodec()
    answer = ChatMessage(
        "assistant",
        contents=[
            ReasoningContent("Hm.", protected_data="sealed"),
            "Let me look. ",
            "One moment.",
            ToolCallContent("a", "weather", {"city": "Oslo"}),
            ToolCallContent("b", "weather", '{"city": "Bergen"}'),
            UsageContent(total_tokens=3),
        ],
        message_id="m1",
    )
    expected = [
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "sealed",
        },
        {"role": "assistant", "content": "Let me look. One moment."},
        {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "function_call", "call_id": "b", "name": "weather", "arguments": '{"city": "Bergen"}'},
    ]
    assert codec.from_chat_message(answer) == expected
    assert [found.parts for found in codec.items_of(answer)] == [(0,), (1, 2), (3,), (4,)]
    (line,) = caplog.records
    assert "'usage'" in line.getMessage()
    assert "'m1'" in line.getMessage()
    results = ChatMessage(
        "tool",
        contents=[
            ToolResultContent("a", {"celsius": 3}),
            ToolResultContent("b", "map", contents=(DataContent(PNG, media_type="image/png"),)),
        ],
    )
    assert codec.from_chat_message(results) == [
        {"type": "function_call_output", "call_id": "a", "output": '{"celsius": 3}'},
        {
            "type": "function_call_output",
            "call_id": "b",
            "output": [
                {"type": "input_text", "text": "map"},
                {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
            ],
        },
    ]
    assert codec.from_chat_message(ChatMessage("assistant", contents=[ErrorContent("no luck")])) == [
        {"role": "assistant", "content": "Error: no luck"}
    ]
    picture = ChatMessage("user", contents=["This?", DataContent(PNG, media_type="image/png")])
    (item,) = codec.from_chat_message(picture)
    assert [part["type"] for part in item["content"]] == ["input_text", "input_image"]


@pytest.mark.parametrize(
    ("role", "part", "why"),
    [
        ("assistant", DataContent(PNG, media_type="image/png"), "holds text only"),
        ("user", UriContent("https://example.com/a.mp4", media_type="video/mp4"), "no item for it"),
        ("user", OpaqueContent({"type": "langchain.thing", "x": 1}), "no item for it"),
        ("tool", ToolResultContent("a", "x", contents=(ErrorContent("e"),)), "output cannot hold it"),
    ],
)
def test_what_is_skipped_is_logged(role: Any, part: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    codec = ResponsesItemCodec()
    for _ in range(2):
        codec.from_chat_message(ChatMessage(role, contents=["text", part]))
    assert len(caplog.records) == 1
    assert why in caplog.text


def test_a_message_that_was_changed_is_read_as_it_is_now() -> None:
    codec = ResponsesItemCodec()
    message = codec.to_chat_message(ITEMS["output message"])
    changed = message.replace(contents=["Something else."])
    (item,) = codec.from_chat_message(changed)
    assert item["content"][0]["text"] == "Something else."
    call = codec.to_chat_message(ITEMS["mcp call"]).replace(contents=["No call."])
    assert codec.from_chat_message(call) == [{"role": "assistant", "content": "No call."}]


def test_items_that_json_cannot_hold() -> None:
    codec = ResponsesItemCodec()
    with pytest.raises(ArgumentTypeError, match=r"the item\['content'\] must be .*, got set"):
        codec.to_chat_message({"role": "user", "content": {1}})
    with pytest.raises(ArgumentError, match=r"the item\['x'\] must be a finite number, got nan"):
        codec.to_chat_message({"role": "user", "content": "", "x": float("nan")})
    with pytest.raises(ArgumentTypeError, match="an item must be a dict"):
        codec.to_chat_message("Hello")  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_every_item_through_a_store(log: MessageLog) -> None:
    store: ChatMessageStore[Any] = ChatMessageStore(
        log, codec=ResponsesItemCodec(), thread_id="t", dangling_calls="keep"
    )
    await store.add_messages(list(ITEMS.values()))
    assert await store.list_messages() == [[item] for item in ITEMS.values()]
