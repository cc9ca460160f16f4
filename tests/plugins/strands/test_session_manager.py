"""`AgentStoresSessionManager` against Strands; the first part runs on its `FileSessionManager`, too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from strands import Agent, tool
from strands.agent.conversation_manager import (
    SlidingWindowConversationManager,
    SummarizingConversationManager,
)
from strands.multiagent import GraphBuilder
from strands.session import FileSessionManager
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import DataContent, ReasoningContent, ToolCallContent, ToolResultContent
from agent_stores.errors import ArgumentTypeError, OutcomeUnknownError, StoreClosedError
from agent_stores.log import MessageLog
from agent_stores.plugins.json_diff import json_equal
from agent_stores.strands import AgentStoresSessionManager, StrandsMessageCodec
from agent_stores.sync import SyncChatMessageStore
from agent_stores.urls import open_log
from tests.plugins.conftest import PNG
from tests.plugins.strands.messages import CONVERSATION, UNUSUAL, ScriptedModel

Managers = Callable[..., Any]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@pytest.fixture(params=["memory", "sqlite"])
def sync_log(request: pytest.FixtureRequest, tmp_path: Path) -> MessageLog:
    """A log of its own for each test."""
    return open_log("memory:" if request.param == "memory" else tmp_path / "chat.db")


@pytest.fixture(params=["file", "memory", "sqlite"])
def managers(request: pytest.FixtureRequest, tmp_path: Path) -> Managers:
    """Makes session managers on one place: Strands' own, and ours."""
    if request.param == "file":
        return lambda session_id="s": FileSessionManager(session_id, storage_dir=str(tmp_path / "files"))
    log = open_log("memory:" if request.param == "memory" else tmp_path / "chat.db")
    return lambda session_id="s": AgentStoresSessionManager(session_id, log)


def agent(manager: Any, **options: Any) -> Agent:
    return Agent(
        model=ScriptedModel(), tools=[weather], session_manager=manager, callback_handler=None, **options
    )


def message(number: int, text: str = "Hello") -> SessionMessage:
    return SessionMessage({"role": "user", "content": [{"text": text}]}, number)


def state(agent_id: str = "a", **values: Any) -> SessionAgent:
    return SessionAgent(agent_id=agent_id, state=values, conversation_manager_state={})


# -- as `FileSessionManager` -------------------------------------------------------------------------------


def test_sessions(managers: Managers) -> None:
    manager = managers()
    assert manager.read_session("s").session_type == SessionType.AGENT
    assert manager.read_session("other") is None
    made = Session(session_id="other", session_type=SessionType.AGENT)
    assert manager.create_session(made) is made
    assert managers("other").session == made
    with pytest.raises(SessionException, match="already exists"):
        manager.create_session(made)
    manager.delete_session("other")
    assert manager.read_session("other") is None
    with pytest.raises(SessionException, match="does not exist"):
        manager.delete_session("other")
    assert managers().session == manager.session


def test_agents(managers: Managers) -> None:
    manager = managers()
    assert manager.read_agent("s", "a") is None
    with pytest.raises(SessionException, match="does not exist"):
        manager.update_agent("s", state())
    manager.create_agent("s", state(data=b"\x00", n=1.0))
    found = managers().read_agent("s", "a")
    assert found.state == {"data": b"\x00", "n": 1.0}
    new = state(n=2)
    manager.update_agent("s", new)
    again = managers().read_agent("s", "a")
    assert (again.state, again.created_at) == ({"n": 2}, found.created_at)
    assert again == new


def test_large_state(managers: Managers) -> None:
    manager = managers()
    for size in (70_000, 80_000, 10):
        manager.create_agent("s", state(text="x" * size))
        assert managers().read_agent("s", "a").state == {"text": "x" * size}


