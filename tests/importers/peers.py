"""Writes conversations with the real packages that others store theirs with; run in an environment of them.

    python peers.py

Each line of the input is a JSON array: a layout, a URL, and an array of actions, objects that are done in
order:

- ``{"thread": id, "add": names}`` adds the messages of those names (see `MESSAGES`; ``text:...`` is a user's)
- ``{"thread": id, "read": true}`` reads the thread as the package does

A layout's options stand in an action's ``options``. For each line, a line of the output is a JSON array of
what was read, each message as its framework dumps it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

warnings.simplefilter("ignore")

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

CONVERSATION = [
    "system",
    "user",
    "image",
    "calls",
    "result-a",
    "result-b",
    "answer",
    "yes",
    "answer-2",
    "yes",
]


def langchain_messages() -> dict[str, Any]:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    return {
        "system": SystemMessage("Be brief."),
        "user": HumanMessage("What is the weather? \U0001f600", additional_kwargs={"lang": "en"}),
        "image": HumanMessage(
            [
                {"type": "text", "text": "And here?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ],
            name="bob",
        ),
        "calls": AIMessage(
            "",
            id="run-1",
            tool_calls=[
                {"id": "a", "name": "weather", "args": {"city": "Paris"}, "type": "tool_call"},
                {"id": "b", "name": "weather", "args": {"city": "Oslo"}, "type": "tool_call"},
            ],
            usage_metadata={"input_tokens": 3, "output_tokens": 5, "total_tokens": 8},
            response_metadata={"model_name": "m"},
        ),
        "result-a": ToolMessage("sunny", tool_call_id="a", name="weather", artifact={"c": [21.5]}),
        "result-b": ToolMessage("snow", tool_call_id="b", status="error"),
        "answer": AIMessage("Sunny in Paris, snow in Oslo.", id="run-2"),
        "yes": HumanMessage("yes"),
        "answer-2": AIMessage("Fine."),
    }


def langchain(url: str, options: dict[str, Any]) -> Layout:
    from langchain_community.chat_message_histories import RedisChatMessageHistory

    def history(thread: str) -> Any:
        return RedisChatMessageHistory(thread, url=url, **options)

    return langchain_layout(history)


def langchain_redis(url: str, options: dict[str, Any]) -> Layout:
    """The package on a server without search: its index is not made; what it writes does not need one."""
    import redis
    from langchain_redis import RedisChatMessageHistory
    from langchain_redis import chat_message_history as module

    class Index(module.SearchIndex):  # type: ignore[misc]
        def info(self, name: str | None = None) -> dict[str, Any]:
            return {}

        def create(self, *args: Any, **kwargs: Any) -> None:
            return None

    module.SearchIndex = Index
    client = redis.Redis.from_url(url)
    return langchain_layout(lambda thread: RedisChatMessageHistory(thread, redis_client=client, **options))


def langchain_layout(history: Callable[[str], Any]) -> Layout:
    from langchain_core.messages import HumanMessage, message_to_dict

    def add(thread: str, names: list[str]) -> None:
        known = langchain_messages()
        history(thread).add_messages(
            [known[name] if name in known else HumanMessage(name[len("text:") :]) for name in names]
        )

    return add, lambda thread: [message_to_dict(message) for message in history(thread).messages]


def llama_index_messages() -> dict[str, Any]:
    from llama_index.core.base.llms.types import (
        ChatMessage,
        ImageBlock,
        MessageRole,
        TextBlock,
        ThinkingBlock,
        ToolCallBlock,
    )

    return {
        "system": ChatMessage(role=MessageRole.SYSTEM, content="Be brief."),
        "user": ChatMessage(
            role=MessageRole.USER, content="What is the weather? \U0001f600", additional_kwargs={"lang": "en"}
        ),
        "image": ChatMessage(
            role=MessageRole.USER,
            blocks=[TextBlock(text="And here?"), ImageBlock(image=PNG.encode(), image_mimetype="image/png")],
        ),
        "calls": ChatMessage(
            role=MessageRole.ASSISTANT,
            blocks=[
                ThinkingBlock(content="Two places."),
                ToolCallBlock(tool_call_id="a", tool_name="weather", tool_kwargs={"city": "Paris"}),
                ToolCallBlock(tool_call_id="b", tool_name="weather", tool_kwargs={"city": "Oslo"}),
            ],
        ),
        "result-a": ChatMessage(
            role=MessageRole.TOOL, content="sunny", additional_kwargs={"tool_call_id": "a", "name": "weather"}
        ),
        "result-b": ChatMessage(
            role=MessageRole.TOOL, content="snow", additional_kwargs={"tool_call_id": "b"}
        ),
        "answer": ChatMessage(role=MessageRole.ASSISTANT, content="Sunny in Paris, snow in Oslo."),
        "yes": ChatMessage(role=MessageRole.USER, content="yes"),
        "answer-2": ChatMessage(role=MessageRole.ASSISTANT, content="Fine."),
    }


def langchain_dynamodb(url: str, options: dict[str, Any]) -> Layout:
    import boto3
    from langchain_community.chat_message_histories import DynamoDBChatMessageHistory
    from langchain_core.messages import HumanMessage, messages_to_dict

    table = options.pop("table_name")

    class Session(boto3.Session):  # type: ignore[misc]
        """Makes one resource, which takes long; the package asks for one for each message."""

        made: Any = None

        def resource(self, *args: Any, **kwargs: Any) -> Any:
            self.made = self.made or super().resource(*args, **kwargs)
            return self.made

    session = Session(region_name="eu-central-1")

    def history(thread: str) -> Any:
        more = {"key": {"SessionId": thread, "App": "chat"}} if options.get("composite") else {}
        ttl = {"ttl": options["ttl"]} if "ttl" in options else {}
        return DynamoDBChatMessageHistory(
            table, thread, endpoint_url=url, boto3_session=session, **more, **ttl
        )

    def add(thread: str, names: list[str]) -> None:
        known = langchain_messages()
        known["result-a"].artifact = {"c": [21]}  # the package cannot store a float
        for name in names:
            history(thread).add_message(known.get(name) or HumanMessage(name[len("text:") :]))

    return add, lambda thread: messages_to_dict(history(thread).messages)


def llama_index_layout(store: Any) -> Layout:
    from llama_index.core.llms import ChatMessage

    def add(thread: str, names: list[str]) -> None:
        known = llama_index_messages()
        for name in names:
            message = known.get(name) or ChatMessage(role="user", content=name[len("text:") :])
            store.add_message(thread, message)

    return add, lambda thread: [message.model_dump(mode="json") for message in store.get_messages(thread)]


def llama_index(url: str, options: dict[str, Any]) -> Layout:
    from llama_index.storage.chat_store.redis import RedisChatStore

    return llama_index_layout(RedisChatStore(redis_url=url, **options))


def llama_index_azure(url: str, options: dict[str, Any]) -> Layout:
    from llama_index.storage.chat_store.azure import AzureChatStore

    # Each of its synchronous calls runs on a loop of its own, so that clients cannot be shared.
    def fresh() -> Any:
        return AzureChatStore.from_connection_string(url, **options)

    def add(thread: str, names: list[str]) -> None:
        for name in names:
            llama_index_layout(fresh())[0](thread, [name])

    return add, lambda thread: llama_index_layout(fresh())[1](thread)


def agent_framework_messages() -> dict[str, Any]:
    import agent_framework
    from agent_framework import Content

    message: Any = getattr(agent_framework, "ChatMessage", None) or agent_framework.Message

    def make(role: str, *contents: Any, **more: Any) -> Any:
        return message(role=role, contents=list(contents), **more)

    def text(said: str) -> Any:
        return Content.from_text(said)

    return {
        "system": make("system", text("Be brief.")),
        "user": make(
            "user",
            text("What is the weather? \U0001f600"),
            additional_properties={"lang": "en"},
            author_name="bob",
        ),
        "image": make(
            "user",
            text("And here?"),
            Content.from_uri(f"data:image/png;base64,{PNG}", media_type="image/png"),
        ),
        "calls": make(
            "assistant",
            Content.from_text_reasoning(text="Two places."),
            Content.from_function_call("a", "weather", arguments='{"city": "Paris"}'),
            Content.from_function_call("b", "weather", arguments='{"city":"Oslo"}'),
            message_id="m-1",
        ),
        "result-a": make("tool", Content.from_function_result("a", result="sunny")),
        "result-b": make("tool", Content.from_function_result("b", result="snow")),
        "answer": make("assistant", text("Sunny in Paris, snow in Oslo."), message_id="m-2"),
        "yes": make("user", text("yes")),
        "answer-2": make("assistant", text("Fine.")),
        "text": lambda said: make("user", text(said)),
    }


def agent_framework(url: str, options: dict[str, Any]) -> Layout:
    from agent_framework_redis import RedisHistoryProvider

    def layout(thread: str) -> Any:
        return RedisHistoryProvider(redis_url=url, **options)

    def add(thread: str, names: list[str]) -> None:
        asyncio.run(save(layout(thread), thread, names))

    async def save(provider: Any, thread: str, names: list[str]) -> None:
        known = agent_framework_messages()
        for name in names:  # one by one: a call leaves out messages that have the same words
            await provider.save_messages(
                thread, [known[name] if name in known else known["text"](name[len("text:") :])]
            )
        await provider.aclose()

    async def load(provider: Any, thread: str) -> list[Any]:
        found = [message.to_dict() for message in await provider.get_messages(thread)]
        await provider.aclose()
        return found

    return add, lambda thread: asyncio.run(load(layout(thread), thread))


def agent_framework_beta(url: str, options: dict[str, Any]) -> Layout:
    from agent_framework_redis import RedisChatMessageStore

    async def save(thread: str, names: list[str]) -> None:
        known = agent_framework_messages()
        store = RedisChatMessageStore(redis_url=url, thread_id=thread, **options)
        await store.add_messages(
            [known[name] if name in known else known["text"](name[len("text:") :]) for name in names]
        )
        await store.aclose()

    async def load(thread: str) -> list[Any]:
        store = RedisChatMessageStore(redis_url=url, thread_id=thread, **options)
        found = [message.to_dict() for message in await store.list_messages()]
        await store.aclose()
        return found

    return (lambda thread, names: asyncio.run(save(thread, names))), (
        lambda thread: asyncio.run(load(thread))
    )


Layout = tuple[Callable[[str, list[str]], None], Callable[[str], list[Any]]]

LAYOUTS: dict[str, Callable[[str, dict[str, Any]], Layout]] = {
    "langchain": langchain,
    "langchain-dynamodb": langchain_dynamodb,
    "langchain-redis": langchain_redis,
    "llama-index": llama_index,
    "llama-index-azure": llama_index_azure,
    "agent-framework": agent_framework,
    "agent-framework-beta": agent_framework_beta,
}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what packages print is no answer
    for line in sys.stdin:
        layout, url, actions = json.loads(line)
        read = []
        for action in actions:
            add, load = LAYOUTS[layout](url, action.get("options", {}))
            if "add" in action:
                add(action["thread"], action["add"])
            if action.get("read"):
                read.append(load(action["thread"]))
        # DynamoDB's numbers are Decimal
        print(json.dumps(read, default=lambda value: int(value)), file=answers, flush=True)


if __name__ == "__main__":
    main()
