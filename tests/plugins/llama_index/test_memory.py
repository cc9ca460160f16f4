"""`AgentStoresMemory` against LlamaIndex."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage as LlamaMessage
from llama_index.core.llms import MockLLM
from llama_index.core.memory import BaseMemory

from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError
from agent_stores.llama_index import AgentStoresChatStore, AgentStoresMemory
from agent_stores.log import MessageLog
from agent_stores.retention import NO_RESULT, Window
from tests.plugins.llama_index.messages import MESSAGES, message, text


def user(words: str) -> LlamaMessage:
    return LlamaMessage(words)


def said(messages: list[LlamaMessage]) -> list[Any]:
    return [found.content for found in messages]


def call(*call_ids: str) -> LlamaMessage:
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in call_ids]
    found = message(role="assistant", tool_calls=calls)
    assert found is not None
    return found


def result(call_id: str) -> LlamaMessage:
    found = message(text(f"result of {call_id}"), role="tool", tool_call_id=call_id)
    assert found is not None
    return found


def test_synchronously(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"
    memory = AgentStoresMemory.from_defaults(url, chat_store_key="user1", chat_history=[user("0")])
    assert isinstance(memory, BaseMemory)
    memory.put(user("1"))
    memory.put_messages([user("2"), LlamaMessage("3", role="assistant")])
    assert said(memory.get()) == said(memory.get_all()) == ["0", "1", "2", "3"]
    assert said(memory.get(input="anything")) == ["0", "1", "2", "3"]
    again = AgentStoresMemory.from_defaults(url, chat_store_key="user1")
    assert said(again.get()) == ["0", "1", "2", "3"]
    assert AgentStoresMemory(url, chat_store_key="user2").get() == []
    again.set([user("anew")])
    assert said(memory.get_all()) == ["anew"]
    assert copy.deepcopy(memory).get_all() == memory.get_all()
    assert memory.model_dump() == {
        "chat_store": {"class_name": "AgentStoresChatStore", "store": url},
        "chat_store_key": "user1",
        "token_limit": None,
        "class_name": "AgentStoresMemory",
    }
    memory.reset()
    assert again.get_all() == []
    memory.close()
    with pytest.raises(StoreClosedError):
        memory.get()


@pytest.mark.anyio
async def test_asynchronously(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the asynchronous methods are to stay on the caller's loop")

    monkeypatch.setattr("agent_stores.plugins.store_resolver.block_on", refuse)
    memory = AgentStoresMemory(log)
    given = [*MESSAGES.values()]
    await memory.aput_messages(given)
    assert await memory.aget_all() == given
    await memory.aput(user("1"))
    await memory.aset([user("2"), user("3")])
    assert said(await memory.aget()) == ["2", "3"]
    await memory.areset()
    assert await memory.aget() == []
    await memory.aclose()


@pytest.mark.anyio
async def test_what_a_model_is_shown(log: MessageLog) -> None:
    memory = AgentStoresMemory(log, window=Window(last=3))
    await memory.aput_messages([user("q"), call("a", "b"), result("b"), result("a"), user("2")])
    assert said(await memory.aget()) == ["2"]
    await memory.aput_messages([call("c"), user("and then?")])
    shown = await memory.aget()
    assert said(shown) == ["2", None, NO_RESULT, "and then?"]
    assert shown[2].additional_kwargs["tool_call_id"] == "c"
    assert len(await memory.aget_all()) == 7
    whole = await AgentStoresMemory(log).aget()
    assert said(whole)[:4] == ["q", None, "result of b", "result of a"]


@pytest.mark.anyio
async def test_token_limits(log: MessageLog) -> None:
    memory = AgentStoresMemory.from_defaults(log, token_limit=6, tokenizer_fn=str.split)
    await memory.aput_messages([user("one two"), user("three four"), user("five six seven")])
    assert said(await memory.aget()) == ["three four", "five six seven"]
    assert said(await memory.aget(initial_token_count=2)) == ["five six seven"]
    assert said(await memory.aget(initial_token_count=6)) == ["five six seven"]
    with pytest.raises(ArgumentError, match="initial_token_count must be at most the limit, 6, got 7"):
        await memory.aget(initial_token_count=7)
    by_model = AgentStoresMemory.from_defaults(log, llm=MockLLM())
    assert by_model.token_limit == int(MockLLM().metadata.context_window * 0.75)
    with pytest.raises(ArgumentError, match="token_limit must be a non-negative int or None, got -1"):
        AgentStoresMemory(log, token_limit=-1)
    with pytest.raises(ArgumentError, match="chat_store_key must be a non-empty str"):
        AgentStoresMemory(log, chat_store_key="")
    with pytest.raises(ArgumentTypeError, match=r"must be one of .*, got 'codec'"):
        AgentStoresMemory(log, codec=None)  # type: ignore[call-arg]


@pytest.mark.anyio
async def test_it_shares_a_chat_store(log: MessageLog) -> None:
    store = AgentStoresChatStore(log)
    memory = AgentStoresMemory(store, chat_store_key="a", token_limit=100)
    await store.async_add_message("a", user("1"))
    await memory.aput(user("2"))
    assert said(await store.aget_messages("a")) == said(await memory.aget()) == ["1", "2"]
    with pytest.raises(ArgumentError, match="ttl must be given to the chat store"):
        AgentStoresMemory(store, ttl=1)


@pytest.mark.anyio
async def test_a_chat_engine(log: MessageLog) -> None:
    memory = AgentStoresMemory.from_defaults(log, chat_store_key="s", token_limit=1000)
    engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=memory)
    await engine.achat("Hello")
    await engine.achat("And again")
    found = await AgentStoresMemory(log, chat_store_key="s").aget_all()
    assert [one.role.value for one in found] == ["user", "assistant", "user", "assistant"]
    assert [found[0].content, found[2].content] == ["Hello", "And again"]
