"""Agents on threads: over HTTP to the test model with the real client, and over clients made for a case."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import openai
import pytest

from agent_stores.agent import (
    AgentUpdate,
    ChatAgent,
    ChatClient,
    ChatResponse,
    ChatUpdate,
    OpenAIChatClient,
    Tool,
)
from agent_stores.contents import TextContent, ToolCallContent, ToolResultContent, UsageContent
from agent_stores.errors import (
    AgentRunError,
    ArgumentError,
    ArgumentTypeError,
    OutcomeUnknownError,
    StateError,
    StoreUnavailableError,
)
from agent_stores.memory import InMemoryChatMessageStore, InMemoryMessageLog
from agent_stores.messages import ChatMessage
from agent_stores.testing.model_server import ModelServer
from agent_stores.threads import AgentThread

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@asynccontextmanager
async def talking(server: ModelServer, **options: Any) -> AsyncIterator[ChatAgent]:
    """An agent on the server, whose client does not try again by itself."""
    async with (
        openai.AsyncOpenAI(base_url=server.base_url, api_key="test-key", max_retries=0) as sdk,
        ChatAgent(OpenAIChatClient("test-model", client=sdk), **options) as agent,
    ):
        yield agent


class Scripted:
    """A client that answers as it is told; what it was asked is in `requests`."""

    def __init__(self, *answers: Any, keeps_conversations: bool = False) -> None:
        self.answers = list(answers)
        self.keeps_conversations = keeps_conversations
        self.requests: list[dict[str, Any]] = []

    async def get_response(self, messages: Sequence[ChatMessage], **request: Any) -> ChatResponse:
        self.requests.append({"messages": list(messages), **request})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, ChatResponse):
            return answer
        return ChatResponse([ChatMessage("assistant", contents=answer)])

    async def get_streaming_response(
        self, messages: Sequence[ChatMessage], **request: Any
    ) -> AsyncIterator[ChatUpdate]:
        response = await self.get_response(messages, **request)
        for message in response.messages:
            for part in message.contents:
                yield ChatUpdate(part)
        yield ChatUpdate(usage=response.usage, conversation_id=response.conversation_id)


async def stored(thread: AgentThread) -> list[ChatMessage]:
    assert thread.message_store is not None
    return await thread.message_store.list_messages()


async def said(thread: AgentThread) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in await stored(thread)]


async def collect(stream: AsyncIterator[AgentUpdate]) -> list[AgentUpdate]:
    return [update async for update in stream]


def get_time() -> str:
    """Tell the time."""
    return "12:00"


async def get_weather(city: str) -> dict[str, str]:
    return {"city": city, "weather": "sunny"}


# A conversation


async def test_a_conversation_goes_on_after_it_was_serialized(server: ModelServer) -> None:
    async with talking(server, instructions="Be helpful.", name="bot") as agent:
        thread = agent.get_new_thread()
        response = await agent.run("Hello, my name is Alice", thread=thread)
        assert (response.text, str(response)) == ("Nice to meet you, Alice!",) * 2
        state = json.loads(json.dumps(await thread.serialize()))
        before = await stored(thread)
    async with talking(server) as agent:
        restored = await agent.deserialize_thread(state)
        assert await stored(restored) == before
        assert (await agent.run("What's my name?", thread=restored)).text == "Your name is Alice."
        assert (await agent.run("What's my name?")).text == "I don't know your name yet."
    first, second, third, fourth = await stored(restored)
    assert [m.role for m in (first, second, third, fourth)] == ["user", "assistant", "user", "assistant"]
    assert (second.author_name, fourth.author_name) == ("bot", None)
    assert len({message.message_id for message in (first, second, third, fourth)}) == 4
    assert all(message.created_at for message in (first, second, third, fourth))
    assert server.requests[0]["messages"][0] == {"role": "system", "content": "Be helpful."}
    assert len(await stored(thread)) == 2


async def test_what_a_run_says(server: ModelServer) -> None:
    async with talking(server, tools=get_time, options={"temperature": 0.5}) as agent:
        response = await agent.run("What time is it?", seed=7, temperature=0)
    assert response.text == "The tool says: 12:00"
    assert [message.role for message in response.messages] == ["assistant", "tool", "assistant"]
    assert response.finish_reason == "stop"
    assert response.usage is not None
    assert response.usage.total_tokens == (response.usage.input_tokens or 0) + (
        response.usage.output_tokens or 0
    )
    assert [request["temperature"] for request in server.requests] == [0, 0]
    assert server.requests[0]["seed"] == 7


async def test_what_a_run_takes(server: ModelServer) -> None:
    wrong: Any = 5
    argument: Any
    async with talking(server) as agent:
        thread = agent.get_new_thread()
        earlier = ChatMessage("user", "my name is Bo", message_id="mine")
        assert (await agent.run([earlier, "Who am I?"], thread=thread)).text == "Your name is Bo."
        assert (await stored(thread))[0].message_id == "mine"
        assert (await agent.run(ChatMessage("user", "a"), thread=thread)).text == "You said: a"
        assert (await agent.run(thread=thread)).text == "You said: a"
        with pytest.raises(ArgumentError, match="nothing to send"):
            await agent.run()
        for argument in (wrong, [wrong], b"x"):
            with pytest.raises(ArgumentTypeError, match="messages"):
                await agent.run(argument)
            with pytest.raises(ArgumentTypeError, match="messages"):
                agent.run_stream(argument)
        with pytest.raises(ArgumentTypeError, match="thread must be an AgentThread, got int"):
            await agent.run("x", thread=wrong)


def test_what_an_agent_takes() -> None:
    wrong: Any = object()
    with pytest.raises(ArgumentTypeError, match="chat_client"):
        ChatAgent(wrong)
    with pytest.raises(ArgumentTypeError, match="factory"):
        ChatAgent(Scripted(), chat_message_store_factory=wrong)
    with pytest.raises(ArgumentTypeError, match="instructions"):
        ChatAgent(Scripted(), wrong)
    with pytest.raises(ArgumentError, match="max_tool_rounds must be a non-negative int or None, got -1"):
        ChatAgent(Scripted(), max_tool_rounds=-1)
    with pytest.raises(ArgumentError, match="two tools"):
        ChatAgent(Scripted(), tools=[get_time, get_time])
    with pytest.raises(ArgumentTypeError, match="message_store must have the methods"):
        ChatAgent(Scripted(), chat_message_store_factory=lambda: 5).get_new_thread()  # type: ignore[arg-type,return-value]
    assert (
        repr(ChatAgent(OpenAIChatClient("m"), name="a")) == "ChatAgent(OpenAIChatClient(model='m'), name='a')"
    )
    assert isinstance(Scripted(), ChatClient)


# Stores


class FileLike:
    """A user's store, which derives from nothing; its conversations are in a dictionary."""

    files: dict[str, list[dict[str, Any]]] = {}  # noqa: RUF012

    def __init__(self, name: str = "new") -> None:
        self.name = name
        self.calls = 0

    async def list_messages(self) -> list[ChatMessage]:
        return [ChatMessage.from_dict(item) for item in self.files.get(self.name, [])]

    async def add_messages(self, messages: Sequence[ChatMessage]) -> None:
        self.calls += 1
        self.files.setdefault(self.name, []).extend(message.to_dict() for message in messages)

    @classmethod
    async def deserialize(cls, serialized_store_state: MutableMapping[str, Any], **kwargs: Any) -> FileLike:
        return cls(serialized_store_state["name"])

    async def update_from_state(
        self, serialized_store_state: MutableMapping[str, Any], **kwargs: Any
    ) -> None:
        self.name = serialized_store_state["name"]

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        return {"type": "file", "name": self.name}


