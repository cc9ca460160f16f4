"""LlamaIndex's messages as their JSON dump; needs ``llama-index-core``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from agent_stores.errors import MissingDependencyError
from agent_stores.importers.parsers.decoding import require_object
from agent_stores.importers.source import UnreadableError
from agent_stores.messages import ChatMessage


def llama_index_message(data: Any) -> ChatMessage:
    """The message of a stored one.

    Raises:
        UnreadableError: for what LlamaIndex itself cannot read.
        MissingDependencyError: when ``llama-index-core`` is not installed.
    """
    stored = require_object(data)
    if "role" not in stored:
        raise UnreadableError("without a role: no message as LlamaIndex stores it")
    codec, their_message = _llama_index()
    try:
        message = their_message.model_validate(stored)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableError(f"LlamaIndex does not read this message ({type(error).__name__})") from error
    found: ChatMessage = codec.to_chat_message(message)
    return found


@lru_cache(maxsize=1)
def _llama_index() -> tuple[Any, Any]:
    try:
        from llama_index.core.base.llms.types import ChatMessage as TheirMessage
    except ImportError:
        raise MissingDependencyError.of(
            "llama-index-core", extra="llama-index", purpose="reading LlamaIndex's messages"
        ) from None
    from agent_stores.plugins.llama_index.codec import LlamaIndexCodec

    return LlamaIndexCodec(), TheirMessage
