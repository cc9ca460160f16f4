"""The synchronous view."""

from __future__ import annotations

import asyncio
import inspect
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_stores import ChatMessage, ChatMessageStore, DatabaseChatMessageStore, InMemoryChatMessageStore
from agent_stores.errors import ArgumentError, NotFoundError, StoreClosedError
from agent_stores.memory import InMemoryMessageLog
from agent_stores.sync import SyncChatMessageStore


def user(text: str, message_id: str | None = None) -> ChatMessage:
    return ChatMessage("user", text, message_id=message_id)


def test_every_operation(tmp_path: Path) -> None:
    with SyncChatMessageStore(DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t")) as store:
        store.add_messages([user("1", "a"), user("2", "b"), user("3", "c")], expected_position=0)
        assert [message.text for message in store.list_messages(last=2)] == ["2", "3"]
        assert [item.position for item in store.iter_messages(page_size=2)] == [1, 2, 3]
        found = store.get("a")
        assert found is not None
        assert found.text == "1"
        store.replace("a", user("one"))
        with pytest.raises(NotFoundError):
            store.replace("z", user("x"))
        with store.fork("branch", at=2) as branch:
            assert branch.count() == 2
        assert store.delete("b") == 1
        popped = store.pop_last()
        assert popped is not None
        assert popped.text == "3"
        assert (store.count(), store.stats().last_position) == (1, 3)
        assert store.set_ttl(60)
        assert store.purge_expired() == 0
        assert [thread.thread_id for thread in store.list_threads().threads] == ["branch", "t"]
        state = store.serialize()
        assert store.clear() == 1
        assert store.delete_thread("branch")
        store.update_from_state(state)
        assert (store.thread_id, store.tenant) == ("t", None)
        assert "thread_id='t'" in repr(store)
    with pytest.raises(StoreClosedError):
        store.count()


def test_a_file_is_used_on_the_callers_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with SyncChatMessageStore(DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t")) as store:
        store.add_messages([user("1")])
        other = sqlite3.connect(tmp_path / "chat.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        assert set(threading.enumerate()) <= before
        release = threading.Timer(0.2, other.execute, ["COMMIT"])
        release.start()
        store.add_messages([user("2")])  # waits for the lock
        release.join()
        other.close()
        assert [message.text for message in store.list_messages()] == ["1", "2"]


def test_views_and_loops_share_a_file(tmp_path: Path) -> None:
    store = DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t")

    async def add(n: int) -> None:
        await asyncio.gather(*(store.add_messages([user(f"{n}.{k}")]) for k in range(10)))

    with SyncChatMessageStore(store) as view, ThreadPoolExecutor(4) as pool:
        loops = [pool.submit(asyncio.run, add(n)) for n in range(2)]
        calls = [pool.submit(view.add_messages, [user(f"view.{n}")]) for n in range(20)]
        for done in [*loops, *calls]:
            done.result()
        assert view.count() == len({message.text for message in view.list_messages()}) == 40


def test_threads_share_it(tmp_path: Path) -> None:
    with SyncChatMessageStore(DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t")) as store:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: store.add_messages([user(str(n))]), range(40)))
        assert sorted(int(message.text) for message in store.list_messages()) == list(range(40))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_after_a_fork(tmp_path: Path) -> None:
    """A process that was forked from one with open stores uses connections and threads of its own."""
    code = f"""
import os
from agent_stores import ChatMessage, DatabaseChatMessageStore
from agent_stores.memory import InMemoryMessageLog
from agent_stores.sync import SyncChatMessageStore
store = SyncChatMessageStore(DatabaseChatMessageStore({str(tmp_path / "chat.db")!r}, thread_id="t"))
store.add_messages([ChatMessage("user", "parent")])
child = os.fork()
if child == 0:
    store.add_messages([ChatMessage("user", "child")])
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
store.add_messages([ChatMessage("user", "parent again")])
print([message.text for message in store.list_messages()])
store.close()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "['parent', 'child', 'parent again']", result.stderr


@pytest.mark.anyio
async def test_it_does_not_block_an_event_loop() -> None:
    store = SyncChatMessageStore(InMemoryChatMessageStore())
    with pytest.raises(ArgumentError, match="must not be called in a running event loop"):
        store.count()


def test_it_has_all_of_a_stores_operations() -> None:
    renamed = {"aclose": "close", "deserialize": None, "location": None, "log": None, "state_type": None}
    renamed["watch"] = None  # a loop that waits; threads poll with iter_messages
    public = {name for name, _ in inspect.getmembers(ChatMessageStore) if not name.startswith("_")}
    assert {renamed.get(name, name) for name in public} - {None} <= set(dir(SyncChatMessageStore))
    for name in public - set(renamed):
        mine, theirs = (getattr(kind, name) for kind in (SyncChatMessageStore, ChatMessageStore))
        if inspect.isfunction(mine):
            assert [p for p in inspect.signature(mine).parameters if p != "kwargs"] == [
                p for p in inspect.signature(theirs).parameters if p != "kwargs"
            ]


def test_it_searches(tmp_path: Path) -> None:
    with SyncChatMessageStore(DatabaseChatMessageStore(tmp_path / "chat.db", thread_id="t")) as store:
        store.add_messages([ChatMessage("user", "my boat"), ChatMessage("user", "my car")])
        assert [(hit.position, hit.message.text) for hit in store.search("boat")] == [(1, "my boat")]


def test_a_store_in_memory_from_several_threads() -> None:
    log = InMemoryMessageLog()

    def write(name: int) -> None:
        async def add() -> None:
            store = ChatMessageStore(log, thread_id="t", max_messages=50)
            for n in range(100):
                await store.add_messages([user(f"{name}.{n}")])
                assert len(await store.list_messages(last=5)) <= 5

        asyncio.run(add())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    with SyncChatMessageStore(ChatMessageStore(log, thread_id="t")) as store:
        assert store.count() == 50
        assert store.stats().last_position == 600
