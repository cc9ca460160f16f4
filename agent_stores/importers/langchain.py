"""LangChain's histories in Redis lists: ``langchain_community``'s, and those of LangChain.js."""

from __future__ import annotations

from agent_stores.importers.parsers.detection import is_langchain
from agent_stores.importers.parsers.langchain import langchain_js_message, langchain_message
from agent_stores.importers.redis_list import RedisListSource, after_prefix


def langchain_list(url: str, *, key_prefix: str = "message_store:") -> RedisListSource:
    """Lists of ``langchain_community.chat_message_histories.RedisChatMessageHistory``, newest message first.

    Args:
        url: the server, as `RedisChatMessageStore` takes it.
        key_prefix: what the keys begin with.
    """
    return RedisListSource(
        "langchain",
        url,
        parse=langchain_message,
        patterns=[(key_prefix, "")],
        thread=after_prefix(key_prefix),
        newest_first=True,
    )


def langchain_js_list(url: str, *, key_prefix: str = "") -> RedisListSource:
    """Lists of LangChain.js (``@langchain/redis`` and ``@langchain/community``), newest message first.

    A list's key is the session's id and nothing else: all lists of the database are looked at, and those
    without LangChain's messages are passed over.

    Args:
        url: the server, as `RedisChatMessageStore` takes it.
        key_prefix: only keys that begin so; the beginning is a part of the session's id.
    """
    return RedisListSource(
        "langchain-js",
        url,
        parse=langchain_js_message,
        patterns=[(key_prefix, "")],
        thread=after_prefix(""),
        newest_first=True,
        sniff=is_langchain,
    )
