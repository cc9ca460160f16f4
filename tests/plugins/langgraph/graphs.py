"""Graphs of the tests: without a model, or with one of LangChain's fake models."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, RemoveMessage
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition


class State(TypedDict):
    """A conversation, and what is not one."""

    messages: Annotated[list[AnyMessage], add_messages]
    notes: Annotated[list[str], operator.add]
    count: int


class ScriptedModel(GenericFakeChatModel):
    """Says what it was told to; takes tools, as models do."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Any:
        return self


class Crash(BaseException):
    """The end of a process."""


class Weather:
    """A tool that fails as often as it was told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls = 0

    def tool(self) -> BaseTool:
        @tool
        def weather(city: str) -> str:
            """The weather in a city."""
            self.calls += 1
            if self.failures:
                self.failures -= 1
                raise Crash
            return f"It rains in {city}."

        return weather


def call(*ids: str) -> AIMessage:
    """An answer that calls tools."""
    return AIMessage(
        "I look.", id="ai1", tool_calls=[{"name": "weather", "args": {"city": one}, "id": one} for one in ids]
    )


def echo_graph(saver: Any) -> Any:
    """A graph that answers each message, and counts."""

    def answer(state: State) -> Any:
        number = state.get("count", 0) + 1
        text = f"answer {number} to {state['messages'][-1].content}"
        return {"messages": [AIMessage(text, id=f"a{number}")], "notes": ["n" * 300], "count": number}

    graph = StateGraph(State)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


def tool_graph(saver: Any, answers: Sequence[AIMessage | str], weather: Weather) -> Any:
    """A model and a tool, until the model calls no more."""
    tools = [weather.tool()]
    model = ScriptedModel(messages=iter(answers)).bind_tools(tools)

    async def agent(state: State) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(State)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=saver)


def removed(*ids: str) -> list[RemoveMessage]:
    """Messages that take others out of the state."""
    return [RemoveMessage(id=one) for one in ids]
