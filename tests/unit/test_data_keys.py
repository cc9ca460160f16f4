"""Envelope encryption: wrapped data keys, their cache, rotation and destruction."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_stores import (
    ArgumentError,
    ArgumentTypeError,
    ChatMessage,
    ChatMessageStore,
    DataKeys,
    EncryptionKeyError,
    InMemoryMessageLog,
    KeyRing,
    KeyService,
    LocalKeyService,
    MessageLog,
    open_log,
    rekey,
)
from agent_stores.backend import RowRange, ThreadKey
from agent_stores.backends.memory import MemoryBackend
from agent_stores.encryption import data_keys as module
from agent_stores.encryption.data_keys import Scope
from agent_stores.sync import SyncChatMessageStore

pytestmark = pytest.mark.anyio
MASTER = KeyRing({"master": bytes(range(32))}, "master")


class Counted:
    """A service whose methods are counted; synchronous, so that it is called on another thread."""

    def __init__(self) -> None:
        self.inner = LocalKeyService(MASTER)
        self.wrapped = self.unwrapped = 0
        self.contexts: list[dict[str, str]] = []
        self.threads: set[int] = set()
        self.fails = False

    def wrap(self, data_key: bytes, context: Mapping[str, str]) -> bytes:
        self.wrapped += 1
        self.contexts.append(dict(context))
        self.threads.add(threading.get_ident())
        return asyncio.run(self.inner.wrap(data_key, context))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        self.unwrapped += 1
        self.threads.add(threading.get_ident())
        if self.fails:
            raise OSError("access denied: secret detail")
        return asyncio.run(self.inner.unwrap(wrapped, context))


class Setup:
    """Conversations and keys in memory, for several processes."""

    def __init__(self, per: Scope = "tenant", **options: Any) -> None:
        self.service = Counted()
        self.conversations = MemoryBackend()
        self.key_log = InMemoryMessageLog()
        self.options = {"per": per, **options}

    def keys(self, service: KeyService | None = None, **options: Any) -> DataKeys:
        return DataKeys(service or self.service, self.key_log, **{**self.options, **options})

    def log(self, keys: DataKeys | KeyRing | None = None) -> MessageLog:
        return MessageLog(self.conversations, encryption=keys or self.keys())

    def store(
        self, tenant: str | None, thread_id: str = "t", keys: DataKeys | KeyRing | None = None, **options: Any
    ) -> ChatMessageStore:
        return ChatMessageStore(self.log(keys), thread_id=thread_id, tenant=tenant, **options)


async def texts(store: ChatMessageStore) -> list[str]:
    return [message.text for message in await store.list_messages()]


@pytest.mark.parametrize("per", ["tenant", "thread"])
async def test_each_tenant_or_thread_has_a_key(per: Scope) -> None:
    setup = Setup(per)
    for tenant in (None, "acme"):
        for thread_id in ("a", "b"):
            store = setup.store(tenant, thread_id, metadata={"title": thread_id})
            await store.add_messages([ChatMessage("user", f"{tenant} {thread_id}")])
    assert setup.service.wrapped == (2 if per == "tenant" else 4)
    assert len({context["key"] for context in setup.service.contexts}) == setup.service.wrapped
    assert {context.get("tenant") for context in setup.service.contexts} == {None, "acme"}
    assert threading.get_ident() not in setup.service.threads
    other = setup.log()  # of another process
    for tenant in (None, "acme"):
        for thread_id in ("a", "b"):
            store = ChatMessageStore(other, thread_id=thread_id, tenant=tenant)
            assert await texts(store) == [f"{tenant} {thread_id}"]
            assert await store.metadata() == {"title": thread_id}
    assert setup.service.wrapped == (2 if per == "tenant" else 4)
    bodies = [
        row.body
        for tenant in (None, "acme")
        for row in (await setup.conversations.rows(ThreadKey(tenant, "a"), RowRange())).rows  # type: ignore[union-attr]
    ]
    assert not any(b"acme" in body or b"title" in body for body in bodies)


async def test_a_fork_has_the_key_of_its_own_thread() -> None:
    setup = Setup("thread")
    store = setup.store(None, "a", metadata={"x": 1})
    await store.add_messages([ChatMessage("user", "hello")])
    branch = await store.fork("b")
    await setup.keys().destroy(None, "a")
    assert await texts(setup.store(None, "b")) == ["hello"]
    assert await setup.store(None, "b").metadata() == {"x": 1}
    assert await texts(branch) == ["hello"]


@pytest.mark.parametrize("per", ["tenant", "thread"])
async def test_destroying_the_key_erases(per: Scope) -> None:
    setup = Setup(per)
    thread = ("t",) if per == "thread" else ()
    store = setup.store("acme", metadata={"title": "secret"})
    await store.add_messages([ChatMessage("user", "hello", message_id="a")])
    await setup.store("zoo").add_messages([ChatMessage("user", "other")])
    keys = setup.keys()
    (key_id,) = await keys.destroy("acme", *thread)
    assert await keys.destroy("acme", *thread) == []
    assert await setup.keys().destroy("missing's", *thread) == []
    gone = setup.store("acme", on_corrupt="skip", max_messages=1)
    for work in (
        gone.list_messages,
        gone.stats,
        gone.metadata,
        gone.pop_last,
        gone.clear,
        lambda: gone.add_messages([ChatMessage("user", "new")]),
        lambda: gone.replace("a", ChatMessage("user", "new")),
        lambda: gone.update_metadata({"title": "new"}),
        lambda: gone.fork("elsewhere"),
    ):
        with pytest.raises(EncryptionKeyError, match=f"'{key_id}'") as caught:
            await work()
        assert caught.value.key_id == key_id
    assert await texts(setup.store("zoo")) == ["other"]
    listed = (await setup.store("acme").list_threads()).threads
    assert [thread.thread_id for thread in listed] == ["t"]
    report = await rekey(setup.log().backend, "acme")
    assert (report.failed, report.messages) == (1, 0)
    wrapped = await setup.key_log.stats(ThreadKey("acme", "t" if per == "thread" else "data keys"))
    assert wrapped is not None
    assert wrapped.metadata == {key_id: {"destroyed": True}}
    # Writing again is asked for; what was destroyed stays unreadable.
    assert await keys.rotate("acme", *thread) != key_id
    with pytest.raises(EncryptionKeyError, match=f"'{key_id}' .* was destroyed"):
        await texts(setup.store("acme"))
    assert await setup.store("acme").delete_thread()
    fresh = setup.store("acme")
    await fresh.add_messages([ChatMessage("user", "again")])
    assert await texts(fresh) == ["again"]


async def test_the_cache_is_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(cache_size=2, cache_seconds=60)
    now = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    keys = setup.keys()
    stores = [setup.store(f"{n}", keys=keys) for n in range(3)]
    for store in stores:
        await store.add_messages([ChatMessage("user", "x")])
    unwrapped = setup.service.unwrapped
    await texts(stores[2])
    await texts(stores[1])
    assert setup.service.unwrapped == unwrapped
    await texts(stores[0])  # was replaced
    assert setup.service.unwrapped == unwrapped + 1
    await texts(stores[2])
    assert setup.service.unwrapped == unwrapped + 1
    now += 61
    await texts(stores[2])
    assert setup.service.unwrapped == unwrapped + 2
    await setup.keys().destroy("2")  # by another process
    assert await texts(stores[2]) == ["x"]
    now += 61
    with pytest.raises(EncryptionKeyError, match="was destroyed"):
        await texts(stores[2])


async def test_rotation_is_seen_by_others_before_their_cache_expires() -> None:
    setup = Setup()
    store, other = setup.store("acme"), setup.store("acme")
    await store.add_messages([ChatMessage("user", "1")])
    assert await texts(other) == ["1"]
    rotating = setup.keys()
    new = await rotating.rotate("acme")
    third = setup.store("acme", keys=rotating)
    await third.add_messages([ChatMessage("user", "2")])
    assert await texts(other) == ["1", "2"]
    await other.add_messages([ChatMessage("user", "3")])
    report = await rekey(setup.log(rotating).backend, "acme")
    assert report.messages == 1
    rows = (await setup.conversations.rows(ThreadKey("acme", "t"), RowRange())).rows  # type: ignore[union-attr]
    assert all(new.encode() in row.body for row in rows)
    assert await texts(store) == ["1", "2", "3"]


async def test_two_that_make_the_first_key_agree_on_one() -> None:
    setup = Setup()
    await asyncio.gather(
        *(setup.store("acme", f"{n}").add_messages([ChatMessage("user", f"{n}")]) for n in range(8))
    )
    for n in range(8):
        assert await texts(setup.store("acme", f"{n}")) == [f"{n}"]
    stats = await setup.key_log.stats(ThreadKey("acme", "data keys"))
    assert stats is not None
    assert len(stats.metadata) == 2


async def test_a_new_master_key() -> None:
    setup = Setup()
    await setup.store("acme").add_messages([ChatMessage("user", "x")])
    new = KeyRing({"master": bytes(range(32)), "next": os.urandom(32)}, "next")
    assert await setup.keys(LocalKeyService(new)).rewrap("acme") == 1
    assert await setup.keys(LocalKeyService(new)).rewrap("nothing here") == 0
    with pytest.raises(EncryptionKeyError, match="'next'"):
        await texts(setup.store("acme"))
    assert await texts(setup.store("acme", keys=setup.keys(LocalKeyService(new)))) == ["x"]


async def test_from_a_key_ring_to_data_keys() -> None:
    setup = Setup()
    await setup.store("acme", keys=MASTER, metadata={"a": 1}).add_messages([ChatMessage("user", "old")])
    keys = setup.keys(former=MASTER)
    store = setup.store("acme", keys=keys)
    await store.add_messages([ChatMessage("user", "new")])
    assert await texts(store) == ["old", "new"]
    assert (await rekey(store.log.backend, "acme")).messages == 1
    assert await texts(setup.store("acme")) == ["old", "new"]
    assert await setup.store("acme").metadata() == {"a": 1}


async def test_a_service_that_fails() -> None:
    setup = Setup()
    await setup.store("acme", metadata={"a": 1}).add_messages([ChatMessage("user", "x")])
    setup.service.fails = True
    store = setup.store("acme", on_corrupt="skip", max_messages=1)
    for work in (store.list_messages, store.metadata, store.clear, lambda: store.update_metadata({"b": 1})):
        with pytest.raises(EncryptionKeyError, match="'dk-") as caught:
            await work()
        assert "secret detail" not in str(caught.value)
    setup.service.fails = False
    assert await texts(store) == ["x"]
    # A wrapped key that was copied to another tenant does not open there.
    stats = await setup.key_log.stats(ThreadKey("acme", "data keys"))
    assert stats is not None
    await setup.key_log.update_metadata(ThreadKey("zoo", "data keys"), stats.metadata)
    with pytest.raises(EncryptionKeyError, match="was changed or moved"):
        await setup.store("zoo").add_messages([ChatMessage("user", "x")])


async def test_arguments() -> None:
    log, service = InMemoryMessageLog(), LocalKeyService(MASTER)
    rejected: list[dict[str, Any]] = [{"per": "message"}, {"cache_size": 0}, {"cache_seconds": -1}]
    for bad in rejected:
        with pytest.raises(ArgumentError):
            DataKeys(service, log, **bad)
    with pytest.raises(ArgumentTypeError, match="wrap and unwrap"):
        DataKeys(object(), log)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="thread_id must be None"):
        await DataKeys(service, log).destroy("acme", "t")
    with pytest.raises(ArgumentError, match="thread_id must be given"):
        await DataKeys(service, log, per="thread").destroy("acme")
    with pytest.raises(ArgumentTypeError, match="KeyRing, DataKeys or None"):
        InMemoryMessageLog(encryption=service)  # type: ignore[arg-type]


def test_the_synchronous_view(tmp_path: Path) -> None:
    keys = DataKeys(LocalKeyService(MASTER), open_log(tmp_path / "keys.db"))
    log = open_log(tmp_path / "chat.db", encryption=keys)
    with SyncChatMessageStore(ChatMessageStore(log, thread_id="t")) as store:
        store.add_messages([ChatMessage("user", "hello")])
        assert [message.text for message in store.list_messages()] == ["hello"]
