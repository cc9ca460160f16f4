"""`OpenAIChatClient`: its settings, its connections, its streams, and that its key stays with it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from agent_stores.agent import ChatAgent, ChatClient, ChatResponse, ChatUpdate, OpenAIChatClient
from agent_stores.agent.chat_client import join_updates
from agent_stores.contents import ReasoningContent, TextContent, ToolCallContent, UsageContent
from agent_stores.errors import AgentRunError, ArgumentError, ArgumentTypeError, MissingDependencyError
from agent_stores.messages import ChatMessage
from agent_stores.testing.model_server import ModelServer

pytestmark = pytest.mark.anyio

KEY = "sk-planted-key-123456"
HELLO = [ChatMessage("user", "Hello")]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


async def collect(stream: AsyncIterator[ChatUpdate]) -> ChatResponse:
    return join_updates([update async for update in stream])


async def test_the_environment_is_read_at_the_first_request(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with OpenAIChatClient() as client:
        with pytest.raises(ArgumentError, match=r"api_key=.*OPENAI_API_KEY"):
            await ChatAgent(client).run("Hello")
        assert client._request(HELLO, (), None, None)["model"] == "gpt-5-mini"
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with pytest.raises(ArgumentError, match=r"model must be given.*OPENAI_MODEL"):
            await client.get_response(HELLO)
        monkeypatch.setenv("OPENAI_MODEL", "from-environment")
        assert (await client.get_response(HELLO)).text == "You said: Hello"
        monkeypatch.delenv("OPENAI_MODEL")
        await client.get_response(HELLO)
        await client.get_response(HELLO, options={"model": "of-the-call"})
    models = [request["model"] for request in server.requests]
    assert models == ["from-environment", "from-environment", "of-the-call"]


async def test_arguments_go_before_the_environment(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/wrong")
    async with OpenAIChatClient("mine", api_key=KEY, base_url=server.base_url) as client:
        assert isinstance(client, ChatClient)
        response = await client.get_response(HELLO)
    assert (response.text, response.finish_reason, response.conversation_id) == (
        "You said: Hello",
        "stop",
        None,
    )
    assert server.requests[0]["model"] == "mine"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: OpenAIChatClient(""), ArgumentError, "model must be a non-empty str"),
        (lambda: OpenAIChatClient(5), ArgumentTypeError, "model must be a non-empty str, got int"),  # type: ignore[arg-type]
        (lambda: OpenAIChatClient(api_key=5), ArgumentTypeError, "api_key must be a non-empty str, got int"),  # type: ignore[arg-type]
        (
            lambda: OpenAIChatClient(api_key=f"{KEY}\nx"),
            ArgumentError,
            "api_key must be non-empty printable ASCII",
        ),
        (
            lambda: OpenAIChatClient(api_key="ключ"),
            ArgumentError,
            "api_key must be non-empty printable ASCII",
        ),
        (lambda: OpenAIChatClient(api_key=" "), ArgumentError, "must be non-empty printable ASCII"),
        (lambda: OpenAIChatClient(base_url=""), ArgumentError, "base_url must be a non-empty str"),
        (
            lambda: OpenAIChatClient(base_url="host/v1"),
            ArgumentError,
            "base_url must be an http:// or https:// URL",
        ),
        (
            lambda: OpenAIChatClient(base_url="http://[x"),
            ArgumentError,
            "base_url must be an http:// or https:// URL",
        ),
        (lambda: OpenAIChatClient(base_url=f"http://a:{KEY}@host"), ArgumentError, "would be logged"),
        (lambda: OpenAIChatClient(base_url=f"http://host/?key={KEY}"), ArgumentError, "would be logged"),
        (lambda: OpenAIChatClient(client=object(), api_key=KEY), ArgumentError, "together"),  # type: ignore[arg-type]
        (
            lambda: OpenAIChatClient(client=openai.OpenAI(api_key=KEY)),  # type: ignore[arg-type]
            ArgumentTypeError,
            "synchronous",
        ),
    ],
)
def test_bad_arguments(make: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        make()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", ["messages", "stream", "tools"])
async def test_options_that_the_client_sets(name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        await OpenAIChatClient("m", api_key=KEY).get_response(HELLO, options={name: []})


async def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    client = OpenAIChatClient("m", api_key=KEY)
    with pytest.raises(MissingDependencyError, match=r"agent-stores\[openai\]"):
        await client.get_response(HELLO)
    with pytest.raises(MissingDependencyError):
        await ChatAgent(client).run("x")


def test_importing_does_not_import_the_package() -> None:
    check = "import sys, agent_stores.openai as o; o.OpenAIChatClient(); assert 'openai' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


async def test_a_borrowed_client_stays_open(server: ModelServer) -> None:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as sdk:
        client = OpenAIChatClient("m", client=sdk)
        async with ChatAgent(client) as agent, client:
            await agent.run("Hello")
        await client.aclose()
        assert not sdk.is_closed()


async def test_a_closed_client_opens_again(server: ModelServer) -> None:
    client = OpenAIChatClient("m", api_key=KEY, base_url=server.base_url)
    async with client:
        first = await client._client()
        async with ChatAgent(client) as agent:
            await agent.run("Hello")
        assert not first.is_closed()
    assert first.is_closed()
    assert (await client.get_response(HELLO)).text == "You said: Hello"
    await client.aclose()


def test_connections_are_closed_with_their_loop(server: ModelServer) -> None:
    client = OpenAIChatClient("m", api_key=KEY, base_url=server.base_url)
    made: list[openai.AsyncOpenAI] = []

    async def talk() -> None:
        await asyncio.gather(*(client.get_response(HELLO) for _ in range(3)))
        made.append(await client._client())
        assert not made[-1].is_closed()

    for _ in range(2):
        asyncio.run(talk())
    assert made[0] is not made[1]
    assert all(sdk.is_closed() for sdk in made)


def test_a_loop_that_has_ended_is_let_go(server: ModelServer) -> None:
    client = OpenAIChatClient("m", api_key=KEY, base_url=server.base_url)

    async def talk() -> weakref.ref[Any]:
        await client.get_response(HELLO)
        return weakref.ref(asyncio.get_running_loop())

    first = asyncio.run(talk())
    asyncio.run(talk())
    gc.collect()
    assert first() is None


async def test_the_package_is_set_up_beside_the_loop(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in: list[str] = []

    class Watched(openai.AsyncOpenAI):
        def __init__(self, **options: Any) -> None:
            made_in.append(threading.current_thread().name)
            super().__init__(**options)

    monkeypatch.setattr(openai, "AsyncOpenAI", Watched)
    async with OpenAIChatClient("m", api_key=KEY, base_url=server.base_url) as client:
        await client.get_response(HELLO)
    assert made_in != [threading.current_thread().name]
    assert len(made_in) == 1


def test_nothing_leaks_without_closing(server: ModelServer) -> None:
    program = f"""
