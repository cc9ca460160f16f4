"""Messages of LlamaIndex, into a store and out of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.base.llms import types
from llama_index.core.llms import ChatMessage as LlamaMessage
from pydantic import BaseModel

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
from agent_stores.llama_index import LlamaIndexCodec
from agent_stores.log import MessageLog
from tests.plugins.conftest import PNG
from tests.plugins.llama_index.messages import IMAGE, MESSAGES, message, text

NEW = hasattr(types, "ToolCallBlock")


def through_json(found: ChatMessage) -> ChatMessage:
    return ChatMessage.from_json(found.to_json())


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_comes_back(name: str) -> None:
    codec, wanted = LlamaIndexCodec(), MESSAGES[name]
    before = copy.deepcopy(wanted)
    stored = through_json(codec.to_chat_message(wanted))
    assert wanted == before
    (found,) = codec.from_chat_message(stored)
    assert found == wanted
    assert found.model_dump() == wanted.model_dump()


def test_there_is_an_example_of_every_block() -> None:
    known = {type(block).__name__ for example in MESSAGES.values() for block in example.blocks}
    kinds = {name for name in dir(types) if name.endswith("Block") or name == "CachePoint"}
    abstract = {name for name in kinds if name.startswith("Base") or name == "ContentBlock"}
    assert kinds - abstract == known


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner | st.binary(), max_size=3)
        | st.dictionaries(st.text(), inner | st.binary(), max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.sampled_from(list(types.MessageRole)),
    st.lists(
        st.text().map(text) | st.sampled_from([b for m in MESSAGES.values() for b in m.blocks]), max_size=3
    ),
    st.dictionaries(
        st.text() | st.sampled_from(["tool_calls", "tool_call_id", "name"]), json_values, max_size=3
    ).filter(lambda more: "images" not in more),
)
def test_messages_of_any_content(role: Any, blocks: Any, more: dict[str, Any]) -> None:
    wanted = LlamaMessage(role=role, blocks=blocks, additional_kwargs=more)
    codec = LlamaIndexCodec()
    (found,) = codec.from_chat_message(through_json(codec.to_chat_message(wanted)))
    assert found == wanted
    assert found.additional_kwargs == more


def test_images_are_stored_once() -> None:
    for name in ("image bytes", "image data url", "tool with an image"):
        assert LlamaIndexCodec().to_chat_message(MESSAGES[name]).to_json().count(IMAGE.encode()) == 1


def test_a_file_that_is_not_there_any_more(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    codec = LlamaIndexCodec()
    wanted = LlamaMessage(blocks=[types.ImageBlock(path=file), types.DocumentBlock(path=file)])
    stored = codec.to_chat_message(wanted)
    file.unlink()
    assert codec.from_chat_message(stored) == [wanted]


def test_ordinary_messages_leave_nothing_beside() -> None:
    codec = LlamaIndexCodec()
    assert codec.to_chat_message(LlamaMessage("Hi")) == ChatMessage("user", "Hi")
    tool = LlamaMessage("3", role="tool", additional_kwargs={"tool_call_id": "a"})
    assert codec.to_chat_message(tool) == ChatMessage("tool", contents=[ToolResultContent("a", "3")])


def test_what_is_neutral() -> None:
    codec = LlamaIndexCodec()

    def parts(name: str) -> tuple[Any, ...]:
        return codec.to_chat_message(MESSAGES[name]).contents

    picture = DataContent(PNG, media_type="image/png")
    assert parts("image bytes") == (TextContent("This?"), picture)
    assert parts("image data url") == (picture,)
    assert parts("image url") == (UriContent("https://example.com/a.png", media_type="image/png"),)
    assert parts("image without type")[0].kind == "image"
    assert parts("image path")[0].uri.startswith("file:///")
    assert parts("audio") == (DataContent(b"RIFF....WAV", media_type="audio/wav"),)
    assert parts("document") == (DataContent(b"%PDF-1.7", media_type="application/pdf", filename="a.pdf"),)
    assert parts("openai calls") == (
        TextContent("Let me look."),
        ToolCallContent("a", "weather", '{"city":  "Oslo"}'),
        ToolCallContent("b", "weather", "{oops"),
    )
    assert parts("tool") == (ToolResultContent("a", "3 °C"),)
    assert codec.to_chat_message(MESSAGES["tool"]).author_name == "weather"
    assert parts("tool with an image") == (ToolResultContent("a", "a map", contents=(picture,)),)
    assert parts("tool with texts") == (ToolResultContent("a", "ab", contents=(picture,)),)
    roles = {
        role.value: codec.to_chat_message(MESSAGES[f"role {role.value}"]).role for role in types.MessageRole
    }
    assert roles["chatbot"] == roles["model"] == "assistant"
    assert roles["function"] == "tool"
    if NEW:
        assert parts("tool calls") == (
            TextContent("Let me look."),
            ToolCallContent("a", "weather", {"city": "Oslo", "n": 1.0}),
            ToolCallContent("b", "weather", '{"city": 1'),
        )
        assert parts("thinking") == (ReasoningContent("Hm.", protected_data="sealed"), TextContent("Yes."))
        assert parts("citable") == (TextContent("words"),)
        assert parts("video")[0].kind == "video"


def test_what_another_framework_wrote(caplog: pytest.LogCaptureFixture) -> None:
    codec = LlamaIndexCodec()
    picture = DataContent(PNG, media_type="image/png")
    (shown,) = codec.from_chat_message(
        ChatMessage(
            "assistant",
            contents=[
                "Let me look.",
                ToolCallContent("a", "weather", {"city": "Oslo"}),
                ToolCallContent("b", "weather", "{oops"),
            ],
        )
    )
    assert (shown.role, shown.content) == ("assistant", "Let me look.")
    if NEW:
        assert [getattr(block, "tool_kwargs", None) for block in shown.blocks[1:]] == [
            {"city": "Oslo"},
            "{oops",
        ]
    else:
        assert shown.additional_kwargs["tool_calls"] == [
            {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
            {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "{oops"}},
        ]
    results = ChatMessage(
        "tool",
        contents=[ToolResultContent("a", {"celsius": 3}), ToolResultContent("b", "no", contents=(picture,))],
    )
    assert codec.from_chat_message(results) == [
        message(text('{"celsius": 3}'), role="tool", tool_call_id="a"),
        message(text("no"), types.ImageBlock(image=PNG), role="tool", tool_call_id="b"),
    ]
    assert codec.from_chat_message(ChatMessage("assistant", contents=[ErrorContent("no luck")])) == [
        message(text("Error: no luck"), role="assistant")
    ]
    assert caplog.records == []
    request = ApprovalRequestContent(request_id="r", tool_call=ToolCallContent("a", "pay", "{}"))
    assert codec.from_chat_message(ChatMessage("assistant", contents=[request])) == []
    assert "'approval_request'" in caplog.text
    others = [OpaqueContent({"type": "langchain.x"}), UsageContent(total_tokens=1)]
    assert codec.from_chat_message(ChatMessage("user", contents=["Hi", *others])) == [LlamaMessage("Hi")]
    assert len(caplog.records) == 3


def test_a_message_that_was_changed_is_read_as_it_is_now() -> None:
    codec = LlamaIndexCodec()
    stored = codec.to_chat_message(MESSAGES["openai calls"])
    (found,) = codec.from_chat_message(stored.replace(contents=["Never mind."]))
    assert found.content == "Never mind."
    assert "tool_calls" not in found.additional_kwargs


def test_objects_of_pydantic_become_dicts() -> None:
    class Call(BaseModel):
        id: str

    codec = LlamaIndexCodec()
    (found,) = codec.from_chat_message(codec.to_chat_message(message(text("x"), call=[Call(id="a")])))  # type: ignore[arg-type]
    assert found.additional_kwargs == {"call": [{"id": "a"}]}


def test_what_json_cannot_hold() -> None:
    codec = LlamaIndexCodec()
    with pytest.raises(
        ArgumentTypeError, match=r"the ChatMessage\['additional_kwargs'\]\['x'\] must be .*, got set"
    ):
        codec.to_chat_message(LlamaMessage("", additional_kwargs={"x": {1}}))
    with pytest.raises(ArgumentError, match="got nan"):
        codec.to_chat_message(LlamaMessage("", additional_kwargs={"x": float("nan")}))
    with pytest.raises(ArgumentTypeError, match="a message must be LlamaIndex's ChatMessage, got str"):
        codec.to_chat_message("Hello")  # type: ignore[arg-type]


def test_a_message_that_this_version_does_not_read() -> None:
    block = {"block_type": "hologram"}
    opaque = OpaqueContent({"type": "llama_index.hologram", "part": block})
    with pytest.raises(MessageFormatError, match="not one that this version of LlamaIndex reads"):
        LlamaIndexCodec().from_chat_message(ChatMessage("user", contents=[opaque]))


@pytest.mark.anyio
async def test_every_message_through_a_store(log: MessageLog) -> None:
    store: ChatMessageStore[Any] = ChatMessageStore(
        log, codec=LlamaIndexCodec(), thread_id="t", dangling_calls="keep"
    )
    await store.add_messages(list(MESSAGES.values()))
    assert await store.list_messages() == [[example] for example in MESSAGES.values()]
