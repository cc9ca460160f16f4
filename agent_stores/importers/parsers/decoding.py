"""Decodes one stored message; a malformed message yields the reason and does not stop the import."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from agent_stores.errors import AgentStoresError, MissingDependencyError
from agent_stores.importers.source import SourceMessage, UnreadableError
from agent_stores.messages import ChatMessage

Parser = Callable[[Any], ChatMessage]
"""Converts decoded JSON to a message; raises `UnreadableError` or an error of the codec."""

_SHOWN = 200  # characters of a reason


def read_json(raw: bytes, parse: Parser, *, location: str, stable_id: str | None = None) -> SourceMessage:
    """A stored message that is a JSON document.

    Args:
        raw: the document.
        parse: converts the decoded document to a message.
        location: the position in the thread, for reports.
        stable_id: the id of the message in the source, where it has one that never changes.

    Raises:
        MissingDependencyError: when the framework's package is needed and not installed.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        # The text of the error says where, not what: no part of a conversation gets into a report.
        return SourceMessage(location, raw, None, f"not JSON: {_what(error)}", stable_id)
    return read_data(data, raw, parse, location=location, stable_id=stable_id)


def read_data(
    data: Any, raw: bytes, parse: Parser, *, location: str, stable_id: str | None = None
) -> SourceMessage:
    """A stored message that is decoded already; as `read_json`."""
    try:
        return SourceMessage(location, raw, parse(data), None, stable_id)
    except MissingDependencyError:
        raise
    except (UnreadableError, AgentStoresError) as error:
        return SourceMessage(location, raw, None, _what(error), stable_id)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # Of the framework, about data that it did not write; its text may repeat the message.
        return SourceMessage(location, raw, None, f"not of this layout ({type(error).__name__})", stable_id)


def require_object(data: Any) -> dict[str, Any]:
    """Check that the data is a JSON object.

    Raises:
        UnreadableError: when it is not.
    """
    if not isinstance(data, dict):
        raise UnreadableError(f"the message must be a JSON object, got {type(data).__name__}")
    return data


def _what(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
