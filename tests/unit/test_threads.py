"""Threads: which kind they are, what they serialize to, and what they refuse to be restored from."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest

from agent_stores.agent import AggregateContextProvider
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    MessageFormatError,
    StateError,
    StateSignatureError,
    UnsupportedVersionError,
)
from agent_stores.memory import InMemoryChatMessageStore
from agent_stores.messages import ChatMessage
from agent_stores.protocols import ChatMessageStoreProtocol
from agent_stores.states import sign_state
from agent_stores.threads import AgentThread

pytestmark = pytest.mark.anyio


class ListStore:
    """A user's store, which derives from nothing."""

    def __init__(self, name: str = "one", secret: str = "") -> None:
        self.name = name
        self.secret = secret
        self.kept: list[ChatMessage] = []

    async def list_messages(self) -> list[ChatMessage]:
        return list(self.kept)

    async def add_messages(self, messages: Sequence[ChatMessage]) -> None:
        self.kept += messages

    @classmethod
    async def deserialize(cls, serialized_store_state: MutableMapping[str, Any], **kwargs: Any) -> ListStore:
        store = cls(**kwargs)
        await store.update_from_state(serialized_store_state)
        return store

    async def update_from_state(
        self, serialized_store_state: MutableMapping[str, Any], **kwargs: Any
    ) -> None:
        self.name = serialized_store_state["name"]

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        return {"type": "list", "name": self.name}


def through_json(state: Any) -> Any:
    return json.loads(json.dumps(state))


async def test_a_thread_is_of_one_kind() -> None:
    store = ListStore()
    with pytest.raises(ArgumentError, match="must not be given together"):
        AgentThread(service_thread_id="t", message_store=store)
    kept = AgentThread(message_store=store)
    with pytest.raises(ArgumentError, match="service_thread_id must not be set on a thread with"):
        kept.service_thread_id = "t"
    with pytest.raises(ArgumentError, match="message_store must be set only once"):
        kept.message_store = ListStore()
    kept.message_store = store
    served = AgentThread(service_thread_id="t")
    with pytest.raises(ArgumentError, match="message_store must not be set on a thread with"):
        served.message_store = store
    served.service_thread_id = "u"
    assert (served.service_thread_id, served.thread_id, kept.thread_id) == ("u", "u", None)
    stored = AgentThread(message_store=InMemoryChatMessageStore(thread_id="m"))
    assert stored.thread_id == "m"


def test_bad_arguments() -> None:
    wrong: Any = object()
    with pytest.raises(ArgumentError, match="service_thread_id must be a non-empty str"):
        AgentThread(service_thread_id="")
    with pytest.raises(ArgumentTypeError, match="service_thread_id must be a non-empty str, got object"):
        AgentThread(service_thread_id=wrong)
    with pytest.raises(ArgumentTypeError, match="message_store must have the methods"):
        AgentThread(message_store=wrong)
    with pytest.raises(ArgumentTypeError, match="context_provider must have the methods"):
        AgentThread(context_provider=wrong)


def test_a_class_with_the_methods_is_a_store() -> None:
    assert isinstance(ListStore(), ChatMessageStoreProtocol)


async def test_new_messages_decide_where_a_thread_is_kept() -> None:
    thread = AgentThread()
    await thread.on_new_messages(ChatMessage("user", "a"))
    await thread.on_new_messages([ChatMessage("assistant", "b")])
    assert isinstance(thread.message_store, InMemoryChatMessageStore)
    assert [message.text for message in await thread.message_store.list_messages()] == ["a", "b"]
    served = AgentThread(service_thread_id="t")
    await served.on_new_messages(ChatMessage("user", "a"))
    assert served.message_store is None


async def test_memory_comes_back_whole_and_once() -> None:
    thread = AgentThread()
    await thread.on_new_messages([ChatMessage("user", "Hello \U0001f600\0"), ChatMessage("assistant", "b")])
    state = through_json(await thread.serialize())
    assert state["type"] == "agent_stores.thread"
    assert state["version"] == 1
    assert state["service_thread_id"] is None
    restored = await AgentThread.deserialize(state)
    assert restored.thread_id == thread.thread_id
    await restored.update_from_state(state)
    assert thread.message_store is not None
    assert restored.message_store is not None
    assert await restored.message_store.list_messages() == await thread.message_store.list_messages()
    assert await restored.serialize() == state
    await restored.on_new_messages(ChatMessage("user", "c"))
    assert len(await restored.message_store.list_messages()) == 3
    assert len(await thread.message_store.list_messages()) == 2


