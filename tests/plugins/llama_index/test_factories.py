"""The names and constructors of LlamaIndex's own chat stores: programs with only the import changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage as LlamaMessage
from llama_index.core.storage.chat_store import SimpleChatStore as Original

from agent_stores.errors import ArgumentError
from agent_stores.llama_index import AzureChatStore, RedisChatStore, SimpleChatStore, SQLAlchemyChatStore


@pytest.mark.parametrize("make", [Original, SimpleChatStore])
def test_simple_chat_store(make: Any, tmp_path: Path) -> None:
    store = make()
    assert store.get_messages("a") == []
    assert store.delete_messages("a") is None
    assert store.delete_message("a", 0) is None
    for words in ("1", "2", "3"):
        store.add_message("a", LlamaMessage(words))
    store.add_message("a", LlamaMessage("0"), idx=0)
    assert store.delete_message("a", 1) == LlamaMessage("1")
    assert store.delete_last_message("a") == LlamaMessage("3")
    assert [one.content for one in store.get_messages("a")] == ["0", "2"]
    store.set_messages("b", [LlamaMessage("x")])
    assert store.get_keys() == ["a", "b"]
    if make is SimpleChatStore:  # the original cannot be written with the newest pydantic
        path = str(tmp_path / "folder" / "store.json")
        store.persist(persist_path=path)
        again = make.from_persist_path(persist_path=path)
        assert again.get_messages("a") == store.get_messages("a")
        assert make.model_validate_json(store.model_dump_json()).get_keys() == ["a", "b"]
    assert store.delete_messages("a") is not None
    assert store.get_keys() == ["b"]


def test_a_file_of_the_original(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    message = LlamaMessage("Hello").model_dump(mode="json")
    path.write_text(json.dumps({"store": {"a": [message]}, "class_name": "SimpleChatStore"}))
    assert SimpleChatStore.from_persist_path(str(path)).get_messages("a") == [LlamaMessage("Hello")]
    assert SimpleChatStore(store={"a": [LlamaMessage("Hello")]}).get_keys() == ["a"]


@pytest.mark.anyio
async def test_sqlalchemy_chat_store(tmp_path: Path) -> None:
    uri = f"sqlite+aiosqlite:///{tmp_path}/chat.db"
    store = SQLAlchemyChatStore(table_name="chats", async_database_uri=uri)
    await store.add_message("a", LlamaMessage("1"))
    assert await SQLAlchemyChatStore("others", uri).get_messages("a") == []
    assert await SQLAlchemyChatStore("chats", uri).get_messages("a") == [LlamaMessage("1")]
    assert await SQLAlchemyChatStore("chats").get_keys() == []
    with pytest.raises(ArgumentError, match="db_schema must be None, got 'x'"):
        SQLAlchemyChatStore("chats", uri, db_schema="x")


def test_redis_chat_store() -> None:
    state = json.loads(RedisChatStore(redis_url="redis://localhost:1", ttl=300).model_dump_json())
    assert state == {"class_name": "AgentStoresChatStore", "store": "redis://localhost:1", "ttl": 300}
    with pytest.raises(ArgumentError, match="for Redis, write redis://localhost:6379"):
        RedisChatStore(redis_url="localhost:6379")


def test_azure_chat_store() -> None:
    key = "c2VjcmV0"
    one = AzureChatStore.from_account_and_key(
        account_name="account", account_key=key, chat_table_name="FooChat"
    )
    assert one.model_dump()["location"].startswith("https://account.table.core.windows.net/foochat")
    assert key not in one.model_dump_json()
    AzureChatStore.from_sas_token(endpoint="https://account.table.core.windows.net", sas_token="sig=x")
    AzureChatStore.from_connection_string("UseDevelopmentStorage=true", metadata_table_name="unused")
    with pytest.raises(TypeError, match="chat_table"):
        AzureChatStore.from_account_and_key("account", key, chat_table="x")  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="atable_service_client must be"):
        AzureChatStore()
