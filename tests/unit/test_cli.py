"""The command line: its output, its files and its exit status."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import agent_stores
from agent_stores._version import __version__
from agent_stores.backend import Row
from agent_stores.cli import ExitCode, main, store_access
from agent_stores.cli.app import app
from agent_stores.cli.exit_codes import MEANINGS, InputFileError
from agent_stores.cli.jsonl import ImportReport, export_thread, import_threads, read_export
from agent_stores.cli.render import clean, shorten, size
from agent_stores.cli.summary import COMMANDS, summary
from agent_stores.contents import (
    ApprovalRequestContent,
    ApprovalResponseContent,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    UsageContent,
)
from agent_stores.database import DatabaseChatMessageStore
from agent_stores.errors import StoreUnavailableError
from agent_stores.log import ThreadKey
from agent_stores.memory import InMemoryMessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.sync import SyncChatMessageStore
from tests.servers.postgres import PostgresServer

PACKAGE = str(Path(agent_stores.__file__).parents[1])
CALL = ToolCallContent("c1", "get_time", '{"zone": "UTC"}')
CONVERSATION = [
    ChatMessage("system", "Be kind.", pinned=True),
    ChatMessage("user", "Hello, my name is Zoë 👋\n\u2028\x85\x00\x1b[31m \ud83d", message_id="first"),
    ChatMessage("assistant", contents=[ReasoningContent("hm", "sealed"), TextContent("One moment"), CALL]),
    ChatMessage("tool", contents=[ToolResultContent("c1", {"time": ["12:00", 1.5, None, 10**20]})]),
    ChatMessage("assistant", "It is noon. " * 100, author_name="clock", additional_properties={"a": [{}]}),
    ChatMessage(
        "user",
        contents=[
            DataContent(bytes(range(256)), "image/png", "a.png"),
            UriContent("https://example.org/a.pdf", "application/pdf"),
            ErrorContent("boom", "E1"),
            UsageContent(1, 2, 3),
            ApprovalRequestContent("r1", CALL),
            ApprovalResponseContent("r1", False),
            OpaqueContent({"type": "hologram", "depth": 3}),
        ],
        created_at=datetime(1999, 12, 31, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=5))),
        unknown_fields={"mood": "good"},
    ),
]
HOSTILE_ID = "a/b 'c'\n\x1b[2J 👋"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENT_STORES_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with two threads, one of them with a hostile id, and one thread of a tenant."""
    file = tmp_path / "chat.db"
    fill(file, "alice", CONVERSATION)
    fill(file, HOSTILE_ID, [ChatMessage("user", f"message {n}") for n in range(25)])
    fill(file, "alice", [ChatMessage("user", "the other Alice")], tenant="acme")
    return file


def fill(file: Path, thread_id: str, messages: Sequence[ChatMessage], tenant: str | None = None) -> None:
    async def work() -> None:
        async with DatabaseChatMessageStore(file, thread_id=thread_id, tenant=tenant) as store:
            await store.add_messages(messages)

    asyncio.run(work())


def read(file: Path, thread_id: str, tenant: str | None = None) -> list[ChatMessage]:
    async def work() -> list[ChatMessage]:
        async with DatabaseChatMessageStore(file, thread_id=thread_id, tenant=tenant) as store:
            return [stored.message async for stored in store.iter_messages()]

    return asyncio.run(work())


def cli(
    *arguments: str | Path, env: dict[str, str] | None = None, stdin: Any = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "agent_stores.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": PACKAGE, **(env or {})},
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an error is reported with."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("agent-stores: ")
    assert captured.err.count("\n") == 1
    return captured.err


# Looking


def test_threads_as_json(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["threads", "--store", str(database), "--json"]) == 0
    captured = capsys.readouterr()
    hostile, alice = lines(captured.out)
    assert captured.err == ""
    assert (hostile["thread_id"], hostile["messages"]) == (HOSTILE_ID, 25)
    assert (alice["thread_id"], alice["messages"], alice["last_position"]) == ("alice", 6, 6)
    assert alice["tokens"] > 0
    assert alice["expires_at"] is None


