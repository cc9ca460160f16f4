"""Encryption at rest: nothing in the clear, keys, and the change of keys."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_stores import (
    ArgumentError,
    ChatMessage,
    ChatMessageStore,
    CorruptMessageError,
    DatabaseChatMessageStore,
    EncryptionKeyError,
    InMemoryChatMessageStore,
    InMemoryMessageLog,
    KeyRing,
    StoreRejectedError,
    open_log,
    rekey,
)

pytestmark = pytest.mark.anyio
OLD, NEW = bytes(range(32)), bytes(range(1, 33))
OLD_RING = KeyRing({"old": OLD}, "old")
BOTH = KeyRing({"old": OLD, "new": NEW}, "new")
WORD = "planted-zebra"


def store_on(path: Path, keys: KeyRing | None = OLD_RING, **options: Any) -> DatabaseChatMessageStore:
    return DatabaseChatMessageStore(path, thread_id="t", tenant="acme", encryption=keys, **options)


def execute(path: Path, statement: str) -> list[Any]:
    with sqlite3.connect(path) as connection:
        found = connection.execute(statement).fetchall()
    connection.close()
    return found


async def test_nothing_is_in_the_clear(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with store_on(path, metadata={"title": WORD}, messages=[ChatMessage("system", WORD)]) as store:
        await store.add_messages([ChatMessage("user", WORD, message_id="a")])
        await store.replace("a", ChatMessage("user", f"{WORD} again"))
        await store.update_metadata({"more": [WORD]})
        branch = await store.fork("branch")
        assert [m.text for m in await branch.list_messages()] == [WORD, f"{WORD} again"]
        await branch.aclose()
        await store.replace_all([ChatMessage("user", WORD)])
        assert await store.metadata() == {"title": WORD, "more": [WORD]}
        stats = await store.stats()
        sizes = execute(path, "SELECT sum(length(body)) FROM agent_stores_messages WHERE thread = 1")
        assert stats.bytes == sizes[0][0]
        files = await asyncio.to_thread(lambda: [file.read_bytes() for file in tmp_path.iterdir()])
        assert not any(WORD.encode() in content for content in files)
        with pytest.raises(StoreRejectedError, match="the messages are encrypted"):
            await store.search(WORD)
        assert "\\x00" not in repr(OLD_RING)
        assert "key" not in await store.serialize()


@pytest.mark.parametrize("keys", [None, KeyRing({"old": NEW}, "old"), KeyRing({"new": NEW}, "new")])
async def test_a_missing_or_wrong_key_raises(tmp_path: Path, keys: KeyRing | None) -> None:
    path = tmp_path / "chat.db"
    async with store_on(path, metadata={"title": WORD}) as store:
        await store.add_messages([ChatMessage("user", WORD, message_id="a")])
    before = execute(path, "SELECT body FROM agent_stores_messages")
    async with store_on(path, keys, on_corrupt="skip") as store:
        for read in (store.list_messages, store.metadata, store.stats, lambda: store.latest(5)):
            with pytest.raises(EncryptionKeyError, match="'old'") as caught:
                await read()
            assert caught.value.key_id == "old"
            assert WORD not in str(caught.value)
        with pytest.raises(EncryptionKeyError):
            await store.get("a")
        with pytest.raises(EncryptionKeyError):
            await store.pop_last()
        with pytest.raises(EncryptionKeyError, match="'old'"):
            await store.update_metadata({"other": 1})
        assert len((await store.list_threads()).threads) == 1
    assert execute(path, "SELECT body FROM agent_stores_messages") == before
    async with store_on(path) as store:
        assert (await store.list_messages())[0].text == WORD
    async with store_on(path, keys) as store:  # what cannot be read can still be deleted, when that is asked
        assert await store.delete_thread()


async def test_a_ciphertext_that_was_moved_or_changed_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with store_on(path) as store:
        await store.add_messages([ChatMessage("user", f"{n}", message_id=f"{n}") for n in range(3)])
        await (await store.fork("branch")).aclose()
        copied = "SELECT body FROM agent_stores_messages WHERE id = {} * 268435456 + {}"
        for source in (
            copied.format(2, 1),
            copied.format(1, 3),
            f'SELECT replace(({copied.format(1, 1)}), \'"data":"\', \'"data":"AAAA\')',
        ):
            execute(
                path,
                f"UPDATE agent_stores_messages SET body = ({source}) WHERE id = 268435457",
            )
            with pytest.raises(CorruptMessageError):
                await store.list_messages()
            with pytest.raises(CorruptMessageError):
                await store.get("0")
        skipping = ChatMessageStore(store.log, thread_id="t", tenant="acme", on_corrupt="skip")
        assert [m.text for m in await skipping.list_messages()] == ["1", "2"]


async def test_plain_and_encrypted_messages_are_mixed(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with store_on(path, None) as store:
        await store.add_messages([ChatMessage("user", WORD)])
        await store.update_metadata({"title": WORD})
    async with store_on(path) as store:
        await store.add_messages([ChatMessage("user", "2")])
        assert [m.text for m in await store.list_messages()] == [WORD, "2"]
        assert await store.metadata() == {"title": WORD}
    async with store_on(path, KeyRing({"old": OLD}, "old", allow_plaintext=False)) as store:
        with pytest.raises(EncryptionKeyError, match="allow_plaintext"):
            await store.list_messages()


async def test_rekey_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with store_on(path, None) as store:
        await store.add_messages([ChatMessage("user", f"{n}") for n in range(150)])
    async with store_on(path, metadata={"title": "x"}) as store:
        await store.update_metadata({"title": "x"})
        await store.add_messages([ChatMessage("user", f"{n}") for n in range(150, 250)])
        before = await store.stats()
    log = open_log(path, encryption=BOTH)
    async with store_on(path, BOTH) as store:

        async def write() -> None:
            for n in range(250, 260):
                await store.add_messages([ChatMessage("user", f"{n}")])

        report, _ = await asyncio.gather(rekey(log.backend, "acme"), write())
        assert report.messages >= 250
    again = await rekey(log.backend, "acme")
    assert (again.threads, again.messages, again.metadata) == (1, 0, 0)
    await log.aclose()
    async with store_on(path, KeyRing({"new": NEW}, "new", allow_plaintext=False)) as store:
        assert [m.text for m in await store.list_messages()] == [f"{n}" for n in range(260)]
        assert await store.metadata() == {"title": "x"}
        after = await store.stats()
        assert after.revision == before.revision
        assert after.bytes == execute(path, "SELECT sum(length(body)) FROM agent_stores_messages")[0][0]


async def test_rekey_changes_no_time(tmp_path: Path) -> None:
    log = open_log(tmp_path / "chat.db", encryption=OLD_RING)
    store = ChatMessageStore(log, thread_id="t", ttl=1000)
    await store.add_messages([ChatMessage("user", "1")])
    before = await store.stats()
    await log.aclose()
    log = open_log(tmp_path / "chat.db", encryption=BOTH)
    assert (await rekey(log.backend)).messages == 1
    after = await ChatMessageStore(log, thread_id="t").stats()
    assert (after.updated_at, after.expires_at) == (before.updated_at, before.expires_at)
    await log.aclose()


REKEY = """
import asyncio, sys
from agent_stores import KeyRing, open_log, rekey
log = open_log(sys.argv[1], encryption=KeyRing({"old": bytes(range(32)), "new": bytes(range(1, 33))}, "new"))
commit, step = log.backend.inner.commit, 0

