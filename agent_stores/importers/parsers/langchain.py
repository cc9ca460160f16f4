"""LangChain's messages as ``{"type", "data"}``, of Python and of JavaScript; needs ``langchain-core``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from agent_stores.errors import MissingDependencyError
from agent_stores.importers.parsers.decoding import require_object
from agent_stores.importers.source import UnreadableError
from agent_stores.messages import ChatMessage


def langchain_message(data: Any) -> ChatMessage:
    """The message of a stored one.

    Raises:
        UnreadableError: for what LangChain itself cannot read.
        MissingDependencyError: when ``langchain-core`` is not installed.
    """
    stored = require_object(data)
    kind, fields = stored.get("type"), stored.get("data")
    if not isinstance(kind, str) or not isinstance(fields, dict):
        raise UnreadableError("without type and data: no message as LangChain stores it")
    codec, messages_from_dict = _langchain()
    try:
        (message,) = messages_from_dict([{"type": kind, "data": fields}])
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableError(
            f"LangChain does not read this message of type {kind[:40]!r} ({type(error).__name__})"
        ) from error
    found: ChatMessage = codec.to_chat_message(message)
    return found


def langchain_js_message(data: Any) -> ChatMessage:
    """The message of one that LangChain.js stored: as Python's, but for a name and for its oldest form."""
    stored = dict(require_object(data))
    if "data" not in stored and "text" in stored:  # before 2023
        stored["data"] = {"content": stored.pop("text"), "role": stored.pop("role", None)}
    if stored.get("type") == "generic":
        stored["type"] = "chat"
    if isinstance(stored.get("data"), dict) and stored["type"] != "chat":
        stored["data"] = {name: value for name, value in stored["data"].items() if name != "role" or value}
    return langchain_message(stored)


@lru_cache(maxsize=1)
def _langchain() -> tuple[Any, Any]:
    try:
        from langchain_core.messages import messages_from_dict
    except ImportError:
        raise MissingDependencyError.of(
            "langchain-core", extra="langchain", purpose="reading LangChain's messages"
        ) from None
    from agent_stores.plugins.langchain.codec import LangChainCodec

    return LangChainCodec(), messages_from_dict