def test_messages(managers: Managers) -> None:
    manager = managers()
    with pytest.raises(SessionException):
        manager.list_messages("s", "a")
    manager.create_agent("s", state())
    assert manager.list_messages("s", "a") == []
    for number in range(5):
        manager.create_message("s", "a", message(number, f"{number}"))
    other = managers()
    assert [one.message_id for one in other.list_messages("s", "a")] == [0, 1, 2, 3, 4]
    assert [one.message_id for one in other.list_messages("s", "a", limit=2)] == [0, 1]
    assert [one.message_id for one in other.list_messages("s", "a", limit=2, offset=2)] == [2, 3]
    assert [one.message_id for one in other.list_messages("s", "a", offset=4)] == [4]
    assert other.list_messages("s", "a", limit=0) == other.list_messages("s", "a", offset=9) == []
    assert other.read_message("s", "a", 3).message["content"] == [{"text": "3"}]
    assert other.read_message("s", "a", 9) is other.read_message("s", "a", -1) is None
    with pytest.raises(ValueError, match="must be an integer"):
        other.read_message("s", "a", "3")


def test_more_messages_than_ids_have_digits_for(managers: Managers) -> None:
    manager = managers()
    manager.create_agent("s", state())
    for number in range(12):
        manager.create_message("s", "a", message(number))
    assert [one.message_id for one in managers().list_messages("s", "a")] == list(range(12))


def test_updating_a_message(managers: Managers) -> None:
    manager = managers()
    manager.create_agent("s", state())
    first = message(0, "secret")
    manager.create_message("s", "a", copy.deepcopy(first))
    with pytest.raises(SessionException, match="does not exist"):
        manager.update_message("s", "a", message(1))
    new = message(0, "other")
    new.redact_message = {"role": "user", "content": [{"text": "[redacted]"}]}
    manager.update_message("s", "a", new)
    found = managers().read_message("s", "a", 0)
    assert found.created_at == first.created_at
    assert found == new
    assert found.to_message() == new.redact_message


@pytest.mark.parametrize("number", range(len(UNUSUAL) + 1))
def test_messages_come_back_exactly(managers: Managers, number: int) -> None:
    manager = managers()
    manager.create_agent("s", state())
    given = CONVERSATION if number == len(UNUSUAL) else [UNUSUAL[number]]
    made = [SessionMessage(copy.deepcopy(one), index) for index, one in enumerate(given)]  # type: ignore[arg-type]
    for one in made:
        manager.create_message("s", "a", copy.deepcopy(one))
    listed = managers().list_messages("s", "a")
    assert listed == made
    assert json_equal([one.to_dict() for one in listed], [one.to_dict() for one in made])  # 1.0 is not 1


def test_an_agent_goes_on_after_a_restart(managers: Managers) -> None:
    first = agent(managers())
    first.state.set("user", "Alice")
    first("My name is Alice")
    first("weather in Oslo?")
    second = agent(managers())
    assert second.state.get("user") == "Alice"
    assert second.messages == first.messages
    assert str(second("What's my name?")).strip() == "Alice"
    listed = managers().list_messages("s", "default")
    assert [one.message_id for one in listed] == list(range(len(second.messages)))
    assert [one.to_message() for one in listed] == second.messages


def test_agents_of_one_session_are_kept_apart(managers: Managers) -> None:
    first = agent(managers(), agent_id="one")
    first("Alice")
    second = agent(managers(), agent_id="two")
    assert second.messages == []
    with pytest.raises(SessionException, match="unique"):
        agent(first._session_manager, agent_id="one")
    assert agent(managers("t"), agent_id="one").messages == []


def test_a_run_that_died_between_call_and_result(managers: Managers) -> None:
    manager = managers()
    died = agent(manager)
    for one in CONVERSATION[:2]:
        died.messages.append(one)  # type: ignore[arg-type]
        manager.append_message(one, died)
    second = agent(managers())
    assert len(second.messages) == 2
    assert str(second("Alice")).strip() == "Alice"  # the model checks that each call has a result


def test_the_window_of_a_conversation_manager(managers: Managers) -> None:
    first = agent(managers(), conversation_manager=SlidingWindowConversationManager(window_size=4))
    for number in range(6):
        first(f"question {number}")
    removed = first.conversation_manager.removed_message_count
    assert removed > 0
    second = agent(managers(), conversation_manager=SlidingWindowConversationManager(window_size=4))
    assert second.messages == first.messages
    assert managers().list_messages("s", "default", offset=removed)[0].message_id == removed