async def counted(*args, **kwargs):
    global step
    step += 1
    if step > int(sys.argv[2]):
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return await commit(*args, **kwargs)

log.backend.inner.commit = counted
asyncio.run(rekey(log.backend, "acme"))
"""


async def test_rekey_that_is_killed_at_each_step_is_ended_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with store_on(path, metadata={"title": "x"}) as store:
        await store.add_messages([ChatMessage("user", f"{n}") for n in range(250)])
    for step in range(3):
        command = [sys.executable, "-c", REKEY, str(path), str(min(step, 1))]
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == -signal.SIGKILL
        async with store_on(path, BOTH) as store:
            assert [m.text for m in await store.list_messages()] == [f"{n}" for n in range(250)]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", REKEY, str(path), "99")
    assert await process.wait() == 0
    async with store_on(path, KeyRing({"new": NEW}, "new", allow_plaintext=False)) as store:
        assert [m.text for m in await store.list_messages()] == [f"{n}" for n in range(250)]
        assert await store.metadata() == {"title": "x"}


async def test_arguments() -> None:
    store = InMemoryChatMessageStore()
    with pytest.raises(ArgumentError, match=r"metadata 'a' must not have the key '\$encrypted'"):
        await store.update_metadata({"a": {"$encrypted": 1, "key": "k"}})
    assert await store.metadata() == {}
    for keys, current in (({"a": b"short"}, "a"), ({"a": OLD}, "b"), ({"": OLD}, "")):
        with pytest.raises(ArgumentError):
            KeyRing(keys, current)
    assert OLD.hex() not in repr(KeyRing({"a": OLD}, "a"))
    with pytest.raises(ArgumentError, match="given to the log"):
        ChatMessageStore(InMemoryMessageLog(), encryption=OLD_RING)
    store = InMemoryChatMessageStore(encryption=KeyRing({"a": os.urandom(32)}, "a"))
    await store.add_messages([ChatMessage("user", WORD)])
    assert (await store.list_messages())[0].text == WORD
