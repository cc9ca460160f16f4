"""`AgentStoresHistoryProvider` in agents of Agent Framework 1.x."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from agent_framework import (
    Agent,
    AgentSession,
    Content,
    ContextProvider,
    InMemoryHistoryProvider,
    Message,
    SessionContext,
    tool,
)
from agent_framework.openai import OpenAIChatCompletionClient
from openai import AsyncOpenAI

from agent_stores import (
    ChatMessage,
    DatabaseChatMessageStore,
    InMemoryMessageLog,
    RedisChatMessageStore,
    Window,
    open_log,
)
from agent_stores.agent_framework import AgentStoresHistoryProvider
from agent_stores.backend import Row
from agent_stores.contents import ToolCallContent, ToolResultContent
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    OutcomeUnknownError,
    StoreClosedError,
    UnansweredToolCallError,
)
from agent_stores.log import ThreadKey
from agent_stores.store import ChatMessageStore
from agent_stores.testing.model_server import ModelServer
from tests.plugins.agent_framework.kinds import dump, messages

pytestmark = pytest.mark.anyio


@pytest.fixture
async def model(model_server: ModelServer) -> AsyncIterator[Any]:
    async with AsyncOpenAI(api_key="k", base_url=model_server.base_url) as openai:
        yield OpenAIChatCompletionClient(model="test-model", async_client=openai)


def agent_of(model: Any, *providers: ContextProvider, **options: Any) -> Any:
    return Agent(client=model, instructions="Be brief.", context_providers=list(providers), **options)


def user(words: str, **fields: Any) -> Message:
    return Message("user", [words], **fields)


def texts(found: Sequence[Message]) -> list[str]:
    return [f"{message.role}: {message.text}" for message in found]


def new_id() -> str:
    return f"session-{uuid.uuid4().hex}"


@tool(approval_mode="never_require")
def weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 11 degrees"


async def test_a_conversation(url: str, model: Any) -> None:
    async with AgentStoresHistoryProvider(url) as history:
        agent = agent_of(model, history)
        session = agent.create_session(session_id=new_id())
        await agent.run("Hello, my name is Alice", session=session)
        assert (await agent.run("What's my name?", session=session)).text == "Your name is Alice."
        other = agent.create_session(session_id=new_id())
        assert (await agent.run("What's my name?", session=other)).text == "I don't know your name yet."
        found = await history.get_messages(session.session_id)
        assert texts(found) == [
            "user: Hello, my name is Alice",
            "assistant: Nice to meet you, Alice!",
            "user: What's my name?",
            "assistant: Your name is Alice.",
        ]


async def test_streaming(url: str, model: Any) -> None:
    async with AgentStoresHistoryProvider(url) as history:
        agent = agent_of(model, history)
        session = agent.create_session(session_id=new_id())
        async for _ in agent.run("My name is Alice", session=session, stream=True):
            pass
        async for _ in agent.run("My name is Alice", session=session, stream=True):
            pass
        assert (
            texts(await history.get_messages(session.session_id))
            == [
                "user: My name is Alice",
                "assistant: Nice to meet you, Alice!",
            ]
            * 2
        )


NEXT_PROCESS = """
import asyncio, json, sys
from agent_framework import Agent, AgentSession
from agent_framework.openai import OpenAIChatCompletionClient
from agent_stores.agent_framework import AgentStoresHistoryProvider

async def main():
    url, base_url, state = sys.argv[1:]
    async with AgentStoresHistoryProvider(url, max_messages=100) as history:
        client = OpenAIChatCompletionClient(model="test-model", api_key="k", base_url=base_url)
        agent = Agent(client=client, context_providers=[history])
        session = AgentSession.from_dict(json.loads(state))
        print((await agent.run("What's my name?", session=session)).text)
        print(len(await history.get_messages(session.session_id)))

