"""One suite on the SDK's own sessions and on ours of the same names, and the SDK's documented snippets."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner, SessionSettings
from agents.memory import Session
from cryptography.fernet import Fernet, InvalidToken
from openai import AsyncOpenAI
from sqlalchemy.ext.asyncio import create_async_engine

from agent_stores import open_log
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError
from agent_stores.openai_agents import AgentStoresSession
from agent_stores.redis import RedisMessageLog
from agent_stores.testing.model_server import ModelServer
from tests.plugins.openai_agents.items import ITEMS
from tests.plugins.signatures import check_arguments
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
WHOSE = {"the SDK's": None, "ours": "agent_stores.openai_agents"}
KINDS = ("SQLiteSession", "RedisSession", "RedisSession of a client", "SQLAlchemySession")


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def named(whose: str, name: str) -> Any:
    original = "agents" if name == "SQLiteSession" else "agents.extensions.memory"
    return getattr(import_module(WHOSE[whose] or original), name)


@pytest.fixture(params=WHOSE)
def whose(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=KINDS)
async def make(request: pytest.FixtureRequest, whose: str, tmp_path: Path) -> Any:
    """Makes sessions, each as its documentation makes it."""
    name, _, client = request.param.partition(" of a ")
    kind = named(whose, name)
    made: list[Any] = []
    if name == "RedisSession":
        server: RedisServer = request.getfixturevalue("valkey_server")
        prefix = f"test-{uuid.uuid4().hex}"
    lent = aioredis.Redis.from_url(server.url) if client else None

    def build(session_id: str = "user-123", **options: Any) -> Any:
        if name == "SQLiteSession":
            session = kind(session_id, tmp_path / "conversations.db", **options)
        elif client:
            session = kind(session_id, redis_client=lent, key_prefix=prefix, **options)
        elif name == "RedisSession":
            session = kind.from_url(session_id, url=server.url, key_prefix=prefix, **options)
        else:
            url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
            session = kind.from_url(session_id, url=url, create_tables=True, **options)
        made.append(session)
        return session

    yield build
    for session in made:
        # SQLite's waits, where the others are awaited.
        if hasattr(session, "close") and (closing := await asyncio.to_thread(session.close)) is not None:
            await closing
        if hasattr(session, "engine"):  # the SDK's session does not dispose of it
            await session.engine.dispose()
    if lent is not None:
        await lent.aclose()


async def test_a_session(make: Make) -> None:
    session = make()
    assert isinstance(session, Session)
    assert session.session_id == "user-123"
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.clear_session()
    await session.add_items([])
    items = list(ITEMS.values())
    await session.add_items(items[:3])
    await session.add_items(items[3:])
    assert await session.get_items() == items
    assert await make().get_items() == items
    assert await make("other").get_items() == []
    assert await session.pop_item() == items[-1]
    assert await session.get_items() == items[:-1]
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items([user("again")])
    assert await session.get_items() == [user("again")]


async def test_limits_and_settings(make: Make) -> None:
    session = make(session_settings=SessionSettings(limit=2))
    words = [user(str(n)) for n in range(5)]
    await session.add_items(words)
    assert await session.get_items() == words[-2:]
    for limit in (1, 3, 5, 99):
        assert await session.get_items(limit=limit) == words[-limit:]
    assert await session.get_items(0) == []
    assert await make(session_settings={"limit": 4}).get_items() == words[-4:]
    assert make().session_settings.to_dict() == {"limit": None}
    with pytest.raises((TypeError, ValueError), match="limt"):
        make(session_settings={"limt": 4})


async def test_many_writers(make: Make) -> None:
    sessions = [make() for _ in range(4)]
    await asyncio.gather(*(s.add_items([user(f"{n}a"), user(f"{n}b")]) for n, s in enumerate(sessions)))
    found = [item["content"] for item in await sessions[0].get_items()]
    assert sorted(found) == sorted(f"{n}{half}" for n in range(4) for half in "ab")
    assert all(found[at][0] == found[at + 1][0] for at in range(0, 8, 2))
    popped = [await s.pop_item() for s in sessions]
    assert [item["content"] for item in popped] == found[:3:-1]


async def test_the_text_of_any_language(make: Make) -> None:
    session = make("Zoë/1:{2}")
    await session.add_items([user("naïve 你好 🎈 \u2028")])
    assert (await session.get_items())[0]["content"] == "naïve 你好 🎈 \u2028"


async def test_runs(make: Make, model_server: ModelServer) -> None:
    async with AsyncOpenAI(base_url=model_server.base_url, api_key="k", max_retries=0) as client:
        model = OpenAIChatCompletionsModel("test-model", openai_client=client)
        agent = Agent(name="Assistant", model=model)
        config = RunConfig(tracing_disabled=True)
        await Runner.run(agent, "My name is Alice", session=make(), run_config=config)
        result = await Runner.run(agent, "What's my name?", session=make(), run_config=config)
        assert result.final_output == "Your name is Alice."
        assert len(await make().get_items()) == 4


async def test_closing_and_ping(whose: str, valkey_server: RedisServer) -> None:
    kind = named(whose, "RedisSession")
    session = kind.from_url("s", url=valkey_server.url, key_prefix=f"t-{uuid.uuid4().hex}", ttl=60)
    assert await session.ping() is True
    await session.close()
    await session.close()
    with pytest.raises((RuntimeError, StoreClosedError), match="closed"):
        await session.get_items()
    with pytest.raises((RuntimeError, StoreClosedError), match="closed"):
        await session.ping()
    nobody = kind.from_url("s", url="redis://127.0.0.1:1", redis_kwargs={"socket_timeout": 1})
    assert await nobody.ping() is False
    await nobody.close()


async def test_time_to_live(whose: str, valkey_server: RedisServer) -> None:
    kind = named(whose, "RedisSession")
    prefix = f"t-{uuid.uuid4().hex}"
    session = kind.from_url("s", url=valkey_server.url, key_prefix=prefix, ttl=60)
    await session.add_items([user("hi")])
    async with aioredis.Redis.from_url(valkey_server.url) as client:
        keys = [key async for key in client.scan_iter(f"{prefix}*")]
        assert keys
        for key in keys:
            assert 0 < await client.ttl(key) <= 70  # ours are removed a little later than they expire
    await session.close()


async def test_sqlite_sessions_close_at_once(whose: str, tmp_path: Path) -> None:
    kind = named(whose, "SQLiteSession")
    session = kind("s", tmp_path / "a.db")
    await session.add_items([user("hi")])
    assert await asyncio.to_thread(session.close) is None
    memory = kind("s")
    await memory.add_items([user("hi")])
    assert await kind("s").get_items() == []
    assert await memory.get_items() == [user("hi")]
    await asyncio.to_thread(memory.close)
    await asyncio.to_thread(memory.close)


async def test_tables_of_other_names(whose: str, tmp_path: Path) -> None:
    kind = named(whose, "SQLiteSession")
    one, two = kind("s", tmp_path / "a.db"), kind("s", tmp_path / "a.db", "other_sessions", "other_messages")
    await two.add_items([user("hi")])
    assert await one.get_items() == []
    assert await kind("s", tmp_path / "a.db", messages_table="other_messages").get_items() == [user("hi")]


async def test_an_engine(whose: str, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    session = named(whose, "SQLAlchemySession")("s", engine=engine, create_tables=True, ensure_ascii=False)
    await session.add_items([user("hi")])
    assert await session.get_items() == [user("hi")]
    await engine.dispose()


@pytest.mark.parametrize("below", ["AgentStoresSession", "SQLiteSession", "the SDK's"])
async def test_encryption(whose: str, below: str, tmp_path: Path) -> None:
    kind = named(whose, "EncryptedSession")

    def make(key: str, **options: Any) -> Any:
        if below == "AgentStoresSession":
            underlying: Any = AgentStoresSession("user-123", tmp_path / "a.db")
        else:
            name = "the SDK's" if below == "the SDK's" else "ours"
            underlying = named(name, "SQLiteSession")("user-123", tmp_path / "a.db")
        return kind(
            session_id="user-123", underlying_session=underlying, encryption_key=key, ttl=600, **options
        )

    key, other = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    session = make(key)
    items = [user("1"), user("2"), ITEMS["function call"], ITEMS["output message"]]
    await session.add_items(items)
    assert await session.get_items() == items
    assert await session.get_items(2) == items[-2:]
    sealed = await session.underlying_session.get_items()
    assert all(item.keys() == {"__enc__", "v", "kid", "payload"} for item in sealed)
    assert await make(key, max_scan_items=50).get_items() == items
    assert await make(other).get_items() == []
    assert await session.pop_item() == items[-1]
    if whose == "ours" or below == "the SDK's":  # a wrong key deletes nothing
        with pytest.raises(InvalidToken):
            await make(other).pop_item()
        assert await session.get_items() == items[:-1]
    await session.clear_session()
    assert await session.underlying_session.get_items() == []
    assert await session.pop_item() is None


async def test_expired_items_are_drained(tmp_path: Path) -> None:
    kind = named("ours", "EncryptedSession")
    session = kind("s", AgentStoresSession("s", tmp_path / "a.db"), "a key of many bits", ttl=-1)
    await session.add_items([user("old"), user("older")])
    assert await session.get_items() == []
    assert await session.pop_item() is None
    assert await session.underlying_session.get_items() == []


async def test_our_sessions_of_a_client_leave_it_open(valkey_server: RedisServer) -> None:
    prefix = f"t-{uuid.uuid4().hex}"
    async with aioredis.Redis.from_url(valkey_server.url) as client:
        session = named("ours", "RedisSession")("s", redis_client=client, key_prefix=prefix)
        await session.add_items([user("hi")])
        await session.close()
        assert await client.ping()
        log = RedisMessageLog(redis_client=client, key_prefix=prefix)
        assert await AgentStoresSession("s", log).get_items() == [user("hi")]


async def test_unknown_settings(tmp_path: Path) -> None:
    log = open_log(tmp_path / "a.db")
    with pytest.raises(ArgumentError, match="session_settings must be among limit, got 'limt'"):
        AgentStoresSession("s", log, session_settings={"limt": 3})
    with pytest.raises(ArgumentTypeError, match="SessionSettings or a mapping, got int"):
        AgentStoresSession("s", log, session_settings=3)  # type: ignore[arg-type]
    session = AgentStoresSession("s", log)
    assert await session.ping() is True
    await session.close()
    with pytest.raises(StoreClosedError):
        await session.ping()
    await log.aclose()


@pytest.mark.parametrize(
    "name",
    [
        *("SQLiteSession", "RedisSession", "RedisSession.from_url"),
        *("SQLAlchemySession", "SQLAlchemySession.from_url", "EncryptedSession"),
    ],
)
def test_they_are_made_with_the_arguments_of_the_sdk_s(name: str) -> None:
    kind, _, method = name.partition(".")
    theirs, ours = named("the SDK's", kind), named("ours", kind)
    check_arguments(*(getattr(one, method) if method else one for one in (theirs, ours)))
