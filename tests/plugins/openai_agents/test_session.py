"""`AgentStoresSession` against the OpenAI Agents SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    RunConfig,
    RunContextWrapper,
    Runner,
    function_tool,
)
from agents.memory import Session
from openai import AsyncOpenAI

from agent_stores import ChatMessage, ChatMessageStore, InMemoryChatMessageStore
from agent_stores.backend import Row
from agent_stores.contents import ToolCallContent, ToolResultContent, UsageContent
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    CorruptMessageError,
    OutcomeUnknownError,
    StoreClosedError,
)
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.memory import InMemoryMessageLog
from agent_stores.openai_agents import AgentStoresSession
from agent_stores.retention import Window
from agent_stores.testing.model_server import ModelServer
from tests.plugins.openai_agents.items import ITEMS

pytestmark = pytest.mark.anyio

NO_TRACES = RunConfig(tracing_disabled=True)


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def call(call_id: str) -> Any:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}


def output(call_id: str) -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": "done"}


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@pytest.fixture
async def agent(model_server: ModelServer) -> AsyncIterator[Agent[Any]]:
    """An agent that talks to the local model, and has a tool."""
    async with AsyncOpenAI(base_url=model_server.base_url, api_key="k", max_retries=0) as client:
        model = OpenAIChatCompletionsModel("test-model", openai_client=client)
        yield Agent(
            name="Guide",
            instructions="Be brief.",
            model=model,
            tools=[weather],
            model_settings=ModelSettings(parallel_tool_calls=True),
        )


async def test_it_is_a_session(log: MessageLog) -> None:
    session: Session = AgentStoresSession("s", log)
    assert isinstance(session, Session)
    assert session.session_id == "s"
    assert bool(session)
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.add_items([])
    await session.clear_session()


async def test_items_are_kept_as_they_are(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    items = list(ITEMS.values())
    await session.add_items(items[:5])
    await session.add_items(items[5:])
    assert await session.get_items() == items
    again = AgentStoresSession("s", log)
    assert await again.get_items() == items
    assert await AgentStoresSession("other", log).get_items() == []
    for item in reversed(items):
        assert await session.pop_item() == item
    assert await session.get_items() == []


async def test_limits_are_exact(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    items = [user("1"), call("a"), call("b"), output("a"), output("b"), user("2"), call("c")]
    await session.add_items(items)
    for limit in range(9):
        assert await session.get_items(limit) == items[max(0, len(items) - limit) :]
    assert await session.get_items(limit=-1) == []


async def test_settings(log: MessageLog) -> None:
    settings = pytest.importorskip("agents.memory", exc_type=ImportError)
    if not hasattr(settings, "SessionSettings"):
        assert AgentStoresSession("s", log, session_settings={"limit": 2}).session_settings is None
        return
    session = AgentStoresSession("s", log, session_settings=settings.SessionSettings(limit=2))
    await session.add_items([user(str(n)) for n in range(5)])
    assert await session.get_items() == [user("3"), user("4")]
    assert len(await session.get_items(4)) == 4
    assert AgentStoresSession("s", log, session_settings={"limit": 3}).session_settings.limit == 3  # type: ignore[union-attr]
    assert len(await AgentStoresSession("s", log).get_items()) == 5


async def test_calls_without_results_stay(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    items = [call("a"), user("hurry"), call("b"), output("b"), output("a"), output("x")]
    await session.add_items(items)
    assert await session.get_items() == items


async def test_two_items_with_the_same_words_are_two(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    no_id: Any = {**ITEMS["output message"], "id": "__fake_id__"}
    await session.add_items([user("yes"), no_id])
    await session.add_items([user("yes"), no_id.copy()])
    assert len(await session.get_items()) == 4


async def test_items_with_ids_are_added_once(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    first = {**ITEMS["function call"], "status": "in_progress"}
    await session.add_items(cast("Any", [first]))
    await session.add_items(cast("Any", [dict(first), ITEMS["function call"]]))
    assert await session.get_items() == [first, ITEMS["function call"]]
    assert await session.pop_item() == ITEMS["function call"]
    await session.add_items([ITEMS["function call"]])
    assert len(await session.get_items()) == 2


class Unlucky(InMemoryMessageLog):
    """A log that stores what it is given, and then says that it does not know."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def append(self, *args: Any, **options: Any) -> int:
        position = await super().append(*args, **options)
        if self.failures:
            self.failures -= 1
            raise OutcomeUnknownError("the connection was lost")
        return position


async def test_a_retried_call_adds_nothing_twice() -> None:
    session = AgentStoresSession("s", Unlucky(2))
    turn = [user("pay"), call("a"), output("a")]
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            await session.add_items(turn)
    await session.add_items(turn)
    assert await session.get_items() == turn
    await session.add_items([user("pay"), call("b"), output("b")])
    assert len(await session.get_items()) == 6


