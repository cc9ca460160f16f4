"""Events of Google ADK, as its tables have them; needs ``google-adk``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent_stores.errors import MissingDependencyError
from agent_stores.importers.parsers.decoding import require_object
from agent_stores.importers.source import End, UnreadableError
from agent_stores.messages import ChatMessage

_FRAMEWORK = "google_adk"
_JSON_COLUMNS = (
    "content",
    "grounding_metadata",
    "custom_metadata",
    "usage_metadata",
    "citation_metadata",
    "input_transcription",
    "output_transcription",
)
_PLAIN_COLUMNS = (
    "id",
    "invocation_id",
    "author",
    "branch",
    "timestamp",
    "partial",
    "turn_complete",
    "error_code",
    "error_message",
    "interrupted",
)


def adk_event(data: Any, *, stored: Mapping[str, Any]) -> ChatMessage:
    """The message of an event that is stored as JSON.

    Args:
        data: the event.
        stored: its row, whose ``id``, ``invocation_id`` and ``timestamp`` (seconds) count, as in ADK.

    Raises:
        UnreadableError: for what ADK itself cannot read.
        MissingDependencyError: when ``google-adk`` is not installed.
    """
    event = {"timestamp": stored["timestamp"], **require_object(data)}
    return _message({**event, "id": stored["id"], "invocation_id": stored["invocation_id"]})


def legacy_event(stored: Mapping[str, Any]) -> ChatMessage:
    """The message of an event whose fields are columns, and whose actions are pickled.

    Raises:
        UnreadableError: for what ADK itself cannot read, or does not unpickle.
        MissingDependencyError: when ``google-adk`` is not installed.
    """
    event = {name: stored.get(name) for name in _PLAIN_COLUMNS}
    for name in _JSON_COLUMNS:
        value = stored.get(name)
        event[name] = json.loads(value) if isinstance(value, str) else value
    event["long_running_tool_ids"] = json.loads(stored.get("long_running_tool_ids_json") or "[]")
    if stored.get("actions"):
        event["actions"] = _actions(stored["actions"])
    return _message({name: value for name, value in event.items() if value is not None})


def session_metadata(state: Mapping[str, Any], created: float, end: End) -> dict[str, Any]:
    """The metadata of a session's thread: the state as it is after its last event."""
    return {_FRAMEWORK: {"created": created, "position": end.position, "state": dict(state)}}


def metadata_of_state(state: Mapping[str, Any], end: End) -> dict[str, Any]:
    """The metadata of the thread that holds the state of an application or a user."""
    return {name: [value] for name, value in state.items()}


def _message(event: dict[str, Any]) -> ChatMessage:
    codec, their_event, _ = _google_adk()
    try:
        made = their_event.model_validate(event)
    except (ValueError, TypeError) as error:
        raise UnreadableError(f"Google ADK does not read this event ({type(error).__name__})") from error
    found: ChatMessage = codec.to_chat_message(made)
    return found


def _actions(pickled: Any) -> dict[str, Any]:
    unpickle = _google_adk()[2]
    try:
        dumped: dict[str, Any] = unpickle(bytes(pickled)).model_dump(mode="json", exclude_none=True)
    except Exception as error:
        # Pickled data raises anything; the class is in the report, the text may repeat the data.
        raise UnreadableError(f"Google ADK does not unpickle its actions ({type(error).__name__})") from error
    return dumped


@lru_cache(maxsize=1)
def _google_adk() -> tuple[Any, Any, Any]:
    try:
        from google.adk.events.event import Event
        from google.adk.sessions import _restricted_pickle
    except ImportError:
        raise MissingDependencyError.of(
            "google-adk", extra="google-adk", purpose="reading Google ADK's events"
        ) from None
    from agent_stores.plugins.google_adk.codec import EventCodec

    return EventCodec(), Event, _restricted_pickle.loads
