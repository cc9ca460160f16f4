"""What holds for all sources: killed and run again, grown, trimmed, threads in the way, dry runs, limits."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from agents import SQLiteSession
from agents.extensions.memory import RedisSession
from rich.console import Console

from agent_stores import Attachments, ChatMessage, ChatMessageStore, KeyRing, open_log
from agent_stores.cli import main
from agent_stores.cli.migrate import ProgressBar
from agent_stores.log import ThreadKey
from tests.importers.support import add, read, run_migration, threads
from tests.plugins.environments import REPOSITORY

PASSWORD = "planted-s3cret"


def items(count: int, *, start: int = 0, size: int = 0) -> list[Any]:
    """A conversation of that many items, with calls, and words that come again and again."""
    found: list[Any] = []
    for number in range(start, start + count):
        kind = number % 5
        if kind == 0:
            found.append({"role": "user", "content": f"question {number}" + "x" * size})
        elif kind == 1:
            found.append({"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"})
        elif kind == 2:
            found.append({"type": "function_call_output", "call_id": f"c{number - 1}", "output": "1"})
        else:
            found.append({"role": "user", "content": "yes" + "x" * size})
    return found


def session_file(folder: Path, *names: str, count: int = 10, start: int = 0, size: int = 0) -> str:
    """A source: the SDK's sessions in a file, with `count` items more."""
    file = folder / "source.db"
    for name in names:
        session = SQLiteSession(name, file)
        asyncio.run(session.add_items(items(count, start=start, size=size)))
        session.close()
    return f"openai-agents+sqlite:///{file}"


def redis_list(url: str, name: str, values: list[Any], **options: Any) -> str:
    """A source: one of the SDK's sessions in a list, with these items more."""

    async def work() -> None:
        session = RedisSession.from_url(name, url=url, **options)
        await session.add_items(values)
        await session.close()

    asyncio.run(work())
    return f"openai-agents+{url}"


def texts(target: str, thread: str, **options: Any) -> list[str]:
    return [message.text for message in read(target, thread, dangling_calls="keep", **options)]


# -- killed, and run again --------------------------------------------------------------------------------


