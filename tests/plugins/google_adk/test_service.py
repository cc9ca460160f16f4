"""`AgentStoresSessionService`, and ADK's own services under the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.adk.sessions.session import Session
from google.adk.sessions.sqlite_session_service import SqliteSessionService as TheirSqliteSessionService
from google.genai import types
from pydantic import Field
from sqlalchemy.ext.asyncio import create_async_engine

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import (
    DataContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
)
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError
from agent_stores.google_adk import AgentStoresSessionService, SqliteSessionService
from agent_stores.google_adk import DatabaseSessionService as OurDatabaseSessionService
from agent_stores.google_adk import InMemorySessionService as OurInMemorySessionService
from agent_stores.log import MessageLog
from tests.plugins.conftest import PNG
from tests.plugins.signatures import check_arguments

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

NAMES: Any = {"app_name": "app", "user_id": "u"}
HERE: Any = {**NAMES, "session_id": "s"}


@pytest.fixture(params=["ours, memory", "ours, sqlite", "InMemorySessionService", "DatabaseSessionService"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BaseSessionService]:
    made: Any
    if request.param == "InMemorySessionService":
        yield InMemorySessionService()
        return
    if request.param == "DatabaseSessionService":
        made = DatabaseSessionService(f"sqlite+aiosqlite:///{tmp_path}/theirs.db")
    else:
        made = AgentStoresSessionService("memory:" if "memory" in request.param else tmp_path / "ours.db")
    yield made
    await made.close()


def said(text: str, author: str = "user", **fields: Any) -> Event:
    role = "user" if author == "user" else "model"
    content = types.Content(role=role, parts=[types.Part(text=text)])
    return Event(author=author, content=content, invocation_id="i", **fields)


def changed(**delta: Any) -> Event:
    return Event(
        author="agent",
        invocation_id="i",
        actions=EventActions(state_delta={key.replace("__", ":"): value for key, value in delta.items()}),
    )


def texts(session: Session | None) -> list[str | None]:
    assert session is not None
    return [one.content.parts[0].text for one in session.events if one.content and one.content.parts]


# -- the same for ADK's own services ------------------------------------------------------------------------


async def test_sessions(service: BaseSessionService) -> None:
    made = await service.create_session(**HERE, state={"a": 1, "app:b": 2, "user:c": None, "temp:d": 4})
    assert made.state == {"a": 1, "app:b": 2, "user:c": None}
    assert (made.id, made.app_name, made.user_id, made.events) == ("s", "app", "u", [])
    assert made.last_update_time > 0
    assert await service.get_session(**HERE) == made
    with pytest.raises(AlreadyExistsError):
        await service.create_session(**HERE)
    other = await service.create_session(**NAMES)
    assert other.id not in ("", "s")
    assert other.state == {"app:b": 2, "user:c": None}
    assert await service.get_session(**NAMES, session_id="x") is None
    assert await service.get_session(app_name="app", user_id="v", session_id="s") is None
    await service.delete_session(**HERE)
    await service.delete_session(**HERE)
    assert await service.get_session(**HERE) is None
    assert await service.get_user_state(**NAMES) == {"c": None}


async def test_state(service: BaseSessionService) -> None:
    session = await service.create_session(**HERE, state={"a": 1})
    event = changed(a=2, b={"x": [1, None]}, app__c="app", user__d="user", temp__e="gone")
    await service.append_event(session, event)
    assert session.state["temp:e"] == "gone"
    assert "temp:e" not in event.actions.state_delta
    wanted = {"a": 2, "b": {"x": [1, None]}, "app:c": "app", "user:d": "user"}
    found = await service.get_session(**HERE)
    assert found is not None
    assert found.state == wanted
    await service.append_event(found, changed(a=None))
    assert (await service.get_session(**HERE)).state == {**wanted, "a": None}  # type: ignore[union-attr]
    another = await service.create_session(app_name="app", user_id="v", session_id="s")
    assert another.state == {"app:c": "app"}
    assert await service.get_user_state(**NAMES) == {"d": "user"}
    assert await service.get_user_state(app_name="app", user_id="v") == {}


async def test_events_come_back_exactly(service: BaseSessionService) -> None:
    session = await service.create_session(**HERE)
    given = unusual_events()
    for event in given:
        await service.append_event(session, event)
    found = await service.get_session(**HERE)
    assert found is not None
    assert found.events == given
    assert session.events == given
    assert found.last_update_time == pytest.approx(given[-1].timestamp, abs=1e-6)


async def test_partial_events_are_not_stored(service: BaseSessionService) -> None:
    session = await service.create_session(**HERE)
    await service.append_event(session, said("par", "agent", partial=True))
    await service.append_event(session, said("partial", "agent"))
    assert texts(await service.get_session(**HERE)) == texts(session) == ["partial"]


async def test_parts_of_a_session(service: BaseSessionService) -> None:
    session = await service.create_session(**HERE)
    for number in range(150):
        await service.append_event(session, said(f"{number}", timestamp=1000.0 + number))

    async def read(**config: Any) -> list[str | None]:
        return texts(await service.get_session(**HERE, config=GetSessionConfig(**config)))

    every = [f"{number}" for number in range(150)]
    assert await read() == every
    assert await read(num_recent_events=0) == []
    assert await read(num_recent_events=1) == ["149"]
    assert await read(num_recent_events=100) == every[-100:]
    assert await read(num_recent_events=999) == every
    assert await read(after_timestamp=1070.0) == every[70:]
    assert await read(after_timestamp=1010.0) == every[10:]
    assert await read(after_timestamp=1010.0, num_recent_events=3) == every[-3:]
    assert await read(after_timestamp=9999.0) == []


async def test_listing(service: BaseSessionService) -> None:
    for number, user in enumerate(["u", "v", "u/v", "u"]):
        session = await service.create_session(
            app_name="app", user_id=user, session_id=f"s{number}", state={"n": number, "user:w": user}
        )
        await service.append_event(session, said("x", timestamp=5000.0 - number))
    await service.create_session(app_name="app/u", user_id="v", session_id="s")
    listed = (await service.list_sessions(app_name="app")).sessions
    assert [(one.user_id, one.id, one.state["n"]) for one in listed] == [
        *(("u", "s3", 3), ("u/v", "s2", 2), ("v", "s1", 1), ("u", "s0", 0)),
    ]
    assert [one.state["user:w"] for one in listed] == ["u", "u/v", "v", "u"]
    assert all(one.events == [] for one in listed)
    listed = (await service.list_sessions(app_name="app", user_id="u")).sessions
    assert [one.id for one in listed] == ["s3", "s0"]
    assert (await service.list_sessions(app_name="none")).sessions == []


async def test_a_session_that_is_gone(service: BaseSessionService) -> None:
    session = await service.create_session(**HERE)
    await service.delete_session(**HERE)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, said("x"))
    session = await service.create_session(**HERE)
    await service.append_event(session, said("x"))
    await service.delete_session(**HERE)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, said("y"))


async def test_parallel_agents_share_a_session(service: BaseSessionService) -> None:
    session = await service.create_session(**HERE)
    await asyncio.gather(*(service.append_event(session, said(f"{n}", f"a{n}")) for n in range(8)))
    assert texts(await service.get_session(**HERE)) == texts(session)
    assert len(session.events) == 8


# -- ours, and what only persistent services do -------------------------------------------------------------


@pytest.mark.parametrize("service", ["ours, memory", "ours, sqlite", "DatabaseSessionService"], indirect=True)
async def test_two_writers(service: BaseSessionService) -> None:
    await service.create_session(**HERE)
    first, second = await service.get_session(**HERE), await service.get_session(**HERE)
    assert first is not None
    assert second is not None
    now = first.last_update_time + 1
    await service.append_event(first, said("first", timestamp=now))
    with pytest.raises(StaleSessionError):
        await service.append_event(second, said("second", timestamp=now + 1))
    second = await service.get_session(**HERE)
    assert second is not None
    await service.append_event(second, said("second", timestamp=now + 2))
    assert texts(await service.get_session(**HERE)) == ["first", "second"]


async def test_time_stamps_do_not_matter(log: MessageLog) -> None:
    service = AgentStoresSessionService(log)
    await service.create_session(**HERE)
    first, second = await service.get_session(**HERE), await service.get_session(**HERE)
    assert first is not None
    assert second is not None
    for number in range(3):  # equal time stamps, and decreasing ones
        await service.append_event(first, said(f"{number}", timestamp=100.0))
    await service.append_event(first, said("earlier", timestamp=1.0))
    with pytest.raises(StaleSessionError):
        await service.append_event(second, said("x", timestamp=100.0))
    assert texts(await service.get_session(**HERE)) == ["0", "1", "2", "earlier"]


async def test_two_processes_race(log: MessageLog) -> None:
    services = [AgentStoresSessionService(log) for _ in range(6)]
    await services[0].create_session(**HERE)
    sessions: list[Any] = [await service.get_session(**HERE) for service in services]
    outcomes = await asyncio.gather(
        *(
            service.append_event(session, said(f"{number}"))
            for number, (service, session) in enumerate(zip(services, sessions, strict=True))
        ),
        return_exceptions=True,
    )
    won = [one for one in outcomes if isinstance(one, Event)]
    assert len(won) == 1
    assert sum(isinstance(one, StaleSessionError) for one in outcomes) == 5
    assert texts(await services[0].get_session(**HERE)) == texts(
        Session(id="", app_name="", user_id="", events=won)
    )


async def test_sessions_that_were_not_loaded_here(log: MessageLog) -> None:
    service = AgentStoresSessionService(log)
    session = await service.create_session(**HERE)
    await service.append_event(session, said("1"))
    copied = Session.model_validate(session.model_dump())
    await service.append_event(copied, said("2"))
    with pytest.raises(StaleSessionError):
        await service.append_event(Session.model_validate(session.model_dump()), said("3"))


async def test_an_event_is_added_once(log: MessageLog) -> None:
    service = AgentStoresSessionService(log)
    session = await service.create_session(**HERE)
    event = said("1")
    await service.append_event(session, event)
    await service.append_event(session, event)
    assert len(session.events) == 1
    assert texts(await service.get_session(**HERE)) == ["1"]


async def test_a_writer_that_dies_before_it_applies_the_state(
    log: MessageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = AgentStoresSessionService(log)
    session = await service.create_session(**HERE, state={"a": 0})

    async def die(*args: Any) -> None:
        raise KeyError("died")

    with monkeypatch.context() as patched:
        patched.setattr(service, "_apply", die)
        with pytest.raises(KeyError):
            await service.append_event(session, changed(a=1, user__b=2))
    again = AgentStoresSessionService(log)
    for config in (None, GetSessionConfig(num_recent_events=0)):
        found = await again.get_session(**HERE, config=config)
        assert found is not None
        assert found.state == {"a": 1, "user:b": 2}
    assert found is not None
    await again.append_event(found, changed(c=3))
    found = await AgentStoresSessionService(log).get_session(**HERE)
    assert found is not None
    assert found.state == {"a": 1, "user:b": 2, "c": 3}
    assert await again.get_user_state(**NAMES) == {"b": 2}


async def test_listing_reads_no_events(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    service = AgentStoresSessionService(log)
    for number in range(30):
        session = await service.create_session(**NAMES, session_id=f"s{number}")
        await service.append_event(session, said("x"))

    async def rows(*args: Any, **options: Any) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(log.backend, "rows", rows)
    assert len((await service.list_sessions(app_name="app")).sessions) == 30


async def test_other_plug_ins_read_a_session(log: MessageLog) -> None:
    service = AgentStoresSessionService(log)
    session = await service.create_session(**HERE)
    for event in unusual_events():
        await service.append_event(session, event)
    shown = await ChatMessageStore(log, thread_id="app/u/s").list_messages()
    assert [message.role for message in shown][:4] == ["user", "assistant", "tool", "assistant"]
    image = DataContent(PNG, media_type="image/png", filename="a.png")
    assert shown[0].contents == (TextContent("What is it?"), image)
    assert shown[1].contents == (
        ReasoningContent("I think.", protected_data="c2ln"),
        ToolCallContent("c1", "f", {"x": 1, "y": None}),
        ToolCallContent("c2", "f", {}),
    )
    assert shown[2].contents == (
        ToolResultContent("c1", "one"),
        ToolResultContent("c2", "failed", is_error=True),
    )


async def test_others_begin_and_continue_a_session(log: MessageLog) -> None:
    other = ChatMessageStore(log, thread_id="app/u/s")
    calls = [ToolCallContent("c1", "f", '{"x": 1}'), ToolCallContent("c2", "g", "{}")]
    await other.add_messages(
        [
            ChatMessage("system", "Be brief."),
            ChatMessage("user", contents=["Hello", DataContent(PNG, media_type="image/png")]),
            ChatMessage("assistant", contents=calls),
            ChatMessage("tool", contents=[ToolResultContent("c1", "1"), ToolResultContent("c2", {"a": 2})]),
            ChatMessage("assistant", "Done."),
        ]
    )
    service = AgentStoresSessionService(log, agent_name="agent")
    assert await service.get_session(**HERE) is not None
    session = await service.create_session(**HERE, state={"a": 1})
    assert [event.author for event in session.events] == ["user", "agent", "agent", "agent"]
    responses = session.events[2].get_function_responses()
    assert [(one.name, one.response) for one in responses] == [("f", {"result": "1"}), ("g", {"a": 2})]
    assert session.events[1].get_function_calls()[0].args == {"x": 1}
    await service.append_event(session, said("And?"))
    await other.add_messages([ChatMessage("assistant", "Nothing.")])
    with pytest.raises(StaleSessionError):
        await service.append_event(session, said("x"))
    assert texts(await service.get_session(**HERE))[-2:] == ["And?", "Nothing."]
    ids = [[e.id for e in (await service.get_session(**HERE)).events] for _ in range(2)]  # type: ignore[union-attr]
    assert ids[0] == ids[1]


class ScriptedModel(BaseLlm):
    """Says what it was told to, and remembers what it was shown."""

    model: str = "scripted"
    answers: list[types.Content] = Field(default_factory=list)
    shown: list[Any] = Field(default_factory=list)

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        self.shown.append([content.model_copy(deep=True) for content in llm_request.contents])
        yield LlmResponse(content=self.answers.pop(0))


class Crash(BaseException):
    """The end of a process."""


async def test_a_run_that_died_between_call_and_result_goes_on(log: MessageLog) -> None:
    failing = [True]

    def weather(city: str) -> str:
        """The weather in a city."""
        if failing:
            failing.clear()
            raise Crash
        return f"It rains in {city}."

    call = types.Part(function_call=types.FunctionCall(id="c1", name="weather", args={"city": "Oslo"}))
    model = ScriptedModel(
        answers=[
            types.Content(role="model", parts=[call]),
            types.Content(role="model", parts=[types.Part(text="I am here.")]),
        ]
    )

    async def run(text: str) -> list[Event]:
        runner = Runner(
            app_name="app",
            agent=LlmAgent(name="agent", model=model, tools=[weather]),
            session_service=AgentStoresSessionService(log),
        )
        message = types.Content(role="user", parts=[types.Part(text=text)])
        return [event async for event in runner.run_async(user_id="u", session_id="s", new_message=message)]

    await AgentStoresSessionService(log).create_session(**HERE)
    with pytest.raises(Crash):
        await run("Weather?")
    events = await run("Are you there?")
    assert events[-1].content == types.Content(role="model", parts=[types.Part(text="I am here.")])
    shown = await ChatMessageStore(log, thread_id="app/u/s").list_messages()
    assert [message.role for message in shown] == ["user", "assistant", "tool", "user", "assistant"]


async def test_names_are_kept_apart(log: MessageLog) -> None:
    service = AgentStoresSessionService(log)
    names = ["a", "a/b", "a#b", "%2F", "a%", "ü'\""]
    for app in names:
        for user in names:
            await service.create_session(
                app_name=app, user_id=user, session_id="a/b", state={"n": [app, user], "user:m": user}
            )
    for app in names:
        assert len((await service.list_sessions(app_name=app)).sessions) == len(names)
        for user in names:
            found = await service.get_session(app_name=app, user_id=user, session_id="a/b")
            assert found is not None
            assert found.state == {"n": [app, user], "user:m": user}


async def test_only_the_import_changes(tmp_path: Path) -> None:
    async with OurDatabaseSessionService(db_url=f"sqlite+aiosqlite:///{tmp_path}/a.db") as service:
        await service.create_session(**HERE)
    async with SqliteSessionService(f"{tmp_path}/a.db") as same:
        assert await same.get_session(**HERE) is not None
    assert await OurInMemorySessionService().get_session(**HERE) is None
    with pytest.raises(ArgumentError, match="db_url must be a URL"):
        OurDatabaseSessionService("a.db")


async def test_an_engine(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    async with OurDatabaseSessionService(db_engine=engine) as service:
        await service.create_session(**HERE)
    async with OurDatabaseSessionService(db_engine=engine) as again:
        assert await again.get_session(**HERE) is not None
    for wrong in ({}, {"db_url": "sqlite://", "db_engine": engine}):
        with pytest.raises(ArgumentError, match="one of db_url and db_engine must be given"):
            OurDatabaseSessionService(**wrong)  # type: ignore[arg-type]
    await engine.dispose()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (DatabaseSessionService, OurDatabaseSessionService),
        (TheirSqliteSessionService, SqliteSessionService),
        (InMemorySessionService, OurInMemorySessionService),
    ],
)
def test_they_are_made_with_the_arguments_of_adk_s(theirs: Any, ours: Any) -> None:
    check_arguments(theirs, ours)


async def test_options_and_closing(log: MessageLog) -> None:
    with pytest.raises(ArgumentTypeError, match="max_message"):
        AgentStoresSessionService(log, max_message=3)  # type: ignore[call-arg]
    service = AgentStoresSessionService(log, max_messages=2, ttl=60)
    with pytest.raises(ArgumentError):
        await service.create_session(**HERE, state={"a": "x" * 70_000})
    session = await service.create_session(**HERE)
    for number in range(5):
        await service.append_event(session, said(f"{number}"))
    assert texts(await service.get_session(**HERE)) == ["3", "4"]
    assert (await ChatMessageStore(log, thread_id="app/u/s").stats()).expires_at is not None
    async with AgentStoresSessionService("memory:") as closed:
        pass
    with pytest.raises(StoreClosedError):
        await closed.get_session(**HERE)


def unusual_events() -> list[Event]:
    part, call, answer = types.Part, types.FunctionCall, types.FunctionResponse
    image = types.Blob(data=PNG, mime_type="image/png", display_name="a.png")
    return [
        Event(
            author="user",
            invocation_id="i",
            content=types.Content(role="user", parts=[part(text="What is it?"), part(inline_data=image)]),
        ),
        Event(
            author="agent",
            invocation_id="i",
            branch="a.b",
            long_running_tool_ids={"c2"},
            custom_metadata={"k": [1, None, {"x": 1.5}]},
            usage_metadata=types.GenerateContentResponseUsageMetadata(prompt_token_count=3),
            content=types.Content(
                role="model",
                parts=[
                    part(text="I think.", thought=True, thought_signature=b"sig"),
                    part(function_call=call(id="c1", name="f", args={"x": 1, "y": None})),
                    part(function_call=call(id="c2", name="f", args={}), thought_signature=b"\xff\xfe"),
                ],
            ),
        ),
        Event(
            author="agent",
            invocation_id="i",
            content=types.Content(
                role="user",
                parts=[
                    part(function_response=answer(id="c1", name="f", response={"result": "one"})),
                    part(function_response=answer(id="c2", name="f", response={"error": "failed"})),
                ],
            ),
        ),
        Event(
            author="agent",
            invocation_id="i",
            content=types.Content(
                role="model",
                parts=[
                    part(executable_code=types.ExecutableCode(code="1", language=types.Language.PYTHON)),
                    part(file_data=types.FileData(file_uri="gs://a/b.pdf", mime_type="application/pdf")),
                    part(function_call=call(name="no id", args={"a": 1})),
                    part(text=""),
                ],
            ),
        ),
        Event(author="agent", invocation_id="i", error_code="E", error_message="m", turn_complete=True),
        Event(author="agent", invocation_id="i", content=types.Content(parts=[part(text="no role")])),
        Event(author="agent", invocation_id="i", content=types.Content(role="model", parts=[])),
        Event(author="a", invocation_id="i", output={"x": 1}, actions=EventActions(transfer_to_agent="b")),
        Event(author="a", invocation_id="i", actions=EventActions(state_delta={"k": None, "l": {"m": None}})),
    ]
