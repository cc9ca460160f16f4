"""Sessions of Google ADK, written by its own services: both layouts of its tables, in every database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.schemas import v0
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types
from sqlalchemy import create_engine

from agent_stores import DataContent, ToolCallContent, ToolResultContent
from agent_stores.google_adk import AgentStoresSessionService
from tests.importers.support import read, run_migration, threads
from tests.plugins.conftest import PNG
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SESSIONS = [("app", "u", "s1"), ("app", "u", "s2"), ("app", "o'brien/#%", "s1"), ("other", "u", "s\u2603")]
LAYOUTS = ["json", "columns", "SqliteSessionService"]


def events() -> list[Event]:
    call = types.FunctionCall(id="a", name="weather", args={"city": "Oslo"})
    other = types.FunctionCall(id="b", name="weather", args={"city": "Bergen"})
    answers = [
        types.FunctionResponse(id=name, name="weather", response={"result": text})
        for name, text in (("a", "rain"), ("b", "sun"))
    ]
    image = types.Blob(data=PNG, mime_type="image/png")
    contents: list[tuple[str, Any]] = [
        ("user", [types.Part(text="The weather? \U0001f600"), types.Part(inline_data=image)]),
        ("agent", [types.Part(function_call=call), types.Part(function_call=other)]),
        ("agent", [types.Part(function_response=answer) for answer in answers]),
        ("agent", [types.Part(text="Rain and sun.")]),
    ]
    found = [
        Event(
            id=f"e{number}",
            author=author,
            invocation_id="i",
            timestamp=1_700_000_000.25 + number,
            content=types.Content(role="user" if author == "user" else "model", parts=parts),
        )
        for number, (author, parts) in enumerate(contents)
    ]
    delta = {"step": 2, "app:motto": "hello", "user:name": "Al", "temp:x": 1, "list": [1, None]}
    changed = Event(
        id="e9",
        author="agent",
        invocation_id="i",
        timestamp=1_700_000_020.0,
        actions=EventActions(state_delta=delta),
    )
    return [*found, changed]


@asynccontextmanager
async def theirs(url: str, layout: str) -> AsyncIterator[BaseSessionService]:
    service: Any
    if layout == "SqliteSessionService":
        service = SqliteSessionService(url.removeprefix("sqlite:///"))
    else:
        drivers = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}
        scheme, _, rest = url.partition("://")
        service = DatabaseSessionService(f"{scheme}+{drivers[scheme]}://{rest}")
    yield service
    if layout != "SqliteSessionService":
        await service.close()


async def fill(url: str, layout: str) -> dict[Any, Any]:
    async with theirs(url, layout) as service:
        for app, user, name in SESSIONS:
            session = await service.create_session(
                app_name=app, user_id=user, session_id=name, state={"begun": True, "user:seen": name}
            )
            for event in events():
                await service.append_event(session, event)
        return await dumped(service)


async def dumped(service: BaseSessionService) -> dict[Any, Any]:
    """All that a service shows."""
    found: dict[Any, Any] = {}
    for app, user, name in SESSIONS:
        session = await service.get_session(app_name=app, user_id=user, session_id=name)
        assert session is not None
        shown = [event.model_dump(mode="json") for event in session.events]
        found[app, user, name] = session.state, shown
    for app in ("app", "other"):
        listed = (await service.list_sessions(app_name=app)).sessions
        found[app] = sorted((one.user_id, one.id, str(sorted(one.state.items()))) for one in listed)
    return found


def check(source: str, target: str, wanted: dict[Any, Any]) -> None:
    async def ours() -> dict[Any, Any]:
        async with AgentStoresSessionService(target) as service:
            return await dumped(service)

    for added in (len(events()) * len(SESSIONS), 0):
        done = run_migration(f"google-adk+{source}", target)
        assert done.report["problems"] == []
        assert (done.status, done.report["added"], done.report["complete"]) == (0, added, True)
        assert asyncio.run(ours()) == wanted
    found = read(target, "app/u/s1")
    assert [message.role for message in found[:4]] == ["user", "assistant", "tool", "assistant"]
    parts = [part for message in found for part in message.contents]
    assert [part.data for part in parts if isinstance(part, DataContent)] == [PNG]
    assert [part.call_id for part in parts if isinstance(part, ToolCallContent)] == ["a", "b"]
    assert [part.result for part in parts if isinstance(part, ToolResultContent)] == ["rain", "sun"]
    assert [message.message_id for message in found] == [event.id for event in events()]


def with_layout(url: str, layout: str) -> None:
    if layout == "columns":
        engine = create_engine(url)
        v0.Base.metadata.create_all(engine)
        engine.dispose()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sqlite(layout: str, tmp_path: Path, target: str) -> None:
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    with_layout(url, layout)
    check(url, target, asyncio.run(fill(url, layout)))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_postgresql(layout: str, postgres_server: PostgresServer, target: str) -> None:
    url = postgres_server.create_database(f"adk_{layout}_{target.partition(':')[0]}")
    with_layout(url.replace("postgresql://", "postgresql+psycopg://"), layout)
    check(url, target, asyncio.run(fill(url, layout)))


def test_a_session_goes_on_and_keeps_its_new_state(tmp_path: Path, target: str) -> None:
    file = tmp_path / "sessions.db"
    source = f"google-adk+{file}"
    asyncio.run(fill(f"sqlite:///{file}", "json"))
    assert run_migration(source, target, "--dry-run").report["threads"] == len(SESSIONS) + 5
    assert target.startswith("redis") or not Path(target.removeprefix("sqlite:///")).exists()
    assert run_migration(source, target, "--thread", "app/u/s1", "--thread", "#google_adk/app/u").status == 0

    async def more(service: BaseSessionService, **delta: Any) -> dict[str, Any]:
        session = await service.get_session(app_name="app", user_id="u", session_id="s1")
        assert session is not None
        await service.append_event(session, Event(author="a", actions=EventActions(state_delta=delta)))
        session = await service.get_session(app_name="app", user_id="u", session_id="s1")
        assert session is not None
        return session.state

    async def there() -> None:
        async with theirs(f"sqlite:///{file}", "json") as service:
            await more(service, step=3, **{"user:name": "Bo"})

    async def here(**delta: Any) -> dict[str, Any]:
        async with AgentStoresSessionService(target) as service:
            return await more(service, **delta)

    # The application goes on there: its state comes along.
    asyncio.run(there())
    done = run_migration(source, target)
    assert (done.report["added"], done.report["problems"]) == (1 + 3 * len(events()), [])
    # It goes on here: what it has here stays, whatever the source says.
    state = asyncio.run(here(mine=1))
    assert (state["step"], state["user:name"], state["app:motto"], state["mine"]) == (3, "Bo", "hello", 1)
    done = run_migration(source, target)
    assert [problem["thread_id"] for problem in done.report["problems"]] == ["app/u/s1"]
    assert asyncio.run(here(last=2)) == {**state, "last": 2}


def test_what_cannot_be_read_is_reported(tmp_path: Path, target: str) -> None:
    file = tmp_path / "sessions.db"
    asyncio.run(fill(f"sqlite:///{file}", "json"))
    with sqlite3.connect(file) as connection:
        broken = "UPDATE events SET event_data = ? WHERE id = ? AND session_id = 's2'"
        connection.execute(broken, ("{", "e0"))
        connection.execute(broken, ('{"author": 7}', "e3"))
    connection.close()
    done = run_migration(f"google-adk+{file}", target, "--thread", "app/u/s2")
    assert done.status == 4
    assert [(one["location"], one["reason"]) for one in done.report["problems"]] == [
        ("event e0", "its event_data is not JSON"),
        ("event e3", "Google ADK does not read this event (ValidationError)"),
    ]
    assert done.report["added"] == len(events()) - 2


def test_pickled_code_is_not_run(tmp_path: Path, target: str) -> None:
    file = tmp_path / "sessions.db"
    with_layout(f"sqlite:///{file}", "columns")
    asyncio.run(fill(f"sqlite:///{file}", "columns"))
    proof = tmp_path / "proof"
    with sqlite3.connect(file) as connection:
        code = f"cposix\nsystem\n(S'touch {proof}'\ntR.".encode()
        connection.execute("UPDATE events SET actions = ? WHERE session_id = 's2' AND id = 'e1'", (code,))
    connection.close()
    done = run_migration(f"google-adk+{file}", target)
    assert done.status == 4
    assert [problem["location"] for problem in done.report["problems"]] == ["event e1"]
    assert "unpickle" in done.report["problems"][0]["reason"]
    assert not proof.exists()


def test_there_is_no_such_table(tmp_path: Path, target: str) -> None:
    file = tmp_path / "empty.db"
    sqlite3.connect(file).close()
    assert run_migration(f"google-adk+{file}", target).status != 0
    assert target.startswith("redis") or not threads(target)