def test_a_summarizing_conversation_manager(managers: Managers) -> None:
    options: Any = {"summary_ratio": 0.5, "preserve_recent_messages": 2}
    first = agent(managers(), conversation_manager=SummarizingConversationManager(**options))
    for number in range(4):
        first(f"question {number}")
    first.conversation_manager.reduce_context(first)
    first("and now?")
    second = agent(managers(), conversation_manager=SummarizingConversationManager(**options))
    assert second.messages == first.messages


def test_redaction(managers: Managers) -> None:
    manager = managers()
    first = agent(manager)
    first("secret")
    redacted: Any = {"role": "assistant", "content": [{"text": "[redacted]"}]}
    manager.redact_latest_message(redacted, first)
    assert agent(managers()).messages[-1] == redacted


def test_a_graph_is_restored(managers: Managers) -> None:
    def graph(manager: Any) -> Any:
        builder = GraphBuilder()
        builder.add_node(Agent(model=ScriptedModel(), callback_handler=None, name="one"), "one")
        builder.set_session_manager(manager)
        builder.set_graph_id("g")
        builder.set_max_node_executions(3)
        return builder.build()

    first = graph(managers())
    first("Alice")
    found = managers().read_multi_agent("s", "g")
    assert found["id"] == "g"
    assert found == first.serialize_state()
    assert managers().read_multi_agent("s", "other") is None
    first.id = "other"
    with pytest.raises(SessionException, match="does not exist"):
        managers().update_multi_agent("s", first)
    restored = graph(managers())
    assert str(restored("What's my name?").results["one"].result).strip() == "I don't know"


# -- ours alone --------------------------------------------------------------------------------------------


def neutral(log: MessageLog, thread_id: str = "s") -> SyncChatMessageStore:
    return SyncChatMessageStore(ChatMessageStore(log, thread_id=thread_id))


def test_other_plug_ins_read_a_session(sync_log: MessageLog) -> None:
    manager = AgentStoresSessionManager("s", sync_log)
    for number, one in enumerate(CONVERSATION):
        manager.create_message("s", "default", SessionMessage(one, number))  # type: ignore[arg-type]
    shown = neutral(sync_log).list_messages()
    assert [one.role for one in shown] == ["user", "assistant", "tool", "assistant"]
    image = DataContent(PNG, media_type="image/png")
    assert shown[0].text == "The weather in Oslo and Bergen?"
    assert shown[0].contents[1] == image
    assert shown[1].contents[0] == ReasoningContent("I look.", protected_data="c2ln")
    assert shown[1].tool_calls[1] == ToolCallContent("t2", "weather", {"city": "Bergen"})
    assert shown[2].contents == (
        ToolResultContent("t1", "rain", contents=(image,)),
        ToolResultContent("t2", {"rain": [True, 1.0]}, is_error=True),
    )


def test_a_message_is_stored_once(sync_log: MessageLog) -> None:
    text = "a long text " * 1000
    first = agent(AgentStoresSessionManager("s", sync_log))
    first(text)
    assert neutral(sync_log).stats().bytes < len(text) + 2000


def test_a_conversation_of_another_framework_goes_on(sync_log: MessageLog) -> None:
    neutral(sync_log).add_messages(
        [
            ChatMessage("system", "Be brief."),
            ChatMessage("user", contents=["My name is Alice.", DataContent(PNG, media_type="image/png")]),
            ChatMessage("assistant", contents=[ToolCallContent("c1", "weather", '{"city": "Oslo"}')]),
            ChatMessage("assistant", contents=[ToolCallContent("c2", "weather", {"city": "Bergen"})]),
            ChatMessage("tool", contents=[ToolResultContent("c1", "rain")]),
            ChatMessage("tool", contents=[ToolResultContent("c2", "sun")]),
            ChatMessage("assistant", "Rain and sun."),
        ]
    )
    for _ in range(2):
        found = agent(AgentStoresSessionManager("s", sync_log))
        assert [one["role"] for one in found.messages[:4]] == ["user", "assistant", "user", "assistant"]
        assert [next(iter(block)) for block in found.messages[1]["content"]] == ["toolUse", "toolUse"]
        assert str(found("What's my name?")).strip() == "Alice"
    ids = [one.message_id for one in AgentStoresSessionManager("s", sync_log).list_messages("s", "default")]
    assert ids == [1, 3, 5, 6, 7, 8, 9, 10]
    assert neutral(sync_log).count() == 11


