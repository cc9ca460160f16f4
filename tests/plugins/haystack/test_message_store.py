"""`AgentStoresChatMessageStore` against Haystack; the first part runs on its own store, too."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from haystack import Pipeline
from haystack.dataclasses import ChatMessage as HaystackMessage
from haystack.dataclasses import ToolCall
from haystack.utils import Secret
from haystack_experimental.chat_message_stores.in_memory import InMemoryChatMessageStore
from haystack_experimental.components.retrievers import ChatMessageRetriever
from haystack_experimental.components.writers import ChatMessageWriter

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import (
    DataContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
)
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError
from agent_stores.haystack import AgentStoresChatMessageStore, HaystackMessageCodec
from agent_stores.log import MessageLog
from agent_stores.plugins.json_diff import json_equal
from agent_stores.retention import NO_RESULT
from agent_stores.sync import SyncChatMessageStore
from agent_stores.urls import open_log
from tests.plugins.conftest import PNG
from tests.plugins.haystack.messages import CALLS, CONVERSATION, UNUSUAL

Open = Callable[..., Any]

user, assistant = HaystackMessage.from_user, HaystackMessage.from_assistant


@pytest.fixture(params=["memory", "sqlite"])
def sync_log(request: pytest.FixtureRequest, tmp_path: Path) -> MessageLog:
    """A log of its own for each test."""
    return open_log("memory:" if request.param == "memory" else tmp_path / "chat.db")


@pytest.fixture(params=["haystack", "memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens stores on one place: Haystack's own, which is global, and ours."""
    if request.param == "haystack":
        yield InMemoryChatMessageStore
        InMemoryChatMessageStore().delete_all_messages()
        return
    log = open_log("memory:" if request.param == "memory" else tmp_path / "chat.db")
    yield lambda **options: AgentStoresChatMessageStore(log, **options)


def without_ids(messages: Any) -> list[Any]:
    dicts = [message.to_dict() for message in messages]
    return [
        {**one, "meta": {k: v for k, v in one["meta"].items() if k != "chat_message_id"}} for one in dicts
    ]


def texts(messages: Any) -> list[Any]:
    return [message.text for message in messages]


# -- as `InMemoryChatMessageStore` -------------------------------------------------------------------------


def test_a_conversation_comes_back_exactly(open_store: Open) -> None:
    assert open_store().write_messages("s", CONVERSATION) == 5
    found = open_store(last_k=None).retrieve_messages("s")
    assert len({message.meta["chat_message_id"] for message in found}) == 5
    assert json_equal(without_ids(found), without_ids(CONVERSATION))
    assert open_store().count_messages("s") == 5


@pytest.mark.parametrize("number", range(len(UNUSUAL)))
def test_unusual_messages_come_back_exactly(open_store: Open, number: int) -> None:
    store = open_store(skip_system_messages=False)
    store.write_messages("s", [UNUSUAL[number]])
    (found,) = open_store().retrieve_messages("s")
    assert json_equal(without_ids([found]), without_ids([UNUSUAL[number]]))
    name = found.meta["chat_message_id"]
    assert name == UNUSUAL[number].meta.get("chat_message_id", name)


def test_ids(open_store: Open) -> None:
    store = open_store()
    assert store.write_messages("s", [user("a"), user("b", meta={"chat_message_id": "x"})]) == 2
    assert store.write_messages("s", [user("c")]) == 1
    found = store.retrieve_messages("s")
    first, second, third = (message.meta["chat_message_id"] for message in found)
    assert (len({first, second, third}), second) == (3, "x")
    assert open_store().write_messages("s", [*found, user("d")]) == 1  # what was retrieved is not added again
    assert open_store().write_messages("s", [user("changed", meta={"chat_message_id": "x"})]) == 0
    assert texts(store.retrieve_messages("s")) == ["a", "b", "c", "d"]
    assert user("a").meta == {}


def test_system_messages(open_store: Open) -> None:
    given = [HaystackMessage.from_system("Be brief."), user("a")]
    assert open_store().write_messages("s", given) == 1
    assert open_store(skip_system_messages=False).write_messages("t", given) == 2
    assert texts(open_store().retrieve_messages("t")) == ["Be brief.", "a"]


def test_conversations_are_kept_apart(open_store: Open) -> None:
    store = open_store()
    assert store.retrieve_messages("s") == []
    assert store.count_messages("s") == 0
    assert store.write_messages("s", []) == 0
    store.write_messages("s", [user("a")])
    store.write_messages("t", [user("b")])
    assert texts(store.retrieve_messages("s")) == ["a"]
    store.delete_messages("s")
    store.delete_messages("s")
    assert texts(open_store().retrieve_messages("s")) == []
    assert texts(open_store().retrieve_messages("t")) == ["b"]
    store.delete_all_messages()
    assert open_store().count_messages("t") == 0


