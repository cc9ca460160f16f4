"""One conversation, begun in one framework and read in another, with the real packages."""

from __future__ import annotations

import base64
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from ag2 import Agent, MemoryStream
from ag2.events import (
    BinaryInput,
    ImageInput,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextInput,
    ToolCallEvent,
    ToolCallsEvent,
    ToolResult,
    ToolResultEvent,
    ToolResultsEvent,
)
from ag2.testing import TestConfig
from claude_agent_sdk.testing import run_session_store_conformance
from haystack.dataclasses import ChatMessage as HaystackMessage
from haystack.dataclasses import ImageContent, ToolCall
from strands.types.session import SessionMessage

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.ag2 import AgentStoresStorage
from agent_stores.chatkit import AgentStoresChatKitStore
from agent_stores.claude_agent import AgentStoresSessionStore
from agent_stores.contents import DataContent, TextContent, ToolCallContent, ToolResultContent
from agent_stores.haystack import AgentStoresChatMessageStore
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.strands import AgentStoresSessionManager
from agent_stores.urls import open_log
from tests.plugins.ag2.events import context
from tests.plugins.conftest import PNG

pytestmark = pytest.mark.anyio

THREAD = "project/session"
IMAGE = base64.b64encode(PNG).decode()
CALLS = [("t1", {"city": "Oslo"}), ("t2", {"city": "Bergen"})]
RESULTS = [("t1", "rain"), ("t2", "sun")]
SAID: list[tuple[Any, ...]] = [
    ("user", "The weather?"),
    ("image", PNG),
    *(("call", "weather", name, arguments) for name, arguments in CALLS),
    *(("result", name, text) for name, text in RESULTS),
    ("assistant", "Rain and sun."),
]
"""What the conversation says."""

Facts = list[tuple[Any, ...]]


async def write_neutral(log: MessageLog) -> None:
    await ChatMessageStore(log, thread_id=THREAD).add_messages(
        [
            ChatMessage("user", contents=["The weather?", DataContent(PNG, media_type="image/png")]),
            ChatMessage(
                "assistant", contents=[ToolCallContent(name, "weather", args) for name, args in CALLS]
            ),
            *(ChatMessage("tool", contents=[ToolResultContent(name, text)]) for name, text in RESULTS),
            ChatMessage("assistant", "Rain and sun."),
        ]
    )


async def read_neutral(log: MessageLog) -> Facts:
    facts: Facts = []
    messages = await ChatMessageStore(log, thread_id=THREAD).list_messages()
    for message in messages:
        for part in message.contents:
            if isinstance(part, ToolCallContent):
                facts.append(("call", part.name, part.call_id, part.parse_arguments()))
            elif isinstance(part, ToolResultContent):
                facts.append(("result", part.call_id, part.result))
            elif isinstance(part, DataContent):
                facts.append(("image", part.data))
            elif isinstance(part, TextContent):
                facts.append((message.role, part.text))
    return facts


CLAUDE: Any = {"project_key": "project", "session_id": "session"}


async def write_claude(log: MessageLog) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    contents: list[tuple[str, Any]] = [
        ("user", [{"type": "text", "text": "The weather?"}, {"type": "image", "source": source}]),
        *(
            ("assistant", [{"type": "tool_use", "id": n, "name": "weather", "input": args}])
            for n, args in CALLS
        ),
        *(("user", [{"type": "tool_result", "tool_use_id": n, "content": text}]) for n, text in RESULTS),
        ("assistant", [{"type": "text", "text": "Rain and sun."}]),
    ]
    entries: list[Any] = [
        {"type": role, "uuid": f"u{number}", "message": {"role": role, "content": content}}
        for number, (role, content) in enumerate(contents)
    ]
    await AgentStoresSessionStore(log).append(CLAUDE, entries)


async def read_claude(log: MessageLog) -> Facts:
    facts: Facts = []
    entries: Any = await AgentStoresSessionStore(log).load(CLAUDE)
    for entry in entries:
        content: Any = entry["message"]["content"]
        blocks: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            if block["type"] == "text":
                facts.append((entry["type"], block["text"]))
            elif block["type"] == "image":
                facts.append(("image", base64.b64decode(block["source"]["data"])))
            elif block["type"] == "tool_use":
                facts.append(("call", block["name"], block["id"], block["input"]))
            else:
                facts.append(("result", block["tool_use_id"], block["content"]))
    return facts


