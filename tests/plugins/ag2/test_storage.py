"""`AgentStoresStorage` against AG2; the first part runs on its `MemoryStorage`, too."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ag2 import Agent, MemoryStream
from ag2.events import (
    BaseEvent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextInput,
    ToolCallsEvent,
    ToolResultsEvent,
    UnknownEvent,
)
from ag2.history import History, MemoryStorage, Storage, close_unanswered_tool_calls
from ag2.testing import TestConfig, TrackingConfig

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.ag2 import AgentStoresStorage, EventCodec
from agent_stores.contents import (
    DataContent,
    OpaqueContent,
    ReasoningContent,
    ToolCallContent,
    ToolResultContent,
)
from agent_stores.errors import ArgumentTypeError, StoreClosedError
from agent_stores.log import MessageLog
from agent_stores.plugins.ag2.codec import event_to_json
from agent_stores.urls import open_log
from tests.plugins.ag2.events import CALLS, RESULTS, STREAM, TURN, UNUSUAL, call, context, result
from tests.plugins.conftest import PNG

pytestmark = pytest.mark.anyio

Open = Callable[[], Storage]


@pytest.fixture(params=["ag2", "memory", "sqlite"])
def open_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens storages on one place: AG2's own, which is one object, and ours."""
    if request.param == "ag2":
        storage = MemoryStorage()
        return lambda: storage
    log = open_log("memory:" if request.param == "memory" else tmp_path / "chat.db")
    return lambda: AgentStoresStorage(log)


async def history(storage: Storage, stream: Any = STREAM) -> list[BaseEvent]:
    return list(await storage.get_history(stream))


def exactly(events: Any) -> list[Any]:
    return [event_to_json(event) for event in events]


async def save(storage: Storage, events: Any, stream: Any = STREAM) -> None:
    for event in events:
        await storage.save_event(event, context(stream))


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


# -- as `MemoryStorage` ------------------------------------------------------------------------------------


async def test_a_turn_comes_back_exactly(open_storage: Open) -> None:
    await save(open_storage(), TURN)
    found = await history(open_storage())
    assert found == TURN
    assert exactly(found) == exactly(TURN)


@pytest.mark.parametrize("number", range(len(UNUSUAL)))
async def test_unusual_events_come_back_exactly(open_storage: Open, number: int) -> None:
    await save(open_storage(), [UNUSUAL[number]])
    found = await history(open_storage())
    assert found == [UNUSUAL[number]]
    assert exactly(found) == exactly([UNUSUAL[number]])


async def test_streams_are_kept_apart(open_storage: Open) -> None:
    storage, other = open_storage(), uuid4()
    assert await history(storage) == []
    await save(storage, TURN[:1])
    await save(storage, TURN[1:2], other)
    assert await history(storage) == TURN[:1]
    assert await history(storage, other) == TURN[1:2]
    await storage.drop_history(STREAM)
    await storage.drop_history(STREAM)
    assert await history(open_storage()) == []
    assert await history(storage, other) == TURN[1:2]


async def test_the_history_is_replaced(open_storage: Open) -> None:
    storage = open_storage()
    await storage.set_history(STREAM, iter(TURN))
    assert exactly(await history(open_storage())) == exactly(TURN)
    read = await history(storage)
    await storage.set_history(STREAM, [UNUSUAL[-1], *read[-2:], read[-1]])
    assert await history(open_storage()) == [UNUSUAL[-1], *TURN[-2:], TURN[-1]]
    await storage.set_history(STREAM, [])
    assert await history(open_storage()) == []
    await save(storage, TURN)
    assert await history(open_storage()) == TURN


async def test_the_same_event_twice(open_storage: Open) -> None:
    await save(open_storage(), [TURN[0], TURN[0], *CALLS, *CALLS, *RESULTS, *RESULTS])
    assert await history(open_storage()) == [TURN[0], TURN[0], *CALLS, *CALLS, *RESULTS, *RESULTS]


async def test_an_agent_goes_on_after_a_restart(open_storage: Open) -> None:
    calls = [call("1", city="Oslo"), call("2", city="Bergen")]
    agent = Agent("a", config=TestConfig(calls, "It rains"), tools=[weather])
    reply = await agent.ask("The weather?", stream=MemoryStream(open_storage(), id=STREAM))
    assert reply.body == "It rains"
    first = await history(open_storage())
    assert sum(isinstance(event, ToolResultsEvent) for event in first) == 1
    tracking = TrackingConfig(TestConfig("Rain"))
    agent = Agent("a", config=tracking, tools=[weather])
    await agent.ask("Again?", stream=MemoryStream(open_storage(), id=STREAM))
    second = await history(open_storage())
    assert exactly(second[: len(first)]) == exactly(first)
    assert [event.content for event in second if isinstance(event, ModelResponse)] == [
        None,
        "It rains",
        "Rain",
    ]


