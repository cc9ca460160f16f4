"""`AgentStoresChatStore` against LlamaIndex."""

from __future__ import annotations

import asyncio
import copy
import warnings
from pathlib import Path
from typing import Any

import fsspec
import pytest
from blockbuster import BlockBuster
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage as LlamaMessage
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.storage.chat_store import BaseChatStore

from agent_stores import ChatMessage, ChatMessageStore, InMemoryChatMessageStore
from agent_stores.backend import Row
from agent_stores.contents import OpaqueContent, ToolCallContent, ToolResultContent, UsageContent
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    OutcomeUnknownError,
    StateError,
    StoreClosedError,
)
from agent_stores.llama_index import AgentStoresChatStore
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.memory import InMemoryMessageLog
from agent_stores.retention import Window
from tests.plugins.llama_index.messages import MESSAGES, message, text


def user(words: str) -> LlamaMessage:
    return LlamaMessage(words)


def said(messages: list[LlamaMessage] | None) -> list[Any] | None:
    return None if messages is None else [found.content for found in messages]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/chat.db"


@pytest.mark.parametrize("kept_in", ["memory", "sqlite"])
def test_synchronously(kept_in: str, url: str) -> None:
    store = AgentStoresChatStore() if kept_in == "memory" else AgentStoresChatStore(url)
    assert isinstance(store, BaseChatStore)
    assert bool(store)
    assert store.get_messages("a") == []
    assert store.delete_messages("a") is None
    assert store.delete_message("a", 0) is None
    assert store.delete_last_message("a") is None
    assert store.get_keys() == []
    for words in ("0", "1", "2"):
        store.add_message("a", user(words))
    store.add_message("b", user("other"))
    assert said(store.get_messages("a")) == ["0", "1", "2"]
    store.add_message("a", user("first"), idx=0)
    store.add_message("a", user("third"), 2)
    store.add_message("a", user("before last"), idx=-1)
    store.add_message("a", user("end"), idx=99)
    assert said(store.get_messages("a")) == ["first", "0", "third", "1", "before last", "2", "end"]
    deleted = store.delete_message("a", 1)
    assert deleted is not None
    assert deleted.content == "0"
    assert store.delete_message("a", -2) == user("2")
    assert store.delete_message("a", 99) is None
    assert store.delete_last_message("a") == user("end")
    assert said(store.get_messages("a")) == ["first", "third", "1", "before last"]
    store.set_messages("a", [user("x"), user("y")])
    assert said(store.get_messages("a")) == ["x", "y"]
    assert sorted(store.get_keys()) == ["a", "b"]
    assert said(store.delete_messages("a")) == ["x", "y"]
    assert store.get_keys() == ["b"]
    assert store.get_messages("a") == []
    store.close()
    with pytest.raises(StoreClosedError):
        store.get_messages("b")


