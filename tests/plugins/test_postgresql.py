"""Classes with the names of the frameworks' own, on PostgreSQL, by the URLs that their users have today."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from google.adk.events.event import Event
from google.genai import types
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from llama_index.core.llms import ChatMessage as LlamaMessage

from agent_stores.google_adk import DatabaseSessionService
from agent_stores.langchain import SQLChatMessageHistory
from agent_stores.langgraph import AsyncPostgresSaver, PostgresSaver
from agent_stores.llama_index import SQLAlchemyChatStore
from agent_stores.openai_agents import SQLAlchemySession
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CONFIG: Any = {"configurable": {"thread_id": "t"}}


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database(f"names_{uuid.uuid4().hex}")


def with_driver(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)


def echo(saver: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("echo", lambda state: {"messages": [("ai", f"{len(state['messages'])}")]})
    builder.add_edge(START, "echo")
    return builder.compile(checkpointer=saver)


async def test_langgraph(url: str) -> None:
    url += ("&" if "?" in url else "?") + "sslmode=disable"  # as in its documentation
    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        await saver.setup()
        await echo(saver).ainvoke({"messages": [HumanMessage("Hello")]}, CONFIG)

    def again() -> Any:
        with PostgresSaver.from_conn_string(url) as saver:
            saver.setup()
            return echo(saver).invoke({"messages": [HumanMessage("Hello")]}, CONFIG)

    result = await asyncio.to_thread(again)
    assert [message.content for message in result["messages"]] == ["Hello", "1", "Hello", "3"]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_google_adk(url: str, driver: str) -> None:
    names: Any = {"app_name": "app", "user_id": "u", "session_id": "s"}
    async with DatabaseSessionService(with_driver(url, driver)) as service:
        session = await service.create_session(**names, state={"a": 1})
        content = types.Content(role="user", parts=[types.Part(text="Hello")])
        await service.append_event(session, Event(author="user", content=content))
    async with DatabaseSessionService(db_url=with_driver(url, driver)) as service:
        found = await service.get_session(**names)
    assert found is not None
    assert (found.state, len(found.events)) == ({"a": 1}, 1)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_openai_agents(url: str, driver: str) -> None:
    for count in (1, 2):
        session = SQLAlchemySession.from_url("s", url=with_driver(url, driver), create_tables=True)
        item: Any = {"role": "user", "content": "Hello"}
        await session.add_items([item])
        assert await session.get_items() == [item] * count
        await session.close()


@pytest.mark.parametrize("driver", ["", "psycopg", "asyncpg"])
async def test_langchain(url: str, driver: str) -> None:
    address = with_driver(url, driver) if driver else url
    history = SQLChatMessageHistory(session_id="s", connection=address)
    await history.aadd_messages([HumanMessage("Hello")])
    await history.aclose()

    def again() -> Any:
        with SQLChatMessageHistory("s", connection=address) as history:
            return history.messages

    assert [message.content for message in await asyncio.to_thread(again)] == ["Hello"]


async def test_llama_index(url: str) -> None:
    uri = with_driver(url, "asyncpg")
    for count in (1, 2):
        store = SQLAlchemyChatStore(table_name="llama_index_memory", async_database_uri=uri)
        await store.add_message("a", LlamaMessage("Hello"))
        assert await store.count_messages("a") == count
        await store.aclose()
