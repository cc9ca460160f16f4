"""Messages of LangChain, into a store and out of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import (
    ApprovalRequestContent,
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
from agent_stores.errors import ArgumentError, ArgumentTypeError, MessageFormatError
from agent_stores.langchain import LangChainCodec
from agent_stores.log import MessageLog
from tests.plugins.conftest import PNG
from tests.plugins.langchain.messages import IMAGE, MESSAGES, call


def through_json(message: ChatMessage) -> ChatMessage:
    return ChatMessage.from_json(message.to_json())


def same(one: BaseMessage, other: BaseMessage) -> bool:
    return type(one) is type(other) and one.model_dump() == other.model_dump() and one == other


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_comes_back(name: str) -> None:
    codec, message = LangChainCodec(), MESSAGES[name]
    before = copy.deepcopy(message)
    stored = through_json(codec.to_chat_message(message))
    assert message == before
    (found,) = codec.from_chat_message(stored)
    assert same(found, message), (found, message)
    whole = [part for part in stored.contents if isinstance(part, OpaqueContent) and "data" in part.data]
    assert bool(whole) == (name == "remove")


def test_there_is_an_example_of_every_kind() -> None:
    def kinds(of: type[BaseMessage]) -> set[str]:
        own = {of.__name__} if of.__module__.startswith("langchain_core.messages") else set()
        return own.union(*map(kinds, of.__subclasses__()))

    known = {type(message).__name__ for message in MESSAGES.values()}
    assert kinds(BaseMessage) - {"BaseMessage", "BaseMessageChunk"} == known


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
blocks = st.lists(
    st.text()
    | st.sampled_from(
        [
            block
            for message in MESSAGES.values()
            if isinstance(message.content, list)
            for block in message.content
        ]
    )
    | st.dictionaries(st.text(), json_values, max_size=2),
    max_size=3,
)


@given(
    st.sampled_from([HumanMessage, AIMessage, SystemMessage, ToolMessage]),
    st.text() | blocks,
    st.dictionaries(st.text(), json_values, max_size=2),
    json_values,
)
def test_messages_of_any_content(kind: Any, content: Any, more: dict[str, Any], extra: Any) -> None:
    given = kind(
        content=content,
        additional_kwargs=more,
        response_metadata={"x": extra},
        id="m",
        **({"tool_call_id": "a", "artifact": extra} if kind is ToolMessage else {}),
    )
    codec = LangChainCodec()
    (found,) = codec.from_chat_message(through_json(codec.to_chat_message(given)))
    assert same(found, given)


def test_images_are_stored_once() -> None:
    for name in ("image urls", "standard blocks", "blocks before 1.0", "tool with blocks"):
        assert LangChainCodec().to_chat_message(MESSAGES[name]).to_json().count(IMAGE.encode()) == 1


def test_ordinary_messages_leave_nothing_beside() -> None:
    codec = LangChainCodec()
    assert codec.to_chat_message(HumanMessage("Hi")) == ChatMessage("user", "Hi")
    assert codec.to_chat_message(HumanMessage("Hi", id="a", name="b")) == ChatMessage(
        "user", "Hi", message_id="a", author_name="b"
    )
    answer = AIMessage("", tool_calls=[call("f", {"x": 1}, "a")])
    assert codec.to_chat_message(answer) == ChatMessage(
        "assistant", contents=[ToolCallContent("a", "f", {"x": 1})]
    )
    assert codec.to_chat_message(ToolMessage("3", tool_call_id="a")) == ChatMessage(
        "tool", contents=[ToolResultContent("a", "3")]
    )


def test_what_is_neutral() -> None:
    codec = LangChainCodec()

    def parts(name: str) -> tuple[Any, ...]:
        return codec.to_chat_message(MESSAGES[name]).contents

    picture = DataContent(PNG, media_type="image/png")
    assert parts("image urls") == (
        TextContent("What is this?"),
        UriContent("https://example.com/a.png", media_type="image/png"),
        picture,
        UriContent("https://example.com/b", media_type="image/*"),
    )
    standard = parts("standard blocks")
    assert standard[:2] == (picture, UriContent("https://example.com/a.jpg", media_type="image/jpeg"))
    assert [part.kind for part in standard[3:6]] == ["audio", "video", "file"]
    assert parts("blocks before 1.0")[0] == picture
    assert parts("providers' blocks")[:2] == (
        picture,
        UriContent("https://example.com/c.png", media_type="image/png"),
    )
    assert parts("ai with everything") == (
        TextContent("Let me look."),
        ToolCallContent("a", "weather", {"city": "Oslo", "n": 1.0}),
        ToolCallContent("b", "weather", {}),
        ToolCallContent("c", "f", "{oops"),
        UsageContent(input_tokens=3, output_tokens=4, total_tokens=7),
    )
    thinking, redacted, text, first, second = parts("anthropic")
    assert thinking == ReasoningContent("Hm.", protected_data="sealed")
    assert redacted.type == "langchain.redacted_thinking"
    assert (text.text, first.call_id, second.call_id) == ("Let me look.", "a", "b")
    assert parts("standard reasoning")[0] == ReasoningContent("Hm.", protected_data="s")
    assert parts("reasoning aside") == (ReasoningContent("Hm."), TextContent("Yes."))
    assert parts("raw calls") == (ToolCallContent("a", "f", {"x": 1}),)
    (result,) = parts("tool with blocks")
    assert result.result == "a mapand more"
    assert result.contents[0] == picture
    assert parts("tool with everything")[0].is_error
    assert codec.to_chat_message(MESSAGES["developer"]).role == "developer"
    assert codec.to_chat_message(MESSAGES["chat assistant"]).role == "assistant"
    assert codec.to_chat_message(MESSAGES["chat"]).role == "user"
    assert codec.to_chat_message(MESSAGES["remove"]).message_id is None
    chunks = [codec.to_chat_message(MESSAGES[name]) for name in ("ai chunk", "another ai chunk")]
    assert chunks[0].message_id != chunks[1].message_id


def test_what_another_framework_wrote(caplog: pytest.LogCaptureFixture) -> None:
    codec = LangChainCodec()
    (answer,) = codec.from_chat_message(
        ChatMessage(
            "assistant",
            contents=[
                ReasoningContent("Hm.", protected_data="sealed"),
                "Let me look.",
                ToolCallContent("a", "weather", '{"city": "Oslo"}'),
                ToolCallContent("b", "weather", "{oops"),
                UsageContent(input_tokens=1),
            ],
            message_id="m1",
            author_name="guide",
        )
    )
    assert answer == AIMessage(
        [
            {"type": "reasoning", "reasoning": "Hm.", "extras": {"signature": "sealed"}},
            {"type": "text", "text": "Let me look."},
        ],
        id="m1",
        name="guide",
        tool_calls=[call("weather", {"city": "Oslo"}, "a")],
        invalid_tool_calls=[
            {"name": "weather", "args": "{oops", "id": "b", "error": None, "type": "invalid_tool_call"}
        ],
        usage_metadata={"input_tokens": 1, "output_tokens": 0, "total_tokens": 1},
    )
    results = ChatMessage(
        "tool",
        contents=[
            ToolResultContent("a", {"celsius": 3}),
            ToolResultContent("b", "no", is_error=True, contents=(DataContent(PNG, media_type="image/png"),)),
        ],
        message_id="m2",
    )
    assert codec.from_chat_message(results) == [
        ToolMessage('{"celsius": 3}', tool_call_id="a", id="m2"),
        ToolMessage(
            [
                {"type": "text", "text": "no"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
            ],
            tool_call_id="b",
            status="error",
            id="m2#1",
        ),
    ]
    assert codec.from_chat_message(ChatMessage("developer", "Be brief.")) == [
        SystemMessage("Be brief.", additional_kwargs={"__openai_role__": "developer"})
    ]
    assert codec.from_chat_message(ChatMessage("assistant", contents=[ErrorContent("no luck")])) == [
        AIMessage("Error: no luck")
    ]
    assert caplog.records == []
    request = ApprovalRequestContent(request_id="r", tool_call=ToolCallContent("a", "pay", "{}"))
    assert codec.from_chat_message(ChatMessage("assistant", contents=[request])) == []
    assert "LangChain has no approvals" in caplog.text
    other = OpaqueContent({"type": "llama_index.citation"})
    assert codec.from_chat_message(ChatMessage("user", contents=["Hi", other])) == [HumanMessage("Hi")]
    assert "'llama_index.citation'" in caplog.text
    assert len(caplog.records) == 2


def test_a_message_that_was_changed_is_read_as_it_is_now() -> None:
    codec = LangChainCodec()
    stored = codec.to_chat_message(MESSAGES["anthropic"])
    (found,) = codec.from_chat_message(stored.replace(contents=["Never mind."]))
    assert (found.content, found.tool_calls) == ("Never mind.", [])  # type: ignore[attr-defined]
    fewer = stored.replace(contents=stored.contents[:-1])
    (found,) = codec.from_chat_message(fewer)
    assert [made["id"] for made in found.tool_calls] == ["a"]  # type: ignore[attr-defined]


def test_what_json_cannot_hold() -> None:
    codec = LangChainCodec()
    with pytest.raises(
        ArgumentTypeError, match=r"the ToolMessage\['artifact'\]\['x'\] must be .*, got object"
    ):
        codec.to_chat_message(ToolMessage("", tool_call_id="a", artifact={"x": object()}))
    with pytest.raises(
        ArgumentTypeError, match=r"the HumanMessage\['additional_kwargs'\] must have keys of type str, got 1"
    ):
        codec.to_chat_message(HumanMessage("", additional_kwargs={1: 2}))
    with pytest.raises(ArgumentError, match="got nan"):
        codec.to_chat_message(HumanMessage("", additional_kwargs={"x": float("nan")}))
    with pytest.raises(ArgumentTypeError, match="a message must be one of LangChain's, got str"):
        codec.to_chat_message("Hello")  # type: ignore[arg-type]


def test_a_kind_that_this_version_does_not_know() -> None:
    message = ChatMessage("user", "Hi", additional_properties={"langchain": {"type": "hologram"}})
    with pytest.raises(MessageFormatError, match="not one that this version of LangChain reads"):
        LangChainCodec().from_chat_message(message)


@pytest.mark.anyio
async def test_every_message_through_a_store(log: MessageLog) -> None:
    store: ChatMessageStore[Any] = ChatMessageStore(
        log, codec=LangChainCodec(), thread_id="t", dangling_calls="keep"
    )
    await store.add_messages(list(MESSAGES.values()))
    found = [message for shown in await store.list_messages() for message in shown]
    assert len(found) == len(MESSAGES)
    assert all(map(same, found, MESSAGES.values()))


class Moody(HumanMessage):
    """A class of an application, with a field of its own."""

    mood: str = "fine"


@pytest.mark.parametrize(
    "message",
    [
        Moody(content="Hi", id="m"),
        HumanMessage("", id="m", usage_metadata={"input_tokens": 1}),  # nothing of it is shown otherwise
    ],
)
def test_fields_that_its_class_does_not_have(message: BaseMessage) -> None:
    codec = LangChainCodec()
    stored = through_json(codec.to_chat_message(message))
    (found,) = codec.from_chat_message(stored)
    assert found.model_dump() == message.model_dump()
    assert stored.text == message.content
    assert codec.from_chat_message(stored.replace(contents=["Hm."]))[0].content == "Hm."
