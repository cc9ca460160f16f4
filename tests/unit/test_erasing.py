"""Erasure: threads, forks, what providers remember, traces in files; receipts; an erasure that is killed."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import agent_stores
from agent_stores import (
    ArgumentError,
    ArgumentTypeError,
    Attachments,
    ChatMessage,
    ChatMessageStore,
    ContextProviderError,
    DatabaseChatMessageStore,
    DataContent,
    EncryptionKeyError,
    Erasable,
    InMemoryMessageLog,
    KeyRing,
    MessageLog,
    StateSignatureError,
    erase,
    open_log,
)
from agent_stores.backend import Limits, ThreadKey
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.cli.app import app, run
from agent_stores.lineage import MAX_ANCESTORS, PREFIX
from agent_stores.mem0 import Mem0Provider
from agent_stores.states import verify_state
from agent_stores.testing.conformance import Clock
from tests.servers.mem0_platform import Mem0Platform
from tests.tables.memory_table import MemoryTable
from tests.unit import erasure_step
from tests.unit.erasure_step import Notes

pytestmark = pytest.mark.anyio
STEP = str(erasure_step.__file__)
WORD = "planted-zebra"
KEPT = "kept-walrus"


def store(log: MessageLog, name: str, **options: Any) -> ChatMessageStore[ChatMessage]:
    return ChatMessageStore(log, thread_id=name, tenant="acme", **options)


async def plant(log: MessageLog) -> None:
    """Threads ``a`` to ``d``, each a fork of the one before, of which ``b`` is gone; and two that stay."""
    first = store(log, "a", metadata={"user": "alice", "title": WORD})
    await first.add_messages([ChatMessage("user", f"{WORD} {n}", message_id=f"{n}") for n in range(20)])
    await first.replace("3", ChatMessage("user", f"{WORD} replaced"))
    second = await first.fork("b")
    third = await second.fork("c", at=10)
    await third.update_metadata({"user": "bob"})
    await second.delete_thread()
    await (await third.fork("d")).add_messages([ChatMessage("user", WORD)])
    await store(log, "z", metadata={"user": "carol"}).add_messages([ChatMessage("user", KEPT)])
    await ChatMessageStore(log, thread_id="a", tenant="other").add_messages([ChatMessage("user", KEPT)])


async def ids(log: MessageLog, tenant: str | None = "acme") -> list[str]:
    return [thread.thread_id for thread in (await log.list_threads(tenant)).threads]


@pytest.fixture(params=["memory", "limited", "tables", "sqlite", "encrypted"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    keys = KeyRing({"k": bytes(32)}, "k")
    makers: dict[str, Callable[[], MessageLog]] = {
        "memory": InMemoryMessageLog,
        "limited": lambda: InMemoryMessageLog(limits=Limits(commit_rows=4)),
        "tables": lambda: MessageLog(TablesBackend(MemoryTable())),
        "sqlite": lambda: open_log(str(tmp_path / "chat.db")),
        "encrypted": lambda: open_log(str(tmp_path / "chat.db"), encryption=keys),
    }
    made = makers[request.param]()
    yield made
    await made.aclose()


@pytest.mark.parametrize(
    "choice", [{"thread_ids": ["a", "missing"]}, {"metadata": {"user": "alice"}}], ids=["ids", "metadata"]
)
async def test_forks_of_forks_go_with_their_thread(log: MessageLog, choice: dict[str, Any]) -> None:
    await plant(log)
    receipt = await erase(log, tenant="acme", dry_run=True, **choice)
    assert (receipt["remaining"]["threads"], receipt["remaining"]["forks"]) == (3, 2)
    assert receipt["removed"]["threads"] == 0
    assert receipt["complete"] is False
    assert await ids(log) == ["a", "c", "d", "z"]
    receipt = await erase(log, tenant="acme", **choice)
    assert receipt["complete"]
    assert receipt["removed"] == {**receipt["found"], "threads": 3, "forks": 2, "messages": 20 + 10 + 11}
    assert receipt["remaining"] == {"threads": 0, "forks": 0, "messages": 0, "bytes": 0}
    assert await ids(log) == ["z"]
    assert await ids(log, "other") == ["a"]
    again = await erase(log, tenant="acme", **choice)
    assert again["complete"]
    assert again["found"]["threads"] == 0
    everything = await erase(log, tenant="acme", all_threads=True)
    assert everything["removed"]["threads"] == 1
    assert await ids(log, "other") == ["a"]


async def test_applications_do_not_see_what_a_fork_is_of(log: MessageLog) -> None:
    await plant(log)
    assert await store(log, "c").metadata() == {"user": "bob", "title": WORD}
    listed = (await log.list_threads("acme")).threads
    assert not any(name.startswith("$") for thread in listed for name in thread.metadata)
    with pytest.raises(ArgumentError, match=r"must not have a key that begins with '\$forked_from:'"):
        await store(log, "c").update_metadata({f"{PREFIX}x": 1})
    await store(log, "c").update_metadata({"user": "dora", "title": None})
    assert await store(log, "c").metadata() == {"user": "dora"}
    assert (await erase(log, tenant="acme", thread_ids=["a"], dry_run=True))["remaining"]["forks"] == 2


async def test_a_long_line_of_forks() -> None:
    log = InMemoryMessageLog()
    await store(log, "0").add_messages([ChatMessage("user", WORD)])
    for n in range(MAX_ANCESTORS + 8):
        await store(log, f"{n}").fork(f"{n + 1}")
    loaded = await log.backend.load(ThreadKey("acme", f"{MAX_ANCESTORS + 8}"))
    assert loaded is not None
    assert len(json.dumps(loaded.thread.metadata)) < 1000
    receipt = await erase(log, tenant="acme", thread_ids=["0"])
    assert receipt["removed"]["threads"] == MAX_ANCESTORS + 9
    assert await ids(log) == []


def items_of(table: MemoryTable) -> str:
    return repr([item for partition in table.partitions.values() for item in partition.values()])


async def test_expired_threads_are_erased() -> None:
    clock = Clock()
    table = MemoryTable()
    log = MessageLog(TablesBackend(table, clock=clock), clock=clock)
    for name in ("a", "b"):
        await store(log, f"{WORD}-{name}", ttl=60).add_messages([ChatMessage("user", WORD)])
    await clock.advance(120)
    assert await ids(log) == []
    receipt = await erase(log, tenant="acme", all_threads=True)
    assert receipt["removed"]["threads"] == 2
    assert WORD not in items_of(table)


async def test_nothing_is_in_a_table_afterwards() -> None:
    table = MemoryTable()
    log = MessageLog(TablesBackend(table))
    await plant(log)
    for name in (f"{WORD}-1", f"{WORD}-2"):
        await store(log, name, ttl=3600).add_messages([ChatMessage("user", "x" * 100_000)])
        await store(log, name).set_ttl(7200)
        await store(log, name).clear()
        await store(log, name).add_messages([ChatMessage("user", WORD * 20_000)])
    assert WORD in items_of(table)
    await erase(log, tenant="acme", thread_ids=["a", f"{WORD}-1", f"{WORD}-2"])
    assert WORD not in items_of(table)
    assert KEPT in items_of(table)


def planted_in(folder: Path) -> list[str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return [file.name for file in files if WORD.encode() in file.read_bytes()]


async def test_nothing_is_in_a_file_afterwards(tmp_path: Path) -> None:
    log = open_log(str(tmp_path / "chat.db"))
    await plant(log)
    assert len(await store(log, "a").search(WORD)) == 10  # builds the index
    await store(log, "a").add_messages([ChatMessage("user", f"{WORD} " * 5000)])
    await store(log, "a").delete(["4", "5"])
    assert planted_in(tmp_path)
    receipt = await erase(log, tenant="acme", thread_ids=["a"])
    assert receipt["scrubbed"] is True
    assert await asyncio.to_thread(planted_in, tmp_path) == []
    assert KEPT.encode() in (tmp_path / "chat.db").read_bytes()
    assert len(await store(log, "z").search(KEPT)) == 1
    await log.aclose()


async def test_a_reader_keeps_the_file_from_being_emptied(tmp_path: Path) -> None:
    import sqlite3

    log = open_log(str(tmp_path / "chat.db"), timeout=0.5)
    await plant(log)
    reader = sqlite3.connect(tmp_path / "chat.db", check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM agent_stores_messages").fetchone()
    receipt = await erase(log, tenant="acme", thread_ids=["a"])
    assert (receipt["scrubbed"], receipt["complete"]) == (False, True)
    reader.close()
    assert (await erase(log, tenant="acme", thread_ids=["a"]))["scrubbed"] is True
    assert await asyncio.to_thread(planted_in, tmp_path) == []
    await log.aclose()


async def test_without_the_key_forks_are_found_and_metadata_is_not_compared(tmp_path: Path) -> None:
    async with DatabaseChatMessageStore(
        tmp_path / "chat.db", encryption=KeyRing({"k": bytes(32)}, "k")
    ) as first:
        await plant(first.log)
    log = open_log(str(tmp_path / "chat.db"))
    with pytest.raises(EncryptionKeyError, match="'k'"):
        await erase(log, tenant="acme", metadata={"user": "alice"})
    assert len(await ids(log)) == 4
    receipt = await erase(log, tenant="acme", thread_ids=["a"])
    assert (receipt["removed"]["threads"], receipt["removed"]["forks"]) == (3, 2)
    await log.aclose()


async def test_a_fork_made_meanwhile_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    log = InMemoryMessageLog()
    await plant(log)
    delete, left = log.delete_thread, ["late", "later"]

    async def forking(key: ThreadKey) -> bool:
        if left:
            await store(log, "a").fork(left.pop())
        return await delete(key)

    monkeypatch.setattr(log, "delete_thread", forking)
    receipt = await erase(log, tenant="acme", thread_ids=["a"])
    assert (receipt["removed"]["threads"], receipt["complete"]) == (5, True)
    assert await ids(log) == ["z"]


async def test_the_receipt(tmp_path: Path) -> None:
    log = InMemoryMessageLog()
    await plant(log)
    receipt = await erase(log, tenant="acme", thread_ids=["a"], key="secret")
    assert json.loads(json.dumps(receipt)) == receipt
    assert WORD not in json.dumps(receipt)
    unsigned = verify_state(receipt, "secret")
    digest = unsigned.pop("digest")
    text = json.dumps(unsigned, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert unsigned["type"] == "agent_stores.erasure"
    assert unsigned["started_at"] <= unsigned["finished_at"]
    assert sorted(thread["fork"] for thread in unsigned["threads"]) == [False, True, True]
    forged = {**receipt, "removed": {**receipt["removed"], "threads": 0}}
    for state, key in ((forged, "secret"), (receipt, "another")):
        with pytest.raises(StateSignatureError):
            verify_state(state, key)


async def test_arguments() -> None:
    log = InMemoryMessageLog()
    for choice in ({}, {"thread_ids": ["a"], "all_threads": True}, {"thread_ids": [], "metadata": {"a": 1}}):
        with pytest.raises(ArgumentError, match="exactly one of"):
            await erase(log, **choice)
    with pytest.raises(ArgumentError, match="metadata must not be empty"):
        await erase(log, metadata={})
    with pytest.raises(ArgumentError, match="thread_ids"):
        await erase(log, thread_ids=[""])
    with pytest.raises(ArgumentTypeError, match="providers"):
        await erase(log, thread_ids=["a"], providers=[object()])  # type: ignore[list-item]
    with pytest.raises(ArgumentTypeError, match="log must be a MessageLog"):
        await erase(store(log, "a"), thread_ids=["a"])  # type: ignore[arg-type]


# -- providers ----------------------------------------------------------------------------------------


def on(platform: Mem0Platform, **options: Any) -> Mem0Provider:
    return Mem0Provider(api_key=platform.api_key, host=platform.host, **options)


async def test_memories_of_the_user_are_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEM0_API_KEY", raising=False)
    log = InMemoryMessageLog()
    await plant(log)
    with Mem0Platform() as platform:
        for n in range(250):
            platform.remember(f"{WORD} {n}", user_id="alice", app_id="shop", run_id=f"{n}")
        platform.remember(KEPT, user_id="bob", app_id="shop")
        platform.remember(KEPT, user_id="alice", app_id="other")
        provider = on(platform, user_id="alice", application_id="shop", thread_id="t", background_writes=True)
        assert isinstance(provider, Erasable)
        receipt = await erase(log, tenant="acme", thread_ids=["a"], providers=[provider], dry_run=True)
        assert receipt["providers"] == [
            {"name": "Mem0Provider", "found": 250, "removed": 0, "remaining": 250}
        ]
        assert len(platform.memories) == 252
        await provider.invoked([ChatMessage("user", WORD)], [ChatMessage("assistant", "waits")])
        receipt = await erase(log, tenant="acme", thread_ids=["a"], providers=[provider])
        assert receipt["providers"] == [
            {"name": "Mem0Provider", "found": 251, "removed": 251, "remaining": 0}
        ]
        assert [memory["memory"] for memory in platform.memories] == [KEPT, KEPT]
        await provider.aclose()
        by_thread = on(platform, scope_to_per_operation_thread_id=True)
        for run_id in ("a", "d", "z"):
            platform.remember(f"of {run_id}", run_id=run_id)
        assert await by_thread.erase(["a", "d"]) == 2
        with pytest.raises(ArgumentError, match="user_id or thread_id must be given"):
            await on(platform, agent_id="helper").erase()
        platform.failures = [500] * 9
        with pytest.raises(ContextProviderError, match="could not erase all memories"):
            await by_thread.erase(["z"])
        platform.failures = []
        assert await by_thread.erase(["z"]) == 1
        await by_thread.aclose()
        assert platform.refused == []


async def test_memories_in_this_process_are_erased() -> None:
    class Local:
        """What `Mem0Provider` uses of mem0's AsyncMemory."""

        def __init__(self) -> None:
            self.held = {f"{n}": {"id": f"{n}", "memory": WORD, "user_id": "alice"} for n in range(150)}

        async def add(self, messages: Any, user_id: Any = None, metadata: Any = None) -> None: ...

        async def search(self, query: str, filters: Any = None, top_k: int = 1) -> Any: ...

        async def get_all(self, *, filters: dict[str, str], top_k: int) -> Any:
            assert filters == {"user_id": "alice"}
            return {"results": list(self.held.values())[:top_k]}

        async def delete(self, memory_id: str) -> None:
            del self.held[memory_id]

    local = Local()
    provider = Mem0Provider(mem0_client=local, user_id="alice")
    assert await provider.erase(dry_run=True) == 150
    assert await provider.erase() == 150
    assert local.held == {}