async def test_a_users_own_store(server: ModelServer) -> None:
    FileLike.files.clear()
    async with talking(server, tools=[get_time], chat_message_store_factory=lambda: FileLike("a")) as agent:
        thread = agent.get_new_thread()
        await agent.run("Hello, my name is Alice", thread=thread)
        await agent.run("What time is it?", thread=thread)
        assert isinstance(thread.message_store, FileLike)
        assert thread.message_store.calls == 2  # one for each turn, however many messages it brings
        state = await thread.serialize(key="k")
    async with talking(server, chat_message_store_factory=FileLike) as agent:
        restored = await agent.deserialize_thread(state, key="k")
        assert (await agent.run("Who am I?", thread=restored)).text == "Your name is Alice."
        with pytest.raises(StateError, match="the key that signed the state"):
            await agent.deserialize_thread(state)
        undecided = await agent.deserialize_thread(await AgentThread().serialize())
        assert isinstance(undecided.message_store, FileLike)
    async with talking(server) as agent:
        with pytest.raises(StateError, match="message_store="):
            await agent.deserialize_thread(state, key="k")


async def test_a_state_with_a_factory_of_the_same_log() -> None:
    log = InMemoryMessageLog()

    def factory() -> InMemoryChatMessageStore:
        return InMemoryChatMessageStore(tenant="t", log=log)

    agent = ChatAgent(Scripted("b", "d"), chat_message_store_factory=factory)
    thread = agent.get_new_thread()
    await agent.run("a", thread=thread)
    restored = await agent.deserialize_thread(await thread.serialize())
    assert restored.thread_id == thread.thread_id
    await agent.run("c", thread=restored)
    assert await said(thread) == await said(restored)
    assert len(await said(thread)) == 4