async def test_service_and_undecided_threads_come_back() -> None:
    for thread in (AgentThread(service_thread_id="thread \u2603"), AgentThread()):
        state = through_json(await thread.serialize())
        restored = await AgentThread.deserialize(state)
        await restored.update_from_state(state)
        assert restored.service_thread_id == thread.service_thread_id
        assert restored.message_store is None
        assert await restored.serialize() == state


async def test_a_given_store_is_pointed_at_the_conversation() -> None:
    state = through_json(await AgentThread(message_store=ListStore("mine")).serialize())
    store = ListStore("other")
    provider = AggregateContextProvider()
    thread = await AgentThread.deserialize(state, message_store=store, context_provider=provider)
    assert thread.message_store is store
    assert thread.context_provider is provider
    assert (store.name, store.kept) == ("mine", [])


async def test_an_undecided_state_leaves_a_given_store_as_it_is() -> None:
    store = ListStore("fresh")
    thread = await AgentThread.deserialize(await AgentThread().serialize(), message_store=store)
    assert thread.message_store is store
    assert store.name == "fresh"


async def test_a_state_makes_no_connection() -> None:
    state = await AgentThread(message_store=ListStore()).serialize()
    with pytest.raises(StateError, match=r"'list'.*message_store="):
        await AgentThread.deserialize(state)
    state["store"] = {"type": "agent_stores.redis", "location": "redis://evil"}
    with pytest.raises(StateError, match=r"agent_stores.redis.*message_store="):
        await AgentThread().update_from_state(state)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (
            {"type": "agent_stores.memory"},
            StateError,
            "must be 'agent_stores.thread', got",
        ),
        ({"version": 2}, UnsupportedVersionError, "must be at most 1"),
        ({"version": "1"}, StateError, "version"),
        ({"service_thread_id": 7}, StateError, "service_thread_id"),
        ({"service_thread_id": ""}, StateError, "service_thread_id"),
        ({"service_thread_id": "t"}, StateError, "one of them"),
        ({"store": "text"}, StateError, "store must be an object, got str"),
        ({"store": {}}, StateError, "type None"),
        ({"extra": {1}}, StateError, r"the state\['extra'\] must be .*, got set"),
    ],
)
async def test_bad_states(change: dict[str, Any], error: type[Exception], match: str) -> None:
    thread = AgentThread()
    await thread.on_new_messages(ChatMessage("user", "a"))
    state = {**await thread.serialize(), **change}
    with pytest.raises(error, match=match):
        await AgentThread.deserialize(state)
    before = await thread.serialize()
    with pytest.raises((StateError, UnsupportedVersionError)):
        await thread.update_from_state(state)
    assert await thread.serialize() == before


async def test_what_is_not_a_state() -> None:
    wrong: Any = ["state"]
    with pytest.raises(StateError, match="the state must be a mapping, got list"):
        await AgentThread.deserialize(wrong)
    with pytest.raises(StateError, match="the state must be a mapping, got list"):
        await AgentThread.deserialize(wrong, key="k")


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("key", [None, "k"])
async def test_states_that_are_nested_too_deep(key: str | None) -> None:
    """They are rejected before anything reads them, whatever their signature."""
    state = await AgentThread(message_store=InMemoryChatMessageStore()).serialize(key)
    for levels in (117, 1_500, 100_000):
        for change in ({"x": nested(levels)}, {"store": {**state["store"], "messages": nested(levels)}}):
            for read in (AgentThread.deserialize, AgentThread().update_from_state):
                with pytest.raises(StateError, match="the state must be nested at most 116 levels deep"):
                    await read({**state, **change}, key=key)
        with pytest.raises(StateError, match="the state must be nested at most 116 levels deep"):
            sign_state({**state, "x": nested(levels)}, "k")


async def test_the_deepest_message_in_a_state() -> None:
    store = InMemoryChatMessageStore()
    message = ChatMessage("user", "x", additional_properties={"a": nested(98)})
    await store.add_messages([message])
    thread = AgentThread(message_store=store)
    restored = await AgentThread.deserialize(through_json(await thread.serialize("k")), key="k")
    assert restored.message_store is not None
    assert await restored.message_store.list_messages() == await store.list_messages()


async def test_a_state_with_a_malformed_conversation() -> None:
    store = InMemoryChatMessageStore()
    state = await store.serialize()
    for change, error, words in (
        ({"messages": [{"role": "\ud800"}]}, MessageFormatError, "role: an unpaired surrogate"),
        ({"messages": [{"role": "user", "$unknown": {"role": "system"}}]}, MessageFormatError, "reserved"),
        ({"messages": [nested(99)]}, MessageFormatError, "expected an object"),
        ({"messages": [{"role": "user", "x": nested(100)}]}, MessageFormatError, "at most 100 levels deep"),
        ({"messages": "x"}, StateError, "messages must be an array, got str"),
        ({"metadata": "x"}, StateError, "metadata must be a mapping, got str"),
        ({"metadata": {"a": "x" * 70_000}}, StateError, "metadata must be at most 65536 bytes"),
        ({"metadata": {"a": nested(100)}}, StateError, "metadata must be nested at most 100 levels deep"),
    ):
        with pytest.raises(error, match=words):
            await store.update_from_state({**state, **change})
        assert await store.serialize() == state


