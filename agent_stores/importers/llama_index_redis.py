"""LlamaIndex's chat store in Redis."""

from __future__ import annotations

from agent_stores.importers.parsers.detection import is_llama_index
from agent_stores.importers.parsers.llama_index import llama_index_message
from agent_stores.importers.redis_list import RedisListSource, after_prefix


def llama_index_list(url: str, *, key_prefix: str = "") -> RedisListSource:
    """Lists of ``llama_index.storage.chat_store.redis.RedisChatStore``, oldest message first.

    A list's key is the chat store's key and nothing else: all lists of the database are looked at, and those
    without LlamaIndex's messages are passed over.

    Args:
        url: the server, as `RedisChatMessageStore` takes it.
        key_prefix: only keys that begin so; the beginning is a part of the key.
    """
    return RedisListSource(
        "llama-index",
        url,
        parse=llama_index_message,
        patterns=[(key_prefix, "")],
        thread=after_prefix(""),
        sniff=is_llama_index,
    )
