"""Bytes and time of a LangGraph conversation: our saver, and langgraph-checkpoint-sqlite.

Run it with ``python -m benchmarks.langgraph_checkpoints 10 100 1000``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

from agent_stores.langgraph import AgentStoresSaver

TEXT = "some words of an ordinary length " * 15  # 500 bytes


def answer(state: MessagesState) -> Any:
    """The node of the graph."""
    return {"messages": [AIMessage(TEXT)]}


async def run(saver: Any, turns: int) -> float:
    """The seconds of a conversation of *n* turns."""
    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(saver)
    begun = time.perf_counter()
    for _ in range(turns):
        await graph.ainvoke({"messages": [HumanMessage(TEXT)]}, {"configurable": {"thread_id": "t"}})
    return time.perf_counter() - begun


def size_of(folder: Path, name: str) -> int:
    """The bytes of a database's files."""
    return sum(path.stat().st_size for path in folder.glob(f"{name}.db*"))


async def measure(turns: int) -> None:
    """Print one line for each saver."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ours", "theirs"):
            async with AsyncExitStack() as stack:
                file = f"{folder}/{name}.db"
                saver: Any = (
                    await stack.enter_async_context(AgentStoresSaver(f"sqlite:///{file}"))
                    if name == "ours"
                    else await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(file))
                )
                seconds = await run(saver, turns)
            size = size_of(Path(folder), name) / 1e6
            print(f"{turns} turns, {name}: {size:.2f} MB, {1000 * seconds / turns:.1f} ms a turn")


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        asyncio.run(measure(number))