async def test_a_state_does_not_change_the_kind_of_a_thread() -> None:
    served = await AgentThread(service_thread_id="t").serialize()
    undecided = await AgentThread().serialize()
    stored = await AgentThread(message_store=InMemoryChatMessageStore()).serialize()
    with pytest.raises(StateError, match="message_store"):
        await AgentThread.deserialize(served, message_store=ListStore())
    with pytest.raises(StateError, match="has a store"):
        await AgentThread(message_store=ListStore()).update_from_state(served)
    for state in (undecided, stored):
        with pytest.raises(StateError, match="that of the state is not"):
            await AgentThread(service_thread_id="t").update_from_state(state)


async def test_fields_of_a_newer_version_are_kept() -> None:
    state = {**await AgentThread(service_thread_id="t").serialize(key="k"), "later": {"a": [1]}}
    del state["signature"]
    thread = await AgentThread.deserialize(state)
    assert (await thread.serialize())["later"] == {"a": [1]}
    signed = await thread.serialize(key="k")
    assert (await (await AgentThread.deserialize(signed, key="k")).serialize()) == state


async def test_a_store_whose_state_is_not_json() -> None:
    class Odd(ListStore):
        async def serialize(self, **kwargs: Any) -> dict[str, Any]:
            return {"type": "odd", "client": object()}

    with pytest.raises(StateError, match="client"):
        await AgentThread(message_store=Odd()).serialize()


async def test_signed_states() -> None:
    thread = AgentThread()
    await thread.on_new_messages(ChatMessage("user", "half an emoji \ud83d"))
    signed = through_json(await thread.serialize(key="old"))
    key: Any
    for key in ("old", b"old", ["new", "old"]):
        restored = await AgentThread.deserialize(signed, key=key)
        assert restored.thread_id == thread.thread_id
    tampered = {**signed, "store": {**signed["store"], "thread_id": "another's"}}
    for state, key, match in (
        (tampered, "old", "does not match"),
        ({**signed, "added": 1}, "old", "does not match"),
        (signed, "new", "does not match"),
        ({**signed, "signature": 5}, "old", "must be signed"),
        (await thread.serialize(), "old", "must be signed"),
        (signed, None, "the key that signed the state"),
        (sign_state(tampered, "attacker"), ["new", "old"], "does not match"),
    ):
        with pytest.raises(StateSignatureError, match=match):
            await AgentThread.deserialize(state, key=key)
        with pytest.raises(StateSignatureError, match=match):
            await thread.update_from_state(state, key=key)
    rotated = await thread.serialize(key=["new", "old"])
    assert (await AgentThread.deserialize(rotated, key="new")).thread_id == thread.thread_id
    empty: Any
    for empty in ("", b"", []):
        with pytest.raises(ArgumentError, match="key"):
            await thread.serialize(key=empty)


async def test_no_secret_in_state_or_repr() -> None:
    thread = AgentThread(message_store=ListStore(secret="planted-secret"))
    assert "planted-secret" not in json.dumps(await thread.serialize(key="planted-secret"))
    assert "planted-secret" not in repr(thread)
    assert repr(AgentThread(service_thread_id="t")) == "AgentThread(service_thread_id='t')"


async def test_update_from_state_waits_for_a_run() -> None:
    thread = AgentThread()
    state = await thread.serialize()
    async with thread.lock:
        updating = asyncio.ensure_future(thread.update_from_state(state))
        await asyncio.sleep(0.01)
        assert not updating.done()
    await updating


def test_the_lock_works_in_one_loop_after_another() -> None:
    thread = AgentThread()

    async def contend() -> weakref.ref[Any]:
        order: list[str] = []

        async def one(name: str) -> None:
            async with thread.lock:
                order.append(f"{name}+")
                await asyncio.sleep(0)
                order.append(f"{name}-")

        await asyncio.gather(one("a"), one("b"))
        assert order == ["a+", "a-", "b+", "b-"]
        return weakref.ref(asyncio.get_running_loop())

    first = asyncio.run(contend())
    second = asyncio.run(contend())
    gc.collect()
    assert first() is None  # the lock of a loop that has ended does not keep it
    del second


def test_the_lock_needs_a_loop() -> None:
    with pytest.raises(RuntimeError):
        _ = AgentThread().lock