async def test_a_retried_call_of_a_function_made_store() -> None:
    log = Unlucky(1)
    session = AgentStoresSession("s", lambda thread_id: ChatMessageStore(log, thread_id=thread_id))
    turn = [user("pay")]
    with pytest.raises(OutcomeUnknownError):
        await session.add_items(turn)
    await session.add_items(turn)
    assert await session.get_items() == turn


async def test_clear(log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    await session.add_items([ITEMS["function call"]])
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items([ITEMS["function call"]])
    assert len(await session.get_items()) == 1


async def test_what_another_framework_wrote_is_popped_item_by_item(log: MessageLog) -> None:
    store = ChatMessageStore(log, thread_id="s")
    await store.add_messages(
        [
            ChatMessage("user", "hello", message_id="u"),
            ChatMessage(
                "assistant",
                contents=["one moment", ToolCallContent("a", "f", "{}"), ToolCallContent("b", "f", "{}")],
                message_id="m",
            ),
            ChatMessage("tool", contents=[ToolResultContent("a", "x"), ToolResultContent("b", "y")]),
        ]
    )
    session = AgentStoresSession("s", log)
    items = await session.get_items()
    assert [item.get("type", item.get("role")) for item in items] == [
        "user",
        "assistant",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
    ]
    assert await session.get_items(3) == items[-3:]
    for left in range(len(items), 0, -1):
        assert await session.pop_item() == items[left - 1]
        assert await session.get_items() == items[: left - 1]
    assert await session.pop_item() is None


async def test_what_has_no_item_is_not_popped(log: MessageLog) -> None:
    store = ChatMessageStore(log, thread_id="s")
    await store.add_messages([ChatMessage("user", "hello")])
    await store.add_messages([ChatMessage("assistant", contents=[UsageContent(total_tokens=1)])])
    session = AgentStoresSession("s", log)
    assert await session.get_items(1) == [user("hello")]
    assert await session.pop_item() == user("hello")
    assert await session.pop_item() is None
    assert await store.count() == 1


async def test_pops_at_once_share_the_items(tmp_path: Path) -> None:
    sessions = [AgentStoresSession("s", str(tmp_path / "chat.db")) for _ in range(4)]
    await sessions[0].add_items([user(str(n)) for n in range(20)])

    async def pop(session: AgentStoresSession) -> list[Any]:
        return [await session.pop_item() for _ in range(5)]

    popped = [item for part in await asyncio.gather(*map(pop, sessions)) for item in part]
    assert sorted(int(item["content"]) for item in popped) == list(range(20))
    for session in sessions:
        await session.aclose()


async def spoil(log: MessageLog, thread_id: str, name: str) -> None:
    """Add a row that cannot be read to a thread."""
    await log.append(ThreadKey(None, thread_id), [Row(name, b'{"v":1,"role":5}')])


async def test_unreadable_items(log: MessageLog, caplog: pytest.LogCaptureFixture) -> None:
    session = AgentStoresSession("s", log)
    await session.add_items([user("1"), user("2")])
    await spoil(log, "s", "bad")
    await spoil(log, "s", "worse")
    assert await session.get_items() == [user("1"), user("2")]
    assert "position 3 of thread 's' cannot be read and is skipped" in caplog.text
    assert await session.get_items(2) == [user("1"), user("2")]
    assert await session.pop_item() == user("2")
    strict = AgentStoresSession("s", log, on_corrupt="raise")
    with pytest.raises(CorruptMessageError, match="position 3"):
        await strict.get_items()
    with pytest.raises(CorruptMessageError):
        await strict.pop_item()


async def test_options(log: MessageLog) -> None:
    session = AgentStoresSession("s", log, tenant="acme", max_messages=3, ttl=60, window=Window(last=2))
    items = [user("0"), call("a"), output("a"), user("1")]
    await session.add_items(items)
    assert await session.get_items() == [user("1")]
    assert await session.get_items(9) == items[1:]
    assert (await session.store.stats()).expires_at is not None
    assert await AgentStoresSession("s", log).get_items() == []
    with pytest.raises(ArgumentError, match="dangling_calls must be 'keep' here, got 'drop'"):
        AgentStoresSession("s", log, dangling_calls="drop")
    with pytest.raises(ArgumentTypeError, match=r"must be one of .*, got 'codec'"):
        AgentStoresSession("s", log, codec=None)  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="max_messages must be a non-negative int or None, got -1"):
        AgentStoresSession("s", log, max_messages=-1)
    with pytest.raises(ArgumentError, match="session_id must be a non-empty str"):
        AgentStoresSession("", log)
    with pytest.raises(ArgumentTypeError, match="source must be a URL"):
        AgentStoresSession("s", 5)  # type: ignore[arg-type]