asyncio.run(main())
"""


async def test_a_session_goes_on_in_another_process(url: str, model: Any, model_server: ModelServer) -> None:
    async with AgentStoresHistoryProvider(url, max_messages=100) as history:
        agent = agent_of(model, history)
        session = agent.create_session(session_id=new_id())
        await agent.run("My name is Alice", session=session)
        state = json.dumps(session.to_dict())
    assert "Alice" not in state
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", NEXT_PROCESS, url, model_server.base_url, state],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split("\n")[:2] == ["Your name is Alice.", "4"], done.stderr
    assert "planted" not in state


async def test_every_kind_of_message(url: str) -> None:
    given = messages()
    session_id = new_id()
    async with AgentStoresHistoryProvider(url) as history:
        await history.save_messages(session_id, given)
    async with AgentStoresHistoryProvider(url) as history:
        read = await history.get_messages(session_id)
    # The ids that the messages had not were given to them when they were saved.
    assert [dump(message) for message in read] == [dump(message) for message in given]


async def test_equal_words_are_messages_of_their_own(url: str, model: Any) -> None:
    async with AgentStoresHistoryProvider(url) as history:
        session_id = new_id()
        for _ in range(10):
            await history.save_messages(session_id, [user("ok")])
        assert await history.store(session_id).count() == 10
        agent = agent_of(model, history)
        session = agent.create_session(session_id=new_id())
        for _ in range(5):
            await agent.run("ok", session=session)
        assert await history.store(session.session_id).count() == 10


async def test_a_turn_tried_again(url: str) -> None:
    async with AgentStoresHistoryProvider(url) as history:
        session_id = new_id()
        first = [user("ok"), Message("assistant", ["fine"])]
        second = [user("ok"), Message("assistant", ["fine"])]
        for turn in (first, first, second, first, second):
            await history.save_messages(session_id, turn)
        found = await history.get_messages(session_id)
        assert [message.message_id for message in found] == [m.message_id for m in (*first, *second)]
        # Late, from another process, after most of it was trimmed.
        again = [Message.from_dict(message.to_dict()) for message in first]
        await history.save_messages(session_id, again)
        assert await history.store(session_id).count() == 4
    async with AgentStoresHistoryProvider(url, max_messages=2) as small:
        turn = [user("3"), Message("assistant", ["three"])]
        await small.save_messages(session_id, turn)
        await small.save_messages(session_id, first)
        await small.save_messages(session_id, turn)
        assert texts(await small.get_messages(session_id)) == ["user: 3", "assistant: three"]


async def test_ids_that_messages_have(url: str) -> None:
    async with AgentStoresHistoryProvider(url) as history:
        session_id = new_id()
        await history.save_messages(session_id, [user("a", message_id="m1")])
        await history.save_messages(session_id, [user("a", message_id="m1"), user("b", message_id="")])
        found = await history.get_messages(session_id)
        assert texts(found) == ["user: a", "user: b"]
        assert found[0].message_id == "m1"
        assert found[1].message_id
        same = user("again")
        await history.save_messages(session_id, [same, same])
        await history.save_messages(session_id, [same, same])
        assert len(await history.get_messages(session_id)) == 4


async def test_a_transcript_saved_again(url: str) -> None:
    async with AgentStoresHistoryProvider(url) as history:
        session_id = new_id()
        await history.store(session_id).add_messages(
            [ChatMessage("user", "hi"), ChatMessage("assistant", "hello", message_id="of another framework")]
        )
        for _ in range(3):
            found = await history.get_messages(session_id)
            await history.save_messages(session_id, [*found, user("more")])
        assert texts(await history.get_messages(session_id)) == [
            "user: hi",
            "assistant: hello",
            *["user: more"] * 3,
        ]


async def test_a_service_that_gives_an_id_twice(url: str) -> None:
    """Ollama draws a number below 999."""
    async with AgentStoresHistoryProvider(url) as history:
        session_id = new_id()
        turns = [
            [user(words), Message("assistant", [f"{words}!"], message_id="chatcmpl-7")]
            for words in ("one", "two")
        ]
        again = [
            Message.from_dict(message.to_dict()) for turn in turns for message in turn if message.message_id
        ]
        for turn in (*turns, *turns, again):
            await history.save_messages(session_id, turn)
        found = await history.get_messages(session_id)
        assert texts(found) == ["user: one", "assistant: one!", "user: two", "assistant: two!"]
        assert [dump(m) for m in found] == [dump(m) for turn in turns for m in turn]
        await history.save_messages(session_id, found)
        assert await history.store(session_id).count() == 4
        copy = new_id()
        await history.save_messages(copy, found)
        assert [dump(m) for m in await history.get_messages(copy)] == [dump(m) for m in found]


async def test_one_object_in_several_runs(url: str, model: Any) -> None:
    async with (
        AgentStoresHistoryProvider(url) as history,
        AgentStoresHistoryProvider(url, source_id="audit", load_messages=False, tenant="audit") as audit,
    ):
        agent = agent_of(model, history, audit)
        session = agent.create_session(session_id=new_id())
        same = user("repeat: go on")
        for _ in range(3):
            await agent.run(same, session=session)
        wanted = ["user: repeat: go on", "assistant: go on"] * 3
        assert texts(await history.get_messages(session.session_id)) == wanted
        assert texts(await audit.get_messages(session.session_id)) == wanted


class Flaky(InMemoryMessageLog):
    """Loses the answer to one append, after or before it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: str | None = None
        self.reads = 0

    async def append(self, key: ThreadKey, rows: Sequence[Row], **options: Any) -> int:
        fail, self.fail = self.fail, None
        position = -1 if fail == "before" else await super().append(key, rows, **options)
        if fail:
            raise OutcomeUnknownError("the connection was lost")
        return position

    async def read(self, *args: Any, **options: Any) -> Any:
        self.reads += 1
        return await super().read(*args, **options)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_run_that_failed_to_store(when: str, model: Any) -> None:
    log = Flaky()
    history = AgentStoresHistoryProvider(log)
    agent = agent_of(model, history)
    session = agent.create_session()
    given = user("repeat: hi")
    log.fail = when
    with pytest.raises(OutcomeUnknownError):
        await agent.run(given, session=session)
    await agent.run(given, session=session)
    found = texts(await history.get_messages(session.session_id))
    assert found.count("user: repeat: hi") == 1
    assert found.count("assistant: hi") == (1 if when == "before" else 2)  # the model was asked twice


