"""Values of LangGraph's checkpoints; needs ``langgraph-checkpoint`` and ``langchain-core``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent_stores.errors import MissingDependencyError
from agent_stores.importers.source import UnreadableError
from agent_stores.messages import ChatMessage


def load_value(kind: str, data: Any) -> Any:
    """The value that LangGraph's serializer stored.

    Types that are not LangGraph's or LangChain's are not made, whatever the data names.

    Raises:
        UnreadableError: when the serializer does not read it, such as one that is encrypted.
        MissingDependencyError: when ``langgraph-checkpoint`` is not installed.
    """
    try:
        return _langgraph()[1].loads_typed((kind, bytes(data)))
    except Exception as error:
        # What the data is, is not known: decoders raise anything. The text may repeat it.
        raise UnreadableError(
            f"LangGraph's serializer does not read its checkpoint, of the type {kind[:40]!r} "
            f"({type(error).__name__})"
        ) from error


def channel_values(checkpoint: Any) -> Mapping[str, Any]:
    """The values of a checkpoint's channels.

    Raises:
        UnreadableError: when it is no checkpoint.
    """
    values = checkpoint.get("channel_values", {}) if isinstance(checkpoint, dict) else None
    if not isinstance(values, dict):
        raise UnreadableError("its checkpoint has another form than LangGraph's")
    return values


def graph_message(message: Any) -> ChatMessage:
    """The message of a graph's.

    Raises:
        UnreadableError: when it is none.
    """
    codec, _, their_message = _langgraph()
    if not isinstance(message, their_message):
        raise UnreadableError(f"the value must be a message, got {type(message).__name__}")
    found: ChatMessage = codec.encode(message, message.id, own=False)
    return found


@lru_cache(maxsize=1)
def _langgraph() -> tuple[Any, Any, Any]:
    try:
        from langchain_core.messages import BaseMessage
        from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    except ImportError:
        raise MissingDependencyError.of(
            "langgraph-checkpoint", extra="langgraph", purpose="reading LangGraph's checkpoints"
        ) from None
    from agent_stores.plugins.langchain.codec import LangChainCodec
    from agent_stores.plugins.langgraph.codec import GraphCodec

    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    return GraphCodec(serde, LangChainCodec()), serde, BaseMessage
