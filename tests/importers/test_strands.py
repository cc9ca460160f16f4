"""Sessions of Strands, written by its `FileSessionManager`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from strands import Agent
from strands.multiagent import GraphBuilder
from strands.session import FileSessionManager
from strands.types.session import SessionMessage

from agent_stores import DataContent, ToolCallContent, ToolResultContent
from agent_stores.strands import AgentStoresSessionManager
from tests.importers.support import read, run_migration
from tests.plugins.conftest import PNG
from tests.plugins.strands.messages import CONVERSATION, UNUSUAL, ScriptedModel

SESSIONS = ("plain", "o'brien:#%_\u2603", "x" * 200)
Open = Callable[[str], Any]


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Strands' managers block, by their interface."""


def agent(manager: Any, agent_id: str = "default") -> Agent:
    return Agent(model=ScriptedModel(), session_manager=manager, agent_id=agent_id, callback_handler=None)


def fill(folder: Path) -> None:
    """A conversation in every session, and a second agent and a graph in one."""
    for name in SESSIONS:
        manager = FileSessionManager(name, storage_dir=str(folder))
        first = agent(manager)
        first.state.set("user", "Alice")
        manager.sync_agent(first)
        for number, message in enumerate([*CONVERSATION, *UNUSUAL]):
            stored: Any = SessionMessage(message, number)  # type: ignore[arg-type]
            manager.create_message(name, "default", stored)
    agent(FileSessionManager("plain", storage_dir=str(folder)), "other")("My name is Alice")
    builder = GraphBuilder()
    builder.add_node(Agent(model=ScriptedModel(), callback_handler=None, name="one"), "one")
    builder.set_session_manager(FileSessionManager("plain", storage_dir=str(folder)))
    builder.set_graph_id("g")
    builder.set_max_node_executions(3)
    builder.build()("Alice")


def dumped(open_session: Open) -> dict[Any, Any]:
    """All that a session manager shows."""
    found: dict[Any, Any] = {}
    for name in SESSIONS:
        manager = open_session(name)
        found[name] = manager.read_session(name).to_dict()
        for agent_id in ("default", "other"):
            state = manager.read_agent(name, agent_id)
            if state is not None:
                shown = [one.to_dict() for one in manager.list_messages(name, agent_id)]
                found[name, agent_id] = state.to_dict(), shown
        found[name, "g"] = manager.read_multi_agent(name, "g")
    return found


def test_files(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "sessions"
    fill(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wanted = dumped(lambda name: FileSessionManager(name, storage_dir=str(folder)))
    count = len(CONVERSATION) + len(UNUSUAL)
    for source, added in ((f"strands+{folder}", 3 * count + 2), (f"strands+file://{folder}", 0)):
        done = run_migration(source, target)
        assert done.report["problems"] == []
        assert (done.status, done.report["added"], done.report["complete"]) == (0, added, True)
        assert dumped(lambda name: AgentStoresSessionManager(name, target)) == wanted
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    found = read(target, "plain", dangling_calls="keep")
    assert [message.role for message in found[:4]] == ["user", "assistant", "tool", "assistant"]
    parts = [part for message in found[:4] for part in message.contents]
    assert [part.data for part in parts if isinstance(part, DataContent)] == [PNG]
    assert [part.call_id for part in parts if isinstance(part, ToolCallContent)] == ["t1", "t2"]
    assert [part.result for part in parts if isinstance(part, ToolResultContent)] == [
        "rain",
        {"rain": [True, 1.0]},
    ]


def test_a_session_goes_on(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "sessions"
    there = agent(FileSessionManager("s", storage_dir=str(folder)))
    there("My name is Alice")
    assert run_migration(f"strands+{folder}", target).report["added"] == 2
    there("And then?")
    assert run_migration(f"strands+{folder}", target).report["added"] == 2
    here = agent(AgentStoresSessionManager("s", target))
    assert here.messages == there.messages
    assert str(here("What's my name?")).strip() == "Alice"
    assert run_migration(f"strands+{folder}", target).report["added"] == 0
    assert len(agent(AgentStoresSessionManager("s", target)).messages) == 6


def test_what_cannot_be_read_is_reported(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "sessions"
    agent(FileSessionManager("s", storage_dir=str(folder)))("Alice")
    messages = folder / "session_s" / "agents" / "agent_default" / "messages"
    (messages / "message_2.json").write_text("{")
    (messages / "message_3.json").write_text('{"message_id": 3}')
    (messages / "message_4.json").symlink_to(messages / "message_0.json")
    (messages / "message_x.json").write_text("")
    (folder / "notes.txt").write_text("")
    done = run_migration(f"strands+{folder}", target)
    assert (done.status, done.report["added"], done.report["unrecognized"]) == (4, 2, 1)
    assert [(one["location"], one["reason"].partition(":")[0]) for one in done.report["problems"]] == [
        ("message_2.json", "not JSON"),
        ("message_3.json", "Strands does not read this message (TypeError)"),
        ("message_4.json", "it is a symbolic link"),
    ]


def test_a_state_that_is_too_large_is_reported(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "sessions"
    first = agent(FileSessionManager("s", storage_dir=str(folder)))
    first.state.set("notes", "x" * 70_000)
    first("My name is Alice")
    done = run_migration(f"strands+{folder}", target)
    assert done.status == 4
    assert "metadata is not taken over" in done.report["problems"][0]["reason"]
    assert str(agent(AgentStoresSessionManager("s", target))("Who am I?")).strip() == "Alice"


def test_there_is_no_such_folder(tmp_path: Path, target: str) -> None:
    assert run_migration(f"strands+{tmp_path / 'none'}", target).status != 0
    assert run_migration(f"strands+file://elsewhere{tmp_path}", target).status != 0
