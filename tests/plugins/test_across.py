"""One conversation, written through one framework and read through the others."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from agent_framework import Agent, Content, Message
from agent_framework.openai import OpenAIChatCompletionClient
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms import types as llama
from llama_index.core.llms import ChatMessage as LlamaMessage
from openai import AsyncOpenAI

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.agent_framework import AgentStoresHistoryProvider
from agent_stores.contents import (
    DataContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.langchain import AgentStoresChatMessageHistory
from agent_stores.llama_index import AgentStoresChatStore, AgentStoresMemory
from agent_stores.log import MessageLog
from agent_stores.openai_agents import AgentStoresSession
from agent_stores.testing.model_server import ModelServer
from tests.plugins.conftest import PNG

pytestmark = pytest.mark.anyio

IMAGE = base64.b64encode(PNG).decode()
LINK = "https://example.com/b.png"


async def write_openai_agents(log: MessageLog) -> None:
    items: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Compare these."},
                {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}", "detail": "auto"},
                {"type": "input_image", "image_url": LINK, "detail": "auto"},
            ],
        },
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"id": "fc_1", "type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at": 1}'},
        {"id": "fc_2", "type": "function_call", "call_id": "b", "name": "look", "arguments": '{"at": 2}'},
        {"type": "function_call_output", "call_id": "a", "output": "red"},
        {"type": "function_call_output", "call_id": "b", "output": "blue"},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Red and blue.", "annotations": []}],
        },
    ]
    await AgentStoresSession("s", log).add_items(items)


async def write_langchain(log: MessageLog) -> None:
    await AgentStoresChatMessageHistory("s", log).aadd_messages(
        [
            HumanMessage(
                [
                    {"type": "text", "text": "Compare these."},
                    {"type": "image", "base64": IMAGE, "mime_type": "image/png"},
                    {"type": "image_url", "image_url": {"url": LINK}},
                ]
            ),
            AIMessage(
                [{"type": "reasoning", "reasoning": "Hm."}],
                tool_calls=[
                    {"name": "look", "args": {"at": 1}, "id": "a", "type": "tool_call"},
                    {"name": "look", "args": {"at": 2}, "id": "b", "type": "tool_call"},
                ],
            ),
            ToolMessage("red", tool_call_id="a"),
            ToolMessage("blue", tool_call_id="b"),
            AIMessage("Red and blue."),
        ]
    )


async def write_llama_index(log: MessageLog) -> None:
    await AgentStoresMemory(log, chat_store_key="s").aput_messages(
        [
            LlamaMessage(
                blocks=[
                    llama.TextBlock(text="Compare these."),
                    llama.ImageBlock(image=PNG),
                    llama.ImageBlock(url=LINK),
                ]
            ),
            LlamaMessage(
                role="assistant",
                blocks=[
                    llama.ThinkingBlock(content="Hm."),
                    llama.ToolCallBlock(tool_call_id="a", tool_name="look", tool_kwargs={"at": 1}),
                    llama.ToolCallBlock(tool_call_id="b", tool_name="look", tool_kwargs='{"at": 2}'),
                ],
            ),
            LlamaMessage("red", role="tool", additional_kwargs={"tool_call_id": "a"}),
            LlamaMessage("blue", role="tool", additional_kwargs={"tool_call_id": "b"}),
            LlamaMessage("Red and blue.", role="assistant"),
        ]
    )


async def write_agent_framework(log: MessageLog) -> None:
    await AgentStoresHistoryProvider(log).save_messages(
        "s",
        [
            Message(
                "user",
                [
                    "Compare these.",
                    Content.from_data(PNG, "image/png"),
                    Content.from_uri(LINK, media_type="image/png"),
                ],
            ),
            Message(
                "assistant",
                [
                    Content.from_text_reasoning(text="Hm."),
                    Content.from_function_call("a", "look", arguments={"at": 1}),
                    Content.from_function_call("b", "look", arguments='{"at": 2}'),
                ],
                message_id="chatcmpl-1",
            ),
            Message("tool", [Content.from_function_result("a", result="red")]),
            Message("tool", [Content.from_function_result("b", result="blue")]),
            Message("assistant", ["Red and blue."], message_id="chatcmpl-1"),
        ],
    )


async def write_neutral(log: MessageLog) -> None:
    await ChatMessageStore(log, thread_id="s").add_messages(
        [
            ChatMessage(
                "user",
                contents=[
                    TextContent("Compare these."),
                    DataContent(PNG, media_type="image/png"),
                    UriContent(LINK, media_type="image/png"),
                ],
            ),
            ChatMessage(
                "assistant",
                contents=[
                    ReasoningContent("Hm."),
                    ToolCallContent("a", "look", {"at": 1}),
                    ToolCallContent("b", "look", '{"at": 2}'),
                ],
            ),
            ChatMessage("tool", contents=[ToolResultContent("a", "red"), ToolResultContent("b", "blue")]),
            ChatMessage("assistant", "Red and blue."),
        ]
    )


WRITERS = {
    "openai_agents": write_openai_agents,
    "langchain": write_langchain,
    "llama_index": write_llama_index,
    "agent_framework": write_agent_framework,
    "neutral": write_neutral,
}

# What every reader finds: user, the images, the reasoning, calls, results, the answer.
STORY = [
    ("user", "Compare these."),
    ("image", PNG),
    ("image", LINK),
    ("reasoning", "Hm."),
    ("call", "a", "look", {"at": 1}),
    ("call", "b", "look", {"at": 2}),
    ("result", "a", "red"),
    ("result", "b", "blue"),
    ("assistant", "Red and blue."),
]


def told(messages: list[ChatMessage]) -> list[tuple[Any, ...]]:
    """A conversation in short, from our messages."""
    found: list[tuple[Any, ...]] = []
    for message in messages:
        for part in message.contents:
            if isinstance(part, TextContent):
                found.append((message.role, part.text))
            elif isinstance(part, DataContent):
                found.append((part.kind, part.data))
            elif isinstance(part, UriContent):
                found.append((part.kind, part.uri))
            elif isinstance(part, ReasoningContent):
                found.append(("reasoning", part.text))
            elif isinstance(part, ToolCallContent):
                found.append(("call", part.call_id, part.name, part.parse_arguments()))
            elif isinstance(part, ToolResultContent):
                found.append(("result", part.call_id, part.result))
    return found


@pytest.mark.parametrize("writer", WRITERS)
async def test_the_neutral_form(writer: str, log: MessageLog) -> None:
    await WRITERS[writer](log)
    messages = [item.message async for item in ChatMessageStore(log, thread_id="s").iter_messages()]
    assert told(messages) == STORY


@pytest.mark.parametrize("writer", WRITERS)
async def test_through_openai_agents(writer: str, log: MessageLog) -> None:
    await WRITERS[writer](log)
    first, *items = await AgentStoresSession("s", log).get_items()
    parts: Any = first["content"]  # type: ignore[typeddict-item]
    assert [part["type"] for part in parts] == ["input_text", "input_image", "input_image"]
    assert [part["image_url"] for part in parts[1:]] == [f"data:image/png;base64,{IMAGE}", LINK]
    assert [item.get("type", item.get("role")) for item in items[:-1]] == [
        "reasoning",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
    ]
    plain: list[Any] = list(items)
    assert plain[0]["summary"][0]["text"] == "Hm."
    assert [(item["call_id"], item["name"]) for item in plain[1:3]] == [("a", "look"), ("b", "look")]
    assert [item["arguments"].replace(" ", "") for item in plain[1:3]] == ['{"at":1}', '{"at":2}']
    assert [(item["call_id"], item["output"]) for item in plain[3:5]] == [("a", "red"), ("b", "blue")]
    answer = plain[5]["content"]
    assert (answer if isinstance(answer, str) else answer[0]["text"]) == "Red and blue."


@pytest.mark.parametrize("writer", WRITERS)
async def test_through_langchain(writer: str, log: MessageLog, model_server: ModelServer) -> None:
    await WRITERS[writer](log)
    history = AgentStoresChatMessageHistory("s", log)
    question, calls, *results, answer = await history.aget_messages()
    assert isinstance(question, HumanMessage)
    assert question.content[0] == {"type": "text", "text": "Compare these."}
    assert len(question.content) == 3
    assert IMAGE in str(question.content[1])
    assert LINK in str(question.content[2])
    assert isinstance(calls, AIMessage)
    assert [(call["id"], call["name"], call["args"]) for call in calls.tool_calls] == [
        ("a", "look", {"at": 1}),
        ("b", "look", {"at": 2}),
    ]
    assert "Hm." in str(calls.content)
    assert [(found.tool_call_id, found.content) for found in results if isinstance(found, ToolMessage)] == [
        ("a", "red"),
        ("b", "blue"),
    ]
    said = answer.content if isinstance(answer.content, str) else answer.content[0]["text"]  # type: ignore[index]
    assert said == "Red and blue."
    before = await history.store.count()
    await history.aadd_messages([question, calls, *results, answer])
    assert await history.store.count() == before
    options: dict[str, Any] = {"base_url": model_server.base_url, "api_key": "k", "max_retries": 0}
    model = ChatOpenAI(model="test-model", **options)
    said = (await model.ainvoke([*(await history.aget_messages()), HumanMessage("repeat: ok")])).content
    assert said == "ok"
    await model.root_async_client.close()


@pytest.mark.parametrize("writer", WRITERS)
async def test_through_llama_index(writer: str, log: MessageLog) -> None:
    await WRITERS[writer](log)
    question, calls, *results, answer = await AgentStoresMemory(log, chat_store_key="s").aget()
    text, image, link = question.blocks
    assert (text.text, image.image, str(link.url)) == ("Compare these.", IMAGE.encode(), LINK)  # type: ignore[union-attr]
    thinking, first, second = calls.blocks
    assert thinking.content == "Hm."  # type: ignore[union-attr]
    assert [(call.tool_call_id, call.tool_name) for call in (first, second)] == [  # type: ignore[union-attr]
        ("a", "look"),
        ("b", "look"),
    ]
    assert [(found.additional_kwargs["tool_call_id"], found.content) for found in results] == [
        ("a", "red"),
        ("b", "blue"),
    ]
    assert (answer.role.value, answer.content) == ("assistant", "Red and blue.")


@pytest.mark.parametrize("writer", WRITERS)
async def test_through_agent_framework(writer: str, log: MessageLog, model_server: ModelServer) -> None:
    await WRITERS[writer](log)
    history = AgentStoresHistoryProvider(log)
    found = [content for message in await history.get_messages("s") for content in message.contents]
    assert [content.type for content in found] == [
        "text",
        "data",
        "uri",
        "text_reasoning",
        "function_call",
        "function_call",
        "function_result",
        "function_result",
        "text",
    ]
    text, image, link, reasoning, first, second, red, blue, answer = found
    assert (text.text, reasoning.text, answer.text) == ("Compare these.", "Hm.", "Red and blue.")
    assert (image.uri, link.uri) == (f"data:image/png;base64,{IMAGE}", LINK)
    assert [(call.call_id, call.name, call.parse_arguments()) for call in (first, second)] == [
        ("a", "look", {"at": 1}),
        ("b", "look", {"at": 2}),
    ]
    assert [(result.call_id, result.result) for result in (red, blue)] == [("a", "red"), ("b", "blue")]
    before = await history.store("s").count()
    await history.save_messages("s", await history.get_messages("s"))
    assert await history.store("s").count() == before
    async with AsyncOpenAI(api_key="k", base_url=model_server.base_url, max_retries=0) as openai:
        client = OpenAIChatCompletionClient(model="test-model", async_client=openai)
        agent = Agent(client=client, context_providers=[history])
        session = agent.create_session(session_id="s")
        assert (await agent.run("repeat: ok", session=session)).text == "ok"
    assert await history.store("s").count() == before + 2


async def test_metadata_is_no_message_and_stays_when_messages_are_replaced(log: MessageLog) -> None:
    await write_llama_index(log)
    store = ChatMessageStore(log, thread_id="s")
    shown = len(await store.list_messages())
    metadata = {"agent_stores.summary": {"text": "They compared two pictures."}, "title": "Pictures"}
    await store.update_metadata(metadata)
    session = AgentStoresSession("s", log)
    chat_store = AgentStoresChatStore(log)
    provider = AgentStoresHistoryProvider(log)
    for texts in (
        map(str, await session.get_items()),
        [str(message) for message in await chat_store.aget_messages("s")],
        [str(message) for message in await AgentStoresChatMessageHistory("s", log).aget_messages()],
        [message.text for message in await provider.get_messages("s")],
    ):
        assert not [text for text in texts if "two pictures" in text]
    await chat_store.aset_messages("s", await chat_store.aget_messages("s"))
    await session.pop_item()
    assert await store.metadata() == metadata
    assert len(await store.list_messages()) == shown - 1