async def test_a_store_of_a_frameworks_messages_is_refused() -> None:
    class Foreign(FileLike):
        async def list_messages(self) -> list[Any]:
            return [{"role": "user"}]

    agent = ChatAgent(Scripted("x"))
    with pytest.raises(ArgumentTypeError, match="codec"):
        await agent.run("a", thread=AgentThread(message_store=Foreign()))


async def test_an_answer_that_cannot_be_stored() -> None:
    class Failing(FileLike):
        error: Exception = StoreUnavailableError("the server is gone")
        times = 1

        async def add_messages(self, messages: Sequence[ChatMessage]) -> None:
            await super().add_messages(messages)
            if self.calls <= self.times:
                raise self.error

    store = Failing("failing")
    agent = ChatAgent(Scripted("answer", "answer"))
    with pytest.raises(StoreUnavailableError, match="gone") as caught:
        await agent.run("a", thread=AgentThread(message_store=store))
    notes = getattr(caught.value, "__notes__", None)
    assert notes is None or "could not be stored" in notes[0]
    store = Failing("unknown")
    store.error = OutcomeUnknownError("lost")
    assert (await agent.run("a", thread=AgentThread(message_store=store))).text == "answer"
    first, second = FileLike.files["unknown"][:2], FileLike.files["unknown"][2:]
    assert store.calls == 2
    assert first == second  # tried again with the same ids


# Tools


async def test_parallel_tools_are_called_at_once_and_answered_in_order(server: ModelServer) -> None:
    started: list[str] = []
    both = asyncio.Event()

    async def weather(city: str) -> str:
        started.append(city)
        if len(started) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 10)
        await asyncio.sleep(0.02 if city == "Rome" else 0)
        return f"{city}: sunny"

    async with talking(server, tools=[weather]) as agent:
        thread = agent.get_new_thread()
        response = await agent.run("What's the weather in Rome and Oslo?", thread=thread)
    assert response.text == "The tool says: Rome: sunny; Oslo: sunny"
    assert started == ["Rome", "Oslo"]
    roles = [message["role"] for message in server.requests[1]["messages"]]
    assert roles == ["user", "assistant", "tool", "tool"]
    assert [m.role for m in await stored(thread)] == ["user", "assistant", "tool", "tool", "assistant"]


async def test_sync_tools_do_not_block_the_loop(server: ModelServer) -> None:
    loop, entered, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow_time() -> str:
        loop.call_soon_threadsafe(entered.set)
        assert release.wait(10)
        return "12:00"

    async with talking(server, tools=[slow_time]) as agent:
        running = asyncio.ensure_future(agent.run("What time is it?"))
        await asyncio.wait_for(entered.wait(), 10)
        assert (await agent.run("hello")).text == "You said: hello"
        release.set()
        assert (await running).text == "The tool says: 12:00"


async def test_tools_that_fail_are_told_to_the_model(server: ModelServer) -> None:
    def broken_time() -> str:
        raise OSError("the clock is broken")

    async with talking(server, tools=[broken_time]) as agent:
        thread = agent.get_new_thread()
        response = await agent.run("What time is it?", thread=thread)
        assert response.text == "The tool says: OSError: the clock is broken"
        assert (await stored(thread))[2].tool_results[0].is_error
        bad = await agent.run('use the tool broken_time with {"zone": 1}', thread=thread)
        assert "unknown field `zone`" in bad.text


async def test_unknown_tools_are_told_to_the_model() -> None:
    client = Scripted(ToolCallContent("1", "fly"), "Sorry.")
    agent = ChatAgent(client, tools=[get_time])
    response = await agent.run("fly")
    assert response.text == "Sorry."
    result = response.messages[1].tool_results[0]
    assert (result.is_error, result.result) == (True, "There is no tool 'fly'; the tools are: get_time.")


