"""Items of the Responses API, as the OpenAI Agents SDK stores them; needs no package of it."""

from __future__ import annotations

from typing import Any

from agent_stores.importers.parsers.decoding import require_object
from agent_stores.importers.source import UnreadableError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.openai_agents.codec import ResponsesItemCodec

_codec = ResponsesItemCodec()


def responses_item(data: Any) -> ChatMessage:
    """The message of a stored item.

    Raises:
        UnreadableError: for what is no item, or is encrypted.
        ArgumentError: for a number that JSON cannot hold.
    """
    item = require_object(data)
    if item.get("__enc__") == 1 and "payload" in item:
        raise UnreadableError(
            "encrypted by EncryptedSession; only the application can read it, with its key and within its "
            "time-to-live"
        )
    if not ({"type", "role"} & item.keys()):
        raise UnreadableError("neither a type nor a role: no item of the Responses API")
    return _codec.to_chat_message(item)