# -- an erasure that is killed ------------------------------------------------------------------------


@pytest.mark.timeout(600)
async def test_an_erasure_that_is_killed_at_any_step(tmp_path: Path) -> None:
    choice: dict[str, Any] = {"metadata": {"user": "alice"}}  # finds no fork once ``a`` is gone
    steps = await asyncio.to_thread(run_killed, await planted_folder(tmp_path / "whole"), 0, choice)
    count = int(steps.stdout)
    assert count >= 24  # before and after each removal, each call of the provider and each step of a scrub
    for step in range(1, count + 1):
        folder = await planted_folder(tmp_path / f"{step}")
        killed = await asyncio.to_thread(run_killed, folder, step, choice)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        log = attached(folder)
        receipt = await erase(log, tenant="acme", providers=[Notes(folder / "notes.json")], **choice)
        assert receipt["complete"]
        assert await ids(log) == ["z"]
        assert await asyncio.to_thread(planted_in, folder) == [], f"killed at step {step}"
        kept = await store(log, "z").list_messages()
        assert [m.text for m in kept] == [KEPT, ""]
        assert kept[1].contents == (DataContent(b"kept" * 100, "image/png"),)
        await log.aclose()


def attached(folder: Path) -> MessageLog:
    return open_log(str(folder / "chat.db"), attachments=Attachments(folder / "files", over=100))


