"""Sessions of the OpenAI Agents SDK in Redis."""

from __future__ import annotations

from agent_stores.importers.parsers.openai_agents import responses_item
from agent_stores.importers.redis_list import RedisListSource, after_prefix


def openai_agents_redis(url: str, *, key_prefix: str = "agents:session") -> RedisListSource:
    """Lists of ``agents.extensions.memory.RedisSession``.

    Args:
        url: the server, as `RedisChatMessageStore` takes it.
        key_prefix: what the keys begin with, before a colon.
    """
    prefix, suffix = f"{key_prefix}:", ":messages"
    return RedisListSource(
        "openai-agents",
        url,
        parse=responses_item,
        patterns=[(prefix, suffix)],
        thread=after_prefix(prefix, suffix),
    )