async def test_ag2_closes_unanswered_calls(open_storage: Open) -> None:
    storage = open_storage()
    await save(storage, TURN[:7])  # one of two results
    assert await close_unanswered_tool_calls(History(STREAM, storage), result="stopped") == 1
    found = await history(open_storage())
    assert found[:7] == TURN[:7]
    (closing,) = found[7:]
    assert isinstance(closing, ToolResultsEvent)
    assert [one.parent_id for one in closing.results] == ["t1", "t2"]
    assert closing.results[1] == RESULTS[1]


# -- ours alone --------------------------------------------------------------------------------------------


async def test_other_plug_ins_read_a_stream(log: MessageLog) -> None:
    await save(AgentStoresStorage(log), [*TURN, UNUSUAL[-1]])
    shown = await ChatMessageStore(log, thread_id=str(STREAM)).list_messages()
    said = [m for m in shown if not isinstance(m.contents[0], OpaqueContent)]
    assert [message.role for message in said] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    image = DataContent(PNG, media_type="image/png")
    assert said[0].text == "The weather in Oslo and Bergen?"
    assert said[0].contents[1] == image
    assert said[1].text == "I look."
    assert said[1].tool_calls == (
        ToolCallContent("t1", "weather", '{"city": "Oslo"}'),
        ToolCallContent("t2", "weather", '{"city": "Bergen"}'),
    )
    assert said[2].contents == (ToolResultContent("t2", {"rain": [True, 1.0]}),)
    assert said[3].contents == (ToolResultContent("t1", "rain", contents=(image,)),)
    assert said[4].text == "It rains."
    assert said[5].text == "[Summary of earlier conversation]\nThey talked."


async def test_a_message_is_stored_once(log: MessageLog) -> None:
    text = "a long text " * 1000
    calls, results = [call("t", text=text)], [result("t", text)]
    events = [
        ModelRequest([TextInput(text)]),
        ModelResponse(ModelMessage(text), tool_calls=ToolCallsEvent(calls)),
        *(ToolCallsEvent(calls), calls[0], results[0], ToolResultsEvent(results)),
    ]
    await save(AgentStoresStorage(log), events)
    store = ChatMessageStore(log, thread_id=str(STREAM))
    assert (await store.stats()).bytes < 4 * (len(text) + 1000)
    assert exactly(await history(AgentStoresStorage(log))) == exactly(events)
    await AgentStoresStorage(log).set_history(STREAM, await history(AgentStoresStorage(log)))
    assert (await store.stats()).bytes < 4 * (len(text) + 1000)
    assert exactly(await history(AgentStoresStorage(log))) == exactly(events)


async def test_a_conversation_of_another_framework_goes_on(
    log: MessageLog, caplog: pytest.LogCaptureFixture
) -> None:
    store = ChatMessageStore(log, thread_id=str(STREAM))
    messages = [
        ChatMessage("system", "Be brief.", message_id="s"),
        ChatMessage("user", contents=["My name is Alice.", DataContent(PNG, media_type="image/png")]),
        ChatMessage("assistant", contents=["I look.", ToolCallContent("c1", "weather", {"city": "Oslo"})]),
        ChatMessage("tool", contents=[ToolResultContent("c1", {"rain": True}, is_error=True)]),
        ChatMessage("assistant", "Rain.", additional_properties={"other": 1}),
    ]
    await store.add_messages(messages)
    storage = AgentStoresStorage(log)
    found = await history(storage)
    assert [type(event) for event in found] == [ModelRequest, ModelResponse, ToolResultsEvent, ModelResponse]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    before = await store.list_messages()
    await storage.set_history(STREAM, found)  # as a compaction does with what it keeps
    assert await store.list_messages() == before
    tracking = TrackingConfig(TestConfig("Alice"))
    reply = await Agent("a", config=tracking).ask("My name?", stream=MemoryStream(storage, id=STREAM))
    assert reply.body == "Alice"
    shown = [m.text for m in await store.list_messages() if m.text]
    assert shown[-2:] == ["My name?", "Alice"]