async def test_the_end_of_one_run_twice() -> None:
    history = AgentStoresHistoryProvider(InMemoryMessageLog())
    session = AgentSession()
    same = user("again")

    async def end(context: SessionContext) -> None:
        await history.after_run(agent=None, session=session, context=context, state={})  # type: ignore[arg-type]

    contexts = [SessionContext(session_id=session.session_id, input_messages=[same]) for _ in range(3)]
    for context in (*contexts, *contexts):
        await end(context)
    assert await history.store(session.session_id).count() == 3


async def test_saving_does_not_read() -> None:
    log = Flaky()
    history = AgentStoresHistoryProvider(log)
    for number in range(5):
        await history.save_messages("s", [user(str(number))])
    assert log.reads == 0


async def test_what_is_stored(model: Any) -> None:
    class Facts(ContextProvider):
        async def before_run(self, *, context: SessionContext, **_: Any) -> None:
            context.extend_messages(self, [user(f"fact of {self.source_id}")])

    async def stored(**options: Any) -> list[str]:
        history = AgentStoresHistoryProvider(InMemoryMessageLog(), load_messages=False, **options)
        agent = agent_of(model, Facts("one"), Facts("two"), InMemoryHistoryProvider(), history)
        session = agent.create_session()
        await agent.run("repeat: hi", session=session)
        await agent.run("repeat: ho", session=session)
        return texts(await history.get_messages(session.session_id))

    inputs, outputs = ["user: repeat: hi", "user: repeat: ho"], ["assistant: hi", "assistant: ho"]
    one, two = "user: fact of one", "user: fact of two"
    assert await stored() == [inputs[0], outputs[0], inputs[1], outputs[1]]
    assert await stored(store_inputs=False) == outputs
    assert await stored(store_outputs=False) == inputs
    # What the other history loads is context, too; of that, only the answer was not stored as input.
    assert await stored(store_outputs=False, store_context_messages=True) == [
        one,
        two,
        inputs[0],
        one,
        two,
        outputs[0],
        inputs[1],
    ]
    assert await stored(store_context_messages=True, store_context_from={"two"}, store_inputs=False) == [
        two,
        outputs[0],
        two,
        outputs[1],
    ]