import asyncio
from agent_stores.agent import ChatAgent, OpenAIChatClient
agent = ChatAgent(OpenAIChatClient("m", api_key="k", base_url={server.base_url!r}))
async def main():
    async for update in agent.run_stream("Hello"):
        print(update.text, end="")
asyncio.run(main())
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == ("You said: Hello" * 2, "")


async def test_the_key_is_shown_nowhere(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG):
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as sdk:
            own = OpenAIChatClient("m", api_key=KEY, base_url=server.base_url)
            for client in (OpenAIChatClient("m", client=sdk), own):
                agent = ChatAgent(client)
                shown += [repr(client), repr(agent), str(vars(ChatResponse([])))]
                thread = agent.get_new_thread()
                for stream in (False, True):
                    server.fail_next(401, f"Incorrect API key provided: {KEY}.")
                    running = agent.run_stream("x", thread=thread).__anext__() if stream else agent.run("x")
                    with pytest.raises(AgentRunError) as caught:
                        await running
                    error: BaseException | None = caught.value
                    while error is not None:
                        shown += [str(error), repr(error), str(getattr(error, "body", ""))]
                        error = error.__cause__ or error.__context__
                shown.append(json.dumps(await thread.serialize(key="k")))
            await own.aclose()
    assert "Incorrect API key provided: ***." in "".join(shown)
    assert KEY not in "".join(shown)
    assert KEY not in caplog.text
    assert "Request" in caplog.text  # the log was on


def test_repr() -> None:
    assert repr(OpenAIChatClient()) == "OpenAIChatClient(model=None)"
    shown = repr(OpenAIChatClient("m", api_key=KEY, base_url="https://host:1/v1"))
    assert shown == "OpenAIChatClient(model='m', base_url='https://host:1/v1')"


