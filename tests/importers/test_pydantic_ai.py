"""Conversations of Pydantic AI harness, written by the harness in an environment of its own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessagesTypeAdapter

from agent_stores import DataContent, ToolCallContent, ToolResultContent
from agent_stores.pydantic_ai import AgentStoresConversationStore
from tests.importers.support import read, run_migration
from tests.plugins.environments import environment

HERE = Path(__file__).parent
Shown = dict[str, list[Any]]


def harness(file: Path, action: str) -> Shown:
    """What the harness reads once it has written."""
    python = environment("pydantic-ai-harness", "pydantic-ai-harness==0.62.0")
    command = [str(python), str(HERE / "harness.py"), str(file), action]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout))


def shown(target: str) -> Shown:
    """What Pydantic AI reads from the target: all conversations that it lists."""

    async def work() -> Shown:
        async with AgentStoresConversationStore(target) as store:
            found: Shown = {}
            for record in await store.read_records():
                loaded = await store.load(record.conversation_id)
                assert loaded is not None
                found[record.conversation_id] = plain(loaded.messages)
            return found

    return asyncio.run(work())


def plain(messages: Any) -> list[Any]:
    dumped: list[Any] = ModelMessagesTypeAdapter.dump_python(messages, mode="json", exclude_none=True)
    return dumped


def wanted(written: Shown) -> Shown:
    """What the harness wrote, with the fields of the newer version."""
    return {
        name: plain(ModelMessagesTypeAdapter.validate_python(messages)) for name, messages in written.items()
    }


@pytest.mark.timeout(600)
def test_a_file(tmp_path: Path, target: str) -> None:
    file = tmp_path / "harness.db"
    written = harness(file, "save")
    with sqlite3.connect(file) as connection:
        (kept_apart,) = connection.execute("SELECT count(*) FROM media").fetchone()
    connection.close()
    assert kept_apart == 2
    for source, added in ((f"pydantic-ai+sqlite:///{file}", 12), (f"pydantic-ai+{file}", 0)):
        done = run_migration(source, target)
        assert done.report["problems"] == []
        assert (done.status, done.report["added"], done.report["complete"]) == (0, added, True)
        assert shown(target) == wanted(written)
    found = read(target, "plain")
    assert [message.role for message in found] == ["user", "assistant", "tool", "assistant"]
    parts = [part for message in found for part in message.contents]
    assert [len(part.data) for part in parts if isinstance(part, DataContent)] == [102_400]
    assert [part.call_id for part in parts if isinstance(part, ToolCallContent)] == ["a", "b"]
    assert [part.result for part in parts if isinstance(part, ToolResultContent)] == [
        "rain " * 30_000,
        {"__harness_external_media__": True, "uri": "x"},
    ]
    # It goes on there: what is new is added.
    written = harness(file, "more")
    done = run_migration(f"pydantic-ai+{file}", target)
    assert (done.status, done.report["problems"], done.report["added"]) == (0, [], 5)
    assert {name: len(messages) for name, messages in shown(target).items()} == {
        name: len(messages) for name, messages in written.items()
    }


@pytest.mark.timeout(600)
def test_what_cannot_be_read_is_reported(tmp_path: Path, target: str) -> None:
    file = tmp_path / "harness.db"
    harness(file, "save")
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM media WHERE media_type = 'image/png'")
        connection.execute("UPDATE conversations SET messages = '[{\"kind\": 7}]' WHERE id != 'plain'")
        connection.execute("DELETE FROM snapshot_messages WHERE message LIKE '%c1%'")
    connection.close()
    done = run_migration(f"pydantic-ai+{file}", target)
    assert done.status == 4
    reasons = {one["thread_id"]: one["reason"] for one in done.report["problems"]}
    assert reasons["plain"] == "a part of it that is kept apart is not in the file"
    assert reasons["o'brien: \u2603"].startswith("Pydantic AI does not read this message")
    assert "of its 4 messages" in reasons["steps"]
    assert len(read(target, "plain", dangling_calls="keep")) == 3


def test_there_is_no_such_table(tmp_path: Path, target: str) -> None:
    file = tmp_path / "empty.db"
    sqlite3.connect(file).close()
    assert run_migration(f"pydantic-ai+{file}", target).status != 0
    assert run_migration("pydantic-ai+postgresql://h/d", target).status != 0
