"""`AgentStoresDBChatStore` against LlamaIndex's `Memory`."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage as LlamaMessage
from llama_index.core.memory import Memory
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import UsageContent
from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.llama_index import AgentStoresChatStore, AgentStoresDBChatStore
from agent_stores.log import MessageLog
from agent_stores.retention import Window
from tests.plugins.llama_index.messages import MESSAGES

pytestmark = pytest.mark.anyio

ACTIVE, ARCHIVED = MessageStatus.ACTIVE, MessageStatus.ARCHIVED


def user(words: str) -> LlamaMessage:
    return LlamaMessage(words)


def said(messages: list[LlamaMessage]) -> list[Any]:
    return [found.content for found in messages]


async def filled(log: MessageLog, count: int) -> AgentStoresDBChatStore:
    store = AgentStoresDBChatStore(log)
    await store.add_messages("a", [user(str(n)) for n in range(count)])
    return store


async def test_active_and_archived(log: MessageLog) -> None:
    store = await filled(log, 6)
    assert isinstance(store, AsyncDBChatStore)
    assert await store.get_keys() == ["a"]
    assert said(await store.archive_oldest_messages("a", 2)) == ["0", "1"]
    assert said(await store.get_messages("a")) == ["2", "3", "4", "5"]
    assert said(await store.get_messages("a", ARCHIVED)) == ["0", "1"]
    assert said(await store.get_messages("a", None)) == ["0", "1", "2", "3", "4", "5"]
    assert await store.get_messages("a", None) == [user(str(n)) for n in range(6)]
    assert said(await store.get_messages("a", limit=2, offset=1)) == ["3", "4"]
    assert said(await store.get_messages("a", None, 1)) == ["0"]
    counts = [await store.count_messages("a", status) for status in (ACTIVE, ARCHIVED, None)]
    assert counts == [4, 2, 6]
    assert await store.count_messages("a") == 4
    await store.add_message("a", user("late"), ARCHIVED)
    await store.add_message("a", user("6"))
    assert said(await store.get_messages("a")) == ["2", "3", "4", "5", "6"]
    assert said(await store.get_messages("a", ARCHIVED)) == ["0", "1", "late"]
    assert said(await store.archive_oldest_messages("a", 1)) == ["2"]
    assert said(await store.delete_oldest_messages("a", 2)) == ["3", "4"]
    assert said(await store.get_messages("a")) == ["5", "6"]
    assert said(await store.get_messages("a", ARCHIVED)) == ["0", "1", "2", "late"]
    await store.delete_messages("a", ACTIVE)
    assert await store.count_messages("a") == 0
    assert said(await store.get_messages("a", None)) == ["0", "1", "2", "late"]
    await store.delete_messages("a", ARCHIVED)
    assert await store.count_messages("a", None) == 0
    await store.delete_messages("a")
    assert await store.get_keys() == []


async def test_the_limits_of_archiving(log: MessageLog) -> None:
    store = await filled(log, 3)
    assert await store.archive_oldest_messages("a", 0) == []
    assert said(await store.archive_oldest_messages("a", 99)) == ["0", "1", "2"]
    assert await store.archive_oldest_messages("a", 1) == []
    assert await store.delete_oldest_messages("a", 1) == []
    assert await store.get_messages("none") == []
    with pytest.raises(ArgumentError, match="n must be a non-negative int or None, got -1"):
        await store.archive_oldest_messages("a", -1)
    with pytest.raises(ArgumentError, match="limit must be a non-negative int or None, got -1"):
        await store.get_messages("a", limit=-1)


async def test_deleting_by_position(log: MessageLog) -> None:
    store = await filled(log, 5)
    await store.archive_oldest_messages("a", 3)
    assert await store.delete_message("a", 3) == user("2")
    assert said(await store.get_messages("a", ARCHIVED)) == ["0", "1"]
    assert said(await store.get_messages("a")) == ["3", "4"]
    assert await store.delete_message("a", 4) == user("3")
    assert await store.delete_message("a", 4) is None
    assert said(await store.get_messages("a", None)) == ["0", "1", "4"]


async def test_setting(log: MessageLog) -> None:
    store = await filled(log, 4)
    await store.archive_oldest_messages("a", 2)
    await store.set_messages("a", [user("0"), user("3"), user("new")])
    assert said(await store.get_messages("a")) == ["0", "3", "new"]
    assert await store.count_messages("a", None) == 3
    await store.set_messages("a", [user("x"), user("y")], ARCHIVED)
    assert await store.count_messages("a") == 0
    assert said(await store.get_messages("a", ARCHIVED)) == ["x", "y"]
    await store.set_messages("a", [])
    assert await store.count_messages("a", None) == 0


async def test_every_message_comes_back(log: MessageLog) -> None:
    store = AgentStoresDBChatStore(log)
    given = list(MESSAGES.values())
    await store.add_messages("a", given)
    assert await store.get_messages("a") == given
    await store.archive_oldest_messages("a", len(given) - 1)
    assert await store.get_messages("a", None) == given
    assert await AgentStoresChatStore(log).aget_messages("a") == given
    await store.add_messages("b", given, ARCHIVED)
    assert await store.get_messages("b", ARCHIVED) == given


async def test_reading_the_active_ones_does_not_read_the_archive(log: MessageLog) -> None:
    store = await filled(log, 3000)
    await store.archive_oldest_messages("a", 2950)
    read = []
    below = log.read

    async def counting(*args: Any, **options: Any) -> Any:
        part = await below(*args, **options)
        read.append(len(part))
        return part

    log.read = counting  # type: ignore[method-assign]
    assert len(await store.get_messages("a")) == 50
    assert sum(read) <= 64


async def test_what_other_frameworks_left(log: MessageLog) -> None:
    theirs = ChatMessageStore(log, thread_id="a")
    await theirs.add_messages(
        [
            ChatMessage("user", "q", additional_properties={"langchain": {"x": 1}}),
            ChatMessage("assistant", contents=[UsageContent(total_tokens=1)]),
            ChatMessage("assistant", "r"),
        ]
    )
    store = AgentStoresDBChatStore(log)
    assert said(await store.archive_oldest_messages("a", 1)) == ["q"]
    assert said(await store.get_messages("a")) == ["r"]
    first, hidden, _ = [item.message async for item in theirs.iter_messages()]
    assert first.additional_properties["langchain"] == {"x": 1}
    assert hidden.contents == (UsageContent(total_tokens=1),)


async def test_options(log: MessageLog) -> None:
    store = AgentStoresDBChatStore(log, tenant="acme", max_messages=2)
    await store.add_messages("a", [user(str(n)) for n in range(4)])
    assert said(await store.get_messages("a")) == ["2", "3"]
    assert await AgentStoresDBChatStore(log).get_keys() == []
    with pytest.raises(ArgumentTypeError, match=r"must be one of store, threads, .*, got 'window'"):
        AgentStoresDBChatStore(log, window=Window(last=1))  # type: ignore[call-arg]
    await store.aclose()


def memory_on(store: AgentStoresDBChatStore, session_id: str, **options: Any) -> Memory:
    """A memory on a chat store: newer versions take it as an argument."""
    if "chat_store" in inspect.signature(Memory.from_defaults).parameters:
        return Memory.from_defaults(
            session_id=session_id, chat_store=store, tokenizer_fn=str.split, **options
        )
    memory = Memory.from_defaults(session_id=session_id, tokenizer_fn=str.split, **options)
    memory.sql_store = store  # type: ignore[assignment,unused-ignore]
    return memory


async def test_in_a_memory(log: MessageLog) -> None:
    store = AgentStoresDBChatStore(log)
    memory = memory_on(store, "s", token_limit=40, token_flush_size=5)
    turns = []
    for n in range(8):
        turn = [user(f"question number {n}"), LlamaMessage(f"answer number {n}", role="assistant")]
        turns += said(turn)
        await memory.aput_messages(turn)
    active, archived = said(await memory.aget()), said(await store.get_messages("s", ARCHIVED))
    assert archived + active == turns
    assert archived
    assert active[0].startswith("question")
    again = memory_on(AgentStoresDBChatStore(log), "s", token_limit=40)
    assert said(await again.aget()) == active
    assert said(await again.aget_all()) == turns
    await again.aset([user("anew")])
    assert said(await memory.aget()) == ["anew"]
    await memory.areset()
    assert await again.aget_all() == []
    assert await store.get_keys() == []


async def test_memories_at_once(log: MessageLog) -> None:
    store = AgentStoresDBChatStore(log)
    memories = [memory_on(store, f"s{n}", token_limit=1000) for n in range(4)]
    await asyncio.gather(*(memory.aput(user(f"{n}")) for n in range(10) for memory in memories))
    for memory in memories:
        assert sorted(said(await memory.aget()), key=int) == [str(n) for n in range(10)]
