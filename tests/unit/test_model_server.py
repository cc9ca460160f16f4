"""The test model's server, driven by the real openai client."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from agent_stores.testing.chat_rules import chat_violations
from agent_stores.testing.model_server import ModelServer
from agent_stores.testing.scripted_model import RULES, Prompt, Reply, answer


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def client(server: ModelServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as made:
        yield made


def users(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


def tool(name: str, required: tuple[str, ...] = (), **properties: Any) -> Any:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TIME = tool("get_time", ("timezone",), timezone={"type": "string"})
WEATHER = tool("get_weather", ("city",), city={"type": "string"}, unit={"type": "string"})


def ask(client: openai.OpenAI, *texts: str, timeout: float = 60) -> str | None:
    made = client.chat.completions.create(model="m", messages=users(*texts), timeout=timeout)
    return made.choices[0].message.content


# The model's answers


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Hello"], "You said: Hello"),
        (["Hello, my name is Alice"], "Nice to meet you, Alice!"),
        (["Call me Mary Ann, please"], "Nice to meet you, Mary Ann!"),
        (["call me when you are done"], "You said: call me when you are done"),
        (["my name is Alice", "What's my name?"], "Your name is Alice."),
        (["my name is Alice", "what\u2019s my name"], "Your name is Alice."),
        (["My name is alice and I like tea.", "Who am I?"], "Your name is alice."),
        (["I am called Zoë O\u2019Neil.", "What is my name?"], "Your name is Zoë O\u2019Neil."),
        (["my name is Alice", "call me Al", "Do you remember my name?"], "Your name is Al."),
        (["What's my name?"], "I don't know your name yet."),
        (["Do you know what my name is?"], "I don't know your name yet."),
        (["repeat: what's my name?\n1"], "what's my name?\n1"),
        (["a", "b", "How many messages did you get?"], "I was sent 3 messages."),
        (["One.", "Two.", "What did I say first?"], 'You first said: "One."'),
        (
            ["1 2 3 4 5 6 7 8 9", "hello", "Please summarise"],
            "Summary: 1 2 3 4 5 6 7 8 | hello | Please summarise",
        ),
        (["What time is it?"], "You said: What time is it?"),
        (["What's the weather in Rome?"], "You said: What's the weather in Rome?"),
    ],
)
def test_answers_come_from_the_messages(client: openai.OpenAI, texts: list[str], expected: str) -> None:
    assert ask(client, *texts) == expected


@pytest.mark.parametrize(
    "memory",
    [
        {"role": "system", "content": "## Memories\n- Name is Alice\n- Likes tea"},
        {"role": "system", "content": "Known: User's name is Alice."},
        {"role": "developer", "content": "The user\u2019s name is Alice"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Remember:"}, {"type": "text", "text": "Name is Alice"}],
        },
        {"role": "assistant", "content": "user name is Alice"},
        {"role": "system", "content": "Earlier the user said: Hello, my name is Alice"},
    ],
)
def test_name_is_found_in_memories(memory: dict[str, Any]) -> None:
    assert answer({"messages": [memory, *users("What's my name?")]}) == Reply("Your name is Alice.")


def test_the_name_of_another_person_is_not_the_users() -> None:
    messages = [
        {"role": "assistant", "content": "My name is Bot. My dog's name is Rex."},
        *users("What's my name?"),
    ]
    assert answer({"messages": messages}) == Reply("I don't know your name yet.")


def test_system_prompt_may_ask_for_a_summary() -> None:
    messages = [
        {"role": "system", "content": "Summarize the talk."},
        *users("Hello there", "my name is Alice"),
    ]
    assert answer({"messages": messages}) == Reply("Summary: Hello there | my name is Alice")


def test_rules_can_be_added() -> None:
    def facts(prompt: Prompt) -> Reply | None:
        return Reply('{"facts": []}') if "facts" in prompt.question else None

    with ModelServer(rules=[facts, *RULES]) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="any")
        assert ask(client, "Extract the facts") == '{"facts": []}'
        assert ask(client, "Hello") == "You said: Hello"
        client.close()


def test_a_rule_that_raises_is_a_server_error() -> None:
    def broken(_: Prompt) -> Reply | None:
        raise KeyError("oops")

    with (
        ModelServer(rules=[broken]) as server,
        openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match="oops"),
    ):
        ask(client, "Hello")


# Completions


def test_completion_has_all_fields(server: ModelServer, client: openai.OpenAI) -> None:
    one, two = (client.chat.completions.create(model="gpt-x", messages=users("Hello")) for _ in range(2))
    assert (one.object, one.model, one.choices[0].finish_reason) == ("chat.completion", "gpt-x", "stop")
    assert abs(one.created - time.time()) < 60
    assert one.usage
    assert one.usage.completion_tokens == math.ceil(len("You said: Hello") / 4)
    assert one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens
    assert one.id != two.id
    assert [request["messages"] for request in server.requests] == [users("Hello")] * 2


def test_stream_is_the_completion_in_pieces(client: openai.OpenAI) -> None:
    text = "  Two  words\n\nand 🦊 spaces "
    with client.chat.completions.create(
        model="m", messages=users(f"repeat:{text}"), stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == text.lstrip()
    assert len([piece for piece in pieces if piece]) == 6
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_without_usage(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="m", messages=users("Hello"), stream=True) as stream:
        assert all(chunk.choices and chunk.usage is None for chunk in stream)


# Tools


def calls_of(client: openai.OpenAI, text: str, tools: list[Any], **options: Any) -> list[tuple[str, Any]]:
    made = client.chat.completions.create(model="m", messages=users(text), tools=tools, extra_body=options)
    choice = made.choices[0]
    found = [call.function for call in choice.message.tool_calls or () if call.type == "function"]
    assert choice.finish_reason == ("tool_calls" if found else "stop")
    return [(function.name, json.loads(function.arguments)) for function in found]


def test_time_calls_the_tool(client: openai.OpenAI) -> None:
    assert calls_of(client, "What time is it?", [WEATHER, TIME]) == [("get_time", {"timezone": "UTC"})]
    assert calls_of(client, "Tell me the time", [tool("Current_Time")]) == [("Current_Time", {})]
    assert calls_of(client, "What time is it?", [WEATHER]) == []
    assert calls_of(client, "What time is it?", [TIME], tool_choice="none") == []


def test_arguments_follow_the_schema(client: openai.OpenAI) -> None:
    properties: dict[str, Any] = {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "flag": {"type": "boolean"},
        "unit": {"enum": ["s", "ms"]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "either": {"type": ["boolean", "null"]},
        "items": {"type": "array", "items": {"type": "integer"}},
        "place": {"type": "object", "properties": {"tz": {"type": "string"}}, "required": ["tz"]},
        "preset": {"type": "string", "default": "x"},
        "unsupported": {"type": "string"},
    }
    required = tuple(name for name in properties if name != "unsupported")
    expected = {
        "text": "example",
        "count": 1,
        "ratio": 1,
        "flag": True,
        "unit": "s",
        "maybe": 1,
        "either": True,
        "items": [1],
        "place": {"tz": "UTC"},
        "preset": "x",
    }
    assert calls_of(client, "the time?", [tool("time", required, **properties)]) == [("time", expected)]


def test_weather_is_asked_for_each_city(client: openai.OpenAI) -> None:
    cities = [("get_weather", {"city": city}) for city in ("Paris", "New York", "Köln")]
    assert calls_of(client, "What's the weather in Paris, New York and Köln today?", [WEATHER]) == cities
    assert calls_of(client, "Weather in Paris and Rome?", [WEATHER], parallel_tool_calls=False) == cities[:1]
    assert calls_of(client, "How is the weather?", [WEATHER]) == [("get_weather", {"city": "example"})]


def test_named_tools_are_called_as_told(client: openai.OpenAI) -> None:
    text = (
        'Use the tool save with {"a": {"b": "}"}} and then use the tool load with {}, use the tool x with {}'
    )
    assert calls_of(client, text, [tool("save"), tool("load")]) == [("save", {"a": {"b": "}"}}), ("load", {})]
    assert calls_of(client, "use the tool save with {oops", [tool("save")]) == []


def test_a_whole_tool_turn_is_accepted(client: openai.OpenAI) -> None:
    messages = users("What's the weather in Paris and Rome?")
    message = client.chat.completions.create(model="m", messages=messages, tools=[WEATHER]).choices[0].message
    assert message.tool_calls
    assert [call.id for call in message.tool_calls] == ["call_000001", "call_000002"]
    messages.append(message)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    final = client.chat.completions.create(model="m", messages=messages, tools=[WEATHER]).choices[0]
    assert final.message.content == "The tool says: sunny; sunny"
    assert final.finish_reason == "stop"


def test_streamed_tool_calls_add_up(client: openai.OpenAI) -> None:
    calls: dict[int, dict[str, str]] = {}
    reasons: list[str | None] = []
    with client.chat.completions.create(
        model="m", messages=users("Weather in Paris and Rome?"), tools=[WEATHER], stream=True
    ) as stream:
        for chunk in stream:
            reasons.append(chunk.choices[0].finish_reason)
            for part in chunk.choices[0].delta.tool_calls or ():
                held = calls.setdefault(part.index, {"id": part.id or "", "name": "", "arguments": ""})
                if part.function:
                    held["name"] += part.function.name or ""
                    held["arguments"] += part.function.arguments or ""
    assert reasons[-1] == "tool_calls"
    assert [(held["id"], held["name"], json.loads(held["arguments"])) for held in calls.values()] == [
        ("call_000001", "get_weather", {"city": "Paris"}),
        ("call_000002", "get_weather", {"city": "Rome"}),
    ]


def test_the_clients_own_stream_helper_reads_it(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="m", messages=users("the time, please"), tools=[TIME]
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls
    assert json.loads(message.tool_calls[0].function.arguments) == {"timezone": "UTC"}


# Refusals and failures


def test_a_broken_conversation_is_refused(server: ModelServer, client: openai.OpenAI) -> None:
    messages: list[Any] = [*users("Hello"), {"role": "tool", "tool_call_id": "a", "content": "1"}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m", messages=messages)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == "messages"
    assert chat_violations(messages)[0] in caught.value.message
    with pytest.raises(openai.BadRequestError):  # refused before the stream begins
        client.chat.completions.create(model="m", messages=messages, stream=True)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": []},
        {"tools": ["get_time"]},
        {"tools": [tool("not a name")]},
        {"messages": "Hello"},
        {"messages": []},
        {"model": ""},
    ],
)
def test_malformed_requests_are_refused(client: openai.OpenAI, extra: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="m", messages=users("Hello"), extra_body=extra)


def post(url: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


def test_errors_of_the_protocol(server: ModelServer) -> None:
    chat = f"{server.base_url}/chat/completions"
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        status, error = post(chat, body, Authorization="Bearer x")
        assert (status, error["type"]) == (400, "invalid_request_error")
        assert set(error) == {"message", "type", "param", "code"}
    assert post(chat, b"{}")[0] == 401
    assert post(chat, b"{}", Authorization="Basic x")[0] == 401
    assert post(f"{server.base_url}/nothing", b"{}", Authorization="Bearer x")[0] == 404
    assert post(f"{server.base_url}/models", b"{}", Authorization="Bearer x")[0] == 404
    assert server.requests == []


def test_models(client: openai.OpenAI) -> None:
    assert "test-model" in [model.id for model in client.models.list()]


def test_scripted_failures(server: ModelServer, client: openai.OpenAI) -> None:
    server.fail_next(429, "Slow down.", times=2)
    for _ in range(2):
        with pytest.raises(openai.RateLimitError, match="Slow down"):
            ask(client, "Hello")
    assert ask(client, "Hello") == "You said: Hello"
    server.fail_next()
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="e", input="Hello")
    server.fail_next(after_chunks=1)
    with pytest.raises(openai.InternalServerError):
        ask(client, "not a stream")
    server.fail_next()
    server.reset()
    assert server.requests == []
    assert ask(client, "Hello") == "You said: Hello"


def test_the_clients_retry_gets_through(server: ModelServer) -> None:
    server.fail_next(503)
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=1) as client:
        assert ask(client, "Hello") == "You said: Hello"
    assert len(server.requests) == 2


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_stream_can_be_cut(server: ModelServer, client: openai.OpenAI, chunks: int) -> None:
    server.fail_next(after_chunks=chunks)
    stream = client.chat.completions.create(model="m", messages=users("one two three"), stream=True)
    read: list[object] = []
    with stream, pytest.raises(Exception, match=r"peer closed|[Cc]onnection|incomplete"):
        read.extend(stream)
    assert len(read) == chunks
    assert ask(client, "Hello") == "You said: Hello"


def test_delay_can_time_out(server: ModelServer, client: openai.OpenAI) -> None:
    server.delay = 30
    with pytest.raises(openai.APITimeoutError):
        ask(client, "Hello", timeout=0.1)


# Embeddings


def cosine(one: list[float], two: list[float]) -> float:
    return sum(a * b for a, b in zip(one, two, strict=True))


def test_embeddings_are_near_when_words_are_shared(client: openai.OpenAI) -> None:
    texts = ["Alice likes green tea", "green TEA is what Alice drinks", "The stock market fell sharply"]
    vectors = [item.embedding for item in client.embeddings.create(model="e", input=texts).data]
    assert [len(vector) for vector in vectors] == [1536] * 3
    assert all(math.isclose(cosine(vector, vector), 1, abs_tol=1e-5) for vector in vectors)
    assert cosine(vectors[0], vectors[1]) > 0.4 > 0.15 > cosine(vectors[0], vectors[2])
    assert client.embeddings.create(model="e", input=texts[0]).data[0].embedding == vectors[0]


def test_embedding_options(client: openai.OpenAI) -> None:
    floats = client.embeddings.create(model="e", input="Hello", dimensions=256, encoding_format="float")
    packed = client.embeddings.create(model="e", input="Hello", dimensions=256, encoding_format="base64")
    raw: Any = packed.data[0].embedding
    unpacked = struct.unpack("<256f", base64.b64decode(raw))
    assert unpacked == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert floats.usage.total_tokens == 2
    tokens = client.embeddings.create(model="e", input=[[1, 2], [3]], dimensions=8)
    assert [len(item.embedding) for item in tokens.data] == [8, 8]
    assert len(client.embeddings.create(model="e", input=[1, 2, 3]).data) == 1
    assert len(client.embeddings.create(model="e", input=["?!", " ", "🦊"], dimensions=1).data) == 3


@pytest.mark.parametrize(
    "extra",
    [
        {"input": ""},
        {"input": []},
        {"input": ["a", 1]},
        {"input": None},
        {"dimensions": 0},
        {"dimensions": True},
    ],
)
def test_malformed_embedding_requests_are_refused(client: openai.OpenAI, extra: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="e", input="Hello", extra_body=extra)


# The server


def test_async_client(server: ModelServer) -> None:
    async def talk() -> tuple[list[str | None], str]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key=server.api_key) as client:

            async def one(number: int) -> str | None:
                completion = await client.chat.completions.create(
                    model="m", messages=users(f"repeat: {number}")
                )
                return completion.choices[0].message.content

            answers = await asyncio.gather(*map(one, range(50)))
            stream = await client.chat.completions.create(model="m", messages=users("Hi you"), stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            await client.embeddings.create(model="e", input="Hello")
            return answers, text

    assert asyncio.run(talk()) == ([str(number) for number in range(50)], "You said: Hi you")
    assert len(server.requests) == 52


def test_a_stream_can_be_abandoned(server: ModelServer) -> None:
    server.chunk_delay = 0.05

    async def leave() -> None:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any") as client:
            stream = await client.chat.completions.create(model="m", messages=users("a " * 1000), stream=True)
            async with stream:
                await anext(aiter(stream))

    asyncio.run(leave())
    assert server.requests


def test_call_ids_are_unique_across_threads(client: openai.OpenAI) -> None:
    def one(_: int) -> str:
        completion = client.chat.completions.create(model="m", messages=users("the time"), tools=[TIME])
        calls = completion.choices[0].message.tool_calls
        assert calls
        return calls[0].id

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(40))) == [f"call_{number:06}" for number in range(1, 41)]


def test_start_and_stop() -> None:
    server = ModelServer()
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.base_url
    before = threading.active_count()
    assert server.start() is server.start()
    client = openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0)
    assert ask(client, "Hello") == "You said: Hello"
    server.delay = 30
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, client, "Hello")
        while len(server.requests) < 2:
            time.sleep(0.01)
        server.stop()
        with pytest.raises(openai.APIConnectionError):
            waiting.result(60)
    server.stop()
    assert threading.active_count() == before
    with pytest.raises(openai.APIConnectionError):
        ask(client, "Hello")
    client.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command(number: signal.Signals) -> None:
    command = [sys.executable, "-W", "error", "-m", "agent_stores.testing.model_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        base_url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=base_url, api_key="any") as client:
            assert ask(client, "Hello") == "You said: Hello"
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")