# Answers of servers that are not OpenAI's


class Chunk(SimpleNamespace):
    def to_dict(self, **_: Any) -> dict[str, Any]:
        return dict(self.__dict__)


class FakeSdk:
    """Stands in for the SDK, to answer in ways that the test model does not."""

    def __init__(self, *chunks: dict[str, Any]) -> None:
        self.chunks = chunks
        self.chat = SimpleNamespace(completions=self)

    async def create(self, **request: Any) -> Any:
        if not request.get("stream"):
            return Chunk(**self.chunks[0])
        return self

    async def __aenter__(self) -> FakeSdk:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for chunk in self.chunks:
            yield Chunk(**chunk)


def fake(*chunks: dict[str, Any]) -> OpenAIChatClient:
    sdk: Any = FakeSdk(*chunks)
    return OpenAIChatClient("m", client=sdk)


def delta(finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


def piece(index: int | None, call_id: str | None = None, name: str | None = None, arguments: str = "") -> Any:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


async def test_streamed_calls_are_put_together() -> None:
    client = fake(
        delta(role="assistant", content="", reasoning_content="h"),
        delta(reasoning_content="m"),
        delta(content="Let me "),
        delta(content="see."),
        delta(tool_calls=[piece(0, "a", "f", '{"x"')]),
        delta(tool_calls=[piece(1, "b", "g"), piece(0, None, None, ": 1}")]),
        delta(tool_calls=[piece(1, "b", "g", "{}")]),
        delta(tool_calls=[piece(0, "c", "h", "{")]),  # a server that numbers all calls 0
        delta(tool_calls=[piece(0, "c", "h", "}")]),
        {"choices": [{"delta": None, "finish_reason": "tool_calls"}], "usage": None},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
    )
    response = await collect(client.get_streaming_response(HELLO))
    assert response.messages[0].contents == (
        ReasoningContent("hm"),
        TextContent("Let me see."),
        ToolCallContent("a", "f", '{"x": 1}'),
        ToolCallContent("b", "g", "{}"),
        ToolCallContent("c", "h", "{}"),
    )
    assert (response.finish_reason, response.usage) == ("tool_calls", UsageContent(1, 2, 3))


async def test_calls_without_ids_get_some() -> None:
    client = fake(
        delta(tool_calls=[piece(None, None, "f", "{")]), delta("stop", tool_calls=[piece(None, "", "", "}")])
    )
    (made,) = (await collect(client.get_streaming_response(HELLO))).messages[0].tool_calls
    assert (made.name, made.arguments, made.call_id[:5]) == ("f", "{}", "call_")


def test_updates() -> None:
    assert ChatUpdate("Hel").text == "Hel"
    assert ChatUpdate([ToolCallContent("1", "f"), "lo"]).text == "lo"
    assert join_updates([]).messages == (ChatMessage("assistant"),)


async def test_a_stream_without_an_end_is_an_error() -> None:
    with pytest.raises(AgentRunError, match="broke off"):
        await collect(fake(delta(content="Hel")).get_streaming_response(HELLO))


async def test_an_answer_without_choices_is_an_error() -> None:
    with pytest.raises(AgentRunError, match="rate limited"):
        await fake({"choices": None, "error": "rate limited"}).get_response(HELLO)
    with pytest.raises(AgentRunError, match="the model's answer holds nothing: no choices"):
        await ChatAgent(fake({"choices": []})).run("x")


async def test_an_empty_answer() -> None:
    empty = {"choices": [{"message": {"role": "assistant", "content": None}, "finish_reason": "length"}]}
    response = await ChatAgent(fake(empty)).run("x")
    assert (response.text, response.finish_reason, len(response.messages)) == ("", "length", 1)


async def test_settings_for_tools_need_tools(server: ModelServer) -> None:
    def f() -> None: ...

    async with OpenAIChatClient("m", api_key=KEY, base_url=server.base_url) as client:
        agent = ChatAgent(client)
        await agent.run("x", tool_choice="none", parallel_tool_calls=False)
        await agent.run("x", tools=f, tool_choice="none", parallel_tool_calls=False)
    assert "tool_choice" not in server.requests[0]
    assert server.requests[1]["parallel_tool_calls"] is False