def test_two_managers_on_one_session_lose_nothing(sync_log: MessageLog) -> None:
    managers = [AgentStoresSessionManager("s", sync_log) for _ in range(2)]
    agents = [agent(manager) for manager in managers]
    for number in range(3):
        for one in agents:
            one(f"question {number}")
    listed = AgentStoresSessionManager("s", sync_log).list_messages("s", "default")
    assert [one.message_id for one in listed] == list(range(12))
    redacted: Any = {"role": "assistant", "content": [{"text": "[redacted]"}]}
    managers[0].redact_latest_message(redacted, agents[0])
    listed = AgentStoresSessionManager("s", sync_log).list_messages("s", "default")
    assert listed[9].to_message() == redacted


def test_what_was_redacted_is_not_shown_to_others(sync_log: MessageLog) -> None:
    manager = AgentStoresSessionManager("s", sync_log)
    first = agent(manager)
    first("secret")
    manager.redact_latest_message({"role": "assistant", "content": [{"text": "[redacted]"}]}, first)
    assert neutral(sync_log).list_messages()[-1].text == "[redacted]"


def test_the_retry_of_a_lost_call_adds_nothing_twice(
    sync_log: MessageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = AgentStoresSessionManager("s", sync_log)
    append = sync_log.append

    async def lose_the_answer(*args: Any, **options: Any) -> int:
        await append(*args, **options)
        raise OutcomeUnknownError("the connection was lost")

    one = message(0)
    with monkeypatch.context() as patched:
        patched.setattr(sync_log, "append", lose_the_answer)
        with pytest.raises(OutcomeUnknownError):
            manager.create_message("s", "default", one)
    manager.create_message("s", "default", one)
    assert manager.list_messages("s", "default") == [one]


def test_a_trimmed_session_goes_on(sync_log: MessageLog) -> None:
    for _ in range(2):
        found = agent(AgentStoresSessionManager("s", sync_log, max_messages=4))
        for number in range(4):
            found(f"weather {number}?")
    listed = AgentStoresSessionManager("s", sync_log).list_messages("s", "default")
    assert len(listed) <= 4
    assert listed[-1].message_id == 31


@pytest.mark.parametrize("name", ["a#b", "a", "%23", "ü:/'\""])
def test_names_are_kept_apart(sync_log: MessageLog, name: str) -> None:
    pairs = [(session, one) for session in dict.fromkeys((name, "a", "x")) for one in ("default", "b", name)]
    manager = AgentStoresSessionManager(name, sync_log)
    for session, one in dict.fromkeys(pairs):
        manager.create_agent(session, state(one, name=f"{session} {one}"))
        manager.create_message(session, one, message(0, f"{session} {one}"))
    for session, one in dict.fromkeys(pairs):
        found = manager.read_agent(session, one)
        assert found is not None
        assert found.state == {"name": f"{session} {one}"}
        assert [m.message["content"] for m in manager.list_messages(session, one)] == [
            [{"text": f"{session} {one}"}]
        ]
    manager.delete_session(name)
    for session, one in dict.fromkeys(pairs):
        assert (manager.read_agent(session, one) is None) == (session == name)


def test_ids_of_usual_form_are_thread_ids(sync_log: MessageLog) -> None:
    agent(AgentStoresSessionManager("user:1/a", sync_log))("Hello")
    assert neutral(sync_log, "user:1/a").count() == 2


def test_a_url_and_closing(tmp_path: Path) -> None:
    with AgentStoresSessionManager("s", "memory:") as manager:
        agent(manager)("Hello")
    with pytest.raises(StoreClosedError):
        manager.list_messages("s", "default")


def test_what_is_no_message_is_rejected(sync_log: MessageLog) -> None:
    with pytest.raises(ArgumentTypeError, match="SessionMessage"):
        StrandsMessageCodec().to_chat_message({"role": "user"})  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="max_message"):
        AgentStoresSessionManager("s", sync_log, max_message=3)  # type: ignore[call-arg]