async def test_tools_of_the_run_and_of_the_agent(server: ModelServer) -> None:
    async with talking(server, tools=[get_time]) as agent:
        response = await agent.run("What's the weather in Rome?", tools=[get_weather])
        assert response.text == 'The tool says: {"city": "Rome", "weather": "sunny"}'
        with pytest.raises(ArgumentError, match="two tools have the name 'get_time'"):
            await agent.run("x", tools=[get_time])
    assert [tool["function"]["name"] for tool in server.requests[0]["tools"]] == ["get_time", "get_weather"]


@pytest.mark.parametrize("rounds", [0, 1, 2])
async def test_the_limit_of_tool_rounds(rounds: int) -> None:
    calls = [ToolCallContent(str(number), "get_time") for number in range(rounds)]
    client = Scripted(*calls, "Enough.")
    agent = ChatAgent(client, tools=[get_time], max_tool_rounds=rounds)
    response = await agent.run("time?")
    assert response.text == "Enough."
    choices = [request["options"].get("tool_choice") for request in client.requests]
    assert choices == [None] * rounds + ["none"]


async def test_a_model_that_calls_tools_where_it_must_not() -> None:
    client = Scripted([TextContent("Hm."), ToolCallContent("1", "get_time")])
    agent = ChatAgent(client, tools=[get_time], max_tool_rounds=0)
    thread = agent.get_new_thread()
    response = await agent.run("time?", thread=thread)
    assert response.text == "Hm."
    assert response.messages[1].tool_results[0].is_error
    assert "limit" in response.messages[1].tool_results[0].result


async def test_the_limit_over_http(server: ModelServer) -> None:
    async with talking(server, tools=[get_time], max_tool_rounds=0) as agent:
        assert (await agent.run("What time is it?")).text == "You said: What time is it?"
    assert server.requests[0]["tool_choice"] == "none"


async def test_a_demanded_call_is_demanded_once() -> None:
    client = Scripted(ToolCallContent("1", "get_time"), "12")
    await ChatAgent(client, tools=[get_time]).run("x", tool_choice="required")
    assert [request["options"] for request in client.requests] == [{"tool_choice": "required"}, {}]


async def test_calls_that_the_service_answered_are_not_made() -> None:
    answer = [ToolCallContent("1", "search"), ToolResultContent("1", "found"), TextContent("Found.")]
    response = await ChatAgent(Scripted(answer)).run("x")
    assert (response.text, len(response.messages)) == ("Found.", 1)


async def test_ids_of_a_service_are_not_trusted() -> None:
    def answer(text: Any) -> ChatResponse:
        return ChatResponse([ChatMessage("assistant", contents=text, message_id="always the same")])

    agent = ChatAgent(
        Scripted(answer(ToolCallContent("1", "get_time")), answer("a"), answer("b")), tools=[get_time]
    )
    thread = agent.get_new_thread()
    await agent.run("x", thread=thread)
    await agent.run("y", thread=thread)
    assert len(await stored(thread)) == 6


async def test_a_tool_cannot_run_on_the_thread_that_waits_for_it() -> None:
    agent = ChatAgent(Scripted(ToolCallContent("1", "ask"), ToolCallContent("2", "ask"), "inner", "outer"))
    thread, other = agent.get_new_thread(), agent.get_new_thread()
    tried: list[AgentThread] = []

    async def ask() -> str:
        tried.append(other if not tried else thread)
        return (await agent.run("inner?", thread=tried[-1], tools=[ask])).text

    response = await asyncio.wait_for(agent.run("outer?", thread=thread, tools=[ask]), 10)
    assert tried == [other, thread]
    assert (await said(other))[-1] == ("assistant", "inner")
    assert "wait for itself" in (await stored(other))[2].tool_results[0].result
    assert response.text == "outer"
    agent.chat_client = Scripted("later")
    assert (await agent.run("later?", thread=thread)).text == "later"


async def test_a_real_result_goes_before_a_made_up_one() -> None:
    client = Scripted("Thanks.", "Again.")
    agent = ChatAgent(client)
    call = ChatMessage("assistant", contents=ToolCallContent("1", "f"))
    thread = AgentThread(message_store=InMemoryChatMessageStore(messages=[ChatMessage("user", "a"), call]))
    assert (await stored(thread))[2].tool_results[0].is_error
    await agent.run(ChatMessage("tool", contents=ToolResultContent("1", "real")), thread=thread)
    sent = client.requests[0]["messages"]
    assert [m.role for m in sent] == ["user", "assistant", "tool"]
    assert sent[2].tool_results[0].result == "real"
    assert len(await stored(thread)) == 4


