"""Our stores in the threads of Agent Framework's betas."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from agent_stores import (
    ChatMessage,
    ChatMessageStore,
    DatabaseChatMessageStore,
    InMemoryChatMessageStore,
    InMemoryMessageLog,
    open_log,
)
from agent_stores.agent_framework_beta import (
    ChatMessageStoreAdapter,
    ChatMessageStoreFactory,
    RedisChatMessageStore,
)
from agent_stores.backend import Row
from agent_stores.contents import ToolCallContent, ToolResultContent
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    OutcomeUnknownError,
    StateError,
    StateSignatureError,
    StoreClosedError,
)
from agent_stores.log import ThreadKey
from agent_stores.testing.model_server import ModelServer
from tests.plugins.agent_framework.kinds import dump, messages
from tests.plugins.agent_framework_beta.agents import agent_of, framework, function_tool, message

pytestmark = pytest.mark.anyio

KEY = "a secret for states"


@pytest.fixture
async def openai(model_server: ModelServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="k", base_url=model_server.base_url) as client:
        yield client


def texts(found: Sequence[Any]) -> list[str]:
    return [one.text for one in found]


async def test_a_conversation(url: str, openai: AsyncOpenAI) -> None:
    async with ChatMessageStoreFactory(url, max_messages=100) as factory:
        agent = agent_of(openai, chat_message_store_factory=factory)
        thread, other = agent.get_new_thread(), agent.get_new_thread()
        await agent.run("Hello, my name is Alice", thread=thread)
        assert (await agent.run("What's my name?", thread=thread)).text == "Your name is Alice."
        assert (await agent.run("What's my name?", thread=other)).text == "I don't know your name yet."
        assert isinstance(thread.message_store, ChatMessageStoreAdapter)
        assert bool(thread.message_store) is True
        assert await thread.message_store.store.count() == 4
        assert texts(await thread.message_store.list_messages())[0] == "Hello, my name is Alice"


NEXT_PROCESS = """
import asyncio, json, sys
from openai import AsyncOpenAI
from agent_stores.agent_framework_beta import ChatMessageStoreFactory
from tests.plugins.agent_framework_beta.agents import agent_of

async def main():
    url, base_url, state, key = sys.argv[1:]
    async with AsyncOpenAI(api_key="k", base_url=base_url) as openai:
        async with ChatMessageStoreFactory(url, key=key or None) as factory:
            agent = agent_of(openai, chat_message_store_factory=factory)
            thread = await agent.deserialize_thread(json.loads(state))
            print(await thread.message_store.store.count())
            print((await agent.run("What's my name?", thread=thread)).text)
            print(await thread.message_store.store.count())

