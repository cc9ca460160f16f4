"""Sessions of the OpenAI Agents SDK, written by the SDK: in SQLite, through SQLAlchemy, and in Redis."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from agents import SQLiteSession
from agents.extensions.memory import AdvancedSQLiteSession, RedisSession, SQLAlchemySession
from sqlalchemy.ext.asyncio import create_async_engine

from agent_stores import ChatMessage, ToolCallContent, ToolResultContent
from agent_stores.openai_agents import AgentStoresSession
from tests.importers.support import add, read, run_migration, threads
from tests.servers.postgres import PostgresServer

ITEMS: list[Any] = [
    {"role": "user", "content": "What is the weather? \U0001f600"},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "And here?"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        ],
    },
    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Two places."}]},
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "a",
        "name": "weather",
        "arguments": '{"city": "Paris"}',
    },
    {
        "type": "function_call",
        "id": "fc_2",
        "call_id": "b",
        "name": "weather",
        "arguments": '{"city":"Oslo"}',
    },
    {"type": "function_call_output", "call_id": "a", "output": "sunny"},
    {"type": "function_call_output", "call_id": "b", "output": "snow"},
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Sunny, and snow.", "annotations": [], "logprobs": []}],
    },
    {"role": "user", "content": "yes"},
    {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": "x"},
    },
    {"role": "user", "content": "yes"},
    {"role": "user", "content": "yes"},
]
IDS = ("plain", "o'brien:\n%_\\\u2603", "x" * 300)


async def fill(sessions: Sequence[Any], items: Sequence[Any] = ITEMS) -> None:
    for session in sessions:
        await session.add_items(list(items))


def items_of(target: str, thread: str) -> list[Any]:
    async def work() -> list[Any]:
        async with AgentStoresSession(thread, target) as session:
            return list(await session.get_items())

    return asyncio.run(work())


def check(target: str) -> None:
    assert set(threads(target)) == set(IDS)
    for name in IDS:
        assert items_of(target, name) == ITEMS
        found = read(target, name)
        assert [message.role for message in found[:7]] == ["user", "user", *["assistant"] * 3, "tool", "tool"]
        calls = [part for message in found for part in message.contents if isinstance(part, ToolCallContent)]
        assert [(part.call_id, part.arguments) for part in calls] == [
            ("a", '{"city": "Paris"}'),
            ("b", '{"city":"Oslo"}'),
        ]
        results = [
            part for message in found for part in message.contents if isinstance(part, ToolResultContent)
        ]
        assert [(part.call_id, part.result) for part in results] == [("a", "sunny"), ("b", "snow")]


def run_thrice(source: str, target: str, *arguments: str) -> None:
    """Taken over once, and not again."""
    for added in (len(ITEMS) * len(IDS), 0, 0):
        done = run_migration(source, target, *arguments)
        assert done.report["problems"] == []
        assert (done.status, done.report["added"], done.report["complete"]) == (0, added, True)
        check(target)


def test_sqlite(tmp_path: Path, target: str) -> None:
    file = tmp_path / "chats.db"
    sessions = [SQLiteSession(name, file) for name in IDS]
    asyncio.run(fill(sessions))
    for session in sessions:
        session.close()
    before = hashlib.sha256(file.read_bytes()).digest()
    run_thrice(f"openai-agents+sqlite:///{file}", target)
    assert hashlib.sha256(file.read_bytes()).digest() == before
    created = read(target, "plain")[0].created_at
    with sqlite3.connect(file) as connection:
        (said,) = connection.execute("SELECT created_at FROM agent_messages").fetchone()
    connection.close()
    assert created is not None
    assert created.strftime("%Y-%m-%d %H:%M:%S") == said


def test_sqlite_in_use(tmp_path: Path, target: str) -> None:
    """The application has the file open, with rows that are in its write-ahead log only."""
    file = tmp_path / "chats.db"
    sessions = [SQLiteSession(name, file) for name in IDS]
    asyncio.run(fill(sessions))
    run_thrice(f"openai-agents+{file}", target)
    asyncio.run(fill(sessions[:1], [{"role": "user", "content": "yes"}]))
    done = run_migration(f"openai-agents+{file}", target)
    assert done.report["added"] == 1
    assert items_of(target, "plain") == [*ITEMS, {"role": "user", "content": "yes"}]
    for session in sessions:
        session.close()


def test_sqlite_tables_of_other_names(tmp_path: Path, target: str) -> None:
    file = tmp_path / "chats.db"
    session = SQLiteSession("s", file, sessions_table="my_sessions", messages_table="my_messages")
    asyncio.run(fill([session]))
    session.close()
    assert run_migration(f"openai-agents+{file}", target).status == 3
    done = run_migration(f"openai-agents+{file}", target, "--from-option", "messages_table=my_messages")
    assert done.report["added"] == len(ITEMS)


def test_advanced_sqlite(tmp_path: Path, target: str) -> None:
    """Of a session with branches, one of them."""
    file = tmp_path / "chats.db"

    async def write() -> tuple[list[Any], list[Any]]:
        session = AdvancedSQLiteSession(session_id="s", db_path=file, create_tables=True)
        await session.add_items([{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}])
        await session.add_items([{"role": "user", "content": "two"}, {"role": "assistant", "content": "2"}])
        main = list(await session.get_items())
        await session.create_branch_from_turn(2, "other")
        await session.add_items([{"role": "user", "content": "three"}])
        other = list(await session.get_items(branch_id="other"))
        session.close()
        return main, other

    main, other = asyncio.run(write())
    assert main != other
    for _ in range(2):
        assert run_migration(f"openai-agents+{file}", target).status == 0
        assert items_of(target, "s") == main
    branch = ("--from-option", "branch=other", "--thread-prefix", "other-")
    assert run_migration(f"openai-agents+{file}", target, *branch).status == 0
    assert items_of(target, "other-s") == other


def test_sqlalchemy_on_sqlite(tmp_path: Path, target: str) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'chats.db'}"
    asyncio.run(fill_sqlalchemy(url))
    run_thrice(f"openai-agents+{url}", target)


def test_sqlalchemy_on_postgresql(postgres_server: PostgresServer, target: str) -> None:
    url = postgres_server.create_database(f"sessions_{target.partition(':')[0]}")
    asyncio.run(fill_sqlalchemy(url.replace("postgresql://", "postgresql+psycopg://")))
    run_thrice(f"openai-agents+{url.replace('postgresql://', 'postgresql+asyncpg://')}", target)


async def fill_sqlalchemy(url: str) -> None:
    engine = create_async_engine(url)
    await fill([SQLAlchemySession(name, engine=engine, create_tables=True) for name in IDS])
    await engine.dispose()


def test_redis(redis_url: str, target: str) -> None:
    asyncio.run(fill_redis(redis_url))
    run_thrice(f"openai-agents+{redis_url}", target)
    assert all(one.expires_at is None for one in threads(target).values())


def test_redis_that_expires(redis_url: str, target: str) -> None:
    """What the source would have forgotten, the target does not keep for ever."""
    asyncio.run(fill_redis(redis_url, ttl=500, key_prefix="my"))
    run_thrice(f"openai-agents+{redis_url}", target, "--from-option", "key_prefix=my")
    for one in threads(target).values():
        assert one.expires_at is not None
        assert one.last_at is not None
        assert 300 < (one.expires_at - one.last_at).total_seconds() < 510
    run_migration(
        f"openai-agents+{redis_url}",
        target,
        *("--from-option", "key_prefix=my", "--thread-prefix", "kept-", "--no-expiry"),
    )
    assert threads(target)["kept-plain"].expires_at is None


async def fill_redis(url: str, **options: Any) -> None:
    for name in IDS:
        session = RedisSession.from_url(name, url=url, **options)
        await fill([session])
        await session.close()


def test_goes_on_under_the_plugin(tmp_path: Path, target: str) -> None:
    session = SQLiteSession("s", tmp_path / "chats.db")
    asyncio.run(fill([session]))
    session.close()
    run_migration(f"openai-agents+{tmp_path / 'chats.db'}", target)
    add(target, "s", ChatMessage("user", "And tomorrow?"))
    assert items_of(target, "s") == [*ITEMS, {"role": "user", "content": "And tomorrow?"}]
    assert run_migration(f"openai-agents+{tmp_path / 'chats.db'}", target).report["added"] == 0


CORRUPT = [
    ("not json", "not JSON"),
    ('{"role": "user", "content": "cut sho', "not JSON"),
    ("[1]", "the message must be a JSON object"),
    ('{"content": 3}', "neither a type nor a role"),
    ('{"role": "user", "content": NaN}', "finite"),
    ("", "not JSON"),
    ('{"__enc__": 1, "v": 1, "kid": "k", "payload": "gAAA"}', "EncryptedSession"),
    ("[" * 100_000, "not JSON"),
]


def test_rows_that_cannot_be_read(tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chats.db"
    session = SQLiteSession("s", file)
    asyncio.run(fill([session], ITEMS[:3]))
    with sqlite3.connect(file) as connection:
        connection.executemany(
            "INSERT INTO agent_messages (session_id, message_data) VALUES ('s', ?)",
            [(data,) for data, _ in CORRUPT],
        )
    connection.close()
    asyncio.run(fill([session], ITEMS[3:]))
    session.close()
    for added in (len(ITEMS), 0):
        done = run_migration(f"openai-agents+{file}", target)
        assert done.status == 4
        assert (done.report["added"], done.report["skipped"]) == (added, len(CORRUPT))
        for problem, (_, reason), row in zip(done.report["problems"], CORRUPT, range(4, 99), strict=False):
            assert problem["thread_id"] == "s"
            assert problem["location"] == f"row {row}"
            assert reason in problem["reason"]
        assert items_of(target, "s") == ITEMS
    assert "cut sho" not in capsys.readouterr().err


def test_numbers_and_halves_of_characters(tmp_path: Path, target: str) -> None:
    """What JSON of Python's holds and other JSON does not."""
    items: list[Any] = [
        {"role": "user", "content": "half \ud83d and NUL \0"},
        {"type": "function_call_output", "call_id": "a", "output": json.dumps({"n": 10**30, "f": 1.0})},
        {"role": "user", "content": "x", "big": 10**30, "one": 1.0},
    ]
    session = SQLiteSession("s", tmp_path / "chats.db")
    asyncio.run(fill([session], items))
    session.close()
    done = run_migration(f"openai-agents+{tmp_path / 'chats.db'}", target)
    assert done.report["problems"] == []
    assert items_of(target, "s") == items