# Streams


async def test_a_stream_gives_text_tools_and_the_response(server: ModelServer) -> None:
    async with talking(server, tools=[get_time]) as agent:
        thread = agent.get_new_thread()
        updates = await collect(agent.run_stream("What time is it?", thread=thread))
    *pieces, last = updates
    assert "".join(update.text for update in updates) == "The tool says: 12:00"
    assert len([update for update in updates if update.text]) > 2
    assert [type(update.contents[0]) for update in pieces[:2]] == [ToolCallContent, ToolResultContent]
    assert [update.role for update in pieces[:3]] == ["assistant", "tool", "assistant"]
    assert all(update.response is None for update in pieces)
    assert last.response is not None
    assert last.response.text == "The tool says: 12:00"
    assert last.response.usage is not None
    assert (await stored(thread))[1:] == list(last.response.messages)
    assert server.requests[0]["stream_options"] == {"include_usage": True}


async def test_a_stream_says_the_same_as_a_run(server: ModelServer) -> None:
    async with talking(server, tools=[get_weather]) as agent:
        question = "What's the weather in Rome and Oslo?"
        updates = await collect(agent.run_stream(question))
        response = await agent.run(question)
    assert updates[-1].response is not None
    streamed = updates[-1].response
    assert (streamed.text, streamed.usage, streamed.finish_reason) == (
        response.text,
        response.usage,
        response.finish_reason,
    )
    names = [[call.name for call in message.tool_calls] for message in streamed.messages]
    assert names == [["get_weather"] * 2, [], [], []]


@pytest.mark.parametrize("how", ["break", "aclose", "cancel"])
async def test_an_abandoned_stream_stores_nothing(server: ModelServer, how: str) -> None:
    async with talking(server) as agent:
        thread = agent.get_new_thread()
        await agent.run("one", thread=thread)
        server.chunk_delay = 0.05
        if how == "break":
            async for update in agent.run_stream("two", thread=thread):
                if update.text:
                    break
        elif how == "aclose":
            async with aclosing(agent.run_stream("two", thread=thread)) as stream:
                await stream.__anext__()
        else:
            came = asyncio.Event()

            async def read() -> None:
                async for _ in agent.run_stream("two", thread=thread):
                    came.set()

            reading = asyncio.ensure_future(read())
            await asyncio.wait_for(came.wait(), 10)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        server.chunk_delay = 0
        response = await asyncio.wait_for(agent.run("What did I say first?", thread=thread), 10)
        assert response.text == 'You first said: "one"'
        assert not thread.lock.locked()
    assert len(await stored(thread)) == 4
    assert "two" not in json.dumps(server.requests[-1])


async def test_a_stream_that_was_never_read() -> None:
    agent = ChatAgent(Scripted("a"))
    thread = agent.get_new_thread()
    stream = agent.run_stream("x", thread=thread)
    assert not thread.lock.locked()
    del stream
    gc.collect()
    assert (await agent.run("y", thread=thread)).text == "a"


# Failures


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_a_failed_call_leaves_the_thread_as_it_was(server: ModelServer, status: int) -> None:
    async with talking(server, tools=[get_time]) as agent:
        thread = AgentThread(message_store=InMemoryChatMessageStore(thread_id="th-1"))
        await agent.run("What time is it?", thread=thread)
        before = await thread.serialize()
        server.fail_next(status, "Out of order.")
        match = rf"Error code: {status}.*Out of order.*nothing of the turn was added to the thread 'th-1'"
        with pytest.raises(AgentRunError, match=match) as caught:
            await agent.run("again", thread=thread)
        assert isinstance(caught.value.__cause__, openai.APIStatusError)
        assert await thread.serialize() == before
        assert not thread.lock.locked()
        assert (await agent.run("again", thread=thread)).text == "You said: again"