async def planted_folder(folder: Path) -> Path:
    await asyncio.to_thread(folder.mkdir)
    log = attached(folder)
    await plant(log)
    for name, data in (("a", b"image"), ("d", b"image"), ("d", b"another"), ("z", b"kept")):
        part = DataContent(WORD.encode() * 20 + data if name != "z" else data * 100, "image/png")
        await store(log, name).add_messages([ChatMessage("user", contents=[part])])
    await store(log, "a").search(WORD)
    await log.aclose()
    (folder / "notes.json").write_text(json.dumps({"a": WORD, "c": WORD, "z": KEPT}))
    return folder


def run_killed(folder: Path, step: int, choice: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, STEP, str(folder / "chat.db"), f"{step}", json.dumps(choice)]
    path = str(Path(agent_stores.__file__).parents[1])
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )


async def test_an_erasure_on_a_table_that_ends_at_any_transaction() -> None:
    """A thread takes several transactions there, and its names are in lists, too."""

    class Killed(BaseException):
        """Ends an erasure as a kill does."""

    for step in itertools.count(1):
        table = MemoryTable()
        log = MessageLog(TablesBackend(table))
        await plant(log)
        await store(log, f"{WORD}-1", ttl=3600).add_messages([ChatMessage("user", WORD * 20_000)])
        transact, steps = table.transact, itertools.count(1)

        async def killed(
            operations: Any, step: int = step, steps: Any = steps, transact: Any = transact
        ) -> Any:
            if next(steps) == step:
                raise Killed
            return await transact(operations)

        table.transact = killed  # type: ignore[method-assign]
        choice: dict[str, Any] = {"tenant": "acme", "thread_ids": ["a", f"{WORD}-1"]}
        try:
            receipt = await erase(log, **choice)
        except Killed:
            table.transact = transact  # type: ignore[method-assign]
            receipt = await erase(MessageLog(TablesBackend(table)), **choice)
            assert receipt["complete"], step
            assert WORD not in items_of(table), step
            assert KEPT in items_of(table)
        else:
            assert receipt["complete"]
            assert step > 8
            return


