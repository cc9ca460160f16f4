"""`AgentStoresSaver` under graphs."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import DataContent, ToolCallContent, ToolResultContent
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError, ThreadExistsError
from agent_stores.langgraph import (
    AgentStoresSaver,
    AsyncPostgresSaver,
    AsyncRedisSaver,
    AsyncSqliteSaver,
    PostgresSaver,
    RedisSaver,
    SqliteSaver,
)
from agent_stores.langgraph import (
    InMemorySaver as OurInMemorySaver,
)
from agent_stores.log import MessageLog
from tests.plugins.conftest import PNG
from tests.plugins.langgraph.graphs import Crash, State, Weather, call, echo_graph, removed, tool_graph

pytestmark = pytest.mark.anyio

CONFIG: Any = {"configurable": {"thread_id": "t"}}


def say(text: str, name: str | None = None) -> dict[str, Any]:
    return {"messages": [HumanMessage(text, id=name or text)]}


async def stored(log: MessageLog, thread_id: str = "t") -> list[str]:
    return [message.text for message in await ChatMessageStore(log, thread_id=thread_id).list_messages()]


async def states(graph: Any) -> list[Any]:
    return [
        (state.values, state.next, state.metadata["step"], state.metadata["source"])
        async for state in graph.aget_state_history(CONFIG)
    ]


async def test_the_same_states_as_langgraph_s_own_saver(log: MessageLog) -> None:
    graphs = [echo_graph(AgentStoresSaver(log)), echo_graph(InMemorySaver())]
    for graph in graphs:
        for number in range(3):
            await graph.ainvoke(say(f"q{number}"), CONFIG)
        await graph.aupdate_state(CONFIG, {"messages": [AIMessage("changed", id="a2")]})
        await graph.ainvoke({"messages": [*removed("q0", "a1"), HumanMessage("q3", id="q3")]}, CONFIG)
        past = [state async for state in graph.aget_state_history(CONFIG)]
        await graph.ainvoke(say("again"), past[-4].config)  # from an older checkpoint
    ours, theirs = [await states(graph) for graph in graphs]
    assert len(ours) == len(theirs) > 10
    assert ours == theirs
    fresh = echo_graph(AgentStoresSaver(log))
    assert await states(fresh) == theirs


async def test_a_message_is_stored_once_and_others_read_it(log: MessageLog) -> None:
    graph = echo_graph(AgentStoresSaver(log))
    await graph.ainvoke(say("q1"), CONFIG)
    await graph.ainvoke(say("q2"), CONFIG)
    assert await stored(log) == ["q1", "answer 1 to q1", "q2", "answer 2 to q2"]
    ids = [message.message_id for message in await ChatMessageStore(log, thread_id="t").list_messages()]
    assert ids == ["q1", "a1", "q2", "a2"]


async def test_the_conversation_shows_the_newest_checkpoint(log: MessageLog) -> None:
    graph = echo_graph(AgentStoresSaver(log))
    for number in range(3):
        await graph.ainvoke(say(f"q{number}"), CONFIG)
    await graph.aupdate_state(CONFIG, {"messages": [AIMessage("changed", id="a2"), *removed("q0")]})
    assert await stored(log) == ["answer 1 to q0", "q1", "changed", "q2", "answer 3 to q2"]
    past = [state async for state in graph.aget_state_history(CONFIG)]
    assert [m.content for m in past[1].values["messages"]][:2] == ["q0", "answer 1 to q0"]
    await graph.ainvoke(say("other"), past[-4].config)
    assert (await stored(log))[:3] == ["q0", "answer 1 to q0", "other"]
    assert await stored(log) == [m.content for m in (await graph.aget_state(CONFIG)).values["messages"]]


@pytest.mark.parametrize("steps", [10, 40])
async def test_n_steps_cost_o_of_n_bytes(log: MessageLog, steps: int) -> None:
    graph = echo_graph(AgentStoresSaver(log))
    for number in range(steps):
        await graph.ainvoke({"messages": [HumanMessage(f"{number}" * 500)]}, CONFIG)
    conversation = await ChatMessageStore(log, thread_id="t").stats()
    records = await ChatMessageStore(log, thread_id="#langgraph/t").stats()
    assert conversation.messages == 2 * steps
    assert records.bytes / steps < 25_000  # what one turn of this graph writes, at any length


async def test_messages_of_others_are_part_of_the_state(log: MessageLog) -> None:
    other = ChatMessageStore(log, thread_id="t")
    image = DataContent(PNG, media_type="image/png")
    await other.add_messages(
        [
            ChatMessage("user", contents=["Hello", image]),
            ChatMessage(
                "assistant", contents=[ToolCallContent("c1", "f", "{}"), ToolCallContent("c2", "f", "{}")]
            ),
            ChatMessage("tool", contents=[ToolResultContent("c1", "1"), ToolResultContent("c2", "2")]),
        ]
    )
    graph = echo_graph(AgentStoresSaver(log))
    before = (await graph.aget_state(CONFIG)).values["messages"]
    assert [message.type for message in before] == ["human", "ai", "tool", "tool"]
    after = (await graph.ainvoke(say("q1"), CONFIG))["messages"]
    assert [m.type for m in after] == ["human", "ai", "tool", "tool", "human", "ai"]
    await other.add_messages([ChatMessage("user", "And?"), ChatMessage("assistant", "Nothing.")])
    fresh = echo_graph(AgentStoresSaver(log))
    await fresh.ainvoke(say("q2"), CONFIG)
    shown = (await graph.aget_state(CONFIG)).values["messages"]
    assert [m.content for m in shown[6:]] == ["And?", "Nothing.", "q2", "answer 2 to q2"]
    assert shown[:6] == after
    assert await other.count() == 9
    assert len([one async for one in graph.aget_state_history(CONFIG)]) == 6


async def test_a_conversation_that_another_client_replaces(log: MessageLog) -> None:
    graph = echo_graph(AgentStoresSaver(log))
    await graph.ainvoke(say("q1"), CONFIG)
    other = ChatMessageStore(log, thread_id="t")
    await other.replace_all([ChatMessage("user", "A summary."), *(await other.list_messages())[-1:]])
    fresh = echo_graph(AgentStoresSaver(log))
    for one in (fresh, graph):
        shown = (await one.aget_state(CONFIG)).values["messages"]
        assert [m.content for m in shown] == ["A summary.", "answer 1 to q1"]
    await graph.ainvoke(say("q2"), CONFIG)
    assert await stored(log) == ["A summary.", "answer 1 to q1", "q2", "answer 2 to q2"]
    assert [m.content for m in (await fresh.aget_state(CONFIG)).values["messages"]] == await stored(log)
    await other.delete("q2")
    assert [m.content for m in (await fresh.aget_state(CONFIG)).values["messages"]] == await stored(log)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_that_died_between_call_and_result_goes_on(log: MessageLog, durability: Any) -> None:
    weather = Weather(failures=1)
    graph = tool_graph(AgentStoresSaver(log), [call("Oslo", "Rome"), "Rain."], weather)
    with pytest.raises(Crash):
        await graph.ainvoke(say("q"), CONFIG, durability=durability)
    if durability == "exit":
        return  # LangGraph writes nothing before a run ends, so there is nothing to go on with
    again = tool_graph(AgentStoresSaver(log), ["Rain."], weather)
    assert (await again.aget_state(CONFIG)).next == ("tools",)
    result = await again.ainvoke(None, CONFIG)
    assert [m.type for m in result["messages"]] == ["human", "ai", "tool", "tool", "ai"]
    roles = [m.role for m in await ChatMessageStore(log, thread_id="t").list_messages()]
    assert roles == ["user", "assistant", "tool", "tool", "assistant"]


async def test_interrupts(log: MessageLog) -> None:
    def ask(state: State) -> Any:
        first, second = interrupt("first?"), interrupt("second?")
        return {"notes": [first, second]}

    def build() -> Any:
        graph = StateGraph(State)
        graph.add_node("ask", ask)
        graph.add_edge(START, "ask")
        return graph.compile(checkpointer=AgentStoresSaver(log))

    await build().ainvoke(say("q"), CONFIG)
    assert (await build().aget_state(CONFIG)).tasks[0].interrupts[0].value == "first?"
    await build().ainvoke(Command(resume="a"), CONFIG)
    result = await build().ainvoke(Command(resume="b"), CONFIG)
    assert result["notes"] == ["a", "b"]


async def test_subgraphs_have_lists_of_their_own(log: MessageLog) -> None:
    inner = StateGraph(State)
    inner.add_node("think", lambda state: {"messages": [AIMessage("thought", id="i1")]})
    inner.add_edge(START, "think")
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_edge(START, "inner")
    saver = AgentStoresSaver(log)
    graph: Any = outer.compile(checkpointer=saver)
    await graph.ainvoke(say("q"), CONFIG)
    result = await graph.ainvoke(say("q2"), CONFIG)
    assert [m.content for m in result["messages"]] == ["q", "thought", "q2"]
    listed = await ChatMessageStore(log, thread_id="t").list_threads()
    assert [one.thread_id for one in listed.threads] == [
        "#langgraph/t",
        "#langgraph/t/inner/messages",
        "t",
    ]
    await saver.adelete_thread("t")
    assert (await ChatMessageStore(log, thread_id="t").list_threads()).threads == []


async def test_two_runs_at_once_both_keep_their_past(log: MessageLog) -> None:
    first, second = echo_graph(AgentStoresSaver(log)), echo_graph(AgentStoresSaver(log))
    await first.ainvoke(say("q0"), CONFIG)
    await asyncio.gather(first.ainvoke(say("left"), CONFIG), second.ainvoke(say("right"), CONFIG))
    left = ["q0", "answer 1 to q0", "left", "answer 2 to left"]
    right = ["q0", "answer 1 to q0", "right", "answer 2 to right"]
    newest = [m.content for m in (await first.aget_state(CONFIG)).values["messages"]]
    assert newest in (left, right)
    assert await stored(log) in (left, right)  # that of the run that wrote last
    every = [state.values["messages"] async for state in second.aget_state_history(CONFIG)]
    texts = {tuple(m.content for m in one) for one in every}
    assert {tuple(left), tuple(right)} <= texts
    await first.ainvoke(say("next"), CONFIG)
    assert (await stored(log))[:5] == [*newest, "next"]


UNUSUAL: list[Any] = [
    AIMessage([{"type": "text", "text": "x"}, {"type": "thinking", "thinking": "t", "signature": "s"}]),
    AIMessage("x", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    ToolMessage("x", tool_call_id="c", artifact={"a": (1, 2)}, status="error"),
    ToolMessage("x", tool_call_id="c", artifact=frozenset({1, 2})),
    HumanMessage("x", additional_kwargs={"b": b"bytes"}),
    SystemMessage("x", name="n"),
    HumanMessage("\x00 x"),
]


@pytest.mark.parametrize("number", range(len(UNUSUAL)))
async def test_unusual_messages_come_back_exactly(log: MessageLog, number: int) -> None:
    given = UNUSUAL[number].model_copy(update={"id": "m"})
    graph = echo_graph(AgentStoresSaver(log))
    await graph.ainvoke({"messages": [given]}, CONFIG)
    fresh = echo_graph(AgentStoresSaver(log))
    theirs = echo_graph(InMemorySaver(serde=AgentStoresSaver(log).serde))
    await theirs.ainvoke({"messages": [given]}, CONFIG)
    wanted = (await theirs.aget_state(CONFIG)).values["messages"][0]
    assert (await fresh.aget_state(CONFIG)).values["messages"][0] == wanted


async def test_lists_without_ids(log: MessageLog) -> None:
    saver = AgentStoresSaver(log)
    same = HumanMessage("same")
    values = {"messages": [same, HumanMessage("same"), AIMessage("x", id="1"), AIMessage("y", id="1")]}
    version = saver.get_next_version(None, None)
    checkpoint: Any = {
        **{"v": 4, "id": "1", "ts": "", "versions_seen": {}, "updated_channels": None},
        "channel_values": values,
        "channel_versions": {"messages": version},
    }
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    place = await saver.aput(config, checkpoint, {}, {"messages": version})
    tuple_ = await AgentStoresSaver(log).aget_tuple(place)
    assert tuple_ is not None
    assert tuple_.checkpoint["channel_values"] == values
    later: Any = {**checkpoint, "id": "2"}
    await saver.aput(place, later, {}, {})
    assert len(await stored(log)) == 4


@dataclass
class Custom:
    """A type that LangGraph does not know."""

    value: int


async def test_types_that_are_not_restored_raise_when_they_are_written(log: MessageLog) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
    with pytest.raises(ArgumentTypeError, match=r"allowed_msgpack_modules=\[\('.*test_saver', 'Custom'\)\]"):
        await AgentStoresSaver(log).aput_writes(config, [("x", [Custom(1)])], "task")
    checkpoint: Any = {
        **{"v": 4, "id": "1", "ts": "", "versions_seen": {}, "updated_channels": None},
        "channel_values": {"messages": [HumanMessage("q")], "x": Custom(1)},
        "channel_versions": {},
    }
    with pytest.raises(ArgumentTypeError, match="the channel 'x' has a value of type"):
        await AgentStoresSaver(log).aput(config, checkpoint, {}, {})
    assert await stored(log) == []
    allowed = JsonPlusSerializer(allowed_msgpack_modules=[(Custom.__module__, "Custom")])
    await AgentStoresSaver(log, serde=allowed).aput_writes(config, [("x", [Custom(1)])], "task")


async def test_pruning_keeps_the_newest(log: MessageLog) -> None:
    saver = AgentStoresSaver(log)
    graph = echo_graph(saver)
    for number in range(4):
        await graph.ainvoke(say(f"q{number}"), CONFIG)
    await graph.aupdate_state(CONFIG, {"messages": removed("q0", "a1")})
    before = (await graph.aget_state(CONFIG)).values
    size = (await ChatMessageStore(log, thread_id="#langgraph/t").stats()).bytes
    await saver.aprune(["t"])
    assert len([one async for one in graph.aget_state_history(CONFIG)]) == 1
    assert (await graph.aget_state(CONFIG)).values == before
    assert (await ChatMessageStore(log, thread_id="#langgraph/t").stats()).bytes < size / 5
    await graph.ainvoke(say("more"), CONFIG)
    assert len(await stored(log)) == 8


async def test_deleting_a_run_deletes_its_messages(log: MessageLog) -> None:
    saver = AgentStoresSaver(log)
    graph = echo_graph(saver)
    await graph.ainvoke(say("q1"), {**CONFIG, "metadata": {"run_id": "r1"}})
    await graph.ainvoke(say("q2"), {**CONFIG, "metadata": {"run_id": "r2"}})
    await ChatMessageStore(log, thread_id="t").add_messages([ChatMessage("user", "other")])
    await saver.adelete_for_runs(["r2"])
    assert await stored(log) == ["q1", "answer 1 to q1", "other"]
    shown = (await graph.aget_state(CONFIG)).values["messages"]
    assert [m.content for m in shown] == ["q1", "answer 1 to q1", "other"]


async def test_copies_go_their_own_ways(log: MessageLog) -> None:
    saver = AgentStoresSaver(log)
    graph = echo_graph(saver)
    await graph.ainvoke(say("q1"), CONFIG)
    await saver.acopy_thread("t", "a/b#c")
    await graph.ainvoke(say("q2"), {"configurable": {"thread_id": "a/b#c"}})
    assert len(await stored(log)) == 2
    assert len(await stored(log, "a/b#c")) == 4
    assert {one.config["configurable"]["thread_id"] async for one in saver.alist(None)} == {"t", "a/b#c"}
    with pytest.raises(ThreadExistsError):
        await saver.acopy_thread("t", "a/b#c")


def test_without_an_event_loop() -> None:
    with AgentStoresSaver("memory:") as saver:
        graph = echo_graph(saver)
        graph.invoke(say("q1"), CONFIG)
        assert [m.content for m in graph.get_state(CONFIG).values["messages"]] == ["q1", "answer 1 to q1"]
        assert len(list(saver.list(CONFIG, limit=2))) == 2
        saver.copy_thread("t", "u")
        saver.prune(["u"])
        saver.delete_for_runs(["r"])
        saver.delete_thread("t")
        assert graph.get_state(CONFIG).values == {}


async def test_options_and_closing(log: MessageLog) -> None:
    with pytest.raises(ArgumentTypeError, match="max_message"):
        AgentStoresSaver(log, max_message=3)  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="#langgraph/"):
        await AgentStoresSaver(log).aget_tuple({"configurable": {"thread_id": "#langgraph/t"}})
    graph = echo_graph(AgentStoresSaver(log, max_messages=4, ttl=60))
    for number in range(5):
        await graph.ainvoke(say(f"q{number}"), CONFIG)
    shown = (await graph.aget_state(CONFIG)).values["messages"]
    assert [m.content for m in shown] == ["q3", "answer 4 to q3", "q4", "answer 5 to q4"]
    for thread_id in ("t", "#langgraph/t"):
        assert (await ChatMessageStore(log, thread_id=thread_id).stats()).expires_at is not None
    async with AgentStoresSaver("memory:") as closed:
        pass
    with pytest.raises(StoreClosedError):
        await closed.aget_tuple(CONFIG)


async def test_only_the_import_changes(tmp_path: Path) -> None:
    file = str(tmp_path / "checkpoints.db")
    with SqliteSaver.from_conn_string(file) as sync_saver:
        sync_saver.setup()
        await asyncio.to_thread(echo_graph(sync_saver).invoke, say("q1"), CONFIG)
    async with AsyncSqliteSaver.from_conn_string(file) as saver:
        await saver.setup()
        result = await echo_graph(saver).ainvoke(say("q2"), CONFIG)
    assert [m.content for m in result["messages"]][-1] == "answer 2 to q2"
    with pytest.raises(ArgumentError, match="URL"):
        async with AsyncPostgresSaver.from_conn_string("host=localhost password=secret"):
            pass
    client = aioredis.Redis(port=1)
    for options in ({"redis_url": "redis://localhost:1"}, {"redis_client": client}):
        made: Any = {**options, "ttl": {"default_ttl": 1}, "checkpoint_prefix": "p"}
        async with AsyncRedisSaver.from_conn_string(**made) as redis:
            assert redis.config_specs == []
        with pytest.raises(StoreClosedError):
            await redis.aget_tuple(CONFIG)

        def use(made: Any = made) -> None:
            with RedisSaver.from_conn_string(**made) as sync_redis:
                sync_redis.setup()

        await asyncio.to_thread(use)
    await client.aclose()
    assert await OurInMemorySaver().aget_tuple(CONFIG) is None


@pytest.mark.parametrize(
    ("ours", "module"),
    [
        (PostgresSaver, "langgraph.checkpoint.postgres"),
        (AsyncPostgresSaver, "langgraph.checkpoint.postgres.aio"),
        (SqliteSaver, "langgraph.checkpoint.sqlite"),
        (AsyncSqliteSaver, "langgraph.checkpoint.sqlite.aio"),
    ],
)
def test_factories_take_the_arguments_of_langgraph_s_own(ours: Any, module: str) -> None:
    theirs = getattr(import_module(module), ours.__name__)
    wanted = inspect.signature(theirs.from_conn_string).parameters
    found = inspect.signature(ours.from_conn_string).parameters
    for name, parameter in wanted.items():
        assert (found[name].kind, found[name].default) == (parameter.kind, parameter.default), name
    assert inspect.iscoroutinefunction(ours.setup) == inspect.iscoroutinefunction(theirs.setup)
