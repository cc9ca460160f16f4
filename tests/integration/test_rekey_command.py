"""`agent-stores rekey`, and the other commands on encrypted threads."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent_stores import (
    Attachments,
    ChatMessage,
    DatabaseChatMessageStore,
    DataContent,
    DataKeys,
    KeyRing,
    LocalKeyService,
    open_log,
)
from agent_stores.cli import ExitCode, main
from tests.integration.rekey_step import BOTH, NEW, OLD, OLD_RING, STRICT

pytestmark = pytest.mark.anyio
TEXT = {name: base64.b64encode(key).decode() for name, key in (("old", OLD), ("new", NEW))}
OLD_KEYS = json.dumps({"current": "old", "keys": {"old": TEXT["old"]}})
BOTH_KEYS = json.dumps({"current": "new", "keys": TEXT})
NEW_KEYS = json.dumps({"current": "new", "keys": {"new": TEXT["new"]}, "allow_plaintext": False})
TENANTS = (None, "acme", "zoo")


def run(*arguments: str, keys: str | None) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of a command."""
    environment = {"AGENT_STORES_KEYS": keys}
    with pytest.MonkeyPatch.context() as patch, CliRunner().isolation(env=environment) as streams:
        patch.setenv("COLUMNS", "200")
        status = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        return status, streams[0].getvalue().decode(), streams[1].getvalue().decode()


async def run_in_thread(*arguments: str, keys: str | None) -> tuple[int, str, str]:
    """`run`, from a test that has an event loop."""
    return await asyncio.to_thread(run, *arguments, keys=keys)


async def fill(path: Path, count: int = 3, keys: KeyRing | None = OLD_RING) -> None:
    for tenant in TENANTS:
        store = DatabaseChatMessageStore(
            path, thread_id="t", tenant=tenant, encryption=keys, metadata={"title": "secret"}
        )
        async with store:
            await store.add_messages([ChatMessage("user", f"hello {n}") for n in range(count)])


async def texts(path: Path, keys: KeyRing, tenant: str | None = None) -> list[str]:
    async with DatabaseChatMessageStore(path, thread_id="t", tenant=tenant, encryption=keys) as store:
        return [message.text for message in await store.list_messages()]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENT_STORES_URL", "AGENT_STORES_KEYS", "AGENT_STORES_KEYS_FILE"):
        monkeypatch.delenv(name, raising=False)


async def test_attachments_are_encrypted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = tmp_path / "chat.db", tmp_path / "files"
    image = ChatMessage("user", contents=[DataContent(b"x" * 70_000, "image/png")])
    options: dict[str, Any] = {"thread_id": "t", "attachments": Attachments(folder)}
    async with DatabaseChatMessageStore(path, encryption=OLD_RING, **options) as store:
        await store.add_messages([image, ChatMessage("user", "no image")])
    status, _, error = await run_in_thread("rekey", "--store", str(path), keys=BOTH_KEYS)
    assert status == ExitCode.BAD_INPUT
    assert "encrypted 2 messages, and" in error
    assert "position 1: the message has attachments: give the log attachments=" in error
    monkeypatch.setenv("AGENT_STORES_ATTACHMENTS", str(folder))
    status, _, error = await run_in_thread("rekey", "--store", str(path), keys=NEW_KEYS)
    assert status == ExitCode.BAD_INPUT
    assert "a value is encrypted with the key 'old'" in error
    assert "1 value and 0 threads stay as they are" in error
    status, out, _ = await run_in_thread("rekey", "--store", str(path), "--json", keys=BOTH_KEYS)
    report = json.loads(out)
    assert (status, report["messages"], report["attachments"]) == (ExitCode.OK, 1, 1)
    status, _, error = await run_in_thread("rekey", "--store", str(path), keys=NEW_KEYS)
    assert (status, "encrypted 0 messages, and" in error) == (ExitCode.OK, True)
    async with DatabaseChatMessageStore(path, encryption=STRICT, **options) as store:
        assert (await store.list_messages())[0].contents == image.contents


async def test_from_keys_to_data_keys_with_attachments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder, keys_path = tmp_path / "chat.db", tmp_path / "files", tmp_path / "keys.db"
    image = ChatMessage("user", contents=[DataContent(b"x" * 70_000, "image/png")])
    options: dict[str, Any] = {"thread_id": "t", "attachments": Attachments(folder)}
    async with DatabaseChatMessageStore(path, encryption=OLD_RING, **options) as store:
        await store.add_messages([image])
    monkeypatch.setenv("AGENT_STORES_ATTACHMENTS", str(folder))
    given = {"current": "old", "keys": {"old": TEXT["old"]}, "data_keys": {"store": str(keys_path)}}
    status, out, _ = await run_in_thread("rekey", "--store", str(path), "--json", keys=json.dumps(given))
    report = json.loads(out)
    assert (status, report["messages"], report["attachments"]) == (ExitCode.OK, 1, 1)
    data = [file.read_bytes() for file in folder.rglob("*") if file.is_file() and "@" not in file.name]
    assert len(data) == 1
    assert data[0].startswith(b'{"$encrypted":1,"key":"dk-')
    async with contextlib.aclosing(open_log(keys_path)) as key_log:
        only_data_keys = DataKeys(LocalKeyService(OLD_RING), key_log, allow_plaintext=False)
        async with DatabaseChatMessageStore(path, encryption=only_data_keys, **options) as store:
            assert (await store.list_messages())[0].contents == image.contents


