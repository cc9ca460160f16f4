"""One suite on LlamaIndex's own chat stores and on ours of the same names, constructed alike."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis
from llama_index.core.llms import ChatMessage, MessageRole, TextBlock
from llama_index.core.memory import ChatMemoryBuffer

from tests.plugins.signatures import check_arguments

pytestmark = pytest.mark.anyio

MODULES = {
    "RedisChatStore": "llama_index.storage.chat_store.redis",
    "AzureChatStore": "llama_index.storage.chat_store.azure",
    "SimpleChatStore": "llama_index.core.storage.chat_store",
}
KINDS = ("SimpleChatStore", "RedisChatStore", "RedisChatStore of clients", "AzureChatStore")


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, whose: str, name: str) -> Any:
    """Makes a chat store as its documentation does."""
    kind, _, clients = request.param.partition(" of ")
    module = "agent_stores.llama_index" if whose == "ours" else MODULES[kind]
    Store = getattr(import_module(module), kind)

    def build() -> Any:
        if kind == "SimpleChatStore":
            return Store()
        if kind == "AzureChatStore":
            return Store.from_connection_string(
                request.getfixturevalue("azure"), chat_table_name=name, metadata_table_name=f"{name}m"
            )
        url = request.getfixturevalue("redis_url")
        if not clients:
            return Store(redis_url=url, ttl=300)
        clients_of_both: dict[str, Any] = {"redis_client": redis.Redis, "aredis_client": aioredis.Redis}
        return Store(**{key: one.from_url(url) for key, one in clients_of_both.items()}, ttl=300)

    return build


def words(messages: Any) -> list[str]:
    return [f"{message.role.value}: {message.content}" for message in messages]


async def test_asynchronous_methods(make: Callable[[], Any], name: str) -> None:
    store = make()
    assert await store.aget_messages(name) == []
    await store.async_add_message(name, ChatMessage("Hello"))
    await store.async_add_message(name, ChatMessage(role=MessageRole.ASSISTANT, content="Hi"))
    await store.async_add_message(name, ChatMessage("Hello"))
    assert words(await store.aget_messages(name)) == ["user: Hello", "assistant: Hi", "user: Hello"]
    replaced = [
        ChatMessage("1"),
        ChatMessage(role="tool", content="2", additional_kwargs={"tool_call_id": "c"}),
    ]
    await store.adelete_messages(name)  # Azure's original cannot replace what is there
    await store.aset_messages(name, replaced)
    assert [one.model_dump() for one in await store.aget_messages(name)] == [
        one.model_dump() for one in replaced
    ]
    await store.adelete_last_message(name)
    assert words(await store.aget_messages(name)) == ["user: 1"]
    await store.adelete_messages(name)
    assert await store.aget_messages(name) == []


async def test_blocks_and_other_languages(make: Callable[[], Any], name: str) -> None:
    store = make()
    message = ChatMessage(role="user", blocks=[TextBlock(text="naïve 你好 🎈"), TextBlock(text="two")])
    await store.async_add_message(name, message)
    found = await store.aget_messages(name)
    assert [one.model_dump() for one in found] == [message.model_dump()]


def test_synchronous_methods(make: Callable[[], Any], name: str, whose: str) -> None:
    store = make()
    if type(store).__name__ == "AzureChatStore" and whose == "the original":
        pytest.xfail("llama-index-storage-chat-store-azure: its client stays with the loop of its first call")
    for text in ("1", "2", "3"):
        store.add_message(name, ChatMessage(text))
    assert words(store.get_messages(name)) == ["user: 1", "user: 2", "user: 3"]
    store.add_message(name, ChatMessage("between"), idx=1)
    assert words(store.get_messages(name)) == ["user: 1", "user: between", "user: 2", "user: 3"]
    store.delete_last_message(name)
    assert words(store.get_messages(name)) == ["user: 1", "user: between", "user: 2"]
    assert name in store.get_keys()
    store.delete_messages(name)
    assert name not in store.get_keys()


def test_memory(make: Callable[[], Any], name: str, whose: str) -> None:
    store = make()
    if type(store).__name__ == "AzureChatStore" and whose == "the original":
        pytest.xfail("llama-index-storage-chat-store-azure: its client stays with the loop of its first call")
    memory = ChatMemoryBuffer.from_defaults(
        token_limit=1000, chat_store=store, chat_store_key=name, tokenizer_fn=str.split
    )
    memory.put(ChatMessage("My name is Alice"))
    memory.put(ChatMessage(role="assistant", content="Hello, Alice"))
    assert words(memory.get()) == ["user: My name is Alice", "assistant: Hello, Alice"]
    memory.set([ChatMessage("again")])
    assert words(memory.get_all()) == ["user: again"]
    memory.reset()
    assert memory.get_all() == []


async def test_sqlalchemy_chat_store(whose: str, tmp_path: Path) -> None:
    module = "agent_stores.llama_index" if whose == "ours" else "llama_index.core.storage.chat_store.sql"
    Store = import_module(module).SQLAlchemyChatStore
    uri = f"sqlite+aiosqlite:///{tmp_path}/chat.db"
    store = Store(table_name="chats", async_database_uri=uri)
    assert await store.get_messages("a") == []
    await store.add_message("a", ChatMessage("1"))
    await store.add_messages("a", [ChatMessage("2"), ChatMessage("3")])
    await store.add_messages("b", [ChatMessage("x")])
    assert await store.count_messages("a") == 3
    assert words(await store.get_messages("a", limit=2, offset=1)) == ["user: 2", "user: 3"]
    assert sorted(await store.get_keys()) == ["a", "b"]
    assert words(await Store("chats", uri).get_messages("b")) == ["user: x"]
    await store.set_messages("a", [ChatMessage("4")])
    assert words(await store.get_messages("a")) == ["user: 4"]
    await store.delete_messages("a")
    assert await store.get_keys() == ["b"]


METHODS = ["from_connection_string", "from_account_and_key", "from_account_and_id", "from_sas_token"]


@pytest.mark.parametrize(
    "name",
    [
        *("SimpleChatStore", "RedisChatStore", "AzureChatStore", "SQLAlchemyChatStore"),
        *(f"AzureChatStore.{method}" for method in [*METHODS, "from_aad_token"]),
    ],
)
def test_they_are_made_with_the_same_arguments(name: str) -> None:
    kind, _, method = name.partition(".")
    modules = [MODULES.get(kind, "llama_index.core.storage.chat_store.sql"), "agent_stores.llama_index"]
    made = [getattr(import_module(module), kind) for module in modules]
    check_arguments(*(getattr(one, method) if method else one for one in made))