async def write_strands(log: MessageLog) -> None:
    contents: list[tuple[str, Any]] = [
        ("user", [{"text": "The weather?"}, {"image": {"format": "png", "source": {"bytes": PNG}}}]),
        ("assistant", [{"toolUse": {"toolUseId": n, "name": "weather", "input": args}} for n, args in CALLS]),
        (
            "user",
            [
                {"toolResult": {"toolUseId": n, "status": "success", "content": [{"text": text}]}}
                for n, text in RESULTS
            ],
        ),
        ("assistant", [{"text": "Rain and sun."}]),
    ]
    manager = AgentStoresSessionManager(THREAD, log)
    for number, (role, content) in enumerate(contents):
        message: Any = {"role": role, "content": content}
        manager.create_message(THREAD, "default", SessionMessage(message, number))


async def read_strands(log: MessageLog) -> Facts:
    facts: Facts = []
    for one in AgentStoresSessionManager(THREAD, log).list_messages(THREAD, "default"):
        blocks: Any = one.to_message()["content"]
        for block in blocks:
            if "text" in block:
                facts.append((one.to_message()["role"], block["text"]))
            elif "image" in block:
                facts.append(("image", block["image"]["source"]["bytes"]))
            elif "toolUse" in block:
                use = block["toolUse"]
                facts.append(("call", use["name"], use["toolUseId"], use["input"]))
            else:
                result = block["toolResult"]
                facts.append(("result", result["toolUseId"], result["content"][0]["text"]))
    return facts


async def write_ag2(log: MessageLog) -> None:
    calls = [ToolCallEvent("weather", id=name, arguments=json.dumps(args)) for name, args in CALLS]
    results = [
        ToolResultEvent(parent_id=name, name="weather", result=ToolResult(text)) for name, text in RESULTS
    ]
    storage = AgentStoresStorage(log)
    for event in (
        ModelRequest([TextInput("The weather?"), ImageInput(data=PNG, media_type="image/png")]),
        ModelResponse(tool_calls=ToolCallsEvent(calls)),
        *(ToolCallsEvent(calls), *calls, *results, ToolResultsEvent(results)),
        ModelResponse(ModelMessage("Rain and sun.")),
    ):
        await storage.save_event(event, context(THREAD))


async def read_ag2(log: MessageLog) -> Facts:
    facts: Facts = []
    for event in await AgentStoresStorage(log).get_history(cast("Any", THREAD)):
        if isinstance(event, ModelRequest):
            for part in event.parts:
                if isinstance(part, BinaryInput):
                    facts.append(("image", part.data))
                elif isinstance(part, TextInput):
                    facts.append(("user", part.content))
        elif isinstance(event, ModelResponse):
            facts += [
                ("call", call.name, call.id, call.serialized_arguments) for call in event.tool_calls.calls
            ]
            facts += [("assistant", event.content)] if event.content else []
        elif isinstance(event, ToolResultsEvent):
            facts += [
                ("result", one.parent_id, cast("Any", one.result.parts[0]).content) for one in event.results
            ]
    return facts


async def write_haystack(log: MessageLog) -> None:
    calls = [ToolCall("weather", dict(args), id=name) for name, args in CALLS]
    messages = [
        HaystackMessage.from_user(content_parts=["The weather?", ImageContent(IMAGE, mime_type="image/png")]),
        HaystackMessage.from_assistant(tool_calls=calls),
        *(HaystackMessage.from_tool(text, call) for (_, text), call in zip(RESULTS, calls, strict=True)),
        HaystackMessage.from_assistant("Rain and sun."),
    ]
    AgentStoresChatMessageStore(log).write_messages(THREAD, messages)


async def read_haystack(log: MessageLog) -> Facts:
    store = AgentStoresChatMessageStore(log)
    facts: Facts = []
    for message in store.retrieve_messages(THREAD):
        facts += [(message.role.value, text) for text in message.texts]
        facts += [("image", base64.b64decode(image.base64_image)) for image in message.images]
        facts += [("call", call.tool_name, call.id, call.arguments) for call in message.tool_calls]
        for result in message.tool_call_results:
            assert result.origin.tool_name == "weather"
            facts.append(("result", result.origin.id, result.result))
    return facts