async def test_a_call_that_fails_after_tools_leaves_the_thread_as_it_was(server: ModelServer) -> None:
    async with talking(server) as agent:

        def time_then_failure() -> str:
            server.fail_next(500)
            return "12:00"

        thread = agent.get_new_thread()
        with pytest.raises(AgentRunError):
            await agent.run("What time is it?", thread=thread, tools=[time_then_failure])
        assert await stored(thread) == []


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_stream_that_is_cut_leaves_the_thread_as_it_was(server: ModelServer, after: int) -> None:
    async with talking(server) as agent:
        thread = agent.get_new_thread()
        await agent.run("one", thread=thread)
        before = await stored(thread)
        server.fail_next(after_chunks=after)
        with pytest.raises(AgentRunError, match="nothing of the turn"):
            await collect(agent.run_stream("repeat: a b c d e", thread=thread))
        assert await stored(thread) == before
        updates = await collect(agent.run_stream("repeat: a b", thread=thread))
        assert "".join(update.text for update in updates) == "a b"


async def test_long_reasons_are_cut() -> None:
    with pytest.raises(AgentRunError) as caught:
        await ChatAgent(Scripted(ValueError("x" * 10_000))).run("a")
    assert len(str(caught.value)) < 700


async def test_cancelling_a_run_ends_its_tools_and_stores_nothing() -> None:
    ended: list[str] = []
    waiting = asyncio.Event()

    async def wait() -> None:
        waiting.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("wait")

    agent = ChatAgent(
        Scripted([ToolCallContent("1", "wait"), ToolCallContent("2", "get_time")]), tools=[wait, get_time]
    )
    thread = agent.get_new_thread()
    running = asyncio.ensure_future(agent.run("x", thread=thread))
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["wait"]
    assert await stored(thread) == []
    assert not thread.lock.locked()


async def test_a_tool_that_is_cancelled_ends_the_others() -> None:
    ended: list[str] = []

    async def give_up() -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append("wait")

    client = Scripted([ToolCallContent("1", "wait"), ToolCallContent("2", "give_up")])
    with pytest.raises(asyncio.CancelledError):
        await ChatAgent(client, tools=[wait, give_up]).run("x")
    assert ended == ["wait"]


async def test_closing_a_stream_closes_that_of_the_model() -> None:
    closed: list[str] = []

    class Slow(Scripted):
        async def get_streaming_response(
            self, messages: Sequence[ChatMessage], **request: Any
        ) -> AsyncIterator[ChatUpdate]:
            try:
                yield ChatUpdate("a")
                yield ChatUpdate("b")
            finally:
                closed.append("model")

    stream = ChatAgent(Slow()).run_stream("x")
    assert (await stream.__anext__()).text == "a"
    await stream.aclose()
    assert closed == ["model"]


# Several runs at once


async def test_runs_on_one_thread_do_not_interleave(server: ModelServer) -> None:
    server.delay = 0.01

    async def streamed(agent: ChatAgent, text: str, thread: AgentThread) -> None:
        await collect(agent.run_stream(text, thread=thread))

    async with talking(server, tools=[get_time]) as agent:
        thread = agent.get_new_thread()
        runs = [agent.run("What time is it?", thread=thread) for _ in range(5)]
        await asyncio.gather(*runs, *(streamed(agent, f"repeat: {n}", thread) for n in range(5)))
    messages = await said(thread)
    assert len(messages) == 5 * 4 + 5 * 2
    while messages:
        turn = 4 if messages[0][1] == "What time is it?" else 2
        question, *_, answer = messages[:turn]
        assert answer[1] == ("The tool says: 12:00" if turn == 4 else question[1].removeprefix("repeat: "))
        del messages[:turn]


async def test_each_run_is_shown_the_turns_before_it(server: ModelServer) -> None:
    async with talking(server) as agent:
        thread = agent.get_new_thread()
        await asyncio.gather(*(agent.run("How many messages did you get?", thread=thread) for _ in range(4)))
    answers = [text for role, text in await said(thread) if role == "assistant"]
    assert answers == [f"I was sent {number} messages." for number in (1, 3, 5, 7)]


async def test_runs_on_several_threads_are_not_serialised() -> None:
    class Meeting(Scripted):
        met = asyncio.Event()

        async def get_response(self, messages: Sequence[ChatMessage], **request: Any) -> ChatResponse:
            response = await super().get_response(messages, **request)
            if not self.answers:
                self.met.set()
            await asyncio.wait_for(self.met.wait(), 10)
            return response

    agent = ChatAgent(Meeting("a", "b", "c"))
    responses = await asyncio.gather(*(agent.run("x") for _ in range(3)))
    assert [response.text for response in responses] == ["a", "b", "c"]