async def test_not_loading(model: Any) -> None:
    log = Flaky()
    history = AgentStoresHistoryProvider(log, load_messages=False)
    agent = agent_of(model, history)
    session = agent.create_session()
    for _ in range(2):
        await agent.run("My name is Alice", session=session)
    assert log.reads == 0
    assert await history.store(session.session_id).count() == 4


@pytest.mark.parametrize("first", ["audit", "loader"])
async def test_storing_what_another_history_loads(first: str, model: Any) -> None:
    audit = AgentStoresHistoryProvider(InMemoryMessageLog(), load_messages=False, store_context_messages=True)
    loader = InMemoryHistoryProvider()
    agent = agent_of(model, *((audit, loader) if first == "audit" else (loader, audit)))
    session = agent.create_session()
    before = [user("old"), Message("assistant", ["old answer"]), user("old")]
    session.state[loader.source_id] = {"messages": before}
    for words in ("repeat: hi", "repeat: hi"):
        await agent.run(words, session=session)
    wanted = [*texts(before), *["user: repeat: hi", "assistant: hi"] * 2]
    assert texts(await audit.get_messages(session.session_id)) == wanted


async def test_tools_and_a_window(url: str, model: Any) -> None:
    async with AgentStoresHistoryProvider(url, window=Window(last=3)) as history:
        agent = agent_of(model, history, tools=[weather])
        session = agent.create_session(session_id=new_id())
        for _ in range(3):
            response = await agent.run("What is the weather in Oslo and Rome?", session=session)
            assert "Oslo: 11 degrees; Rome: 11 degrees" in response.text
        store = history.store(session.session_id)
        found = [item.message async for item in store.iter_messages()]
        assert len(found) == 12
        assert [len(message.tool_calls) for message in found[:4]] == [0, 2, 0, 0]
        assert {call.name for call in found[1].tool_calls} == {"weather"}
        assert [m.role for m in await history.get_messages(session.session_id)] in (
            ["assistant", "tool", "assistant"],
            ["assistant"],
        )


async def test_saving_after_each_call_of_the_service(url: str, model: Any) -> None:
    try:
        agent_of(model, require_per_service_call_history_persistence=True)
    except TypeError:
        return  # a later version's
    async with AgentStoresHistoryProvider(url) as history:
        agent = agent_of(model, history, tools=[weather], require_per_service_call_history_persistence=True)
        session = agent.create_session(session_id=new_id())
        for _ in range(2):
            response = await agent.run("What is the weather in Oslo and Rome?", session=session)
            assert "Oslo: 11 degrees; Rome: 11 degrees" in response.text
        found = [item.message async for item in history.store(session.session_id).iter_messages()]
        assert [message.role for message in found] == ["user", "assistant", "tool", "assistant"] * 2 or [
            message.role for message in found
        ] == ["user", "assistant", "tool", "tool", "assistant"] * 2


async def test_approval(url: str, model: Any) -> None:
    calls = []

    @tool(approval_mode="always_require")
    def weather(city: str) -> str:
        """The weather of a city."""
        calls.append(city)
        return f"{city}: 11 degrees"

    session_id = new_id()
    async with AgentStoresHistoryProvider(url) as history:
        agent = agent_of(model, history, tools=[weather])
        session = agent.create_session(session_id=session_id)
        asked = await agent.run("What is the weather in Oslo?", session=session)
        (request,) = asked.user_input_requests
        assert calls == []
        state = session.to_dict()
    async with AgentStoresHistoryProvider(url) as history:
        agent = agent_of(model, history, tools=[weather])
        session = AgentSession.from_dict(json.loads(json.dumps(state)))
        answer = Message("user", [request.to_function_approval_response(True)])
        assert "Oslo: 11 degrees" in (await agent.run(answer, session=session)).text
        assert calls == ["Oslo"]
        assert (await agent.run("repeat: hi", session=session)).text == "hi"


