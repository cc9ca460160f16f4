"""Messages of Pydantic AI as JSON, as its harness stores them; needs ``pydantic-ai-slim``."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from agent_stores.errors import MissingDependencyError
from agent_stores.importers.parsers.decoding import require_object
from agent_stores.importers.source import End, UnreadableError
from agent_stores.messages import ChatMessage

_STAMPED = ("run_id", "conversation_id", "timestamp", "instructions")

# The harness replaces a part's large field by a reference, in an object of these names.
_MARKER = "__harness_external_media__"
_TEXT = "__harness_external_text__"
_URI = "__harness_external_uri__"
_ESCAPED = "__harness_external_escaped_keys__"
_FORMAT = "__harness_external_marker_format__"
_URLSAFE = "__harness_external_urlsafe__"
_LITERAL = "__harness_external_literal__"


def model_message(data: Any) -> ChatMessage:
    """The message of a stored one.

    Raises:
        UnreadableError: for what Pydantic AI itself cannot read.
        MissingDependencyError: when ``pydantic-ai-slim`` is not installed.
    """
    codec, adapter = _pydantic_ai()
    try:
        (message,) = adapter.validate_python([require_object(data)])
    except ValueError as error:
        raise UnreadableError(f"Pydantic AI does not read this message ({type(error).__name__})") from error
    found: ChatMessage = codec.encode(message, None)
    return found


def identity(data: Any) -> bytes:
    """What names a message in its history: without what later runs stamp on it."""
    kept = data
    if isinstance(data, dict):
        kept = {name: value for name, value in data.items() if name not in _STAMPED}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), default=str).encode()


def record_metadata(updated_at: str, end: End) -> dict[str, Any]:
    """The metadata of a conversation's thread: the record that Pydantic AI lists it by."""
    record = {
        "head_id": end.message_id,
        "revision": f"migrated-{end.position}",
        "updated_at": updated_at,
        "format_version": 1,
    }
    return {"pydantic_ai": {"position": end.position, "record": record}}


def restore_media(data: Any, blob: Callable[[str], bytes]) -> Any:
    """JSON with the texts and bytes that the harness keeps apart.

    Args:
        data: the JSON.
        blob: what is kept under a SHA-256 digest; raises `UnreadableError` when there is nothing.

    Raises:
        UnreadableError: for a reference of a form that is not known.
    """
    if isinstance(data, list):
        return [restore_media(one, blob) for one in data]
    if not isinstance(data, dict):
        return data
    if data.keys() == {_LITERAL, _FORMAT} and str(data[_FORMAT]).startswith("literal-v"):
        data = data[_LITERAL]  # the application's own, though it looks like a reference
    elif data.get(_MARKER) is True:
        return _restored(data, blob)
    return {name: restore_media(value, blob) for name, value in data.items()}


def _restored(marker: Mapping[str, Any], blob: Callable[[str], bytes]) -> dict[str, Any]:
    reference = marker.get(_URI, marker.get("uri"))
    if not isinstance(reference, str) or not reference.startswith("media+sha256://"):
        raise UnreadableError("a part of it that is kept apart has no reference")
    dropped = {_MARKER, _TEXT, _URI}
    if _URI not in marker or marker.get("uri") == reference:
        dropped.add("uri")
    urlsafe = marker.get(_URLSAFE) == "base64-urlsafe-v1"
    if urlsafe:
        dropped.add(_URLSAFE)
    escaped = marker.get(_ESCAPED)
    if isinstance(escaped, dict) and str(marker.get(_FORMAT)).startswith("escaped-keys-v"):
        dropped |= {_ESCAPED, _FORMAT}
    else:
        escaped = {}
    found = {name: restore_media(value, blob) for name, value in marker.items() if name not in dropped}
    found |= {name: restore_media(value, blob) for name, value in escaped.items()}
    raw = blob(reference.removeprefix("media+sha256://"))
    if marker.get(_TEXT) is True:
        found["content"] = raw.decode(errors="surrogatepass")
    else:
        found["data"] = base64.b64encode(raw, altchars=b"-_" if urlsafe else None).decode()
    return found


@lru_cache(maxsize=1)
def _pydantic_ai() -> tuple[Any, Any]:
    try:
        from pydantic_ai.messages import ModelMessagesTypeAdapter
    except ImportError:
        raise MissingDependencyError.of(
            "pydantic-ai-slim", extra="pydantic-ai", purpose="reading Pydantic AI's messages"
        ) from None
    from agent_stores.plugins.pydantic_ai.codec import ModelMessageCodec

    return ModelMessageCodec(), ModelMessagesTypeAdapter
