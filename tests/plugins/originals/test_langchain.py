"""One suite on LangChain's own histories and on ours of the same names, constructed alike."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from tests.plugins.signatures import check_arguments

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:`langchain-community` is being sunset"),
]

MESSAGES = [  # with ids: ours gives one to a message that has none
    HumanMessage("What is the weather? 你好", name="Alice", id="m1"),
    AIMessage(
        "",
        tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "c1", "type": "tool_call"}],
        id="m2",
    ),
    ToolMessage("sun", tool_call_id="c1", id="m3"),
    AIMessage("Sunny.", response_metadata={"model": "m"}, id="m4"),
]


def named(whose: str, name: str) -> Any:
    module = "agent_stores.langchain" if whose == "ours" else "langchain_community.chat_message_histories"
    return getattr(import_module(module), name)


@pytest.fixture(params=["Redis", "SQL of a URL", "SQL of an engine"])
def make(request: pytest.FixtureRequest, whose: str, name: str, tmp_path: Path) -> Any:
    """Makes a history as its documentation does."""
    History = named(whose, f"{request.param.partition(' ')[0]}ChatMessageHistory")
    url = f"sqlite:///{tmp_path}/chat.db"
    engines: list[Any] = []

    def build(session_id: str = "session") -> Any:
        if request.param == "Redis":
            server = request.getfixturevalue("redis_url")
            return History(session_id=session_id, url=server, key_prefix=f"{name}:", ttl=300)
        if request.param == "SQL of a URL":
            return History(session_id=session_id, connection=url)
        engines.append(create_engine(url))
        return History(session_id=session_id, table_name="chats", connection=engines[-1])

    yield build
    for engine in engines:
        engine.dispose()


def test_a_history(make: Callable[..., Any]) -> None:
    history = make()
    assert isinstance(history, BaseChatMessageHistory)
    assert history.messages == []
    history.add_user_message("Hello")
    history.add_ai_message("Hi")
    history.add_message(HumanMessage("yes"))
    history.add_messages([HumanMessage("yes"), AIMessage("Fine.")])
    assert [(one.type, one.content) for one in history.messages] == [
        ("human", "Hello"),
        ("ai", "Hi"),
        *[("human", "yes")] * 2,
        ("ai", "Fine."),
    ]
    assert make("other").messages == []
    assert len(make().messages) == 5
    history.clear()
    assert make().messages == []


def test_messages_come_back(make: Callable[..., Any]) -> None:
    make().add_messages(MESSAGES)
    assert make().messages == MESSAGES


async def test_the_asynchronous_methods(whose: str, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/chat.db")
    history = named(whose, "SQLChatMessageHistory")(session_id="s", connection=engine)
    await history.aadd_messages(MESSAGES)
    await history.aadd_messages([HumanMessage("again")])
    assert [one.content for one in await history.aget_messages()] == [
        *(one.content for one in MESSAGES),
        "again",
    ]
    await history.aclear()
    assert await history.aget_messages() == []
    await engine.dispose()


async def test_a_synchronous_client_of_the_caller(redis_url: str, name: str) -> None:
    """As langchain-redis takes one; its own class needs a module that no server here has."""
    with redis.Redis.from_url(redis_url) as client:
        history = named("ours", "RedisChatMessageHistory")(name, redis_client=client)
        history.add_messages(MESSAGES)
        await history.aadd_messages([HumanMessage("again", id="m5")])
        assert [one.id for one in history.messages] == ["m1", "m2", "m3", "m4", "m5"]
        assert await history.aget_messages() == history.messages
        assert client.ping()


@pytest.mark.parametrize("name", ["RedisChatMessageHistory", "SQLChatMessageHistory"])
def test_they_are_made_with_the_same_arguments(name: str) -> None:
    check_arguments(named("the original", name), named("ours", name), {"url": "redis_url"})


def test_redis_is_made_with_the_arguments_of_langchain_redis() -> None:
    theirs = import_module("langchain_redis").RedisChatMessageHistory
    check_arguments(theirs, named("ours", "RedisChatMessageHistory"))
