"""The names and constructors of LangChain's own histories: programs with only the import changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage

from agent_stores.errors import ArgumentError
from agent_stores.langchain import RedisChatMessageHistory, SQLChatMessageHistory


@pytest.mark.filterwarnings("ignore:The class `InMemoryChatMessageHistory` was deprecated")
@pytest.mark.parametrize("is_original", [True, False])
def test_a_history(is_original: bool, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"
    history: Any = (
        InMemoryChatMessageHistory()
        if is_original
        else SQLChatMessageHistory(session_id="test_session", connection=url)
    )
    history.add_user_message("Hello")
    history.add_ai_message("Hi")
    history.add_messages([HumanMessage("yes"), HumanMessage("yes"), AIMessage("Fine.")])
    assert [(one.type, one.content) for one in history.messages] == [
        ("human", "Hello"),
        ("ai", "Hi"),
        *[("human", "yes")] * 2,
        ("ai", "Fine."),
    ]
    history.clear()
    assert history.messages == []


def test_table_names_are_apart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"
    SQLChatMessageHistory("s", table_name="chats", connection=url).add_user_message("Hello")
    assert SQLChatMessageHistory("s", table_name="others", connection_string=url).messages == []
    assert len(SQLChatMessageHistory("s", "chats", connection=url).messages) == 1
    with pytest.raises(ArgumentError, match="one of connection and connection_string"):
        SQLChatMessageHistory("s")


@pytest.mark.parametrize(
    "arguments",
    [
        {"redis_url": "redis://localhost:1", "key_prefix": "chat:", "ttl": 60, "index_name": "x"},
        {"url": "redis://localhost:1/0", "key_prefix": "message_store:", "ttl": 60},
    ],
)
def test_redis_arguments_of_both_packages(arguments: dict[str, Any]) -> None:
    history = RedisChatMessageHistory("s", **arguments)
    assert history.store.location == f"redis://localhost:1/0#{arguments['key_prefix']}"
    with pytest.raises(ArgumentError, match="redis_url and url must not be given together"):
        RedisChatMessageHistory("s", "redis://localhost:1", url="redis://localhost:1")
    with pytest.raises(ArgumentError, match="write redis://localhost:6379"):
        RedisChatMessageHistory("s", "localhost:6379")