def test_threads_by_prefix_tenant_and_limit_over_many_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_access, "_PAGE", 3)
    file = tmp_path / "chat.db"
    for number in range(8):
        fill(file, f"user_{number}", [ChatMessage("user", "x")])
    fill(file, "other", [ChatMessage("user", "x")])
    fill(file, "user_9", [ChatMessage("user", "x")], tenant="acme")

    def found(*options: str) -> list[str]:
        assert main(["threads", "--store", str(file), "--json", *options]) == 0
        return [thread["thread_id"] for thread in lines(capsys.readouterr().out)]

    assert len(found()) == 9
    assert found("--prefix", "user_") == [f"user_{number}" for number in range(8)]
    assert found("--limit", "4") == ["other", "user_0", "user_1", "user_2"]
    assert found("--limit", "0") == []
    assert found("--tenant", "acme") == ["user_9"]
    assert main(["threads", "--store", str(file), "--limit", "-1"]) == ExitCode.USAGE


def test_tables_fit_and_do_not_steer_the_terminal(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["threads", "--store", str(database)]) == 0
    assert main(["show", "alice", "--store", str(database)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x00" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for part in (
        *("alice", "pinned Be kind.", "Zoë", "calls get_time(", '"time": ["12:00"', "clock:", "characters)"),
        *("image/png a.png, 256 B", "error boom", "rejected", "hologram", "1999-12-31 18:59"),
    ):
        assert part in shown


def test_show_newest_messages_despite_gaps(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def make_gaps() -> None:
        async with DatabaseChatMessageStore(database, thread_id=HOSTILE_ID) as store:
            doomed = [
                stored.message.message_id or "" async for stored in store.iter_messages(after=3, before=25)
            ]
            await store.delete(doomed)

    asyncio.run(make_gaps())
    assert main(["show", HOSTILE_ID, "--store", str(database), "--last", "3", "--json"]) == 0
    assert [item["position"] for item in lines(capsys.readouterr().out)] == [2, 3, 25]
    assert main(["show", HOSTILE_ID, "--store", str(database), "--last", "0", "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["show", HOSTILE_ID, "--store", str(database), "--last", "-2"]) == ExitCode.USAGE


def test_show_json_and_raw_are_whole(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "alice", "--store", str(database), "--json"]) == 0
    shown = [ChatMessage.from_dict(item["message"]) for item in lines(capsys.readouterr().out)]
    assert shown == read(database, "alice")
    assert main(["show", "alice", "--store", str(database), "--raw"]) == 0
    raw = capsys.readouterr().out
    assert "It is noon. " * 100 in raw
    assert "\x1b" not in raw


def test_the_tables_of_long_threads_are_printed_in_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chat.db"
    fill(file, "long", [ChatMessage("user", f"message {n}.") for n in range(1, 1001)])
    assert main(["show", "long", "--store", str(file)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1002
    assert {line.index("message ") for line in shown[2:]} == {17}


def test_shortening() -> None:
    assert shorten("a  b\n c", 10) == "a b c"
    assert shorten("x" * 10, 10) == "x" * 10
    assert shorten("x" * 12, 10) == f"{'x' * 10}… (+2 characters)"
    assert shorten("x" * 5010, 10) == f"{'x' * 10}… (+5,000 characters)"
    assert clean("a\tb\x9b\ud800\u202e\n") == "a\\u0009b\\u009b\\ud800\\u202e\n"
    assert [size(n) for n in (0, 999, 1000, 1_500_000, 2e9, 5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.0 GB",
        "5000.0 GB",
    ]


# Export and import


def test_what_is_exported_is_imported_exactly(database: Path, tmp_path: Path) -> None:
    first, second, copy = tmp_path / "1.jsonl", tmp_path / "2.jsonl", tmp_path / "copy.db"
    assert main(["export", "--store", str(database), "-o", str(first)]) == 0
    assert main(["import", str(first), "--store", str(copy), "--batch", "4"]) == 0
    assert main(["export", "--store", str(copy), "-o", str(second)]) == 0
    assert second.read_bytes() == first.read_bytes()
    assert read(copy, "alice") == read(database, "alice")
    assert [message.text for message in read(copy, "alice")][1] == CONVERSATION[1].text
    assert read(copy, "alice")[5].created_at == CONVERSATION[5].created_at
    assert not list(tmp_path.glob("*.part"))


def test_export_is_lines_of_json_with_headers_and_ends(
    database: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["export", "alice", "--store", str(database)]) == 0
    captured = capsysbinary.readouterr()
    header, *messages, end = [json.loads(line) for line in captured.out.split(b"\n")[:-1]]
    assert captured.err == b""
    assert header == {"type": "agent_stores.export", "version": 1, "thread_id": "alice", "tenant": None}
    assert end == {"type": "agent_stores.export.end", "thread_id": "alice", "messages": 6}
    assert {item["thread_id"] for item in messages} == {"alice"}
    assert messages[1]["message"]["message_id"] == "first"


def test_export_of_some_threads(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(database, "alicia", [ChatMessage("user", "x")])

    def exported(*options: str) -> list[Any]:
        assert main(["export", "--store", str(database), *options]) == 0
        headers = [item for item in lines(capsys.readouterr().out) if "version" in item]
        return [(item["tenant"], item["thread_id"]) for item in headers]

    assert exported("--prefix", "ali") == [(None, "alice"), (None, "alicia")]
    assert exported("alicia", "alice", "alicia") == [(None, "alicia"), (None, "alice")]
    assert exported("--tenant", "acme") == [("acme", "alice")]
    assert main(["export", "alice", "--prefix", "a", "--store", str(database)]) == ExitCode.USAGE
    capsys.readouterr()
    target = tmp_path / "kept.jsonl"
    target.write_text("as it was")
    assert (
        main(["export", "alice", "missing", "-o", str(target), "--store", str(database)])
        == ExitCode.NOT_FOUND
    )
    assert "'missing'" in last_error(capsys)
    assert target.read_text() == "as it was"
    assert main(["export", "alice", "-o", str(target), "--json", "--store", str(database)]) == 0
    assert json.loads(capsys.readouterr().out) == {"threads": 1, "bytes": target.stat().st_size}


def test_importing_again_adds_nothing(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "export.jsonl"
    assert main(["export", "--store", str(database), "-o", str(file)]) == 0
    capsys.readouterr()
    reports = []
    for batch in ("500", "500", "7"):
        copy = str(tmp_path / "copy.db")
        assert main(["import", str(file), "--store", copy, "--json", "--batch", batch]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports == [
        {"threads": 2, "messages": 31, "added": 31},
        {"threads": 2, "messages": 31, "added": 0},
        {"threads": 2, "messages": 31, "added": 0},
    ]
    assert main(["import", str(file), "--store", str(tmp_path / "copy.db"), "--tenant", "new"]) == 0
    assert capsys.readouterr().err == "agent-stores: imported 31 messages of 2 threads\n"
    assert read(tmp_path / "copy.db", "alice", "new") == read(database, "alice")


def test_the_tenant_of_the_file_is_kept(database: Path, tmp_path: Path) -> None:
    file, copy = tmp_path / "export.jsonl", tmp_path / "copy.db"
    assert main(["export", "--tenant", "acme", "--store", str(database), "-o", str(file)]) == 0
    assert main(["import", str(file), "--store", str(copy)]) == 0
    assert read(copy, "alice", "acme") == read(database, "alice", "acme")
    assert read(copy, "alice") == []


HEADER = '{"type":"agent_stores.export","version":1,"thread_id":"t"}'
END = '{"type":"agent_stores.export.end","messages":%d}'


def message(number: int) -> str:
    return json.dumps({"message": {"role": "user", "contents": [], "message_id": f"m{number}"}})


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ('{"message": {"role": "user"', "not a JSON document"),
        ("[1]", "not a JSON object"),
        ("NaN", "not a JSON document"),
        ("\udcff".encode(errors="surrogateescape").decode("latin-1") + "{", "not a JSON document"),
        ('{"message": {"role": "wizard", "message_id": "x"}}', "message: role"),
        ('{"message": {"role": "user", "contents": [], "message_id": ""}}', "message"),
        ('{"message": {"role": "user", "contents": []}}', "message_id: missing"),
        (
            '{"message": {"role": "user", "message_id": "x", "$unknown": {"role": "system"}}}',
            "message: $unknown: the name is reserved",
        ),
        ('{"message": {"role": "\\ud800", "message_id": "x"}}', "message: role: an unpaired surrogate"),
        (f'{{"thread_id": {"[" * 1500}{"]" * 1500}}}', "nested at most 101 levels deep"),
        (f'{{"message": {"[" * 1500}{"]" * 1500}}}', "nested at most 101 levels deep"),
        ('{"message": [1]}', "message: the message: expected an object"),
        ('{"thread_id": "other", "message": {}}', "thread_id: 'other'"),
        ('{"hello": 1}', "neither a header, a message nor an end line"),
        (HEADER, "before the end line of the thread 't'"),
        (END % 7, "ends after 4 messages, and 7 were exported"),
        ('{"type":"agent_stores.export.end"}', "messages: missing"),
    ],
)
def test_a_malformed_line_is_named_and_its_batch_is_not_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str, reason: str
) -> None:
    file, copy = tmp_path / "export.jsonl", tmp_path / "copy.db"
    content = [HEADER, message(1), message(2), "", message(3), message(4), broken, message(5), END % 5]
    file.write_text("\n".join(content), encoding="utf-8")
    assert main(["import", str(file), "--store", str(copy), "--batch", "3"]) == ExitCode.BAD_INPUT
    note, error = capsys.readouterr().err.splitlines()
    assert "line 7: " in error
    assert reason in error
    assert "imported 3 messages of 1 thread before it failed" in note
    assert [m.message_id for m in read(copy, "t")] == ["m1", "m2", "m3"]

    content[6] = message(9)
    file.write_text("\n".join(content).replace('"messages":5', '"messages":6'), encoding="utf-8")
    assert main(["import", str(file), "--store", str(copy)]) == 0
    assert [m.message_id for m in read(copy, "t")] == ["m1", "m2", "m3", "m4", "m9", "m5"]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (message(1), "a header line comes first"),
        ('{"type":"agent_stores.export","version":2,"thread_id":"t"}', "reads up to 1"),
        ('{"type":"agent_stores.export","version":true,"thread_id":"t"}', "version"),
        ('{"type":"agent_stores.export","version":1}', "thread_id"),
        ('{"type":"agent_stores.export","version":1,"thread_id":"t","tenant":5}', "tenant"),
        ('{"type":"agent_stores.export","version":1,"thread_id":"t","tenant":""}', "tenant"),
        ('{"type":"agent_stores.export","version":1,"thread_id":"t","metadata":[]}', "metadata"),
        (f'{HEADER[:-1]},"metadata":{{"a":"{"x" * 70_000}"}}}}', "metadata"),
    ],
)
def test_malformed_headers(header: str, reason: str) -> None:
    with pytest.raises(InputFileError, match=reason) as caught:
        list(read_export([header.encode(), b"\n"]))
    assert caught.value.line == 1


def test_a_file_that_was_cut_short_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text("\n".join([HEADER, message(1), ""]))
    assert main(["import", str(file), "--store", str(tmp_path / "copy.db")]) == ExitCode.BAD_INPUT
    assert "the thread 't' has no end line" in last_error(capsys)


READ = {
    "import": ["import", "{file}", "--store", "{store}"],
    "map": ["migrate", "--from", "openai-agents+{store}", "--to", "memory:", "--map", "{file}"],
    "keys": ["threads", "--store", "{store}"],
}


@pytest.mark.parametrize("given", READ)
def test_files_that_cannot_be_read(
    given: str,
    database: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line each: a file that is not there, a folder, and a file that only its owner may read."""
    closed = tmp_path / "closed"
    closed.write_text("{}")

    def fail(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))  # which root never meets
        return opened(path, *arguments, **options)

    opened = Path.open
    monkeypatch.setattr(Path, "open", fail)
    for file, status, text in (
        (tmp_path / "none", ExitCode.NOT_FOUND, "no such file: '{}'"),
        (tmp_path, ExitCode.USAGE, "file '{}' cannot be read: Is a directory"),
        (closed, ExitCode.USAGE, "file '{}' cannot be read: Permission denied"),
    ):
        monkeypatch.setenv("AGENT_STORES_KEYS_FILE", str(file) if given == "keys" else "")
        assert main([part.format(file=file, store=database) for part in READ[given]]) == status
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert text.format(file) in error


@pytest.mark.parametrize(
    "command",
    [
        ["export", "-o"],
        ["erase", "--yes", "--all-threads", "--receipt"],
        ["migrate", "--from", "openai-agents+{store}", "--to", "memory:", "--report"],
    ],
    ids=lambda command: command[0],
)
def test_files_that_cannot_be_written(
    command: list[str], database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be written is known before anything is done."""
    folder = tmp_path / "folder"
    folder.mkdir()
    store = [] if command[0] == "migrate" else ["--store", str(database)]
    before = database.read_bytes()
    for file, reason in ((tmp_path / "no" / "file", "No such file or directory"), (folder, "Is a directory")):
        given = [part.format(store=database) for part in command]
        assert main([*given, str(file), *store]) == ExitCode.FAILED
        assert capsys.readouterr().err == f"agent-stores: the file '{file}' cannot be written: {reason}\n"
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    "command",
    ["threads", "tenants", "show t", "fork t", "export", "delete t --yes", "purge", "erase t --yes", "rekey"],
)
def test_a_store_that_is_no_file(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, status, text in (
        ("none.db", ExitCode.NOT_FOUND, "there is no SQLite file"),
        (".", ExitCode.USAGE, "the store must be an SQLite file, got the folder"),
    ):
        assert main([*command.split(), "--store", str(tmp_path / name)]) == status
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert text in error


@pytest.mark.parametrize("framework", ["openai-agents", "pydantic-ai", "google-adk"])
def test_a_source_that_is_no_file(framework: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, status, text in (
        ("none.db", ExitCode.NOT_FOUND, "there is no SQLite file"),
        ("", ExitCode.USAGE, "the source must be an SQLite file, got the folder"),
    ):
        source = f"{framework}+sqlite:///{tmp_path / name}"
        assert main(["migrate", "--from", source, "--to", "memory:"]) == status
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert text in error


def test_foreign_fields_empty_lines_and_a_byte_order_mark_are_accepted() -> None:
    header = HEADER.replace("{", '{"exported_by":"someone",')
    found = list(read_export([b"\xef\xbb\xbf" + header.encode(), b"\n", b" \r\n", (END % 0).encode()]))
    assert [line.number for line in found] == [1, 4]


@pytest.mark.anyio
async def test_an_interrupted_import_goes_on_where_it_was() -> None:
    class Failing(InMemoryMessageLog):
        appends = 0

        async def append(self, key: ThreadKey, rows: Sequence[Row], **options: Any) -> int:
            self.appends += 1
            if self.appends == 3:
                raise StoreUnavailableError("gone")
            return await super().append(key, rows, **options)

    source = ChatMessageStore(InMemoryMessageLog(), thread_id="t")
    await source.add_messages([ChatMessage("user", f"{n}") for n in range(50)])
    exported = [line async for line in export_thread(source)]

    log = Failing()
    report = ImportReport()
    with pytest.raises(StoreUnavailableError):
        await import_threads(log, exported, batch=10, report=report)
    assert (report.messages, report.added) == (20, 20)
    seen: list[int] = []
    report = await import_threads(log, exported, batch=15, progress=seen.append)
    assert (report.messages, report.added) == (50, 30)
    assert sum(seen) == sum(map(len, exported))
    target = ChatMessageStore(log, thread_id="t")
    assert [line async for line in export_thread(target)] == exported


@pytest.mark.anyio
async def test_an_export_leaves_out_what_is_written_meanwhile() -> None:
    store = ChatMessageStore(InMemoryMessageLog(), thread_id="t")
    await store.add_messages([ChatMessage("user", f"{n}") for n in range(600)])
    count = 0
    async for _ in export_thread(store):
        await store.add_messages([ChatMessage("user", "more")])
        count += 1
    assert count == 602


def test_a_move_to_a_server_and_back(
    database: Path, tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_STORES_URL", postgres_server.create_database("moved"))
    there, back = tmp_path / "there.jsonl", tmp_path / "back.jsonl"
    assert main(["export", "--store", str(database), "-o", str(there)]) == 0
    assert main(["import", str(there)]) == 0
    assert main(["export", "-o", str(back)]) == 0
    assert back.read_bytes() == there.read_bytes()
    assert main(["delete", "alice", "--yes"]) == 0
    assert main(["show", "alice"]) == ExitCode.NOT_FOUND


def test_pipes(database: Path, tmp_path: Path) -> None:
    exported = cli("export", "--store", database)
    copy = tmp_path / "copy.db"
    with (tmp_path / "export.jsonl").open("w+b") as file:
        file.write(exported.stdout.encode())
        file.seek(0)
        result = cli("import", "-", "--store", copy, "--json", stdin=file)
    assert json.loads(result.stdout)["added"] == 31
    assert cli("export", env={"AGENT_STORES_URL": str(copy)}).stdout == exported.stdout


def test_a_reader_that_goes_away_is_no_error_to_report(tmp_path: Path) -> None:
    file = tmp_path / "chat.db"
    fill(file, "long", [ChatMessage("user", "x" * 1000) for _ in range(500)])
    command = [sys.executable, "-m", "agent_stores.cli", "export", "--store", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == ExitCode.FAILED


# Deleting


def test_delete(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["delete", "alice", "missing", HOSTILE_ID, "--store", str(database), "--yes", "--json"]
    assert main(arguments) == ExitCode.NOT_FOUND
    captured = capsys.readouterr()
    assert [(item["thread_id"], item["deleted"]) for item in lines(captured.out)] == [
        ("alice", True),
        ("missing", False),
        (HOSTILE_ID, True),
    ]
    assert captured.err == "agent-stores: there is no thread 'missing'\n"
    assert read(database, "alice") == []
    assert len(read(database, "alice", "acme")) == 1
    assert main(["delete", "alice", "--tenant", "acme", "--store", str(database), "-y"]) == 0
    assert capsys.readouterr().err == "agent-stores: deleted 1 thread\n"


def test_delete_without_a_terminal_needs_yes(database: Path) -> None:
    result = cli("delete", "alice", "--store", database)
    assert result.returncode == ExitCode.USAGE
    assert "--yes" in result.stderr
    assert len(read(database, "alice")) == 6


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("n", ExitCode.INTERRUPTED, 6), ("y", ExitCode.OK, 0)]
)
def test_delete_asks_on_a_terminal(database: Path, answer: str, status: int, left: int) -> None:
    terminal, other_end = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        result = cli("delete", "alice", "--store", database, stdin=other_end)
    finally:
        os.close(terminal)
        os.close(other_end)
    assert "Delete 1 thread: alice?" in result.stderr
    assert result.stdout == ""
    assert result.returncode == status
    assert len(read(database, "alice")) == left


def test_purge(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def expire() -> None:
        for tenant in (None, "acme"):
            async with DatabaseChatMessageStore(database, thread_id="alice", tenant=tenant) as store:
                await store.set_ttl(0.001)
        await asyncio.sleep(0.01)

    asyncio.run(expire())
    assert main(["purge", "--store", str(database), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"threads": 2}
    assert main(["purge", "--store", str(database)]) == 0
    assert capsys.readouterr().err == "agent-stores: removed 0 expired threads\n"


# Failures


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["threads"], ExitCode.USAGE, "--store"),
        (["bogus"], ExitCode.USAGE, "bogus"),
        (["threads", "--bogus"], ExitCode.USAGE, "--bogus"),
        (["show", "--store", "x.db"], ExitCode.USAGE, "THREAD"),
        (["import", "x", "--batch", "0", "--store", "memory:"], ExitCode.USAGE, "--batch"),
        (["threads", "--store", "ftp://host/x"], ExitCode.USAGE, "ftp"),
        (["threads", "--store", " "], ExitCode.USAGE, "empty"),
        (["threads", "--store", "memory:", "--tenant", ""], ExitCode.USAGE, "tenant must be a non-empty str"),
        (["threads", "--store", "missing.db"], ExitCode.NOT_FOUND, "missing.db"),
        (["threads", "--store", "sqlite:///missing.db"], ExitCode.NOT_FOUND, "missing.db"),
        (["show", "missing", "--store", "memory:"], ExitCode.NOT_FOUND, "missing"),
        (["demo", "--store", "memory:"], ExitCode.USAGE, "in memory"),
    ],
)
def test_errors_are_one_line_and_a_status(
    arguments: list[str],
    status: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    assert reason in last_error(capsys)
    assert not list(tmp_path.iterdir())


def test_an_unreachable_server_is_named_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://agent:planted-secret@127.0.0.1:9/chats"
    processes = [cli("threads", "--store", url), cli("demo", env={"AGENT_STORES_URL": url})]
    found = [(result.returncode, result.stderr) for result in processes]
    for arguments in (["show", "x", "--json"], ["export"], ["delete", "x", "--yes"], ["purge"]):
        found.append((main([*arguments, "--store", url]), last_error(capsys)))
    for status, error in found:
        assert status == ExitCode.FAILED
        assert "127.0.0.1:9" in error
        assert "planted-secret" not in error
        assert error.count("\n") == 1
    assert "planted-secret" not in processes[0].stdout + processes[1].stdout


def update_metadata(file: Path, thread_id: str, metadata: dict[str, Any]) -> None:
    async def work() -> None:
        async with DatabaseChatMessageStore(file, thread_id=thread_id) as store:
            await store.update_metadata(metadata)

    asyncio.run(work())


def test_metadata_is_exported_and_imported(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, copy = tmp_path / "1.jsonl", tmp_path / "copy.db"
    update_metadata(database, "alice", {"title": "Tea", "tags": [1, {"a": None}]})
    update_metadata(database, "only metadata", {"title": "Empty"})
    assert main(["export", "--store", str(database), "-o", str(file)]) == 0
    assert main(["import", str(file), "--store", str(copy)]) == 0
    assert main(["export", "--store", str(copy), "-o", str(tmp_path / "2.jsonl")]) == 0
    assert (tmp_path / "2.jsonl").read_bytes() == file.read_bytes()
    update_metadata(copy, "alice", {"title": "Coffee", "tags": None})
    assert main(["import", str(file), "--store", str(copy)]) == 0
    capsys.readouterr()
    assert main(["threads", "--store", str(copy), "--json", "--prefix", "alice"]) == 0
    (alice,) = lines(capsys.readouterr().out)
    assert alice["metadata"] == {"title": "Coffee", "tags": [1, {"a": None}]}


def test_threads_by_recency_tenants_and_forks(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    update_metadata(database, HOSTILE_ID, {"title": "newer"})

    def run(*arguments: str) -> list[Any]:
        assert main([*arguments, "--store", str(database), "--json"]) == 0
        return lines(capsys.readouterr().out)

    assert [thread["thread_id"] for thread in run("threads", "--recent")] == [HOSTILE_ID, "alice"]
    assert [thread["thread_id"] for thread in run("threads", "--recent", "--limit", "1")] == [HOSTILE_ID]
    assert [item["tenant"] for item in run("tenants")] == [None, "acme"]
    assert run("fork", "alice", "branch", "--at", "2") == [{"thread_id": "branch", "messages": 2}]
    assert read(database, "branch") == read(database, "alice")[:2]
    assert main(["fork", "alice", "branch", "--store", str(database)]) != 0
    assert main(["fork", "missing", "--store", str(database)]) == ExitCode.NOT_FOUND


def test_a_malformed_url_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["threads", "--store", "postgresql://agent:planted-secret@host:port/x"]) == ExitCode.USAGE
    assert "planted-secret" not in last_error(capsys)


def test_a_corrupt_message_is_named_or_skipped(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE agent_stores_messages SET body = 'rubbish' WHERE message_id LIKE '%first%'"
        )
    connection.close()
    for command in (["show", "alice"], ["export", "alice", "-o", "/dev/null"]):
        assert main([*command, "--store", str(database)]) == ExitCode.FAILED
        assert "position 2 of thread 'alice'" in capsys.readouterr().err
    assert main(["export", "alice", "--store", str(database), "--skip-corrupt"]) == 0
    exported = [item for item in lines(capsys.readouterr().out) if "message" in item]
    assert len(exported) == 5


def test_without_typer_the_extra_is_named() -> None:
    for package in ("typer", "rich"):
        code = (
            f"import sys; sys.modules['{package}'] = None\n"
            "from agent_stores.cli import main; sys.exit(main(['threads']))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert result.returncode == ExitCode.MISSING_DEPENDENCY
        assert "agent-stores[cli]" in result.stderr
        assert result.stderr.count("\n") == 1


def without_typer(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; sys.modules['typer'] = None\n"
        f"from agent_stores.cli import main; sys.exit(main({list(arguments)!r}))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_and_version_work_without_typer() -> None:
    for arguments, status in ((("--help",), ExitCode.OK), (("-h",), ExitCode.OK), ((), ExitCode.USAGE)):
        result = without_typer(*arguments)
        assert (result.returncode, result.stderr) == (status, "")
        assert result.stdout == f"{summary()}\n"
    assert without_typer("--version").stdout == f"{__version__}\n"
    help_text = " ".join(CliRunner().invoke(app, ["--help"]).output.split())
    documented = {info.name or info.callback.__name__ for info in app.registered_commands if info.callback}
    assert documented == set(COMMANDS)
    for name, text in COMMANDS.items():
        shown = " ".join(CliRunner().invoke(app, [name, "--help"]).output.split())
        assert text.partition(".")[0] in shown
        assert name in help_text


CONTROLS = "a\x07b\x1bc\x7fd\x85e\u009bf\u2028g\u202eh\u2066i\u00e9j"


def test_control_characters_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In exports and in every output, and an import restores them."""
    source, target = f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'two.db'}"
    with SyncChatMessageStore(DatabaseChatMessageStore(source, thread_id=CONTROLS, tenant=CONTROLS)) as store:
        store.add_messages([ChatMessage("user", CONTROLS, message_id="m1")])
        store.update_metadata({CONTROLS: CONTROLS})
    outputs = []
    for command in (
        ["export", "--tenant", CONTROLS],
        ["threads", "--tenant", CONTROLS],
        ["threads", "--tenant", CONTROLS, "--json"],
        ["show", CONTROLS, "--tenant", CONTROLS],
        ["show", CONTROLS, "--tenant", CONTROLS, "--raw"],
        ["show", CONTROLS, "--tenant", CONTROLS, "--json"],
        ["tenants"],
        ["tenants", "--json"],
        ["show", f"no {CONTROLS}"],
    ):
        main([*command, "--store", source])
        shown = capsys.readouterr()
        outputs.append(shown.out)
        assert not set(shown.out + shown.err) & (set(CONTROLS) - set("abcdefghij\u00e9"))
    (tmp_path / "export.jsonl").write_text(outputs[0], encoding="utf-8")
    assert main(["import", str(tmp_path / "export.jsonl"), "--store", target]) == 0
    with SyncChatMessageStore(DatabaseChatMessageStore(target, thread_id=CONTROLS, tenant=CONTROLS)) as store:
        assert [message.text for message in store.list_messages()] == [CONTROLS]
        assert store.stats().metadata == {CONTROLS: CONTROLS}


def test_help_names_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for code, meaning in MEANINGS.items():
        assert f"{code}  {meaning}" in result.output
    for command in ("threads", "show", "export", "import", "delete", "purge", "demo"):
        shown = CliRunner().invoke(app, [command, "--help"])
        assert shown.exit_code == 0
        assert "--store URL" in shown.output
    assert main([]) == ExitCode.USAGE
    assert "Exit status" in capsys.readouterr().out


def test_version() -> None:
    assert cli("--version").stdout.strip() == __version__


def test_long_ids_are_not_wrapped_and_an_empty_list_says_so(tmp_path: Path) -> None:
    thread_id = "order-" + "x" * 200
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    with SyncChatMessageStore(DatabaseChatMessageStore(url, thread_id=thread_id)) as store:
        store.add_messages([ChatMessage("user", "Hello")])
    command = [sys.executable, "-m", "agent_stores.cli", "threads", "--store", url]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert thread_id in shown
    nothing = subprocess.run(
        [*command, "--prefix", "none"], capture_output=True, text=True, timeout=60, check=True
    )
    assert nothing.stdout == "no threads\n"