# Conversations that a service keeps


def service(text: Any, conversation_id: str | None = "conv-1") -> ChatResponse:
    return ChatResponse(
        [ChatMessage("assistant", contents=text)], conversation_id=conversation_id, usage=UsageContent(1)
    )


Run = Callable[..., Any]


async def run_whole(agent: ChatAgent, *args: Any, **kwargs: Any) -> Any:
    return await agent.run(*args, **kwargs)


async def run_streamed(agent: ChatAgent, *args: Any, **kwargs: Any) -> Any:
    return (await collect(agent.run_stream(*args, **kwargs)))[-1].response


@pytest.mark.parametrize("run", [run_whole, run_streamed])
async def test_a_service_keeps_the_conversation(run: Run) -> None:
    client = Scripted(
        service(ToolCallContent("1", "get_time")), service("12"), service("b", "conv-2"), service("c", None)
    )
    agent = ChatAgent(client, "Be brief.", tools=[get_time])
    thread = agent.get_new_thread(service_thread_id="conv-0")
    response = await run(agent, "time?", thread=thread)
    assert (response.text, response.usage) == ("12", UsageContent(2))
    assert (thread.service_thread_id, thread.message_store) == ("conv-1", None)
    first, second = client.requests
    assert [(m.role, m.text) for m in first["messages"]] == [("system", "Be brief."), ("user", "time?")]
    assert [m.role for m in second["messages"]] == ["tool"]
    assert (first["conversation_id"], second["conversation_id"]) == ("conv-0", "conv-1")
    restored = await agent.deserialize_thread(await thread.serialize())
    await run(agent, "b?", thread=restored)
    assert restored.service_thread_id == "conv-2"
    await run(agent, "c?", thread=restored)
    assert restored.service_thread_id == "conv-2"
    assert [m.text for m in client.requests[-1]["messages"]] == ["Be brief.", "c?"]


@pytest.mark.parametrize("run", [run_whole, run_streamed])
async def test_the_first_run_decides(run: Run) -> None:
    agent = ChatAgent(Scripted(service("a"), keeps_conversations=True))
    thread = agent.get_new_thread()
    assert thread.message_store is None
    await run(agent, "a?", thread=thread)
    assert (thread.service_thread_id, thread.message_store) == ("conv-1", None)
    agent = ChatAgent(Scripted(ValueError("no"), service("a", None), "b"))
    thread = AgentThread()
    with pytest.raises(AgentRunError):
        await run(agent, "a?", thread=thread)
    assert (thread.service_thread_id, thread.message_store) == (None, None)
    await run(agent, "a?", thread=thread)
    assert await said(thread) == [("user", "a?"), ("assistant", "a")]
    await run(agent, "b?", thread=thread)
    assert len(await said(thread)) == 4


async def test_a_conversation_in_a_store_stays_there() -> None:
    client = Scripted(service("a"), service("b"))
    agent = ChatAgent(client)
    thread = agent.get_new_thread()
    await agent.run("a?", thread=thread)
    await agent.run("b?", thread=thread)
    assert thread.service_thread_id is None
    assert [request["conversation_id"] for request in client.requests] == [None, None]
    assert len(client.requests[1]["messages"]) == 3


async def test_a_failed_call_of_a_service_says_what_is_known() -> None:
    agent = ChatAgent(Scripted(ValueError("no")))
    with pytest.raises(AgentRunError, match="may have added a part of it to the thread 'conv-0'"):
        await agent.run("a", thread=agent.get_new_thread(service_thread_id="conv-0"))


async def test_chat_completions_keep_no_conversations(server: ModelServer) -> None:
    async with talking(server) as agent:
        thread = agent.get_new_thread(service_thread_id="conv-0")
        with pytest.raises(ArgumentError, match="keeps none"):
            await agent.run("a", thread=thread)
        with pytest.raises(ArgumentError, match="keeps none"):
            await collect(agent.run_stream("a", thread=thread))


# A tool that is a Tool


async def test_tools_may_be_given_ready_made(server: ModelServer) -> None:
    made: Tool[..., Any] = Tool(get_time, name="clock_time", description="The time.")
    async with talking(server, tools=made) as agent:
        assert (await agent.run("What time is it?")).text == "The tool says: 12:00"
    assert server.requests[0]["tools"][0]["function"]["description"] == "The time."