# -- the command line ---------------------------------------------------------------------------------


async def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chat.db"
    log = open_log(str(path))
    await plant(log)
    await log.aclose()
    base = ["erase", "--store", str(path), "--tenant", "acme"]

    def command(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*base, *arguments, "--json"], standalone_mode=False)
        assert result.exception is None, result.output
        return json.loads(result.stdout)

    with Mem0Platform() as platform:
        platform.remember(WORD, user_id="alice")
        monkeypatch.setenv("MEM0_API_KEY", platform.api_key)
        mem0 = ("--mem0-user", "alice", "--mem0-host", platform.host)
        receipt = await asyncio.to_thread(command, "--metadata", "user=alice", "--dry-run", *mem0)
        assert receipt["remaining"]["threads"] == 3
        monkeypatch.setenv("AGENT_STORES_RECEIPT_KEY", "secret")
        file = ("--receipt", str(tmp_path / "receipt.json"))
        receipt = await asyncio.to_thread(command, "--metadata", "user=alice", "--yes", *mem0, *file)
        assert platform.memories == []
    assert receipt["complete"]
    assert verify_state(json.loads((tmp_path / "receipt.json").read_text()), "secret")["complete"]
    assert planted_in(tmp_path) == []
    for wrong in (["a"], ["--all-threads", "a", "--yes"], ["a", "--yes", "--mem0-host", "x"], ["--yes"]):
        assert await asyncio.to_thread(run, [*base, *wrong]) == 2