def test_what_is_no_list_of_messages(open_store: Open) -> None:
    store = open_store()
    for wrong in (["text"], 5, [user("a"), None]):
        with pytest.raises(ValueError, match="list of ChatMessages"):
            store.write_messages("s", wrong)
    with pytest.raises(ValueError, match="0 or greater"):
        store.retrieve_messages("s", last_k=-1)
    assert store.count_messages("s") == 0


def test_last_rounds(open_store: Open) -> None:
    store = open_store(last_k=2)
    turn = CONVERSATION
    for number in range(12):
        store.write_messages("s", [user(f"{number}"), assistant(f"answer {number}")])
    store.write_messages("s", turn)
    assert texts(store.retrieve_messages("s")) == ["11", "answer 11", *texts(turn)]
    assert texts(store.retrieve_messages("s", last_k=1)) == texts(turn)
    assert store.retrieve_messages("s", last_k=0) == []
    assert len(store.retrieve_messages("s", last_k=100)) == 29
    assert len(open_store().retrieve_messages("s")) == 9 * 2 + 5
    assert len(open_store(last_k=None).retrieve_messages("s")) == 29
    assert open_store(last_k=0).retrieve_messages("s") == []


@pytest.mark.parametrize("seed", range(30))
def test_last_rounds_of_any_conversation(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    kinds: list[Any] = [
        lambda: user("u"),
        lambda: assistant("a"),
        lambda: HaystackMessage.from_system("s"),
        lambda: assistant("c", tool_calls=[CALLS[0]]),
        lambda: HaystackMessage.from_tool("r", CALLS[0]),
    ]
    weights = [choose.random() for _ in kinds]
    messages = [make() for make in choose.choices(kinds, weights, k=choose.randrange(1, 120))]
    messages.append(HaystackMessage.from_tool("r", CALLS[0]))  # no call without a result
    log = open_log("memory:")
    ours = AgentStoresChatMessageStore(log, skip_system_messages=False)
    theirs = InMemoryChatMessageStore(skip_system_messages=False)
    try:
        ours.write_messages("s", messages)
        theirs.write_messages("s", messages)
        for last_k in range(8):
            found, wanted = ours.retrieve_messages("s", last_k), theirs.retrieve_messages("s", last_k)
            assert json_equal(without_ids(found), without_ids(wanted))
    finally:
        theirs.delete_all_messages()


def test_a_pipeline(open_store: Open) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", ChatMessageRetriever(open_store()))
    pipeline.add_component("writer", ChatMessageWriter(open_store()))
    pipeline.connect("retriever.messages", "writer.messages")
    for number in range(3):
        data = {
            "retriever": {
                "chat_history_id": "s",
                "current_messages": [user(f"{number}"), assistant("answer")],
            },
            "writer": {"chat_history_id": "s"},
        }
        assert pipeline.run(data)["writer"] == {"messages_written": 2}
    assert texts(open_store().retrieve_messages("s")) == ["0", "answer", "1", "answer", "2", "answer"]


# -- ours alone --------------------------------------------------------------------------------------------


def neutral(log: MessageLog, thread_id: str = "s") -> SyncChatMessageStore:
    return SyncChatMessageStore(ChatMessageStore(log, thread_id=thread_id))


def test_other_plug_ins_read_a_conversation(sync_log: MessageLog) -> None:
    AgentStoresChatMessageStore(sync_log).write_messages("s", CONVERSATION)
    shown = neutral(sync_log).list_messages()
    assert [message.role for message in shown] == ["user", "assistant", "tool", "tool", "assistant"]
    image = DataContent(PNG, media_type="image/png")
    assert shown[0].contents == (TextContent("The weather in Oslo and Bergen?"), image)
    assert shown[0].author_name == "Alice"
    assert shown[1].contents[0] == ReasoningContent("Two calls.")
    assert shown[1].tool_calls[0] == ToolCallContent("t1", "weather", {"city": "Oslo"})
    assert shown[2].contents == (ToolResultContent("t1", "rain", contents=(image,)),)
    assert shown[3].contents == (ToolResultContent("t2", "no such city", is_error=True),)


def test_a_message_is_stored_once(sync_log: MessageLog) -> None:
    text = "a long text " * 1000
    call = ToolCall("f", {"text": text}, id="t")
    messages = [
        user(text),
        assistant(tool_calls=[call]),
        HaystackMessage.from_tool(text, call),
        assistant(text),
    ]
    store = AgentStoresChatMessageStore(sync_log)
    store.write_messages("s", messages)
    assert neutral(sync_log).stats().bytes < 4 * (len(text) + 1000)
    assert json_equal(without_ids(store.retrieve_messages("s")), without_ids(messages))


def test_a_conversation_of_another_framework_goes_on(sync_log: MessageLog) -> None:
    neutral(sync_log).add_messages(
        [
            ChatMessage("developer", "Be brief.", message_id="d"),
            ChatMessage("user", contents=["Hello", DataContent(b"%PDF", media_type="application/pdf")]),
            ChatMessage(
                "assistant",
                contents=[
                    ToolCallContent("c1", "weather", '{"city": "Oslo"}'),
                    ToolCallContent("c2", "time", "{"),
                ],
            ),
            ChatMessage(
                "tool",
                contents=[
                    ToolResultContent("c1", {"rain": True}),
                    ToolResultContent("c2", "no", is_error=True),
                ],
                message_id="tool",
            ),
            ChatMessage("assistant", "Rain."),
        ]
    )
    store = AgentStoresChatMessageStore(sync_log)
    found = store.retrieve_messages("s")
    assert [message.role.value for message in found] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert [call.arguments for call in found[2].tool_calls] == [{"city": "Oslo"}, {"arguments": "{"}]
    results = [message.tool_call_result for message in found[3:5]]
    assert [(one.origin.tool_name, one.result, one.error) for one in results if one is not None] == [
        ("weather", '{"rain": true}', False),
        ("time", "no", True),
    ]
    store = AgentStoresChatMessageStore(sync_log, skip_system_messages=False)
    assert store.write_messages("s", [*found, user("And now?")]) == 1
    assert neutral(sync_log).count() == 6
    assert texts(store.retrieve_messages("s"))[-1] == "And now?"


def test_a_run_that_died_between_call_and_result_goes_on(sync_log: MessageLog) -> None:
    store = AgentStoresChatMessageStore(sync_log)
    store.write_messages("t", CONVERSATION[:2])
    assert json_equal(
        without_ids(store.retrieve_messages("t")), without_ids(CONVERSATION[:2])
    )  # it may go on
    store.write_messages("t", [user("Are you there?")])
    found = store.retrieve_messages("t")
    assert [message.role.value for message in found] == ["user", "assistant", "tool", "tool", "user"]
    results = [message.tool_call_result for message in found[2:4]]
    assert [(one.origin, one.result, one.error) for one in results if one is not None] == [
        (CALLS[0], NO_RESULT, True),
        (CALLS[1], NO_RESULT, True),
    ]
    assert store.count_messages("t") == 3


def test_writers_at_once_lose_nothing(sync_log: MessageLog) -> None:
    def write(number: int) -> int:
        return AgentStoresChatMessageStore(sync_log).write_messages("s", [user(f"{number}"), assistant("a")])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(8))) == [2] * 8
    found = AgentStoresChatMessageStore(sync_log, last_k=None).retrieve_messages("s")
    assert len({message.meta["chat_message_id"] for message in found}) == 16
    assert {message.text for message in found[::2]} == set(map(str, range(8)))