WRITERS: dict[str, Callable[[MessageLog], Awaitable[None]]] = {
    "ChatMessage": write_neutral,
    "Claude Agent SDK": write_claude,
    "Strands": write_strands,
    "AG2": write_ag2,
    "Haystack": write_haystack,
}
READERS: dict[str, Callable[[MessageLog], Awaitable[Facts]]] = {
    "ChatMessage": read_neutral,
    "Claude Agent SDK": read_claude,
    "Strands": read_strands,
    "AG2": read_ag2,
    "Haystack": read_haystack,
}


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Strands' managers block, by their interface."""


@pytest.fixture(params=["redis", "postgresql"])
async def server_log(request: pytest.FixtureRequest) -> AsyncIterator[MessageLog]:
    """A log on a server."""
    if request.param == "redis":
        url = request.getfixturevalue("redis62_server").url
    else:
        url = request.getfixturevalue("postgres_server").create_database(f"exchange_{uuid.uuid4().hex}")
    log = open_log(url)
    yield log
    for thread in (await log.list_threads(None)).threads:
        await log.delete_thread(ThreadKey(None, thread.thread_id))
    await log.aclose()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("writer", WRITERS)
async def test_a_conversation_is_the_same_in(writer: str, reader: str, log: MessageLog) -> None:
    await check(writer, reader, log)


@pytest.mark.parametrize("writer", WRITERS)
async def test_a_conversation_is_the_same_on_servers(writer: str, server_log: MessageLog) -> None:
    for reader in READERS:
        await check(writer, reader, server_log)
        await server_log.delete_thread(ThreadKey(None, THREAD))


async def test_claude_s_suite_on_servers(server_log: MessageLog) -> None:
    tenants = (f"claude-{uuid.uuid4().hex}" for _ in itertools.count())
    await run_session_store_conformance(lambda: AgentStoresSessionStore(server_log, tenant=next(tenants)))


async def check(writer: str, reader: str, log: MessageLog) -> None:
    """Write the conversation, and compare what it says."""
    await WRITERS[writer](log)
    found = await READERS[reader](log)
    # Where each call is in a message of its own, its result comes directly after it.
    key = {fact[1] if fact[0] == "result" else fact[2]: 0 for fact in SAID if fact[0] in ("call", "result")}
    assert sorted(map(repr, found)) == sorted(map(repr, SAID))
    assert [fact for fact in found if fact[0] not in ("call", "result")] == [SAID[0], SAID[1], SAID[-1]]
    for name in key:
        call = next(index for index, fact in enumerate(found) if fact[0] == "call" and fact[2] == name)
        assert call < found.index(("result", name, dict(RESULTS)[name]))


@pytest.mark.parametrize("writer", WRITERS)
async def test_chatkit_shows_what_is_said(writer: str, log: MessageLog) -> None:
    await WRITERS[writer](log)
    store: AgentStoresChatKitStore[Any] = AgentStoresChatKitStore(log)
    items: Any = (await store.load_thread_items(THREAD, None, 99, "asc", None)).data
    assert [(item.type, item.content[0].text) for item in items] == [
        ("user_message", "The weather?"),
        ("assistant_message", "Rain and sun."),
    ]
    assert [one.preview_url.unicode_string() for one in items[0].attachments] == [
        f"data:image/png;base64,{IMAGE}"
    ]


@pytest.mark.parametrize("writer", WRITERS)
async def test_it_goes_on_in_another_framework_and_comes_back(writer: str, log: MessageLog) -> None:
    await WRITERS[writer](log)
    stream: Any = MemoryStream(AgentStoresStorage(log), id=cast("Any", THREAD))
    await Agent("a", config=TestConfig("Yes.")).ask("And tomorrow?", stream=stream)
    for reader in READERS.values():
        found = await reader(log)
        assert found[-2:] == [("user", "And tomorrow?"), ("assistant", "Yes.")]
        assert sorted(map(repr, found[:-2])) == sorted(map(repr, SAID))