def test_killed_at_any_point(tmp_path: Path, target: str) -> None:
    names = [f"s{number}" for number in range(3)]
    source = session_file(tmp_path, *names, count=2000, size=200)
    whole = {name: len(items(2000)) for name in names}
    interrupted = 0
    for wanted in (60, 1500, 3100, 5000):
        process = subprocess.Popen(
            [sys.executable, "-m", "agent_stores.cli", "migrate", "--from", source, "--to", target],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and stored(target) < wanted:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        interrupted += 0 < stored(target) < sum(whole.values())
    assert interrupted >= 2
    before = stored(target)
    done = run_migration(source, target)
    assert (done.status, done.report["problems"]) == (0, [])
    assert done.report["added"] == sum(whole.values()) - before
    assert done.report["present"] == before
    for name in names:
        messages = read(target, name)
        assert [message.role for message in messages] == [
            {1: "assistant", 2: "tool"}.get(number % 5, "user") for number in range(2000)
        ]
        assert [message.text for message in messages if "question" in message.text] == [
            f"question {number}" + "x" * 200 for number in range(0, 2000, 5)
        ]
    assert run_migration(source, target).report["added"] == 0


def stored(target: str) -> int:
    return sum(thread.messages for thread in threads(target).values())


def test_memory_is_bounded(tmp_path: Path) -> None:
    """10,000 messages of 5 kB take little more than ten of them."""

    def peak(source: str, name: str) -> int:
        code = (
            "import resource, sys; from agent_stores.cli import main; assert main(sys.argv[1:]) == 0; "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        target = f"sqlite:///{tmp_path / name}.db"
        run = subprocess.run(
            [sys.executable, "-c", code, "migrate", "--from", source, "--to", target, "--thread", name],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
        )
        assert run.returncode == 0, run.stderr
        return int(run.stdout.split()[-1]) // 1024

    source = session_file(tmp_path, "small", count=10, size=8000)
    session_file(tmp_path, "large", count=10_000, size=8000)
    small, large = peak(source, "small"), peak(source, "large")
    assert len(texts(f"sqlite:///{tmp_path / 'large'}.db", "large")) == 10_000
    assert large - small < 40, (small, large)  # megabytes, of 48


# -- the source has changed -------------------------------------------------------------------------------


def test_the_source_has_grown(tmp_path: Path, redis_url: str, target: str) -> None:
    for start in (0, 700, 1400):
        source = session_file(tmp_path, "rows", count=700, start=start)
        redis_list(redis_url, "list", items(700, start=start))
        for one in (source, f"openai-agents+{redis_url}"):
            done = run_migration(one, target)
            assert (done.status, done.report["added"], done.report["present"]) == (0, 700, start)
    for name in ("rows", "list"):
        assert len(read(target, name)) == 2100
        assert texts(target, name)[::5] == [f"question {number}" for number in range(0, 2100, 5)]


def test_the_source_was_trimmed(redis_url: str, target: str) -> None:
    """As the framework's own limits do: the list begins later, and what comes again is not there already."""
    source = redis_list(redis_url, "s", items(40))
    run_migration(source, target)
    client = redis.Redis.from_url(redis_url)
    for start in (40, 60):
        redis_list(redis_url, "s", items(20, start=start))
        client.ltrim("agents:session:s:messages", -30, -1)
        done = run_migration(source, target)
        assert (done.report["added"], done.report["present"]) == (20, 10)
    client.close()
    assert texts(target, "s")[::5] == [f"question {number}" for number in range(0, 80, 5)]
    assert len(texts(target, "s")) == 80


def test_the_last_message_was_taken_back(redis_url: str, target: str) -> None:
    """What was taken over stays, and what was put in its place is added."""
    source = redis_list(redis_url, "s", [{"role": "user", "content": text} for text in ("a", "b", "wrong")])
    run_migration(source, target)

    async def pop() -> None:
        session = RedisSession.from_url("s", url=redis_url)
        await session.pop_item()
        await session.close()

    asyncio.run(pop())
    redis_list(redis_url, "s", [{"role": "user", "content": "right"}])
    assert run_migration(source, target).report["added"] == 1
    assert texts(target, "s") == ["a", "b", "wrong", "right"]


def test_shortened_while_it_is_read(redis_url: str, tmp_path: Path) -> None:
    from agent_stores.importers import SourceError, open_source

    async def work() -> list[str]:
        source = open_source(f"openai-agents+{redis_url}")
        (thread,) = [thread async for thread in source.threads()]
        found: list[str] = []
        client = redis.Redis.from_url(redis_url)
        try:
            async for page in source.pages(thread):
                found += [stored.location for stored in page]
                client.ltrim(thread.handle, 10, -1)
        finally:
            client.close()
            await source.aclose()
        return found

    redis_list(redis_url, "s", items(1000))
    with pytest.raises(SourceError, match="shortened"):
        asyncio.run(work())


@pytest.mark.parametrize("servers", ["redis_cluster", "redis_sentinel"])
def test_servers_of_several_nodes(servers: str, request: pytest.FixtureRequest, target: str) -> None:
    found = request.getfixturevalue(servers)
    names = [f"cluster test {number}" for number in range(40)]
    if servers == "redis_cluster":
        url = f"redis+cluster{found.url.removeprefix('redis').removesuffix('/0')}"
        client: Any = redis.RedisCluster.from_url(found.url)
    else:
        hosts = ",".join(f"{host}:{port}" for host, port in found.sentinels)
        url = f"redis+sentinel://:{found.password}@{hosts}/{found.service_name}/0"
        client = redis.Redis.from_url(found.primary.url)
    for name in names:
        client.rpush(f"agents:session:{name}:messages", *(json.dumps(item) for item in items(7)))
    options = ("--from-option", "key_prefix=agents:session")
    try:
        for added in (280, 0):
            done = run_migration(f"openai-agents+{url}", target, *options)
            assert (done.report["problems"], done.report["added"]) == ([], added)
        assert set(threads(target)) == set(names)
    finally:
        for name in names:
            client.delete(f"agents:session:{name}:messages")
        client.close()


# -- the target has changed -------------------------------------------------------------------------------


def test_the_target_was_trimmed(tmp_path: Path, target: str) -> None:
    """The application has gone over to the target, which keeps the newest only: nothing old comes back."""
    source = session_file(tmp_path, "s", count=100)
    run_migration(source, target)

    async def work() -> None:
        log = open_log(target)
        store = ChatMessageStore(log, thread_id="s", max_messages=10)
        await store.add_messages([ChatMessage("user", "in the new place")])
        await log.aclose()

    asyncio.run(work())
    before = texts(target, "s")
    assert len(before) == 10
    assert run_migration(source, target).report["added"] == 0
    assert texts(target, "s") == before
    session_file(tmp_path, "s", count=10, start=100)
    assert run_migration(source, target).report["added"] == 10
    assert texts(target, "s") == [
        *before,
        *("question 100", "", "", "yes", "yes", "question 105", "", "", "yes", "yes"),
    ]


def test_messages_were_deleted_in_the_target(tmp_path: Path, target: str) -> None:
    source = session_file(tmp_path, "s", count=20)
    run_migration(source, target)

    async def work() -> None:
        log = open_log(target)
        store: ChatMessageStore[ChatMessage] = ChatMessageStore(log, thread_id="s")
        messages = [stored.message async for stored in store.iter_messages()]
        for index in (0, 10, -1):
            await store.delete(messages[index].message_id or "")
        await log.aclose()

    asyncio.run(work())
    assert len(texts(target, "s")) == 17
    done = run_migration(source, target)
    assert done.report["added"] == 1  # the last one: nothing behind it says that it was there
    assert len(texts(target, "s")) == 18


def test_another_thread_is_in_the_way(tmp_path: Path, target: str) -> None:
    add(target, "s", ChatMessage("user", "mine"))
    source = session_file(tmp_path, "s", "t")
    for _ in range(2):
        done = run_migration(source, target)
        assert done.status == 4
        assert done.report["threads_skipped"] == 1
        assert done.report["problems"][0]["thread_id"] == "s"
        assert "holds 1 other messages; --merge adds to it" in done.report["problems"][0]["reason"]
        assert texts(target, "s") == ["mine"]
        assert len(texts(target, "t")) == 10
    for added in (10, 0):
        done = run_migration(source, target, "--merge")
        assert (done.status, done.report["added"]) == (0, added)
        assert texts(target, "s")[:2] == ["mine", "question 0"]
        assert len(texts(target, "s")) == 11


def test_a_thread_was_cleared_in_the_target(tmp_path: Path, target: str) -> None:
    source = session_file(tmp_path, "s")
    run_migration(source, target)

    async def clear() -> None:
        log = open_log(target)
        await log.clear(ThreadKey(None, "s"))
        await log.aclose()

    asyncio.run(clear())
    done = run_migration(source, target)
    assert (done.status, done.report["added"]) == (4, 0)
    assert "no messages any more" in done.report["problems"][0]["reason"]
    assert texts(target, "s") == []


# -- what is taken over, and to where ---------------------------------------------------------------------


def test_dry_run(tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = session_file(tmp_path, "s", "t")
    for _ in range(2):
        done = run_migration(source, target, "--dry-run")
        assert (done.status, done.report["dry_run"], done.report["added"]) == (0, True, 20)
    assert "would add 20 messages" in capsys.readouterr().err
    assert not (tmp_path / "target.db").exists()
    assert threads(target) == {}
    run_migration(source, target, "--thread", "s")
    session_file(tmp_path, "s", count=3, start=10)
    before = state(target, tmp_path)
    done = run_migration(source, target, "--dry-run")
    assert (done.report["added"], done.report["present"]) == (13, 10)
    assert state(target, tmp_path) == before


def state(target: str, folder: Path) -> Any:
    if target.startswith("sqlite"):
        with sqlite3.connect(folder / "target.db") as connection:
            found = list(connection.iterdump())
        connection.close()
        return found
    client = redis.Redis.from_url(target)
    dumps = sorted((key, client.dump(key)) for key in client.scan_iter())
    client.close()
    return dumps


def test_dry_run_on_a_file_of_another_program(tmp_path: Path) -> None:
    """Where the target has no tables of ours, a dry run makes none."""
    source = session_file(tmp_path, "s")
    file = tmp_path / "source.db"
    before = hashlib.sha256(file.read_bytes()).digest()
    done = run_migration(source, f"sqlite:///{file}", "--dry-run")
    assert (done.status, done.report["added"]) == (0, 10)
    assert hashlib.sha256(file.read_bytes()).digest() == before


def test_names_and_tenants(tmp_path: Path, target: str) -> None:
    source = session_file(tmp_path, "a", "b", "c")
    (tmp_path / "map.json").write_text(json.dumps({"a": "renamed", "b": None}))
    names = ("--map", str(tmp_path / "map.json"), "--thread-prefix", "old-", "--tenant", "mine")
    for added in (20, 0):
        done = run_migration(source, target, *names)
        assert (done.status, done.report["added"], done.report["threads"]) == (0, added, 2)
    assert set(threads(target, tenant="mine")) == {"renamed", "old-c"}
    assert threads(target) == {}


def test_some_threads(tmp_path: Path, target: str) -> None:
    source = session_file(tmp_path, "a", "b", "c")
    done = run_migration(source, target, "--limit", "2")
    assert (done.status, done.report["threads"]) == (0, 2)
    done = run_migration(source, target, "--thread", "c", "--thread", "absent")
    assert done.status == 4
    assert done.report["problems"] == [
        {"thread_id": "absent", "reason": "the source has no such thread", "location": None}
    ]
    assert run_migration(source, target, "--limit", "0").report["threads"] == 0


def test_hostile_names(tmp_path: Path, target: str) -> None:
    names = [
        "'; DROP TABLE agent_messages; --",
        "a\nb\x1b[31m",
        "..",
        "*",
        "{a}",
        "a" * 5000,
        "\U0001f600",
        "A",
        "a",
    ]
    source = session_file(tmp_path, *names)
    for added in (90, 0):
        done = run_migration(source, target)
        assert (done.report["problems"], done.report["added"]) == ([], added)
    assert set(threads(target)) == set(names)


def test_too_large_for_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent_stores.memory import InMemoryMessageLog

    monkeypatch.setattr(InMemoryMessageLog, "max_message_bytes", property(lambda self: 2000))
    source = session_file(tmp_path, "s", count=3)
    session = SQLiteSession("s", tmp_path / "source.db")
    asyncio.run(
        session.add_items([{"role": "user", "content": "x" * 3000}, {"role": "user", "content": "last"}])
    )
    session.close()
    done = run_migration(source, "memory:")
    assert (done.status, done.report["added"], done.report["skipped"]) == (4, 4, 1)
    assert done.report["messages"] == 4
    assert "the target holds up to 2000" in done.report["problems"][0]["reason"]


# -- what is wrong is said --------------------------------------------------------------------------------


def test_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = session_file(tmp_path, "s"), f"sqlite:///{tmp_path / 'x.db'}"
    (tmp_path / "bad.json").write_text('{"a": 1}')
    (tmp_path / "text.json").write_text("ids")
    (tmp_path / "two.json").write_text('{"a": "x", "b": "x"}')
    for arguments, status, said in (
        (
            ["--from", f"redis://u:{PASSWORD}@h/0"],
            2,
            "must be one of agent-framework, google-adk,",
        ),
        (["--from", f"chatgpt+redis://:{PASSWORD}@h/0"], 2, "'chatgpt'"),
        (["--from", f"langchain+ftp://u:{PASSWORD}@h/0"], 2, "must begin with one of redis://"),
        (["--from", f"langchain+redis://u:{PASSWORD}@h:x/0"], 2, "redis_url"),
        (["--from", f"openai-agents+{tmp_path / 'absent.db'}"], 3, "there is no SQLite file"),
        (["--from", source, "--from-option", "key_prefix=x"], 2, "must be among messages_table, branch"),
        (["--from", source, "--from-option", "x"], 2, "NAME=VALUE"),
        (["--from", f"llama-index+AccountName=x;AccountKey={PASSWORD}"], 2, "key must be base64"),
        (["--from", source, "--limit", "-1"], 2, "limit"),
        (["--from", source, "--tenant", ""], 2, "tenant"),
        (["--from", source, "--map", str(tmp_path / "none.json")], 3, "no such file"),
        (["--from", source, "--map", str(tmp_path)], 2, "cannot be read: Is a directory"),
        (["--from", source, "--map", str(tmp_path / "text.json")], 2, "a JSON object"),
        (["--from", source, "--map", str(tmp_path / "bad.json")], 2, "a JSON object"),
        (
            ["--from", source, "--map", str(tmp_path / "two.json")],
            2,
            "must get different ids, got 'x' for both",
        ),
        (["--from", "agent-framework+redis://h", "--from-option", "key_format=x"], 2, "scoped, legacy, both"),
        (["--from", source, "--report", str(tmp_path / "no" / "r.json")], 1, "r.json"),
    ):
        assert main(["migrate", "--to", target, *arguments]) == status, arguments
        error = capsys.readouterr().err
        assert said in error
        assert PASSWORD not in error
    assert not (tmp_path / "x.db").exists()


def test_a_server_that_is_not_there(
    tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report says how far it came, and nothing says the password."""
    source = session_file(tmp_path, "s")
    away = f"redis://user:{PASSWORD}@127.0.0.1:{free_port}/0"
    for one, other in ((f"langchain+{away}", f"sqlite:///{tmp_path / 'x.db'}"), (source, away)):
        done = run_migration(one, other)
        assert done.status == 1
        assert done.report["complete"] is False
        assert done.report["added"] == 0
        assert "no answer from" in done.report["error"]
        assert PASSWORD not in json.dumps(done.report)
        assert PASSWORD not in capsys.readouterr().err


def test_json_on_standard_output(tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = session_file(tmp_path, "s")
    assert main(["migrate", "--from", source, "--to", target, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["type"], report["version"]) == ("agent_stores.migration", 1)
    assert (report["threads"], report["messages"], report["added"]) == (1, 10, 10)
    assert report["bytes"] > 100
    assert report["source"] == f"openai-agents+sqlite:///{tmp_path / 'source.db'}"


def test_progress_bar() -> None:
    """On a terminal: threads of how many, where that is known, and messages."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with ProgressBar(console, dry_run=False) as bar:
        bar.begin(3)
        bar.advance(messages=1500)
        bar.advance(threads=1)
    assert "migrating" in out.getvalue()
    assert "1/3" in out.getvalue()
    assert "1,500 messages" in out.getvalue()
    elsewhere = io.StringIO()
    with ProgressBar(Console(file=elsewhere), dry_run=False) as bar:
        bar.begin(None)
        bar.advance(threads=1)
    assert elsewhere.getvalue() == ""


def test_without_the_framework(tmp_path: Path) -> None:
    """Items and Agent Framework's messages are plain JSON; LangChain's need its package, and it is named."""
    code = (
        "import sys\n"
        "for name in ('agents', 'agent_framework', 'langchain_core', 'llama_index'):\n"
        "    sys.modules[name] = None\n"
        "from agent_stores.importers.parsers.openai_agents import responses_item\n"
        "from agent_stores.importers.parsers.agent_framework import agent_framework_message\n"
        "from agent_stores.importers.parsers.langchain import langchain_message\n"
        "from agent_stores.importers.parsers.llama_index import llama_index_message\n"
        "print(responses_item({'role': 'user', 'content': 'x'}).text)\n"
        "print(agent_framework_message({'role': 'user', 'contents': [{'type': 'text', 'text': 'y'}]}).text)\n"
        "langchain, llama_index = {'type': 'human', 'data': {}}, {'role': 'user'}\n"
        "for read, data in ((langchain_message, langchain), (llama_index_message, llama_index)):\n"
        "    try:\n"
        "        read(data)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[:2] == ["x", "y"]
    assert "agent-stores[langchain]" in run.stdout
    assert "agent-stores[llama-index]" in run.stdout


# -- encryption and attachments ---------------------------------------------------------------------------


def test_data_goes_to_the_attachments_and_everything_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"planted-picture" * 6000
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    content: Any = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": url, "detail": "auto"},
    ]
    session = SQLiteSession("s", tmp_path / "source.db")
    asyncio.run(session.add_items([{"role": "user", "content": content}]))
    session.close()
    keys = {"current": "k", "keys": {"k": base64.b64encode(bytes(32)).decode()}}
    monkeypatch.setenv("AGENT_STORES_KEYS", json.dumps(keys))
    folder, target = tmp_path / "target", tmp_path / "target" / "chat.db"
    folder.mkdir()
    monkeypatch.setenv("AGENT_STORES_ATTACHMENTS", str(folder / "files"))
    done = run_migration(f"openai-agents+sqlite:///{tmp_path / 'source.db'}", str(target))
    assert (done.status, done.report["added"]) == (0, 1)
    files = [file for file in (folder / "files").rglob("*") if file.is_file() and "@" not in file.name]
    assert len(files) == 1
    assert target.stat().st_size < len(data)
    pieces = (b"planted-picture", base64.b64encode(data)[40:80])
    for file in folder.rglob("*"):
        assert not file.is_file() or not any(piece in file.read_bytes() for piece in pieces)

    async def stored() -> Any:
        options: Any = {
            "encryption": KeyRing({"k": bytes(32)}, "k"),
            "attachments": Attachments(folder / "files"),
        }
        async with contextlib.aclosing(open_log(target, **options)) as log:
            return (await ChatMessageStore(log, thread_id="s").list_messages())[0].contents

    assert asyncio.run(stored())[1].data == data