async def test_functions_that_make_stores() -> None:
    made = []

    def make(thread_id: str) -> InMemoryChatMessageStore:
        made.append(thread_id)
        return InMemoryChatMessageStore(thread_id=thread_id, max_messages=2)

    session = AgentStoresSession("s", make)
    await session.add_items([user(str(n)) for n in range(4)])
    assert await session.get_items() == [user("2"), user("3")]
    assert await session.get_items(1) == [user("3")]
    assert made == ["s"]
    with pytest.raises(ArgumentError, match="ttl must be given to the stores"):
        AgentStoresSession("s", make, ttl=5)
    pooled = AgentStoresSession("s", lambda _: InMemoryChatMessageStore(thread_id="default"))
    with pytest.raises(ArgumentError, match="must return a store of thread 's', got one of 'default'"):
        await pooled.get_items()
    nothing = AgentStoresSession("s", lambda _: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ArgumentTypeError, match="must return a ChatMessageStore, got NoneType"):
        await nothing.get_items()


async def test_closing(tmp_path: Path, log: MessageLog) -> None:
    async with AgentStoresSession("s", str(tmp_path / "own.db")) as session:
        await session.add_items([user("1")])
        assert await session.get_items(1) == [user("1")]
    with pytest.raises(StoreClosedError):
        await session.get_items()
    borrowed = AgentStoresSession("s", log)
    await borrowed.add_items([user("1")])
    await borrowed.aclose()
    assert await log.stats(ThreadKey(None, "s")) is not None


async def test_runs_go_on(agent: Agent[Any], model_server: ModelServer, tmp_path: Path) -> None:
    url = str(tmp_path / "chat.db")
    async with AgentStoresSession("s", url) as session:
        result = await Runner.run(agent, "Hello, my name is Alice", session=session, run_config=NO_TRACES)
        assert result.final_output == "Nice to meet you, Alice!"
        result = await Runner.run(
            agent, "What is the weather in Oslo and Bergen?", session=session, run_config=NO_TRACES
        )
        assert result.final_output == "The tool says: rain in Oslo; rain in Bergen"
    async with AgentStoresSession("s", url) as session:
        result = await Runner.run(agent, "What's my name?", session=session, run_config=NO_TRACES)
        assert result.final_output == "Your name is Alice."
        items = await session.get_items()
        assert [item.get("type", item.get("role")) for item in items] == [
            "user",
            "message",
            "user",
            "function_call",
            "function_call",
            "function_call_output",
            "function_call_output",
            "message",
            "user",
            "message",
        ]
    last = model_server.requests[-1]["messages"]
    assert [message["role"] for message in last].count("tool") == 2


async def test_runs_that_are_streamed(agent: Agent[Any], log: MessageLog) -> None:
    session = AgentStoresSession("s", log)
    for text in ("My name is Bob", "What's my name?"):
        result = Runner.run_streamed(agent, text, session=session, run_config=NO_TRACES)
        async for _ in result.stream_events():
            pass
    assert result.final_output == "Your name is Bob."
    assert len(await session.get_items()) == 4


async def test_a_run_on_what_another_framework_wrote(
    agent: Agent[Any], log: MessageLog, model_server: ModelServer
) -> None:
    await ChatMessageStore(log, thread_id="s").add_messages(
        [
            ChatMessage("user", "My name is Carol"),
            ChatMessage(
                "assistant",
                contents=[
                    "Let me look.",
                    ToolCallContent("a", "weather", {"city": "Oslo"}),
                    ToolCallContent("b", "weather", {"city": "Bergen"}),
                ],
            ),
            ChatMessage("tool", contents=[ToolResultContent("a", "rain"), ToolResultContent("b", "sun")]),
            ChatMessage("assistant", "Rain and sun."),
        ]
    )
    session = AgentStoresSession("s", log)
    result = await Runner.run(agent, "What's my name?", session=session, run_config=NO_TRACES)
    assert result.final_output == "Your name is Carol."
    (assistant, *_) = [m for m in model_server.requests[-1]["messages"] if m.get("tool_calls")]
    assert [c["id"] for c in assistant["tool_calls"]] == ["a", "b"]


async def test_the_runs_context_reaches_classes_that_derive(agent: Agent[Any], log: MessageLog) -> None:
    seen: list[Any] = []

    class Watching(AgentStoresSession):
        async def add_items(self, items: Any, *, wrapper: RunContextWrapper[Any] | None = None) -> None:
            seen.append(wrapper)
            await super().add_items(items, wrapper=wrapper)

    session = Watching("s", log)
    await Runner.run(agent, "Hello", session=session, run_config=NO_TRACES, context={"who": "me"})
    assert seen
    import agents.memory.session as module

    if hasattr(module, "_session_accepts_wrapper"):
        assert all(wrapper.context == {"who": "me"} for wrapper in seen)
