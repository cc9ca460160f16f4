"""The SDK's compaction over our sessions, while other processes write to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agents import Agent, OpenAIResponsesCompactionSession, RunConfig, Runner
from agents.extensions.memory import EncryptedSession
from agents.items import ModelResponse
from agents.memory import SQLiteSession
from agents.models.interface import Model
from agents.usage import Usage
from cryptography.fernet import Fernet
from openai import AsyncOpenAI
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.backend import Row
from agent_stores.contents import ToolCallContent
from agent_stores.errors import ConflictError
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.openai_agents import AgentStoresSession

pytestmark = pytest.mark.anyio

Meanwhile = Callable[[], Awaitable[Any]]


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def answer(text: str) -> Any:
    return {"role": "assistant", "content": text}


SUMMARY = {"type": "compaction", "id": "cmp_1", "encrypted_content": "c3VtbWFyeQ=="}


class Responses:
    """The part of OpenAI's client that compacts; something else happens while it does."""

    def __init__(self, meanwhile: Meanwhile | None = None) -> None:
        self.meanwhile = meanwhile
        self.seen: list[Any] = []
        self.responses = self

    async def compact(self, **arguments: Any) -> Any:
        self.seen.append(arguments.get("input"))
        if self.meanwhile is not None:
            await self.meanwhile()
        return SimpleNamespace(output=[dict(SUMMARY)], usage=None)


def compacting(session: Any, client: Responses) -> OpenAIResponsesCompactionSession:
    return OpenAIResponsesCompactionSession(
        session.session_id,
        session,
        client=client,  # type: ignore[arg-type]
        should_trigger_compaction=lambda context: len(context["session_items"]) >= 4,
    )


FIRST = [user("1"), answer("one"), user("2"), answer("two")]