async def test_calls_without_results() -> None:
    """A run of another framework that died in the middle does not stop this one."""
    log = InMemoryMessageLog()
    await ChatMessageStore(log, thread_id="s").add_messages(
        [
            ChatMessage("user", "weather?"),
            ChatMessage(
                "assistant", contents=[ToolCallContent("a", "weather"), ToolCallContent("b", "weather")]
            ),
            ChatMessage("tool", contents=[ToolResultContent("a", "11")]),
        ]
    )

    async def shown(inputs: list[Message], **options: Any) -> list[list[str]]:
        history = AgentStoresHistoryProvider(log, **options)
        context = SessionContext(session_id="s", input_messages=inputs)
        await history.before_run(agent=None, session=AgentSession(session_id="s"), context=context, state={})
        return [
            [f"{content.type} {content.call_id or ''}".strip() for content in message.contents]
            for message in context.get_messages()
        ]

    calls, a, b = ["function_call a", "function_call b"], ["function_result a"], ["function_result b"]
    assert await shown([user("hi")]) == [["text"], calls, a, b]
    assert await shown([user("hi")], dangling_calls="drop") == [["text"], calls[:1], a]
    assert await shown([user("hi")], dangling_calls="keep") == [["text"], calls, a]
    with pytest.raises(UnansweredToolCallError):
        await shown([user("hi")], dangling_calls="raise")
    result = Message("tool", [Content.from_function_result("b", result="12")])
    for policy in ("synthesize", "drop", "raise"):
        assert await shown([result], dangling_calls=policy) == [["text"], calls, a]
    # By itself, get_messages tells what is stored.
    assert len(await AgentStoresHistoryProvider(log).get_messages("s")) == 3


async def test_sources(url: str) -> None:
    session_id = new_id()
    log = open_log(url)
    kind: Any = DatabaseChatMessageStore if url.startswith("sqlite") else RedisChatMessageStore

    def make(thread_id: str) -> ChatMessageStore[Any]:
        store: ChatMessageStore[Any] = kind(url, thread_id=thread_id, max_messages=50)
        return store

    for source in (url, log, make):
        async with AgentStoresHistoryProvider(source) as history:
            await history.save_messages(session_id, [user("hi")])
        with pytest.raises(StoreClosedError):
            await history.get_messages(session_id)
    assert await ChatMessageStore(log, thread_id=session_id).count() == 3
    await log.aclose()


async def test_arguments(tmp_path: Path) -> None:
    history = AgentStoresHistoryProvider(tmp_path / "chat.db")
    with pytest.raises(ArgumentTypeError, match="session_id must be a non-empty str, got NoneType"):
        await history.get_messages(None)
    with pytest.raises(ArgumentError, match="session_id must be a non-empty str"):
        await history.save_messages("", [user("x")])
    with pytest.raises(ArgumentTypeError, match="a message must be agent_framework's"):
        await history.save_messages("s", ["x"])  # type: ignore[list-item]
    bad = Content.from_text("x", additional_properties={"a": object()})
    with pytest.raises(ArgumentTypeError, match=r"\['additional_properties'\]\['a'\] must be a str, int,"):
        await history.save_messages("s", [user("good"), Message("user", [bad])])
    assert await history.get_messages("s") == []
    await history.save_messages("s", [])
    await history.aclose()
    with pytest.raises(ArgumentError, match="max_messages must be a non-negative int or None, got -1"):
        AgentStoresHistoryProvider("memory:", max_messages=-1)
    with pytest.raises(ArgumentTypeError, match="store_context_from must be a set"):
        AgentStoresHistoryProvider("memory:", store_context_from="memory")
    with pytest.raises(ArgumentError, match=r"dangling_calls must be one of .*, got 'x'"):
        AgentStoresHistoryProvider("memory:", dangling_calls="x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="source_id must be a non-empty str"):
        AgentStoresHistoryProvider("memory:", source_id="")


async def test_tenants_do_not_meet(url: str) -> None:
    session_id = new_id()
    async with (
        AgentStoresHistoryProvider(url, tenant="a") as one,
        AgentStoresHistoryProvider(url, tenant="b") as two,
    ):
        await one.save_messages(session_id, [user("hi")])
        assert await two.get_messages(session_id) == []