asyncio.run(main())
"""


@pytest.mark.parametrize("key", [None, KEY])
async def test_a_thread_goes_on_in_another_process(
    url: str, key: str | None, openai: AsyncOpenAI, model_server: ModelServer
) -> None:
    async with ChatMessageStoreFactory(url, key=key) as factory:
        agent = agent_of(openai, chat_message_store_factory=factory)
        thread = agent.get_new_thread()
        await agent.run("My name is Alice", thread=thread)
        state = json.dumps(await thread.serialize())
    assert thread.message_store.thread_id in state
    assert "Alice" not in state  # neither messages
    assert "planted" not in state  # nor the server's password
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", NEXT_PROCESS, url, model_server.base_url, state, key or ""],
        capture_output=True,
        text=True,
        timeout=600,  # a machine may be busy
    )
    assert done.stdout.split("\n")[:3] == ["2", "Your name is Alice.", "4"], done.stderr


async def test_restoring_adds_nothing(url: str, openai: AsyncOpenAI) -> None:
    async with ChatMessageStoreFactory(url) as factory:
        agent = agent_of(openai, chat_message_store_factory=factory)
        thread = agent.get_new_thread()
        await agent.run("My name is Alice", thread=thread)
        state = json.loads(json.dumps(await thread.serialize()))
        restored = await agent.deserialize_thread(state)
        again = await agent.deserialize_thread(json.loads(json.dumps(await restored.serialize())))
        await again.update_from_thread_state(state)
        alone = await framework.AgentThread.deserialize(state, message_store=factory())
        for one in (restored, again, alone):
            assert one.message_store.thread_id == thread.message_store.thread_id
            assert texts(await one.message_store.list_messages()) == [
                "My name is Alice",
                "Nice to meet you, Alice!",
            ]
        assert await restored.serialize() == state


async def test_a_state_does_not_lead_elsewhere(url: str, tmp_path: Path, openai: AsyncOpenAI) -> None:
    log, elsewhere = open_log(url), open_log(tmp_path / "other.db")

    def agent(source: Any = log, **options: Any) -> Any:
        factory = ChatMessageStoreFactory(source, **options)
        return agent_of(openai, chat_message_store_factory=factory)

    async def state_of(one: Any) -> Any:
        thread = one.get_new_thread()
        await one.run("repeat: hi", thread=thread)
        return json.loads(json.dumps(await thread.serialize()))

    async def refused(one: Any, state: Any, kind: type[Exception], match: str) -> None:
        with pytest.raises(kind, match=match):
            await one.deserialize_thread(state)

    plain, signed = await state_of(agent()), await state_of(agent(key=KEY))
    await refused(agent(elsewhere), plain, StateError, "location")
    await refused(agent(tenant="b"), plain, StateError, "tenant")
    await refused(agent(key=KEY), plain, StateSignatureError, "must be signed")
    await refused(agent(key="another"), signed, StateSignatureError, "does not match")
    await refused(agent(), signed, StateSignatureError, "the key that signed the state")
    await agent(key=["new", KEY]).deserialize_thread(signed)

    def changed(state: Any, **fields: Any) -> Any:
        copy = json.loads(json.dumps(state))
        (marker,) = copy["chat_message_store_state"]["messages"]
        marker["additional_properties"]["agent_stores_state"].update(fields)
        return copy

    await refused(agent(key=KEY), changed(signed, thread_id="theirs"), StateSignatureError, "does not match")
    await refused(agent(), changed(plain, thread_id=""), StateError, "thread_id must be a non-empty str")
    await refused(
        agent(),
        changed(plain, type="agent_stores.redis"),
        StateError,
        "must be 'agent_stores.custom', got 'agent_stores.redis'",
    )
    used = agent().get_new_thread()
    await used.on_new_messages(message("user", "hi"))
    with pytest.raises(StateError, match="in use"):
        await used.update_from_thread_state(plain)
    await log.aclose()
    await elsewhere.aclose()


async def test_in_memory(openai: AsyncOpenAI) -> None:
    def make() -> ChatMessageStoreAdapter:
        return ChatMessageStoreAdapter(InMemoryChatMessageStore(), key=KEY)

    agent = agent_of(openai, chat_message_store_factory=make)
    thread = agent.get_new_thread()
    await agent.run("My name is Alice", thread=thread)
    state = json.loads(json.dumps(await thread.serialize()))
    restored = await agent.deserialize_thread(state)
    assert (await agent.run("What's my name?", thread=restored)).text == "Your name is Alice."
    assert await restored.message_store.store.count() == 4
    assert await thread.message_store.store.count() == 2


async def test_a_state_without_a_store(openai: AsyncOpenAI) -> None:
    """The protocol's own methods, which the framework's threads do not call."""
    log = InMemoryMessageLog()
    one = ChatMessageStoreAdapter(ChatMessageStore(log), key=KEY)
    await one.add_messages([message("user", "hi")])
    state = json.loads(json.dumps(await one.serialize()))
    other = await ChatMessageStoreAdapter.deserialize(state, store=ChatMessageStore(log), key=KEY)
    assert texts(await other.list_messages()) == ["hi"]
    with pytest.raises(TypeError, match="store"):
        await ChatMessageStoreAdapter.deserialize(state)
    wrongs: list[Any] = [{}, {"messages": "x"}, {"messages": [{"role": "user"}]}, {"messages": [1]}, None]
    for wrong in wrongs:
        with pytest.raises(StateError, match=r"the state must (be what the serialize|hold messages of the)"):
            await other.update_from_state(wrong)
    with pytest.raises(StateError, match="a state with messages must be restored on a new store"):
        await other.update_from_state({"messages": [message("user", "hi")]})
    (marker,) = state["messages"]
    for several in ([marker, marker], [marker, message("user", "hi")]):
        with pytest.raises(StateError, match="must be what the serialize"):
            await other.update_from_state({"messages": several})


async def test_a_state_says_what_an_agent_without_our_stores_lacks(url: str, openai: AsyncOpenAI) -> None:
    async with ChatMessageStoreFactory(url) as factory:
        agent = agent_of(openai, chat_message_store_factory=factory)
        thread = agent.get_new_thread()
        await agent.run("My name is Alice", thread=thread)
        state = json.loads(json.dumps(await thread.serialize()))
        lost = await agent_of(openai).deserialize_thread(state)
        (only,) = await lost.message_store.list_messages()
        assert "This is not the conversation" in only.text
        assert "agent_stores.agent_framework_beta.ChatMessageStoreFactory" in only.text
        # What an earlier version wrote says nothing, and is restored as well.
        state["chat_message_store_state"]["messages"][0]["contents"] = []
        found = await agent.deserialize_thread(state)
        assert texts(await found.message_store.list_messages())[0] == "My name is Alice"
        state["chat_message_store_state"]["messages"][0]["contents"] = [{"type": "text", "text": "x"}]
        with pytest.raises(StateError, match="is not the state of a store"):
            await agent.deserialize_thread(state)


async def test_states_of_the_frameworks_own_store(url: str, openai: AsyncOpenAI) -> None:
    """They hold the messages: the conversation goes on in our store."""
    old = agent_of(openai).get_new_thread()
    await agent_of(openai).run("My name is Alice", thread=old)
    state = json.loads(json.dumps(await old.serialize()))
    said = ["My name is Alice", "Nice to meet you, Alice!"]
    async with ChatMessageStoreFactory(url, key=KEY) as factory:
        agent = agent_of(openai, chat_message_store_factory=factory)
        thread = await agent.deserialize_thread(state)
        assert texts(await thread.message_store.list_messages()) == said
        assert (await agent.run("What's my name?", thread=thread)).text == "Your name is Alice."
        alone = factory()
        await alone.update_from_state(state["chat_message_store_state"])
        assert texts(await alone.list_messages()) == said
        await factory().update_from_state({"messages": []})
        again = await agent.deserialize_thread(json.loads(json.dumps(await thread.serialize())))
        assert await again.message_store.count() == 4


async def test_the_methods_of_lists(url: str) -> None:
    async with ChatMessageStoreFactory(url) as factory:
        store = factory()
        given = [message("user", "a", message_id="u1"), message("assistant", "b"), message("user", "a")]
        await store.append(given[0])
        await store.extend(given[1:])
        assert (await store.count(), await store.ping(), bool(store)) == (3, True, True)
        assert [(await store.getitem(at)).text for at in (0, 1, 2, -1, -3)] == ["a", "b", "a", "a", "a"]
        for at in (3, -4):
            with pytest.raises(IndexError):
                await store.getitem(at)
            with pytest.raises(IndexError):
                await store.setitem(at, message("user", "x"))
        assert [await store.index(one) for one in given] == [0, 1, 2]
        assert await store.index(message("user", "a")) == 0
        assert await store.index(await store.getitem(2)) == 2
        for other in (message("user", "c"), message("assistant", "a"), message("user", "a", message_id="u2")):
            with pytest.raises(ValueError, match="must be equal to a stored message"):
                await store.index(other)
            with pytest.raises(ValueError, match="must be equal to a stored message"):
                await store.remove(other)
        replaced = message("assistant", "B", message_id="own")
        await store.setitem(1, replaced)
        await store.setitem(-1, message("user", "A"))
        shown = [(one.text, one.message_id) for one in await store.list_messages()]
        assert shown == [("a", "u1"), ("B", "own"), ("A", None)]
        await store.add_messages([replaced])  # it is stored
        await store.remove(message("user", "A"))
        assert texts(await store.list_messages()) == ["a", "B"]
        await store.clear()
        assert (await store.count(), await store.list_messages()) == (0, [])
        with pytest.raises(IndexError):
            await store.getitem(0)
        await store.append(message("user", "again"))
        assert texts(await store.list_messages()) == ["again"]
    assert await store.ping() is False


def theirs() -> Any:
    """The class of agent-framework-redis, which ours is made as."""
    return import_module("agent_framework.redis").RedisChatMessageStore


def test_made_with_their_arguments() -> None:
    def parameters(of: Any) -> list[tuple[str, Any, Any]]:
        return [(one.name, one.kind, one.default) for one in inspect.signature(of).parameters.values()]

    assert parameters(RedisChatMessageStore) == parameters(theirs())
    assert len(parameters(theirs())) == 10
    missing = {name for name in vars(theirs()) if name[0] != "_"} - set(dir(RedisChatMessageStore))
    assert missing == {"redis_key"}


@pytest.mark.parametrize("kind", ["theirs", "ours"])
async def test_a_program_that_uses_the_methods_of_lists(kind: str) -> None:
    """What it says is the same with either class."""
    make: Any = theirs() if kind == "theirs" else RedisChatMessageStore
    url = os.environ["AGENT_STORES_TEST_REDIS"]
    store = make(redis_url=url, max_messages=4, messages=[message("user", "first")])
    said: list[Any] = [await store.count(), await store.ping(), store.thread_id[:7]]
    await store.append(message("user", "a", message_id="1"))
    await store.extend([message("assistant", text, message_id=text) for text in "bcd"])
    said += [await store.count(), texts(await store.list_messages())]
    said += [(await store.getitem(at)).text for at in (0, 3, -1)]
    await store.setitem(-2, message("assistant", "C", message_id="C"))
    said.append(await store.index(await store.getitem(2)))
    await store.remove(await store.getitem(0))
    for call in (store.getitem(9), store.setitem(9, message("user", "x")), store.getitem(-9)):
        with pytest.raises(IndexError):
            await call
    for call in (store.index(message("user", "x")), store.remove(message("user", "x"))):
        with pytest.raises(ValueError, match="store"):
            await call
    said.append(texts(await store.list_messages()))
    await store.clear()
    said += [await store.count(), await store.list_messages(), bool(store)]
    await store.aclose()
    expected = [1, True, "thread_", 4, ["a", "b", "c", "d"], "a", "d", "d", 2, ["b", "C", "d"], 0, [], True]
    assert said == expected


async def test_made_as_the_frameworks_redis_store(openai: AsyncOpenAI) -> None:
    url = os.environ["AGENT_STORES_TEST_REDIS"]
    first = [message("system", "be kind")]
    agent = agent_of(
        openai,
        chat_message_store_factory=lambda: RedisChatMessageStore(
            redis_url=url, max_messages=100, messages=first
        ),
    )
    thread = agent.get_new_thread()
    await agent.run("My name is Alice", thread=thread)
    state = json.loads(json.dumps(await thread.serialize()))
    restored = await agent.deserialize_thread(state)
    assert (await agent.run("What's my name?", thread=restored)).text == "Your name is Alice."
    assert (await restored.message_store.getitem(0)).text == "be kind"
    assert await restored.message_store.count() == 5
    assert "planted" not in json.dumps(state)
    name = restored.message_store.thread_id
    same = RedisChatMessageStore(redis_url=url, thread_id=name)
    made = await RedisChatMessageStore.deserialize(state["chat_message_store_state"], redis_url=url)
    other = RedisChatMessageStore(redis_url=url, thread_id=name, key_prefix="mine")
    assert [await one.count() for one in (same, made, other)] == [5, 5, 0]
    for one in (thread.message_store, restored.message_store, same, made, other):
        await one.aclose()
    with pytest.raises(ValueError, match="redis_url"):
        RedisChatMessageStore()


async def test_every_kind_of_message(url: str) -> None:
    given = messages()
    async with ChatMessageStoreFactory(url, dangling_calls="keep") as factory:
        store = factory()
        await store.add_messages(given)
        state = await store.serialize()
    async with ChatMessageStoreFactory(url, dangling_calls="keep") as factory:
        store = factory()
        await store.update_from_state(state)
        read = await store.list_messages()
    # The ids that the messages had not were given to them when they were added.
    assert [dump(one) for one in read] == [dump(one) for one in given]


async def test_each_kind_alone() -> None:
    for given in messages():
        store = ChatMessageStoreAdapter(InMemoryChatMessageStore())
        await store.add_messages([given])
        assert [dump(one) for one in await store.list_messages()] == [dump(given)]


async def test_equal_words_and_retries(url: str, openai: AsyncOpenAI) -> None:
    async with ChatMessageStoreFactory(url) as factory:
        agent = agent_of(openai, chat_message_store_factory=factory)
        thread = agent.get_new_thread()
        for _ in range(5):
            await agent.run("ok", thread=thread)
        assert await thread.message_store.store.count() == 10
        store = factory()
        first = [message("user", "ok"), message("assistant", "fine")]
        second = [message("user", "ok"), message("assistant", "fine")]
        for turn in (first, first, second, first, second):
            await store.add_messages(turn)
        assert [one.message_id for one in await store.list_messages()] == [
            one.message_id for one in (*first, *second)
        ]


async def test_a_run_that_failed_to_store(openai: AsyncOpenAI) -> None:
    class Flaky(InMemoryMessageLog):
        fail = True

        async def append(self, key: ThreadKey, rows: Sequence[Row], **options: Any) -> int:
            position = await super().append(key, rows, **options)
            if self.fail:
                self.fail = False
                raise OutcomeUnknownError("the connection was lost")
            return position

    agent = agent_of(openai, chat_message_store_factory=ChatMessageStoreFactory(Flaky()))
    thread = agent.get_new_thread()
    given = message("user", "repeat: hi")
    with pytest.raises(OutcomeUnknownError):
        await agent.run(given, thread=thread)
    await agent.run(given, thread=thread)
    assert texts(await thread.message_store.list_messages()) == ["repeat: hi", "hi"]


async def test_tools(url: str, openai: AsyncOpenAI) -> None:
    @function_tool  # type: ignore[untyped-decorator,unused-ignore]
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"{city}: 11 degrees"

    async with ChatMessageStoreFactory(url, max_messages=6) as factory:
        agent = agent_of(openai, chat_message_store_factory=factory, tools=[weather])
        thread = agent.get_new_thread()
        for _ in range(3):
            answer = await agent.run("What is the weather in Oslo and Rome?", thread=thread)
            assert "Oslo: 11 degrees; Rome: 11 degrees" in answer.text
        found = [item.message async for item in thread.message_store.store.iter_messages()]
        assert len(found) <= 6
        assert [one.role for one in found if one.role != "tool"][-3:] == ["user", "assistant", "assistant"]
        assert {call.name for one in found for call in one.tool_calls} == {"weather"}


async def test_calls_without_results() -> None:
    async def shown(*more: ChatMessage, **options: Any) -> list[list[str]]:
        store = ChatMessageStore(InMemoryMessageLog())
        calls = ChatMessage("assistant", contents=[ToolCallContent("a", "n"), ToolCallContent("b", "n")])
        await store.add_messages([ChatMessage("user", "hi"), calls, *more])
        found = await ChatMessageStoreAdapter(store, **options).list_messages()
        return [[f"{c.type} {c.call_id or ''}".strip() for c in one.contents] for one in found]

    calls, a, b = ["function_call a", "function_call b"], ["function_result a"], ["function_result b"]
    result = ChatMessage("tool", contents=[ToolResultContent("a", "1")])
    # The results of the last calls may come with the next run.
    assert await shown() == [["text"], calls]
    assert await shown(result) == [["text"], calls, a]
    assert await shown(result, ChatMessage("user", "so?")) == [["text"], calls, a, b, ["text"]]
    assert await shown(ChatMessage("user", "so?"), dangling_calls="drop") == [["text"], ["text"]]


async def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(ArgumentTypeError, match="store must be one of agent_stores' stores, got str"):
        ChatMessageStoreAdapter("memory:")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"dangling_calls must be one of .*, got 'x'"):
        ChatMessageStoreFactory("memory:", dangling_calls="x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_messages must be a non-negative int or None, got -1"):
        ChatMessageStoreFactory("memory:", max_messages=-1)
    with pytest.raises(ArgumentTypeError, match="a message must be agent_framework's"):
        await ChatMessageStoreFactory("memory:")().add_messages(["x"])
    made: list[str] = []

    def make(thread_id: str) -> DatabaseChatMessageStore[Any]:
        made.append(thread_id)
        return DatabaseChatMessageStore(tmp_path / "chat.db", thread_id=thread_id)

    async with ChatMessageStoreFactory(make) as factory:
        store = factory()
        assert made == [store.thread_id]
        await store.add_messages([])
        await store.add_messages([message("user", "hi")])
        await store.aclose()
        with pytest.raises(StoreClosedError):
            await store.list_messages()
    with pytest.raises(StoreClosedError):
        factory()
