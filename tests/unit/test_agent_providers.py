"""Context providers in an agent's runs: what they add, what they are told, and what becomes of failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agent_stores.agent import AggregateContextProvider, ChatAgent, ChatResponse, ChatUpdate
from agent_stores.errors import AgentRunError, ArgumentError, ArgumentTypeError, ContextProviderError
from agent_stores.memory import InMemoryChatMessageStore
from agent_stores.messages import ChatMessage
from agent_stores.protocols import Context, ContextProvider
from agent_stores.threads import AgentThread

pytestmark = pytest.mark.anyio


class Echo:
    """A client that says what it was asked; a context manager too."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.entered = 0
        self.error: Exception | None = None

    async def get_response(self, messages: Sequence[ChatMessage], **request: Any) -> ChatResponse:
        self.requests.append({"messages": list(messages), **request})
        if self.error:
            raise self.error
        return ChatResponse([ChatMessage("assistant", f"You said: {messages[-1].text}")])

    async def get_streaming_response(
        self, messages: Sequence[ChatMessage], **request: Any
    ) -> AsyncIterator[ChatUpdate]:
        yield ChatUpdate((await self.get_response(messages, **request)).text)

    async def __aenter__(self) -> Echo:
        self.entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.entered -= 1


class Recorder(ContextProvider):
    """Writes down what it is told, and gives the context that it was made with."""

    def __init__(self, name: str = "", context: Context | None = None, *, fails: Sequence[str] = ()) -> None:
        self.context = context or Context()
        self.name = name
        self.fails = fails
        self.told: list[tuple[Any, ...]] = []
        self.kwargs: dict[str, Any] = {}

    def tell(self, step: str, *what: Any) -> None:
        self.told.append((step, *what))
        if step in self.fails:
            raise RuntimeError("the memory of planted-text is down")

    async def thread_created(self, thread_id: str | None) -> None:
        self.tell("thread_created", thread_id)

    async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
        self.kwargs = kwargs
        self.tell("invoking", [message.text for message in messages], {"thread_id": kwargs.get("thread_id")})
        return self.context

    async def invoked(
        self,
        request_messages: Sequence[ChatMessage],
        response_messages: Sequence[ChatMessage] | None = None,
        invoke_exception: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        answers = None if response_messages is None else [message.text for message in response_messages]
        about = {"thread_id": kwargs.get("thread_id")}
        self.tell("invoked", [m.text for m in request_messages], answers, invoke_exception, about)

    async def __aenter__(self) -> Recorder:
        self.tell("enter")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tell("exit")


def steps(provider: Recorder) -> list[str]:
    return [told[0] for told in provider.told]


def memory(thread_id: str = "th") -> AgentThread:
    return AgentThread(message_store=InMemoryChatMessageStore(thread_id=thread_id))


async def test_context_is_merged_in_order_and_not_stored() -> None:
    def one() -> None: ...
    def two() -> None: ...
    def three() -> None: ...

    providers = [
        Recorder(
            "a", Context(instructions="From a.", messages=[ChatMessage("system", "note a")], tools=[two])
        ),
        Recorder("b", Context(messages=[ChatMessage("user", "note b")], tools=[three])),
        Recorder("c", Context(instructions="From c.")),
    ]
    client = Echo()
    agent = ChatAgent(client, "Own.", tools=[one], context_providers=providers)
    thread = memory()
    await agent.run("first", thread=thread)
    await agent.run("second", thread=thread)
    request = client.requests[1]
    assert [(m.role, m.text) for m in request["messages"]] == [
        ("system", "Own.\n\nFrom a.\n\nFrom c."),
        ("system", "note a"),
        ("user", "note b"),
        ("user", "first"),
        ("assistant", "You said: first"),
        ("user", "second"),
    ]
    assert [tool.name for tool in request["tools"]] == ["one", "two", "three"]
    assert thread.message_store is not None
    assert len(await thread.message_store.list_messages()) == 4


async def test_what_providers_are_told() -> None:
    provider = Recorder()
    async with ChatAgent(Echo(), context_providers=provider) as agent:
        thread = memory()
        await agent.run("a", thread=thread)
        async for _ in agent.run_stream("b", thread=thread):
            pass
        await agent.run("c", thread=memory("other"))
        await agent.run("d", thread=AgentThread())
    about = {"thread_id": "th"}
    assert provider.told[:6] == [
        ("enter",),
        ("thread_created", "th"),
        ("invoking", ["a"], about),
        ("invoked", ["a"], ["You said: a"], None, about),
        ("invoking", ["b"], about),
        ("invoked", ["b"], ["You said: b"], None, about),
    ]
    assert provider.told[6] == ("thread_created", "other")
    assert provider.told[9] == ("thread_created", None)
    assert steps(provider)[-2:] == ["invoked", "exit"]


async def test_the_threads_own_provider_comes_last() -> None:
    shared, own = Recorder("s", Context(instructions="Shared.")), Recorder("o", Context(instructions="Own."))
    client = Echo()
    agent = ChatAgent(client, context_providers=[shared])
    thread = AgentThread(message_store=InMemoryChatMessageStore(), context_provider=own)
    await agent.run("a", thread=thread)
    await agent.run("b", thread=memory())
    assert [request["messages"][0].text for request in client.requests] == ["Shared.\n\nOwn.", "Shared."]
    assert steps(own) == ["thread_created", "invoking", "invoked"]
    again = AgentThread(message_store=InMemoryChatMessageStore(), context_provider=shared)
    await agent.run("c", thread=again)
    assert client.requests[-1]["messages"][0].text == "Shared."
    await agent.aclose()


async def test_providers_are_asked_at_once() -> None:
    meeting = asyncio.Event()
    waiting: list[str] = []

    class Meets(Recorder):
        async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
            waiting.append(self.name)
            if len(waiting) == 3:
                meeting.set()
            await asyncio.wait_for(meeting.wait(), 10)
            return Context(instructions=self.name)

    client = Echo()
    async with ChatAgent(client, context_providers=[Meets(name) for name in "abc"]) as agent:
        await agent.run("x")
    assert client.requests[0]["messages"][0].text == "a\n\nb\n\nc"


async def test_a_provider_that_fails_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    broken = Recorder("broken", Context(instructions="?"), fails=["thread_created", "invoking", "invoked"])
    good = Recorder("good", Context(instructions="Good."))
    client = Echo()
    async with ChatAgent(client, context_providers=[broken, good]) as agent:
        with caplog.at_level(logging.DEBUG):
            assert (await agent.run("planted-text", thread=memory())).text == "You said: planted-text"
    assert client.requests[0]["messages"][0].text == "Good."
    warnings = [r.getMessage() for r in caplog.records if r.name == "agent_stores"]
    assert len(warnings) == 3
    assert "Recorder failed in invoking with RuntimeError" in warnings[1]
    assert "planted-text" not in caplog.text


async def test_what_is_no_context_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    wrong: Any
    for wrong in (None, "text", Context(messages=["text"])):  # type: ignore[list-item]
        provider = Recorder()
        provider.context = wrong
        client = Echo()
        async with ChatAgent(client, context_providers=provider) as agent:
            await agent.run("x")
        assert len(client.requests[0]["messages"]) == 1
    assert caplog.text.count("ArgumentTypeError") == 2


async def test_cancellation_of_a_provider_is_not_a_failure() -> None:
    class Cancelled(Recorder):
        async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
            raise asyncio.CancelledError

    thread = memory()
    async with ChatAgent(Echo(), context_providers=[Cancelled(), Recorder()]) as agent:
        with pytest.raises(asyncio.CancelledError):
            await agent.run("x", thread=thread)
    assert not thread.lock.locked()


async def test_providers_learn_of_failed_runs() -> None:
    provider = Recorder()
    client = Echo()
    client.error = ValueError("no")
    async with ChatAgent(client, context_providers=provider) as agent:
        with pytest.raises(AgentRunError) as caught:
            await agent.run("a", thread=memory())
        assert provider.told[-1] == ("invoked", ["a"], None, caught.value, {"thread_id": "th"})
        clash = Recorder(context=Context(tools=[print_it, print_it]))
        with pytest.raises(ArgumentError, match="two tools"):
            await agent.run("a", thread=AgentThread(context_provider=clash))
        assert steps(clash)[-1] == "invoked"


def print_it() -> None: ...


async def test_a_provider_that_takes_no_keywords() -> None:
    class Plain:
        def __init__(self) -> None:
            self.answers: Any = None

        async def thread_created(self, thread_id: str | None) -> None: ...

        async def invoking(self, messages: Sequence[ChatMessage]) -> Context:
            return Context(instructions="Plain.")

        async def invoked(self, request: Any, response: Any = None, error: Any = None) -> None:
            self.answers = response

        async def __aenter__(self) -> Plain:
            return self

        async def __aexit__(self, *_: object) -> None: ...

    provider: Any = Plain()
    client = Echo()
    async with ChatAgent(client, context_providers=provider) as agent:
        response = await agent.run("x")
    assert client.requests[0]["messages"][0].text == "Plain."
    assert list(provider.answers) == list(response.messages)


# Entering and leaving


async def test_a_block_enters_and_leaves() -> None:
    client, first, second = Echo(), Recorder(), Recorder()
    agent = ChatAgent(client, context_providers=[first, second])
    async with agent:
        assert (client.entered, steps(first), steps(second)) == (1, ["enter"], ["enter"])
        async with agent:
            await agent.run("x")
        assert "exit" not in steps(first)
    assert client.entered == 0
    assert (steps(first).count("enter"), steps(first)[-1], steps(second)[-1]) == (1, "exit", "exit")


async def test_a_block_that_cannot_be_entered() -> None:
    client, first, second = Echo(), Recorder(), Recorder(fails=["enter"])
    with pytest.raises(RuntimeError, match="is down"):
        async with ChatAgent(client, context_providers=[first, second]):
            pass
    assert (client.entered, steps(first)) == (0, ["enter", "exit"])


def test_without_a_block_providers_live_as_long_as_their_loop() -> None:
    provider = Recorder()
    agent = ChatAgent(Echo(), context_providers=provider)

    async def talk() -> None:
        await asyncio.gather(agent.run("a"), agent.run("b"))
        await agent.run("c")
        assert steps(provider).count("enter") - steps(provider).count("exit") == 1

    asyncio.run(talk())
    assert steps(provider)[-1] == "exit"
    asyncio.run(talk())
    assert (steps(provider).count("enter"), steps(provider).count("exit")) == (2, 2)


async def test_aclose_leaves_what_a_run_entered() -> None:
    provider = Recorder()
    agent = ChatAgent(Echo(), context_providers=provider)
    await agent.run("a")
    await agent.aclose()
    assert steps(provider)[-1] == "exit"
    await agent.aclose()
    await agent.run("b")
    assert steps(provider).count("enter") == 2
    await agent.aclose()


async def test_several_providers_as_one() -> None:
    first, second = Recorder("a", Context(instructions="a")), Recorder("b", Context(instructions="b"))
    inner = AggregateContextProvider([second])
    both = AggregateContextProvider([first, inner])
    assert isinstance(both, ContextProvider)
    async with both as entered:
        assert entered is both
        assert (await both.invoking([], thread_id="t")).instructions == "a\n\nb"
        await both.invoked([], [])
    for provider in (first, second):
        assert steps(provider) == ["enter", "invoking", "invoked", "exit"]
        assert provider.told[1] == ("invoking", [], {"thread_id": "t"})
    assert await AggregateContextProvider().invoking([]) == Context(messages=[], tools=[])


@pytest.mark.parametrize("wrong", [5, "ab", [5], [Recorder(), object()]])
def test_what_is_no_provider(wrong: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="context_providers"):
        ChatAgent(Echo(), context_providers=wrong)


async def test_providers_are_given_the_thread_the_history_and_the_model() -> None:
    provider, client = Recorder(), Echo()
    thread = memory()
    async with ChatAgent(client, context_providers=provider) as agent:
        await agent.run("a", thread=thread)
        assert provider.kwargs["history"] == ()
        await agent.run("b", thread=thread)
    assert [message.text for message in provider.kwargs["history"]] == ["a", "You said: a"]
    assert provider.kwargs["thread"] is thread
    assert provider.kwargs["chat_client"] is client


class Strict(Recorder):
    """Fails the run at a step."""

    def tell(self, step: str, *what: Any) -> None:
        self.told.append((step, *what))
        if step in self.fails:
            raise ContextProviderError(f"no {step} without a memory")


@pytest.mark.parametrize("step", ["thread_created", "invoking", "invoked"])
async def test_a_provider_can_fail_the_run_once_all_were_asked(step: str) -> None:
    strict, after = Strict(fails=[step]), Recorder()
    thread = memory()
    async with ChatAgent(Echo(), context_providers=[strict, after]) as agent:
        with pytest.raises(ContextProviderError, match=f"no {step} without"):
            await agent.run("a", thread=thread)
    assert step in [told[0] for told in after.told]
    store = thread.message_store
    assert store is not None
    assert len(await store.list_messages()) == (2 if step == "invoked" else 0)


async def test_a_thread_that_was_refused_is_announced_again() -> None:
    strict = Strict(fails=["thread_created"])
    thread = memory()
    async with ChatAgent(Echo(), context_providers=strict) as agent:
        for _ in range(2):
            with pytest.raises(ContextProviderError):
                await agent.run("a", thread=thread)
        strict.fails = []
        await agent.run("a", thread=thread)
    assert [told[0] for told in strict.told].count("thread_created") == 3