async def test_a_compaction_that_is_asked_for(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    await session.add_items(FIRST)
    client = Responses()
    await compacting(session, client).run_compaction({"force": True})
    assert client.seen == [FIRST]
    assert await session.get_items() == [SUMMARY]
    # No reader sees it empty: it was one step.
    assert await AgentStoresSession("s", log).get_items() == [SUMMARY]


async def test_what_another_process_adds_meanwhile_stays(log: MessageLog) -> None:
    session, other = AgentStoresSession("s", log), AgentStoresSession("s", log)
    await session.add_items(FIRST)
    client = Responses(lambda: other.add_items([user("3"), answer("three")]))
    await compacting(session, client).run_compaction({"force": True})
    assert await session.get_items() == [SUMMARY, user("3"), answer("three")]
    # Once more, with what was read before the other's items as the wrapper's cache.
    client.meanwhile = lambda: other.add_items([user("4")])
    await compacting(session, client).run_compaction({"force": True})
    assert client.seen[-1] == [SUMMARY, user("3"), answer("three")]
    assert await session.get_items() == [SUMMARY, user("4")]


@pytest.mark.parametrize("what", ["clear_session", "pop_item"])
async def test_what_another_process_deletes_meanwhile(log: MessageLog, what: str) -> None:
    session, other = AgentStoresSession("s", log), AgentStoresSession("s", log)
    await session.add_items(FIRST)
    client = Responses(getattr(other, what))
    with pytest.raises(ConflictError, match="replaced or deleted the history"):
        await compacting(session, client).run_compaction({"force": True})
    assert await session.get_items() == ([] if what == "clear_session" else FIRST[:-1])


async def test_a_thread_that_was_empty(log: MessageLog) -> None:
    session, other = AgentStoresSession("s", log), AgentStoresSession("s", log)
    client = Responses(lambda: other.add_items([user("1")]))
    await compacting(session, client).run_compaction({"force": True})
    assert await session.get_items() == [SUMMARY, user("1")]


async def test_classes_that_change_the_items(log: MessageLog) -> None:
    """They have to replace them themselves, as with the SDK's own sessions."""

    class Shouting(AgentStoresSession):
        async def get_items(self, limit: int | None = None, **context: Any) -> Any:
            return [{**item, "content": "LOUD"} for item in await super().get_items(limit)]

    session = Shouting("s", log)
    assert await session._get_compaction_snapshot(4) is None
    assert await session._atomic_replace_items([]) is False


class Echo(Model):
    """A model that says what it is told."""

    async def get_response(self, *arguments: Any, **options: Any) -> ModelResponse:
        given = arguments[1] if len(arguments) > 1 else options["input"]
        text = given if isinstance(given, str) else given[-1]["content"]
        said = ResponseOutputMessage(
            id=f"msg_{text}",
            content=[ResponseOutputText(text=f"{text}!", type="output_text", annotations=[])],
            role="assistant",
            status="completed",
            type="message",
        )
        return ModelResponse(output=[said], usage=Usage(), response_id="resp_1")

    def stream_response(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError


def makers(log: MessageLog, tmp_path: Path) -> dict[str, Callable[[], Any]]:
    key = Fernet.generate_key().decode()
    underlying: Any = AgentStoresSession  # the SDK asks for its base class, and takes what has its methods
    return {
        "the SDK's": lambda: SQLiteSession("s", tmp_path / "sdk.db"),
        "ours": lambda: AgentStoresSession("s", log),
        "ours encrypted": lambda: EncryptedSession("s", underlying("s", log), key),
    }


@pytest.mark.parametrize("kind", ["the SDK's", "ours", "ours encrypted"])
@pytest.mark.parametrize("adds", [False, True])
async def test_runs_compact_by_themselves(kind: str, adds: bool, log: MessageLog, tmp_path: Path) -> None:
    make = makers(log, tmp_path)[kind]
    agent = Agent(name="Echo", model=Echo())
    config = RunConfig(tracing_disabled=True)
    session, other = make(), make()
    client = Responses((lambda: other.add_items([user("meanwhile")])) if adds else None)
    wrapped = compacting(session, client)
    for text in ("a", "b"):
        await Runner.run(agent, text, session=wrapped, run_config=config)
    assert len(client.seen) == 1
    found = await make().get_items()
    if adds:  # the summary does not cover it, so the history stays as it is
        assert [item["content"] for item in found if item.get("role") == "user"] == ["a", "b", "meanwhile"]
    else:
        assert found == [SUMMARY]
    await Runner.run(agent, "c", session=wrapped, run_config=config)
    assert user("c") in await make().get_items()


async def test_a_suffix(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    await session.add_items(FIRST)
    snapshot = await session._get_compaction_snapshot(3)
    assert snapshot is not None
    assert (snapshot.items, snapshot.complete) == (FIRST[1:], False)
    assert await snapshot.replace_suffix(3, [SUMMARY]) is False
    assert await snapshot.replace_suffix(1, [SUMMARY]) is True
    assert await session.get_items() == [*FIRST[:2], SUMMARY]
    assert await snapshot.replace_suffix(1, [SUMMARY]) is False
    whole = await session._get_compaction_snapshot(3)
    assert whole is not None
    assert whole.complete


async def test_a_suffix_within_what_another_framework_wrote(log: MessageLog) -> None:
    store = ChatMessageStore(log, thread_id="s")
    calls = [ToolCallContent("a", "f", "{}"), ToolCallContent("b", "f", "{}")]
    await store.add_messages([ChatMessage("assistant", contents=["one moment", *calls])])
    session = AgentStoresSession("s", log)
    items = await session.get_items()
    snapshot = await session._get_compaction_snapshot(2)
    assert snapshot is not None
    assert snapshot.items == items[1:]
    assert await snapshot.replace_suffix(1, [SUMMARY]) is True
    assert await session.get_items() == [*items[:2], SUMMARY]


async def test_what_cannot_be_read_is_not_lost(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    await session.add_items(FIRST[:2])
    await log.append(ThreadKey(None, "s"), [Row("bad", b'{"v":1,"role":5}')])
    await session.add_items(FIRST[2:])
    snapshot = await session._get_compaction_snapshot(9)
    assert snapshot is not None
    assert await snapshot.replace_suffix(0, [SUMMARY]) is False
    assert await session.store.count() == 5


async def test_expired_items_before_a_suffix_are_dropped(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    await session.add_items(FIRST)
    snapshot = await session._get_compaction_snapshot(2, prune_prefix=lambda item: item == FIRST[0])
    assert snapshot is not None
    assert await snapshot.replace_suffix(0, [SUMMARY]) is True
    assert await session.get_items() == [FIRST[1], SUMMARY]


async def test_the_sdks_wrapper_takes_our_sessions_with_a_real_client(log: MessageLog) -> None:
    async with AsyncOpenAI(api_key="k", base_url="http://127.0.0.1:1", max_retries=0) as client:
        wrapped = OpenAIResponsesCompactionSession("s", AgentStoresSession("s", log), client=client)
        await wrapped.add_items(FIRST)
        assert await wrapped.get_items() == FIRST
        with pytest.raises(Exception, match="Connection error"):
            await wrapped.run_compaction({"force": True})
        assert await wrapped.get_items() == FIRST
