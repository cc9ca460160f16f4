"""LangGraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from agent_stores.langgraph import AgentStoresSaver
from agent_stores.log import MessageLog
from tests.plugins.pairs.langchain import LangChain

_CONFIG: RunnableConfig = {"configurable": {"thread_id": "s"}}


def _graph(log: MessageLog) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("nothing", lambda state: {})
    graph.add_edge(START, "nothing")
    return graph.compile(checkpointer=AgentStoresSaver(log))


class LangGraph(LangChain):
    """`AgentStoresSaver`, under a graph with messages."""

    label = "LangGraph"

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        await _graph(log).ainvoke({"messages": list(messages)}, _CONFIG)

    async def read(self, log: MessageLog) -> list[Any]:
        return list((await _graph(log).aget_state(_CONFIG)).values.get("messages", []))

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a graph's next run is given its past and new messages alike."""
        await _graph(log).ainvoke({"messages": list(messages)}, _CONFIG)