def test_a_configuration_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"
    store = AgentStoresChatMessageStore(url, last_k=3, max_messages=10)
    store.write_messages("s", [user("Hello")])
    data = json.loads(json.dumps(store.to_dict()))
    assert data == {
        "type": "agent_stores.haystack.AgentStoresChatMessageStore",
        "init_parameters": {"store": url, "skip_system_messages": True, "last_k": 3, "max_messages": 10},
    }
    assert texts(AgentStoresChatMessageStore.from_dict(data).retrieve_messages("s")) == ["Hello"]

    monkeypatch.setenv("STORE_URL", url)
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "agent_stores.haystack")
    pipeline = Pipeline()
    store = AgentStoresChatMessageStore(Secret.from_env_var("STORE_URL"))
    pipeline.add_component("retriever", ChatMessageRetriever(store))
    dumped = pipeline.dumps()
    assert str(tmp_path) not in dumped
    restored = Pipeline.loads(dumped)
    assert texts(restored.run({"retriever": {"chat_history_id": "s"}})["retriever"]["messages"]) == ["Hello"]

    for source in (
        "redis://:planted-secret@localhost",
        "redis://localhost?password=planted-secret",
        open_log("memory:"),
    ):
        with pytest.raises(ArgumentError) as raised:
            AgentStoresChatMessageStore(source).to_dict()
        assert "planted" not in str(raised.value)


def test_options_and_closing(sync_log: MessageLog) -> None:
    with pytest.raises(ArgumentTypeError, match="max_message"):
        AgentStoresChatMessageStore(sync_log, max_message=3)  # type: ignore[call-arg]
    with pytest.raises(ArgumentTypeError, match="haystack ChatMessage"):
        HaystackMessageCodec().to_chat_message("text")  # type: ignore[arg-type]
    with AgentStoresChatMessageStore("memory:") as store:
        store.write_messages("s", CONVERSATION)
    with pytest.raises(StoreClosedError):
        store.retrieve_messages("s")