@pytest.mark.parametrize("saved", [2, 4, 6, 7, 8])
async def test_a_run_that_died_between_call_and_result_goes_on(log: MessageLog, saved: int) -> None:
    await save(AgentStoresStorage(log), TURN[:saved])
    assert await history(AgentStoresStorage(log)) == TURN[:saved]  # nothing goes on after it yet
    agent = Agent("a", config=TestConfig("Yes"))
    await agent.ask("Are you there?", stream=MemoryStream(AgentStoresStorage(log), id=STREAM))
    found = await history(AgentStoresStorage(log))
    assert found[:saved] == TURN[:saved]
    closing = found[saved]
    assert isinstance(closing, ToolResultsEvent)
    assert [one.parent_id for one in closing.results] == ["t1", "t2"]
    assert (closing.results[1] == RESULTS[1]) == (saved > 6)
    assert isinstance(found[saved + 1], ModelRequest)


async def test_what_refers_to_trimmed_events_is_skipped(log: MessageLog) -> None:
    for limit in range(1, len(TURN) + 1):
        stream = uuid4()
        await save(AgentStoresStorage(log, max_messages=limit), TURN, stream)
        found = await history(AgentStoresStorage(log), stream)
        assert found == [event for event in TURN if event in found]
        assert found[-1] == TURN[-1]
        assert limit < len(TURN) or found == TURN


async def test_an_event_of_a_class_that_is_not_installed(log: MessageLog) -> None:
    unknown = {"__event__": "somewhere.Else", "created_at": 1.0, "value": [1]}
    message = EventCodec().encode(unknown)
    store = ChatMessageStore(log, thread_id=str(STREAM))
    await store.add_messages([message])
    storage = AgentStoresStorage(log)
    (event,) = await history(storage)
    assert isinstance(event, UnknownEvent)
    assert (event.type_name, event.data) == ("somewhere.Else", unknown)
    await storage.set_history(STREAM, [event])
    assert (await store.list_messages())[0].contents == message.contents


async def test_a_stream_may_have_the_id_of_any_thread(log: MessageLog) -> None:
    stream: Any = MemoryStream(AgentStoresStorage(log), id="user:1/ü")  # type: ignore[arg-type]
    await Agent("a", config=TestConfig("Hello")).ask("Hi", stream=stream)
    assert [m.text for m in await ChatMessageStore(log, thread_id="user:1/ü").list_messages() if m.text] == [
        "Hi",
        "Hello",
    ]


async def test_what_cannot_be_stored(log: MessageLog) -> None:
    storage = AgentStoresStorage(log)
    with pytest.raises(ArgumentTypeError):
        await save(storage, [ModelRequest([TextInput("a", metadata={"k": object()})])])
    with pytest.raises(ArgumentTypeError, match="BaseEvent"):
        await save(storage, ["text"])
    assert await history(storage) == []


async def test_options_and_closing(log: MessageLog) -> None:
    with pytest.raises(ArgumentTypeError, match="max_message"):
        AgentStoresStorage(log, max_message=3)  # type: ignore[call-arg]
    async with AgentStoresStorage("memory:") as storage:
        await save(storage, TURN)
    with pytest.raises(StoreClosedError):
        await history(storage)


def test_the_codec_alone() -> None:
    codec = EventCodec()
    for event in (*TURN, *UNUSUAL):
        assert codec.from_chat_message(codec.to_chat_message(event)) == [event]
    assert isinstance(
        codec.from_chat_message(ChatMessage("tool", contents=[ToolResultContent("t")]))[0], ToolResultsEvent
    )


async def test_what_ag2_is_not_shown_stays_when_it_replaces_the_history(log: MessageLog) -> None:
    store = ChatMessageStore(log, thread_id=str(STREAM))
    await store.add_messages(
        [
            ChatMessage("system", "Be brief."),
            ChatMessage("user", "Hello."),
            ChatMessage("assistant", contents=[ReasoningContent("Hm.")]),
            ChatMessage("assistant", "Hi."),
            ChatMessage("assistant", contents=[ReasoningContent("So.")]),
        ]
    )
    before = await store.list_messages()
    storage = AgentStoresStorage(log)
    events = await history(storage)
    assert len(events) == 2
    await storage.set_history(STREAM, events)
    assert await store.list_messages() == before
    await storage.set_history(STREAM, events[1:])
    assert await store.list_messages() == before[2:]
