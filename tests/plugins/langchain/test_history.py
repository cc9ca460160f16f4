"""`AgentStoresChatMessageHistory` against LangChain."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from blockbuster import BlockBuster
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_openai import ChatOpenAI

from agent_stores import ChatMessage, ChatMessageStore, InMemoryChatMessageStore
from agent_stores.backend import Row
from agent_stores.contents import ToolCallContent, ToolResultContent
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    CorruptMessageError,
    OutcomeUnknownError,
    StoreClosedError,
    UnansweredToolCallError,
)
from agent_stores.langchain import AgentStoresChatMessageHistory
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.memory import InMemoryMessageLog
from agent_stores.retention import Window
from agent_stores.testing.model_server import ModelServer
from tests.plugins.langchain.messages import MESSAGES, call


def texts(messages: list[BaseMessage]) -> list[Any]:
    return [message.content for message in messages]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/chat.db"


def open_model(server: ModelServer) -> ChatOpenAI:
    options: dict[str, Any] = {"base_url": server.base_url, "api_key": "k", "max_retries": 0}
    return ChatOpenAI(model="test-model", **options)


@pytest.fixture
def sync_model(model_server: ModelServer) -> Iterator[ChatOpenAI]:
    model = open_model(model_server)
    yield model
    model.root_client.close()


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[ChatOpenAI]:
    model = open_model(model_server)
    yield model
    await model.root_async_client.close()


def test_synchronously(url: str) -> None:
    with AgentStoresChatMessageHistory("s", url) as history:
        assert isinstance(history, BaseChatMessageHistory)
        assert bool(history)
        assert history.messages == []
        history.add_user_message("Hello")
        history.add_ai_message("Hi!")
        history.add_message(SystemMessage("Be brief."))
        history.add_messages([HumanMessage("And"), HumanMessage("then")])
        assert texts(history.messages) == ["Hello", "Hi!", "Be brief.", "And", "then"]
        assert str(history).startswith("Human: Hello\nAI: Hi!")
        assert repr(history) == "AgentStoresChatMessageHistory('s')"
    with AgentStoresChatMessageHistory("s", url) as again:
        assert len(again.messages) == 5
        again.clear()
        assert again.messages == []
    with pytest.raises(StoreClosedError):
        _ = again.messages


@pytest.mark.anyio
async def test_asynchronously(log: MessageLog) -> None:
    async with AgentStoresChatMessageHistory("s", log) as history:
        await history.aadd_messages([HumanMessage("Hello"), AIMessage("Hi!")])
        assert texts(await history.aget_messages()) == ["Hello", "Hi!"]
        await history.aclear()
        assert await history.aget_messages() == []
        await history.aadd_messages([])


@pytest.mark.anyio
async def test_no_thread_pool_and_no_loop_of_its_own(
    log: MessageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the asynchronous methods are to stay on the caller's loop")

    monkeypatch.setattr("agent_stores.plugins.store_resolver.block_on", refuse)
    monkeypatch.setattr("langchain_core.chat_history.run_in_executor", refuse, raising=False)
    history = AgentStoresChatMessageHistory("s", log)
    await history.aadd_messages([HumanMessage("Hello")])
    assert len(await history.aget_messages()) == 1
    await history.aclear()


@pytest.mark.anyio
async def test_the_synchronous_methods_work_on_a_running_loop(
    url: str, no_blocking_calls: BlockBuster
) -> None:
    no_blocking_calls.deactivate()  # they block the loop, as they say
    history = AgentStoresChatMessageHistory("s", url)
    await history.aadd_messages([HumanMessage("1")])
    history.add_user_message("2")
    assert texts(history.messages) == ["1", "2"]
    await history.aclose()


@pytest.mark.anyio
async def test_every_message_comes_back(log: MessageLog) -> None:
    given = list(MESSAGES.values())
    history = AgentStoresChatMessageHistory("s", log, dangling_calls="keep")
    await history.aadd_messages(given[:3])
    await history.aadd_messages(given[3:])
    assert await AgentStoresChatMessageHistory("s", log).store.count() == len(given)
    found = await AgentStoresChatMessageHistory("s", log, dangling_calls="keep").aget_messages()
    assert found == given
    assert [message.model_dump() for message in found] == [message.model_dump() for message in given]


@pytest.mark.anyio
async def test_the_callers_objects_stay_as_they_are(log: MessageLog) -> None:
    history = AgentStoresChatMessageHistory("s", log)
    first, second = HumanMessage("yes"), HumanMessage("yes")
    await history.aadd_messages([first, second, first])
    assert (first, second) == (HumanMessage("yes"), HumanMessage("yes"))
    found = await history.aget_messages()
    assert texts(found) == ["yes", "yes", "yes"]
    assert len({message.id for message in found if message.id}) == 3
    await AgentStoresChatMessageHistory("s", log).aadd_messages([first, AIMessage("Really?")])
    assert texts(await history.aget_messages()) == ["yes", "yes", "yes", "Really?"]
    await history.aadd_messages(found)
    assert await history.store.count() == 4
    await history.aadd_messages([HumanMessage("yes")])
    assert await history.store.count() == 5


@pytest.mark.anyio
async def test_an_id_that_looks_like_one_of_a_part(log: MessageLog) -> None:
    history = AgentStoresChatMessageHistory("s", log)
    await history.aadd_messages([HumanMessage("a", id="ticket")])
    await history.aadd_messages([HumanMessage("b", id="ticket#1"), HumanMessage("a", id="ticket#2")])
    await history.aadd_messages([HumanMessage("c", id="ticket#1#1")])
    found = await history.aget_messages()
    assert [(message.id, message.content) for message in found] == [
        ("ticket", "a"),
        ("ticket#1", "b"),
        ("ticket#2", "a"),
        ("ticket#1#1", "c"),
    ]
    await history.aadd_messages(found)
    assert await history.aget_messages() == found


@pytest.mark.anyio
@pytest.mark.parametrize("is_one_call", [True, False])
async def test_an_answer_from_a_cache(log: MessageLog, is_one_call: bool) -> None:
    cached = AIMessage("4", id="run-1")
    expected = []
    for turn in range(3):
        history = AgentStoresChatMessageHistory("s", log)
        given = [HumanMessage("2 + 2?"), cached]
        for batch in [given] if is_one_call else [given[:1], given[1:]]:
            await history.aadd_messages(batch)
            await history.aadd_messages(batch)  # as after a lost connection
        expected += ["2 + 2?", "4"]
        assert texts(await history.aget_messages()) == expected, turn
    found = await AgentStoresChatMessageHistory("s", log).aget_messages()
    assert [message.id for message in found if message.type == "ai"] == ["run-1"] * 3
    await AgentStoresChatMessageHistory("s", log).aadd_messages([*found, HumanMessage("And 3 + 3?")])
    for message in found:
        await AgentStoresChatMessageHistory("s", log).aadd_messages([message])
    assert texts(await history.aget_messages()) == [*expected, "And 3 + 3?"]


@pytest.mark.anyio
async def test_a_changed_text_under_the_same_id(log: MessageLog) -> None:
    history = AgentStoresChatMessageHistory("s", log)
    await history.aadd_messages([HumanMessage("draft", id="m"), AIMessage("Go on.", id="n")])
    for _ in range(2):
        await AgentStoresChatMessageHistory("s", log).aadd_messages([HumanMessage("final", id="m")])
    found = await history.aget_messages()
    assert [(message.id, message.content) for message in found] == [
        ("m", "draft"),
        ("n", "Go on."),
        ("m", "final"),
    ]
    await history.aadd_messages([HumanMessage("x", id="p"), HumanMessage("y", id="p")])
    assert texts(await history.aget_messages())[3:] == ["x", "y"]


@pytest.mark.anyio
async def test_what_a_view_made_of_other_frameworks_messages_comes_back(log: MessageLog) -> None:
    theirs = ChatMessageStore(log, thread_id="s")
    calls = [ToolCallContent(name, "f", "{}") for name in "ab"]
    item = {"openai_agents": {"own": True}}
    await theirs.add_messages(
        [
            ChatMessage("user", "q", message_id="u"),
            ChatMessage("assistant", contents=calls[:1], message_id="c", additional_properties=item),
            ChatMessage("assistant", contents=calls[1:], message_id="d", additional_properties=item),
            ChatMessage(
                "tool", contents=[ToolResultContent("b", "2"), ToolResultContent("a", "1")], message_id="r"
            ),
        ]
    )
    history = AgentStoresChatMessageHistory("s", log)
    shown = await history.aget_messages()
    assert [message.type for message in shown] == ["human", "ai", "tool", "tool"]
    await history.aadd_messages([*shown, AIMessage("Done.")])
    assert await theirs.count() == 5
    assert texts(await history.aget_messages())[-1] == "Done."


@pytest.mark.anyio
async def test_what_adding_costs(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("find", "rows", "load", "commit", "append"):
        if original := getattr(log.backend, name, None):

            def counted(*args: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
                calls.append(_name)
                return _original(*args, **options)

            monkeypatch.setattr(log.backend, name, counted)
    history = AgentStoresChatMessageHistory("s", log)
    await history.aadd_messages([HumanMessage("q")])
    calls.clear()
    await history.aadd_messages([HumanMessage("q")])
    plain = list(calls)
    calls.clear()
    await history.aadd_messages([HumanMessage("q"), AIMessage("a", id="run-2")])
    assert calls == ["find", *plain]


@pytest.mark.anyio
async def test_a_retry_adds_nothing_twice() -> None:
    class Unlucky(InMemoryMessageLog):
        failures = 1

        async def append(self, *args: Any, **options: Any) -> int:
            position = await super().append(*args, **options)
            self.failures -= 1
            if self.failures >= 0:
                raise OutcomeUnknownError("the connection was lost")
            return position

    log = Unlucky()
    turn = [HumanMessage("pay"), AIMessage("paid")]
    with pytest.raises(OutcomeUnknownError):
        await AgentStoresChatMessageHistory("s", log).aadd_messages(turn)
    await AgentStoresChatMessageHistory("s", log).aadd_messages(turn)
    assert texts(await AgentStoresChatMessageHistory("s", log).aget_messages()) == ["pay", "paid"]


@pytest.mark.anyio
async def test_a_call_without_a_result(log: MessageLog) -> None:
    history = AgentStoresChatMessageHistory("s", log)
    await history.aadd_messages([HumanMessage("q"), AIMessage("", tool_calls=[call("f", {}, "a")])])
    assert [message.type for message in await history.aget_messages()] == ["human", "ai"]
    await history.aadd_messages([HumanMessage("still there?")])
    shown = await history.aget_messages()
    assert [message.type for message in shown] == ["human", "ai", "tool", "human"]
    made_up = cast("ToolMessage", shown[2])
    assert (made_up.tool_call_id, made_up.status) == ("a", "error")
    # A caller may store the view. The real result goes before the made-up one all the same.
    await history.aadd_messages(shown)
    await history.aadd_messages([ToolMessage("42", tool_call_id="a")])
    assert texts(await history.aget_messages()) == ["q", "", "42", "still there?"]
    strict = AgentStoresChatMessageHistory("t", log, dangling_calls="raise")
    await strict.aadd_messages([AIMessage("", tool_calls=[call("f", {}, "a")])])
    assert len(await strict.aget_messages()) == 1
    await strict.aadd_messages([HumanMessage("still there?")])
    with pytest.raises(UnansweredToolCallError):
        await strict.aget_messages()


@pytest.mark.anyio
async def test_options(log: MessageLog) -> None:
    history = AgentStoresChatMessageHistory(
        "s", log, tenant="acme", max_messages=3, ttl=60, window=Window(last=2)
    )
    await history.aadd_messages([HumanMessage(str(n)) for n in range(5)])
    assert texts(await history.aget_messages()) == ["3", "4"]
    stats = await history.store.stats()
    assert (stats.messages, stats.tenant) == (3, "acme")
    assert stats.expires_at is not None
    assert await AgentStoresChatMessageHistory("s", log).aget_messages() == []
    with pytest.raises(
        ArgumentError, match="ttl must be a positive number of seconds, a timedelta or None, got -1"
    ):
        AgentStoresChatMessageHistory("s", log, ttl=-1)
    with pytest.raises(ArgumentTypeError, match=r"must be one of .*, got 'thread_id'"):
        AgentStoresChatMessageHistory("s", log, thread_id="x")  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="session_id must be a non-empty str"):
        AgentStoresChatMessageHistory("", log)
    with pytest.raises(
        ArgumentTypeError, match=r"messages\[1\] must be one of LangChain's messages, got str"
    ):
        await history.aadd_messages([HumanMessage("a"), "b"])  # type: ignore[list-item]
    with pytest.raises(ArgumentTypeError, match="artifact"):
        await history.aadd_messages([HumanMessage("a"), ToolMessage("", tool_call_id="a", artifact={1})])
    assert await history.store.count() == 3


@pytest.mark.anyio
async def test_a_function_that_makes_stores() -> None:
    history = AgentStoresChatMessageHistory(
        "s", lambda thread_id: InMemoryChatMessageStore(thread_id=thread_id, dangling_calls="drop")
    )
    await history.aadd_messages([HumanMessage("q"), AIMessage("Hm.", tool_calls=[call("f", {}, "a")])])
    assert [message.type for message in await history.aget_messages()] == ["human", "ai"]
    with pytest.raises(ArgumentError, match="ttl must be given to the stores"):
        AgentStoresChatMessageHistory("s", lambda _: InMemoryChatMessageStore(), ttl=1)


@pytest.mark.anyio
async def test_unreadable_messages(log: MessageLog) -> None:
    history = AgentStoresChatMessageHistory("s", log)
    await history.aadd_messages([HumanMessage("1")])
    await log.append(ThreadKey(None, "s"), [Row("bad", b"{")])
    with pytest.raises(CorruptMessageError, match="position 2"):
        await history.aget_messages()
    assert texts(await AgentStoresChatMessageHistory("s", log, on_corrupt="skip").aget_messages()) == ["1"]


@pytest.mark.anyio
async def test_what_another_framework_wrote_is_not_added_again(log: MessageLog) -> None:
    store = ChatMessageStore(log, thread_id="s")
    await store.add_messages(
        [
            ChatMessage("user", "q"),
            ChatMessage(
                "assistant", contents=[ToolCallContent("a", "f", "{}"), ToolCallContent("b", "f", "{}")]
            ),
            ChatMessage("tool", contents=[ToolResultContent("a", "x"), ToolResultContent("b", "y")]),
        ]
    )
    history = AgentStoresChatMessageHistory("s", log)
    shown = await history.aget_messages()
    assert texts(shown) == ["q", "", "x", "y"]
    await history.aadd_messages([*shown, AIMessage("x and y")])
    assert await store.count() == 4
    copied = AgentStoresChatMessageHistory("copy", log)
    await copied.aadd_messages(shown)
    assert texts(await copied.aget_messages()) == ["q", "", "x", "y"]


# -- RunnableWithMessageHistory -----------------------------------------------------------------------


def with_history(runnable: Any, source: Any, **keys: Any) -> RunnableWithMessageHistory:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return RunnableWithMessageHistory(
            runnable, lambda session_id: AgentStoresChatMessageHistory(session_id, source), **keys
        )


def session(name: str) -> Any:
    return {"configurable": {"session_id": name}}


def test_a_chain_with_history(sync_model: ChatOpenAI, url: str) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    chain = with_history(
        prompt | sync_model, url, input_messages_key="question", history_messages_key="history"
    )
    answer = chain.invoke({"question": "Hello, my name is Alice"}, session("s"))
    assert answer.content == "Nice to meet you, Alice!"
    again = with_history(
        prompt | sync_model, url, input_messages_key="question", history_messages_key="history"
    )
    assert again.invoke({"question": "What's my name?"}, session("s")).content == "Your name is Alice."
    assert "Alice" not in again.invoke({"question": "What's my name?"}, session("t")).content
    with AgentStoresChatMessageHistory("s", url) as history:
        found = history.messages
        assert [message.type for message in found] == ["human", "ai", "human", "ai"]
        assert cast("AIMessage", found[1]).usage_metadata


@pytest.mark.anyio
async def test_a_chain_with_history_asynchronously(model: ChatOpenAI, log: MessageLog) -> None:
    chain = with_history(model, log)
    for question in ("My name is Bob", "Tell me more", "What's my name?"):
        answer = await chain.ainvoke([HumanMessage(question)], session("s"))
    assert answer.content == "Your name is Bob."
    async for chunk in chain.astream("What did I say first?", session("s")):
        assert chunk is not None
    found = await AgentStoresChatMessageHistory("s", log).aget_messages()
    # What was streamed is stored as LangChain put it together.
    assert [message.type for message in found] == ["human", "ai"] * 3 + ["human", "AIMessageChunk"]
    await AgentStoresChatMessageHistory("s", log).aadd_messages(found)
    assert len(await AgentStoresChatMessageHistory("s", log).aget_messages()) == 8
    assert found[-1].content == 'You first said: "My name is Bob"'


@pytest.mark.anyio
async def test_sessions_at_once(model: ChatOpenAI, log: MessageLog) -> None:
    chain = with_history(model, log)
    names = ["Ada", "Bea", "Cleo", "Dora"]
    await asyncio.gather(
        *(chain.ainvoke([HumanMessage(f"My name is {name}")], session(name)) for name in names)
    )
    answers = await asyncio.gather(
        *(chain.ainvoke([HumanMessage("What's my name?")], session(name)) for name in names)
    )
    assert [answer.content for answer in answers] == [f"Your name is {name}." for name in names]


@pytest.mark.anyio
async def test_a_chain_that_calls_tools(
    model: ChatOpenAI, log: MessageLog, model_server: ModelServer
) -> None:
    schema = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    bound = model.bind(tools=[schema])

    async def act(messages: list[BaseMessage]) -> list[BaseMessage]:
        new: list[BaseMessage] = [await bound.ainvoke(messages)]
        for made in cast("AIMessage", new[0]).tool_calls:
            new.append(ToolMessage(f"rain in {made['args']['city']}", tool_call_id=made["id"] or ""))
        if len(new) > 1:
            new.append(await bound.ainvoke([*messages, *new]))
        return new

    chain = with_history(RunnableLambda(act), log)
    await chain.ainvoke([HumanMessage("What is the weather in Oslo and Bergen?")], session("s"))
    await chain.ainvoke([HumanMessage("Thanks")], session("s"))
    found = await AgentStoresChatMessageHistory("s", log).aget_messages()
    assert [message.type for message in found] == ["human", "ai", "tool", "tool", "ai", "human", "ai"]
    assert found[4].content == "The tool says: rain in Oslo; rain in Bergen"
    sent = model_server.requests[-1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "assistant", "user"]


@pytest.mark.anyio
async def test_a_model_on_what_another_framework_wrote(model: ChatOpenAI, log: MessageLog) -> None:
    await ChatMessageStore(log, thread_id="s").add_messages(
        [
            ChatMessage("user", "My name is Carol"),
            ChatMessage(
                "assistant",
                contents=[
                    "One moment.",
                    ToolCallContent("a", "f", "{}"),
                    ToolCallContent("b", "f", {"x": 1}),
                ],
            ),
            ChatMessage("tool", contents=[ToolResultContent("b", "y"), ToolResultContent("a", {"z": 1})]),
            ChatMessage("assistant", "Done."),
        ]
    )
    answer = await with_history(model, log).ainvoke([HumanMessage("What's my name?")], session("s"))
    assert answer.content == "Your name is Carol."


@pytest.mark.anyio
async def test_on_to_langgraph(model: ChatOpenAI, log: MessageLog) -> None:
    """What the documentation says of going on there: the stored messages begin the thread."""
    graphs = pytest.importorskip("langgraph.graph")
    checkpoints = pytest.importorskip("langgraph.checkpoint.memory")
    history = AgentStoresChatMessageHistory("s", log)
    await history.aadd_messages([HumanMessage("My name is Dan"), AIMessage("Hello Dan")])

    async def reply(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = graphs.StateGraph(graphs.MessagesState)
    builder.add_node("model", reply)
    builder.add_edge(graphs.START, "model")
    graph = builder.compile(checkpointer=checkpoints.InMemorySaver())
    config = {"configurable": {"thread_id": "s"}}
    await graph.aupdate_state(config, {"messages": await history.aget_messages()})
    result = await graph.ainvoke({"messages": [HumanMessage("What's my name?")]}, config)
    assert result["messages"][-1].content == "Your name is Dan."
    await history.aadd_messages(result["messages"])
    assert [m.content for m in await history.aget_messages()][2:] == ["What's my name?", "Your name is Dan."]