async def test_all_tenants_in_one_call(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    await fill(path, 2)
    await fill(path, 1, None)
    status, out, _ = await run_in_thread("rekey", "--store", str(path), "--json", keys=BOTH_KEYS)
    assert status == ExitCode.OK
    report = json.loads(out)
    assert (report["threads"], report["messages"], report["metadata"], report["failed"]) == (3, 9, 3, 0)
    for tenant in TENANTS:
        assert await texts(path, STRICT, tenant) == ["hello 0", "hello 1", "hello 0"]
    status, _, error = await run_in_thread("rekey", "--store", str(path), keys=BOTH_KEYS)
    assert status == ExitCode.OK
    assert "encrypted 0 messages" in error
    assert "looked through 3 threads" in error


@pytest.mark.parametrize(("arguments", "rekeyed"), [(["--tenant", "acme"], "acme"), (["--no-tenant"], None)])
async def test_one_tenant(tmp_path: Path, arguments: list[str], rekeyed: str | None) -> None:
    path = tmp_path / "chat.db"
    await fill(path)
    status, _, _ = await run_in_thread("rekey", "--store", str(path), *arguments, keys=BOTH_KEYS)
    assert status == ExitCode.OK
    keys = [row[0] for row in _execute(path, "SELECT body FROM agent_stores_messages")]
    assert sum('"key":"new"' in body for body in keys) == 3
    assert len(await texts(path, STRICT, rekeyed)) == 3


def _execute(path: Path, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


async def test_the_other_commands_read_encrypted_threads(tmp_path: Path) -> None:
    path, copy = tmp_path / "chat.db", tmp_path / "copy.db"
    await fill(path)
    store = ["--store", str(path)]
    for command in (["show", "t"], ["export"], ["threads"], ["fork", "t", "branch"]):
        status, out, error = await run_in_thread(*command, *store, "--json", keys=OLD_KEYS)
        assert status == ExitCode.OK, error
        if command[0] in ("show", "threads"):
            assert ("hello 2" in out) == (command[0] == "show")
            assert ("secret" in out) == (command[0] == "threads")
    status, out, _ = await run_in_thread("export", "t", *store, keys=OLD_KEYS)
    (tmp_path / "export.jsonl").write_text(out)
    assert "hello 2" in out
    imported = ["import", str(tmp_path / "export.jsonl"), "--store", str(copy)]
    assert (await run_in_thread(*imported, keys=BOTH_KEYS))[0] == ExitCode.OK
    assert b"hello" not in copy.read_bytes()
    assert await texts(copy, STRICT) == ["hello 0", "hello 1", "hello 2"]
    for keys in (None, NEW_KEYS):
        status, out, error = await run_in_thread("show", "t", *store, keys=keys)
        assert (status, out) == (ExitCode.FAILED, "")
        assert "'old'" in error
        assert TEXT["new"] not in error


async def test_keys_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, file = tmp_path / "chat.db", tmp_path / "keys.json"
    await fill(path)
    monkeypatch.setenv("AGENT_STORES_KEYS_FILE", str(file))
    status, _, error = await run_in_thread("show", "t", "--store", str(path), keys=None)
    assert (status, "no such file" in error) == (ExitCode.NOT_FOUND, True)
    file.write_text(OLD_KEYS)
    status, out, _ = await run_in_thread("show", "t", "--store", str(path), keys=None)
    assert (status, "hello 2" in out) == (ExitCode.OK, True)
    status, _, error = await run_in_thread("show", "t", "--store", str(path), keys=OLD_KEYS)
    assert (status, "together" in error) == (ExitCode.USAGE, True)


@pytest.mark.parametrize(
    "keys",
    [
        "no json " + TEXT["old"],
        json.dumps({"current": "old", "keys": {"old": TEXT["old"][:-8]}}),
        json.dumps({"current": "old", "keys": {"old": "*" + TEXT["old"]}}),
        json.dumps({"current": "old", "keys": {}}),
        json.dumps({"current": "new", "keys": {"old": TEXT["old"]}}),
        json.dumps({"keys": {"old": TEXT["old"]}}),
        json.dumps({"current": "old", "keys": {"old": TEXT["old"]}, "more": TEXT["new"]}),
    ],
)
def test_malformed_keys_are_not_quoted(keys: str) -> None:
    status, _, error = run("threads", "--store", "memory:", keys=keys)
    assert status == ExitCode.USAGE
    for text in TEXT.values():
        assert text[:12] not in error


def test_without_a_key() -> None:
    status, _, error = run("rekey", "--store", "memory:", keys=None)
    assert (status, "AGENT_STORES_KEYS" in error) == (ExitCode.USAGE, True)
    status, _, error = run("rekey", "--store", "memory:", "--tenant", "a", "--no-tenant", keys=OLD_KEYS)
    assert status == ExitCode.USAGE


async def test_what_cannot_be_encrypted_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    await fill(path)
    body = _execute(path, "SELECT body FROM agent_stores_messages WHERE id = 268435457")[0][0]
    statement = f"UPDATE agent_stores_messages SET body = '{body}' WHERE id = 268435458"
    _execute(path, statement)
    other = KeyRing({"third": bytes(32)}, "third")
    async with DatabaseChatMessageStore(path, thread_id="a", encryption=other) as store:
        await store.add_messages([ChatMessage("user", "unreadable")])
    status, out, _ = await run_in_thread("rekey", "--store", str(path), "--json", keys=BOTH_KEYS)
    assert status == ExitCode.BAD_INPUT
    report = json.loads(out)
    assert (report["threads"], report["messages"], report["damaged"], report["failed"]) == (4, 8, 1, 1)
    problems = {(each["thread_id"], each["position"]) for each in report["problems"]}
    assert problems == {("a", 0), ("t", 2)}
    assert any("'third'" in each["reason"] for each in report["problems"])
    status, _, error = await run_in_thread("rekey", "--store", str(path), keys=BOTH_KEYS)
    assert status == ExitCode.BAD_INPUT
    assert "1 value and 1 thread stay as they are" in error


async def test_data_keys(tmp_path: Path) -> None:
    path, keys_path = tmp_path / "chat.db", tmp_path / "keys.db"
    async with contextlib.aclosing(open_log(keys_path)) as key_log:
        data_keys = DataKeys(LocalKeyService(OLD_RING), key_log, per="thread")
        async with DatabaseChatMessageStore(path, thread_id="t", encryption=data_keys) as store:
            await store.add_messages([ChatMessage("user", "hello")])
    given = json.dumps(
        {
            "current": "old",
            "keys": {"old": TEXT["old"]},
            "data_keys": {"store": str(keys_path), "per": "thread"},
        }
    )
    status, out, _ = await run_in_thread("show", "t", "--store", str(path), keys=given)
    assert (status, "hello" in out) == (ExitCode.OK, True)
    status, _, error = await run_in_thread("show", "t", "--store", str(path), keys=OLD_KEYS)
    assert (status, "'dk-" in error) == (ExitCode.FAILED, True)


COMMAND = """
import os, signal, sys
from agent_stores.backends.sql.backend import SQLBackend
from agent_stores.cli import main
commit, step = SQLBackend.commit, 0

async def counted(*args, **kwargs):
    global step
    step += 1
    when = int(os.environ["KILL_AT"])
    if step == when and when % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    version = await commit(*args, **kwargs)
    if step >= when:  # a commit that another writer preceded raises, and the next one counts
        os.kill(os.getpid(), signal.SIGKILL)
    return version

SQLBackend.commit = counted
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
async def test_killed_before_or_after_each_step_while_an_application_writes(
    tmp_path: Path, step: int
) -> None:
    path = tmp_path / "chat.db"
    await fill(path, 150)
    command = [sys.executable, "-c", COMMAND, "rekey", "--store", str(path)]
    environment = {**os.environ, "AGENT_STORES_KEYS": BOTH_KEYS}
    written = [f"hello {n}" for n in range(150)]
    stop = asyncio.Event()

    async def write() -> None:
        async with DatabaseChatMessageStore(path, thread_id="t", tenant="acme", encryption=BOTH) as store:
            while not stop.is_set():
                text = f"hello {len(written)}"
                await store.add_messages([ChatMessage("user", text)])
                written.append(text)
                await asyncio.sleep(0.02)

    writer = asyncio.create_task(write())
    statuses = []
    for kill_at in (step, 1_000_000):
        process = await asyncio.create_subprocess_exec(
            *command, env={**environment, "KILL_AT": str(kill_at)}, stderr=asyncio.subprocess.DEVNULL
        )
        statuses.append(await process.wait())
        assert await texts(path, BOTH) == [f"hello {n}" for n in range(150)]
    stop.set()
    await writer
    assert statuses == [-signal.SIGKILL, 0]
    assert len(written) > 150
    for tenant in TENANTS:
        expected = written if tenant == "acme" else [f"hello {n}" for n in range(150)]
        assert await texts(path, STRICT, tenant) == expected
    bodies = [row[0] for row in _execute(path, "SELECT body FROM agent_stores_messages")]
    assert not any('"key":"old"' in body for body in bodies)