@pytest.mark.anyio
async def test_asynchronously_without_a_thread_pool(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the asynchronous methods are to stay on the caller's loop")

    store = AgentStoresChatStore(log)
    monkeypatch.setattr("agent_stores.plugins.store_resolver.block_on", refuse)
    if isinstance(log, InMemoryMessageLog):  # a driver of SQLite works on a thread
        monkeypatch.setattr("asyncio.to_thread", refuse)
    await store.async_add_message("a", user("0"))
    await store.async_add_message("a", user("1"), 0)
    await store.aset_messages("a", [*await store.aget_messages("a"), user("2")])
    assert said(await store.aget_messages("a")) == ["1", "0", "2"]
    assert await store.adelete_message("a", 0) == user("1")
    assert await store.adelete_last_message("a") == user("2")
    assert await store.aget_keys() == ["a"]
    assert said(await store.adelete_messages("a")) == ["0"]
    await store.aclose()


@pytest.mark.anyio
async def test_the_synchronous_methods_work_on_a_running_loop(
    url: str, no_blocking_calls: BlockBuster
) -> None:
    no_blocking_calls.deactivate()  # they block the loop, as they say
    store = AgentStoresChatStore(url)
    await store.async_add_message("a", user("0"))
    store.add_message("a", user("1"))
    assert said(store.get_messages("a")) == ["0", "1"]
    await store.aclose()


@pytest.mark.anyio
async def test_every_message_comes_back(log: MessageLog) -> None:
    store = AgentStoresChatStore(log)
    given = list(MESSAGES.values())
    await store.aset_messages("a", given)
    assert await store.aget_messages("a") == given
    before = await log.read(ThreadKey(None, "a"))
    await store.aset_messages("a", await store.aget_messages("a"))
    assert await log.read(ThreadKey(None, "a")) == before
    for one in given:
        await store.async_add_message("b", one)
    assert await store.aget_messages("b") == given
    for one in reversed(given):
        assert await store.adelete_last_message("b") == one


@pytest.mark.anyio
async def test_what_is_set_keeps_what_other_frameworks_left(log: MessageLog) -> None:
    theirs = ChatMessageStore(log, thread_id="a")
    await theirs.add_messages(
        [
            ChatMessage("user", "q", message_id="1", additional_properties={"langchain": {"x": 1}}),
            ChatMessage(
                "assistant",
                contents=[ToolCallContent("a", "f", "{}"), ToolCallContent("b", "f", "{}")],
                message_id="2",
            ),
            ChatMessage("assistant", contents=[UsageContent(total_tokens=3)], message_id="hidden"),
            ChatMessage(
                "tool",
                contents=[ToolResultContent("a", "x", is_error=True), ToolResultContent("b", "y")],
                message_id="3",
            ),
            ChatMessage("user", contents=["seen", OpaqueContent({"type": "x.y"})], message_id="4"),
        ]
    )
    before = [item.message async for item in theirs.iter_messages()]
    store = AgentStoresChatStore(log)
    shown = await store.aget_messages("a")
    assert said(shown) == ["q", None, "x", "y", "seen"]
    await store.aset_messages("a", [*shown, user("more")])
    after = [item.message async for item in theirs.iter_messages()]
    assert after[:-1] == before
    await store.aset_messages("a", [user("begin"), *shown[:2], *shown[3:]])
    after = [item.message async for item in theirs.iter_messages()]
    assert [item.message_id for item in after][1:4] == ["1", "2", "hidden"]
    assert after[1:4] == before[:3]
    assert after[-1] == before[-1]
    assert [part.call_id for part in after[4].tool_results] == ["b"]
    assert said(await store.aget_messages("a")) == ["begin", "q", None, "y", "seen"]


@pytest.mark.anyio
async def test_one_of_two_results_is_deleted(log: MessageLog) -> None:
    theirs = ChatMessageStore(log, thread_id="a")
    results = [ToolResultContent("a", "x"), ToolResultContent("b", "y")]
    await theirs.add_messages([ChatMessage("tool", contents=results, message_id="m")])
    store = AgentStoresChatStore(log)
    assert said([await store.adelete_message("a", 0) or user("?")]) == ["x"]
    assert said(await store.aget_messages("a")) == ["y"]
    assert (await store.adelete_last_message("a")) == message(text("y"), role="tool", tool_call_id="b")
    assert await theirs.count() == 0


@pytest.mark.anyio
async def test_set_is_one_step(log: MessageLog) -> None:
    store = AgentStoresChatStore(log)
    stories = [[user(f"{name}{n}") for n in range(10)] for name in "xy"]
    await store.aset_messages("a", stories[0])
    seen: list[Any] = []

    async def read() -> None:
        for _ in range(20):
            seen.append(said(await store.aget_messages("a")))

    async def write() -> None:
        for n in range(8):
            await store.aset_messages("a", stories[n % 2])

    await asyncio.gather(read(), write(), write())
    assert all(view in [said(story) for story in stories] for view in seen)


@pytest.mark.anyio
async def test_inserting_loses_nothing_that_is_added_meanwhile(log: MessageLog) -> None:
    store = AgentStoresChatStore(log)
    await asyncio.gather(
        *(store.async_add_message("a", user(f"end {n}")) for n in range(10)),
        *(store.async_add_message("a", user(f"front {n}"), 0) for n in range(5)),
    )
    found = said(await store.aget_messages("a"))
    assert found is not None
    assert len(found) == 15


@pytest.mark.anyio
async def test_equal_messages_are_two_and_retries_one() -> None:
    class Unlucky(InMemoryMessageLog):
        failures = 1

        async def append(self, *args: Any, **options: Any) -> int:
            position = await super().append(*args, **options)
            self.failures -= 1
            if self.failures == 0:
                raise OutcomeUnknownError("the connection was lost")
            return position

    store = AgentStoresChatStore(Unlucky())
    again = user("yes")
    with pytest.raises(OutcomeUnknownError):
        await store.async_add_message("a", again)
    await store.async_add_message("a", again)
    assert said(await store.aget_messages("a")) == ["yes"]
    await store.async_add_message("a", user("yes"))
    assert said(await store.aget_messages("a")) == ["yes", "yes"]


@pytest.mark.anyio
async def test_options(log: MessageLog) -> None:
    store = AgentStoresChatStore(log, tenant="acme", max_messages=2, ttl=60)
    await store.aset_messages("a", [user(str(n)) for n in range(4)])
    assert said(await store.aget_messages("a")) == ["2", "3"]
    stats = await log.stats(ThreadKey("acme", "a"))
    assert stats is not None
    assert stats.expires_at is not None
    assert await AgentStoresChatStore(log).aget_keys() == []
    assert await store.aget_keys() == ["a"]
    with pytest.raises(ArgumentError, match="accepted by AgentStoresMemory"):
        AgentStoresChatStore(log, window=Window(last=1))  # type: ignore[call-arg]
    with pytest.raises(
        ArgumentError, match="ttl must be a positive number of seconds, a timedelta or None, got 0"
    ):
        AgentStoresChatStore(log, ttl=0)
    with pytest.raises(ArgumentError, match="thread_id must be a non-empty str"):
        await store.aget_messages("")
    with pytest.raises(ArgumentTypeError, match="a message must be LlamaIndex's ChatMessage, got str"):
        await store.async_add_message("a", "text")  # type: ignore[arg-type]
    skipping = AgentStoresChatStore(log, on_corrupt="skip")
    await skipping.async_add_message("c", user("1"))
    await log.append(ThreadKey(None, "c"), [Row("b", b"{")])
    assert said(await skipping.aget_messages("c")) == ["1"]
    assert await skipping.adelete_last_message("c") == user("1")


@pytest.mark.anyio
async def test_a_function_that_makes_stores() -> None:
    shared = InMemoryMessageLog()
    store = AgentStoresChatStore(lambda key: InMemoryChatMessageStore(log=shared, thread_id=key, tenant="t"))
    await store.async_add_message("a", user("1"))
    await store.async_add_message("b", user("2"))
    assert await store.aget_keys() == ["a", "b"]
    assert said(await store.aget_messages("b")) == ["2"]
    await store.aclose()


@pytest.mark.anyio
async def test_many_keys(log: MessageLog) -> None:
    store = AgentStoresChatStore(log)
    for n in range(0, 1200, 50):
        for step in range(50):
            store.store_of(f"key {n + step}")
        await store.async_add_message(f"key {n}", user(str(n)))
    assert said(await store.aget_messages("key 0")) == ["0"]
    assert len(await store.aget_keys()) == 24


# -- as JSON and as a file ------------------------------------------------------------------------------


def test_json(url: str) -> None:
    store = AgentStoresChatStore()
    store.set_messages("a", list(MESSAGES.values()))
    store.add_message("ключ", user("Hi"))
    for document in (store.model_dump_json(), store.json(), store.to_json()):
        again = AgentStoresChatStore.model_validate_json(document)
        assert again.get_messages("a") == list(MESSAGES.values())
        assert again.get_keys() == ["a", "ключ"]
        assert again.model_dump() == store.model_dump()
    assert AgentStoresChatStore.from_dict(store.to_dict()).get_messages("ключ") == [user("Hi")]
    with pytest.raises(ArgumentError, match="not in memory"):
        AgentStoresChatStore(url, threads={"a": []}).close()


def test_files(tmp_path: Path, url: str) -> None:
    file = tmp_path / "deep" / "store.json"
    store = AgentStoresChatStore()
    store.add_message("a", user("Hi"))
    store.persist(str(file))
    assert AgentStoresChatStore.from_persist_path(str(file)).get_messages("a") == [user("Hi")]
    fs = fsspec.filesystem("memory")
    store.persist("/folder/store.json", fs=fs)
    assert AgentStoresChatStore.from_persist_path("/folder/store.json", fs=fs).get_messages("a") == [
        user("Hi")
    ]
    assert AgentStoresChatStore.from_persist_path("/folder/none.json", fs=fs).get_keys() == []
    assert AgentStoresChatStore.from_persist_path(str(tmp_path / "none.json")).get_keys() == []
    for content, words in (
        ("{", "is not JSON"),
        ('{"store": {}}', "not one that AgentStoresChatStore.persist wrote"),
    ):
        file.write_text(content)
        with pytest.raises(StateError, match=words):
            AgentStoresChatStore.from_persist_path(file)
    remote = AgentStoresChatStore(url)
    with pytest.raises(ArgumentError, match="not in memory"):
        remote.persist(str(file))
    remote.close()


# -- in LlamaIndex's memory -----------------------------------------------------------------------------


def buffer(store: AgentStoresChatStore, key: str, **options: Any) -> ChatMemoryBuffer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return ChatMemoryBuffer.from_defaults(
            token_limit=3000, chat_store=store, chat_store_key=key, tokenizer_fn=str.split, **options
        )


def test_a_memory_buffer(url: str) -> None:
    memory = buffer(AgentStoresChatStore(url), "user1")
    memory.put(user("Hello"))
    memory.put_messages([LlamaMessage("Hi!", role="assistant"), user("More")])
    assert said(memory.get()) == ["Hello", "Hi!", "More"]
    memory.set([user("anew"), LlamaMessage("Yes", role="assistant")])
    again = buffer(AgentStoresChatStore(url), "user1")
    assert said(again.get_all()) == ["anew", "Yes"]
    assert again.get() == memory.get()
    assert buffer(AgentStoresChatStore(url), "user2").get() == []
    begun = buffer(AgentStoresChatStore(url), "user3", chat_history=[user("before")])
    assert said(begun.get_all()) == ["before"]
    again.reset()
    assert memory.get_all() == []


@pytest.mark.anyio
async def test_a_memory_buffer_asynchronously(log: MessageLog) -> None:
    memory = buffer(AgentStoresChatStore(log), "user1")
    await memory.aput(user("Hello"))
    await memory.aput_messages([LlamaMessage("Hi!", role="assistant")])
    assert said(await memory.aget()) == ["Hello", "Hi!"]
    await memory.aset([user("anew")])
    assert said(await memory.aget_all()) == ["anew"]
    await memory.areset()
    assert await memory.aget_all() == []


def test_a_memory_buffer_as_text() -> None:
    memory = buffer(AgentStoresChatStore(), "user1")
    memory.put(user("Hello"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        again = ChatMemoryBuffer.from_string(memory.to_string())
    assert said(again.get_all()) == ["Hello"]
    assert copy.deepcopy(memory).get_all() == memory.get_all()


@pytest.mark.anyio
async def test_a_chat_engine(log: MessageLog) -> None:
    engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=buffer(AgentStoresChatStore(log), "s"))
    await engine.achat("Hello")
    response = await engine.achat("And again")
    assert response.response
    found = await AgentStoresChatStore(log).aget_messages("s")
    assert [one.role.value for one in found] == ["user", "assistant", "user", "assistant"]
    assert [found[0].content, found[2].content] == ["Hello", "And again"]
