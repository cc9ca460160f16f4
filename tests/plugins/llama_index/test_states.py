"""What is carried to another process: as JSON, and pickled."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage as LlamaMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.storage.chat_store.base_db import MessageStatus

from agent_stores import KeyRing
from agent_stores.errors import ArgumentError, ArgumentTypeError, StateError
from agent_stores.llama_index import AgentStoresChatStore, AgentStoresDBChatStore, AgentStoresMemory
from agent_stores.log import MessageLog
from agent_stores.retention import Window
from tests.plugins.llama_index.messages import MESSAGES
from tests.plugins.llama_index.test_memory import call, said, user

WAYS: dict[str, Callable[[Any], Any]] = {
    "dict": lambda one: type(one).from_dict(json.loads(json.dumps(one.to_dict()))),
    "json": lambda one: type(one).from_json(one.to_json()),
    "text": lambda one: type(one).from_string(one.to_string()),
    "model": lambda one: type(one).model_validate_json(one.model_dump_json()),
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
}
SECRET = "redis://:hunter2@localhost:1/0"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/chat.db"


def buffer(store: AgentStoresChatStore) -> ChatMemoryBuffer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return ChatMemoryBuffer.from_defaults(token_limit=3000, chat_store=store, chat_store_key="user1")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_on_disk", [True, False])
def test_a_memory(way: str, is_on_disk: bool, url: str) -> None:
    memory = AgentStoresMemory(
        url if is_on_disk else "memory:",
        chat_store_key="user1",
        token_limit=1000,
        tenant="acme",
        max_messages=50,
        ttl=timedelta(hours=1),
        window=Window(last=3, max_age=timedelta(days=1)),
        dangling_calls="drop",
    )
    memory.put_messages([user("0"), user("1"), call("a"), user("2"), user("3")])
    again: AgentStoresMemory = WAYS[way](memory)
    assert again.get_all() == memory.get_all()
    assert said(again.get()) == said(memory.get()) == ["2", "3"]
    again.put(user("later"))
    if is_on_disk:
        assert said(memory.get_all())[-1] == "later"
    assert again.to_dict() == WAYS[way](again).to_dict()
    assert again.chat_store_key == "user1"
    assert again.token_limit == 1000


@pytest.mark.parametrize("way", ["dict", "json", "model", "pickle"])
@pytest.mark.parametrize("is_on_disk", [True, False])
def test_a_chat_store(way: str, is_on_disk: bool, url: str) -> None:
    store = AgentStoresChatStore(url, max_messages=400) if is_on_disk else AgentStoresChatStore()
    store.set_messages("a", list(MESSAGES.values()))
    again: AgentStoresChatStore = WAYS[way](store)
    assert again.get_messages("a") == list(MESSAGES.values())
    again.add_message("a", user("later"))
    assert (store.get_messages("a") == again.get_messages("a")) is is_on_disk


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["model", "pickle"])
@pytest.mark.parametrize("is_on_disk", [True, False])
async def test_a_database_chat_store(way: str, is_on_disk: bool, url: str, no_blocking_calls: Any) -> None:
    no_blocking_calls.deactivate()  # a store in memory is dumped by a method that blocks
    store = AgentStoresDBChatStore(url) if is_on_disk else AgentStoresDBChatStore()
    await store.add_messages("a", [user("0"), user("1"), user("2")])
    await store.archive_oldest_messages("a", 1)
    assert store.model_dump() != {"class_name": "AgentStoresDBChatStore"}
    again: AgentStoresDBChatStore = WAYS[way](store)
    assert said(await again.get_messages("a")) == ["1", "2"]
    assert said(await again.get_messages("a", MessageStatus.ARCHIVED)) == ["0"]
    await again.add_message("a", user("later"))
    assert (await store.count_messages("a") == 3) is is_on_disk
    await store.aclose()
    await again.aclose()


@pytest.mark.parametrize("is_pickled", [True, False])
def test_a_memory_buffer(is_pickled: bool, url: str) -> None:
    memory = buffer(AgentStoresChatStore(url))
    memory.put(user("Hello"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        again: Any = (
            pickle.loads(pickle.dumps(memory))
            if is_pickled
            else ChatMemoryBuffer.from_string(memory.to_string())
        )
    again.put(LlamaMessage("Hi!", role="assistant"))
    assert said(memory.get_all()) == ["Hello", "Hi!"]


@pytest.mark.parametrize("make", [AgentStoresChatStore, AgentStoresDBChatStore, AgentStoresMemory])
def test_a_login_is_not_carried(make: Any) -> None:
    one = make(SECRET, tenant="acme")
    text = one.model_dump_json()
    assert "hunter2" not in text + repr(pickle.dumps(one)) + repr(one)
    with pytest.raises(ValueError, match="has no login and no keys: give that store"):
        make.model_validate_json(text)
    with pytest.raises(StateError, match="has no login and no keys: give that store"):
        pickle.loads(pickle.dumps(one))
    if make is not AgentStoresDBChatStore:
        with pytest.raises(StateError, match="has no login and no keys: give that store"):
            make.from_json(text)
        again = make.from_json(text, store=SECRET)
        assert again.model_dump_json() == text
        with pytest.raises(StateError, match="the state is of a store at 'redis://localhost:1/0#agent'"):
            make.from_json(text, store="redis://:hunter2@localhost:2/0")
    with pytest.raises(ValueError, match="class_name must be"):
        make(**{**json.loads(text), "class_name": "SimpleChatStore"})


def test_a_store_without_its_keys_is_not_restored(url: str) -> None:
    ring = KeyRing({"1": b"k" * 32}, "1")
    one = AgentStoresChatStore(url, encryption=ring)
    one.add_message("a", user("Hello"))
    assert b"kkkk" not in pickle.dumps(one)
    with pytest.raises(StateError, match="no keys: give that store"):
        pickle.loads(pickle.dumps(one))
    state: Any = one.model_dump()
    again = AgentStoresChatStore(**state, store=url, encryption=ring)
    assert said(again.get_messages("a")) == ["Hello"]


def test_pickled_buffers_of_stores_with_a_login() -> None:
    text = pickle.dumps(buffer(AgentStoresChatStore(SECRET)))
    with pytest.raises(StateError, match="has no login and no keys: give that store"):
        pickle.loads(text)


@pytest.mark.anyio
async def test_a_log_is_not_carried(log: MessageLog) -> None:
    memory = AgentStoresMemory(AgentStoresChatStore(log), chat_store_key="a")
    await memory.aput(user("Hello"))
    with pytest.raises(StateError, match="give that store"):
        AgentStoresMemory.from_dict(memory.to_dict())
    again = AgentStoresMemory.from_dict(memory.to_dict(), store=log)
    assert said(await again.aget_all()) == ["Hello"]


def test_a_chat_store_as_base_chat_store_memory_takes_it(url: str) -> None:
    store = AgentStoresChatStore(url)
    for memory in (
        AgentStoresMemory(chat_store=store, chat_store_key="user1"),
        AgentStoresMemory.from_defaults(chat_store=store, chat_store_key="user1", token_limit=100),
    ):
        assert memory.chat_store is store
        memory.put(user("Hello"))
    assert said(store.get_messages("user1")) == ["Hello", "Hello"]
    with pytest.raises(ArgumentError, match="store and chat_store must not be given together"):
        AgentStoresMemory(url, chat_store=store)
    theirs: Any = buffer(store).__class__.model_fields["chat_store"].default_factory
    with pytest.raises(
        ArgumentTypeError, match="chat_store must be an AgentStoresChatStore, got SimpleChatStore"
    ):
        AgentStoresMemory(chat_store=theirs())
