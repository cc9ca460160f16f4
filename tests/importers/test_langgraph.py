"""Checkpoints of LangGraph, written by its own savers under graphs."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from agent_stores import DataContent, ToolCallContent, ToolResultContent
from agent_stores.langgraph import AgentStoresSaver
from tests.importers.support import read, run_migration, threads
from tests.plugins.conftest import PNG
from tests.plugins.langgraph.graphs import Weather, call, echo_graph, tool_graph
from tests.servers.postgres import PostgresServer

THREADS = ("plain", "o'brien:\n%_\\\u2603", "x" * 300)


def config(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def question() -> HumanMessage:
    image = {"type": "image", "base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"}
    return HumanMessage([{"type": "text", "text": "The weather? \U0001f600"}, image], id="q1")


@asynccontextmanager
async def theirs(url: str) -> AsyncIterator[Any]:
    if url.startswith("postgresql"):
        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            await saver.setup()
            yield saver
    else:
        async with AsyncSqliteSaver.from_conn_string(url.removeprefix("sqlite:///")) as saver:
            yield saver


async def ask(saver: Any, name: str, message: BaseMessage, *answers: AIMessage | str) -> list[BaseMessage]:
    graph = tool_graph(saver, answers, Weather())
    state = await graph.ainvoke({"messages": [message]}, config(name))
    return list(state["messages"])


async def fill(url: str) -> dict[str, list[BaseMessage]]:
    async with theirs(url) as saver:
        answers = [call("a", "b"), AIMessage("Rain.", id="ai2")]
        return {name: await ask(saver, name, question(), *answers) for name in THREADS}


async def shown(target: str) -> dict[str, list[BaseMessage]]:
    async with AgentStoresSaver(target) as saver:
        graph = tool_graph(saver, [], Weather())
        return {name: (await graph.aget_state(config(name))).values["messages"] for name in THREADS}


def check(url: str, target: str, *arguments: str) -> None:
    wanted = asyncio.run(fill(url))
    for added in (5 * len(THREADS), 0):
        done = run_migration(f"langgraph+{url}", target, *arguments)
        assert done.report["problems"] == []
        assert (done.status, done.report["added"], done.report["complete"]) == (0, added, True)
    assert asyncio.run(shown(target)) == wanted
    found = read(target, "plain")
    assert [message.role for message in found] == ["user", "assistant", "tool", "tool", "assistant"]
    parts = [part for message in found for part in message.contents]
    assert [part.data for part in parts if isinstance(part, DataContent)] == [PNG]
    assert [part.call_id for part in parts if isinstance(part, ToolCallContent)] == ["a", "b"]
    assert [part.call_id for part in parts if isinstance(part, ToolResultContent)] == ["a", "b"]
    assert found[0].message_id == "q1"


def test_sqlite(tmp_path: Path, target: str) -> None:
    check(f"sqlite:///{tmp_path / 'checkpoints.db'}", target)


def test_postgresql(postgres_server: PostgresServer, target: str) -> None:
    check(postgres_server.create_database(f"graphs_{target.partition(':')[0]}"), target)


def test_a_conversation_goes_on(tmp_path: Path, target: str) -> None:
    url = f"sqlite:///{tmp_path / 'checkpoints.db'}"
    before = asyncio.run(fill(url))["plain"]

    async def there() -> None:
        async with theirs(url) as saver:
            await ask(saver, "plain", HumanMessage("And now?", id="q2"), AIMessage("Sun.", id="ai3"))

    async def here() -> list[BaseMessage]:
        async with AgentStoresSaver(target) as saver:
            await ask(saver, "plain", HumanMessage("Then?", id="q3"), AIMessage("Snow.", id="ai4"))
            graph = tool_graph(saver, [], Weather())
            return list((await graph.aget_state(config("plain"))).values["messages"])

    assert run_migration(f"langgraph+{url}", target).report["added"] == 5 * len(THREADS)
    asyncio.run(there())
    assert run_migration(f"langgraph+{url}", target).report["added"] == 2
    found = asyncio.run(here())
    assert found[: len(before)] == before
    assert [message.content for message in found[len(before) :]] == ["And now?", "Sun.", "Then?", "Snow."]
    assert run_migration(f"langgraph+{url}", target).report["added"] == 0
    assert len(read(target, "plain")) == len(found)


def test_another_channel_and_messages_of_every_kind(tmp_path: Path, target: str) -> None:
    file = tmp_path / "checkpoints.db"
    artifact = ToolMessage("r", tool_call_id="a", artifact={"kinds": {2}}, id="t1")

    async def fill_other() -> None:
        async with theirs(f"sqlite:///{file}") as saver:
            graph = echo_graph(saver)
            said = [HumanMessage("a", id="q"), call("a"), artifact, HumanMessage("b")]
            await graph.ainvoke({"messages": said}, config("t"))

    async def found() -> list[BaseMessage]:
        async with AgentStoresSaver(target) as saver:
            return list((await echo_graph(saver).aget_state(config("t"))).values["messages"])

    asyncio.run(fill_other())
    source = f"langgraph+{file}"
    done = run_migration(source, target, "--from-option", "messages_channel=notes")
    assert done.status == 4
    assert done.report["problems"][0]["reason"].startswith("the value must be a message")
    assert run_migration(source, target, "--from-option", "messages_channel=count").status == 4
    assert run_migration(source, target, "--from-option", "messages_channel=none").report["messages"] == 0
    assert run_migration(source, target).report["added"] == 5
    (restored,) = [message for message in asyncio.run(found()) if message.id == "t1"]
    assert restored == artifact


def test_what_cannot_be_read_is_reported(tmp_path: Path, target: str) -> None:
    file = tmp_path / "checkpoints.db"
    asyncio.run(fill(f"sqlite:///{file}"))
    with sqlite3.connect(file) as connection:
        change = "UPDATE checkpoints SET type = ?, checkpoint = ? WHERE thread_id = ?"
        connection.execute(change, ("msgpack+aes", b"\x00", "plain"))
        connection.execute(change, ("msgpack", b"\xc1", "x" * 300))
    connection.close()
    done = run_migration(f"langgraph+{file}", target)
    assert (done.status, done.report["threads_skipped"], done.report["added"]) == (4, 2, 5)
    assert set(threads(target)) == {THREADS[1]}
    reasons = {one["thread_id"]: one["reason"] for one in done.report["problems"]}
    assert "'msgpack+aes'" in reasons["plain"]


@pytest.mark.parametrize("source", ["langgraph+mariadb://u@h/d", "langgraph+redis://h"])
def test_other_databases(source: str, target: str) -> None:
    assert run_migration(source, target).status != 0


def test_there_is_no_such_table(tmp_path: Path, target: str) -> None:
    file = tmp_path / "empty.db"
    sqlite3.connect(file).close()
    assert run_migration(f"langgraph+{file}", target).status != 0
