"""Messages of Strands' sessions, as its files have them; needs ``strands-agents``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from agent_stores.errors import MissingDependencyError
from agent_stores.importers.parsers.decoding import require_object
from agent_stores.importers.source import UnreadableError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.thread_ids import escape


def session_message(data: Any) -> ChatMessage:
    """The message of a stored one.

    Raises:
        UnreadableError: for what Strands itself cannot read.
        MissingDependencyError: when ``strands-agents`` is not installed.
    """
    stored = require_object(data)
    codec, their_message = _strands()
    try:
        message = their_message.from_dict(stored)
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableError(f"Strands does not read this message ({type(error).__name__})") from error
    found: ChatMessage = codec.to_chat_message(message)
    return found


def thread_of(session_id: str, agent_id: str) -> str:
    """The thread that `AgentStoresSessionManager` has for an agent."""
    session = escape(session_id, "#")
    return session if agent_id == "default" else f"{session}#{agent_id}"


@lru_cache(maxsize=1)
def _strands() -> tuple[Any, Any]:
    try:
        from strands.types.session import SessionMessage
    except ImportError:
        raise MissingDependencyError.of(
            "strands-agents", extra="strands", purpose="reading Strands' messages"
        ) from None
    from agent_stores.plugins.strands.codec import StrandsMessageCodec

    return StrandsMessageCodec(), SessionMessage
