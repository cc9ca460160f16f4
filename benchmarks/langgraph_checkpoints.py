"""Bytes and CPU time of a LangGraph conversation: our saver, and LangGraph's own, in SQLite and PostgreSQL.

Run it with ``python -m benchmarks.langgraph_checkpoints 10 100 1000``. PostgreSQL is that of the tests; its
bytes are those of the tables with their indexes. The CPU time is that of this process, without the server's.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

from agent_stores.langgraph import AgentStoresSaver
from tests.servers.postgres import PostgresServer

_letters = random.Random(1)
SIZE = (
    "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
    "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)


def text() -> str:
    """500 bytes of made-up words; a sentence that repeats would be compressed by PostgreSQL."""
    words = (
        "".join(_letters.choices("abcdefghijklmnopqrstuvwxyz", k=_letters.randint(2, 9))) for _ in range(90)
    )
    return " ".join(words)[:500]


def answer(state: MessagesState) -> Any:
    """The node of the graph."""
    return {"messages": [AIMessage(text())]}


async def run(saver: Any, turns: int) -> float:
    """The seconds of CPU time of a conversation of *n* turns."""
    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(saver)
    begun = time.process_time()
    for _ in range(turns):
        await graph.ainvoke({"messages": [HumanMessage(text())]}, {"configurable": {"thread_id": "t"}})
    return time.process_time() - begun


def size_of_file(file: str) -> int:
    """The bytes of an SQLite database's files."""
    path = Path(file)
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))


def size_of_database(url: str) -> int:
    """The bytes of a PostgreSQL database's tables."""
    with psycopg.connect(url) as connection:
        (size,) = connection.execute(SIZE).fetchone() or (0,)
    return int(size)


async def measure(
    name: str,
    turns: int,
    opened: AbstractAsyncContextManager[Any],
    size: Callable[[], int],
) -> None:
    """Print one line for a saver."""
    async with opened as saver:
        if isinstance(saver, AsyncPostgresSaver):
            await saver.setup()
        seconds = await run(saver, turns)
    print(
        f"{turns} turns, {name}: {size() / 1e6:.2f} MB, {1000 * seconds / turns:.1f} ms of CPU a turn",
        flush=True,
    )


async def main(turns: int, server: PostgresServer) -> None:
    """Measure every saver on a conversation of *n* turns."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/ours.db"
        ours: Any = AgentStoresSaver(f"sqlite:///{file}")
        await measure("ours, SQLite", turns, ours, partial(size_of_file, file))
        file = f"{folder}/theirs.db"
        theirs: Any = AsyncSqliteSaver.from_conn_string(file)
        await measure("langgraph-checkpoint-sqlite", turns, theirs, partial(size_of_file, file))
        url = server.create_database(f"ours_{turns}")
        ours = AgentStoresSaver(url)
        await measure("ours, PostgreSQL", turns, ours, partial(size_of_database, url))
        url = server.create_database(f"theirs_{turns}")
        theirs = AsyncPostgresSaver.from_conn_string(url)
        await measure("langgraph-checkpoint-postgres", turns, theirs, partial(size_of_database, url))


if __name__ == "__main__":
    with PostgresServer() as postgres:
        for number in map(int, sys.argv[1:]):
            asyncio.run(main(number, postgres))
