"""A graph with a channel that checkpoints hold as differences (LangGraph's `DeltaChannel`, beta)."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from agent_stores.langgraph import AgentStoresSaver
from agent_stores.log import MessageLog

pytestmark = pytest.mark.anyio

CONFIG: Any = {"configurable": {"thread_id": "t"}}


def extended(notes: list[str], writes: Any) -> list[str]:
    return [*notes, *(one for write in writes for one in write)]


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    notes: Annotated[list[str], DeltaChannel(extended, list, snapshot_frequency=3)]


def graph_of(saver: Any) -> Any:
    def answer(state: State) -> Any:
        said = state["messages"][-1].content
        return {"messages": [AIMessage(f"to {said}", id=f"a{said}")], "notes": [f"n{said}"]}

    graph = StateGraph(State)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    return graph.compile(checkpointer=saver)


async def run(graph: Any, numbers: range, config: Any = CONFIG) -> None:
    for number in numbers:
        message = HumanMessage(str(number), id=f"q{number}")
        await graph.ainvoke({"messages": [message], "notes": [f"in{number}"]}, config)


async def history(graph: Any) -> list[Any]:
    return [(state.values, state.next) async for state in graph.aget_state_history(CONFIG)]


async def test_the_same_states_as_langgraph_s_own_saver(log: MessageLog) -> None:
    graphs = [graph_of(AgentStoresSaver(log)), graph_of(InMemorySaver())]
    for graph in graphs:
        await run(graph, range(7))
    ours, theirs = [await history(graph) for graph in graphs]
    assert ours == theirs
    notes = ours[0][0]["notes"]
    assert notes == [text for number in range(7) for text in (f"in{number}", f"n{number}")]
    fresh = graph_of(AgentStoresSaver(log))
    await run(fresh, range(7, 9))
    assert (await fresh.aget_state(CONFIG)).values["notes"][-2:] == ["in8", "n8"]


async def test_pruning_and_copying_keep_the_differences(log: MessageLog) -> None:
    saver = AgentStoresSaver(log)
    graph = graph_of(saver)
    await run(graph, range(8))
    before = (await graph.aget_state(CONFIG)).values
    await saver.acopy_thread("t", "copy")
    await saver.aprune(["t"])
    assert (await graph.aget_state(CONFIG)).values == before
    assert len(await history(graph)) < 24
    copied: Any = {"configurable": {"thread_id": "copy"}}
    assert (await graph.aget_state(copied)).values["notes"] == before["notes"]
    await run(graph, range(8, 9))
    await run(graph, range(20, 21), copied)
    assert (await graph.aget_state(CONFIG)).values["notes"] == [*before["notes"], "in8", "n8"]
    assert (await graph.aget_state(copied)).values["notes"] == [*before["notes"], "in20", "n20"]
