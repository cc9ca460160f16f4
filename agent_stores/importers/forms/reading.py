"""Reading one stored message: what is wrong with it becomes a reason, and never stops the reading."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from agent_stores.errors import AgentStoresError, MissingDependencyError
from agent_stores.importers.source import SourceMessage, UnreadableError
from agent_stores.messages import ChatMessage

Form = Callable[[Any], ChatMessage]
"""Makes a message of decoded JSON; raises `UnreadableError`, or what a codec raises."""

_SHOWN = 200  # characters of a reason


def read_json(raw: bytes, form: Form, *, place: str, row: str | None = None) -> SourceMessage:
    """A stored message that is a JSON document.

    Args:
        raw: the document.
        form: makes a message of it.
        place: where it is in its thread.
        row: what names it in the source for ever.

    Raises:
        MissingDependencyError: when the framework's package is needed and not installed.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        # The text of the error says where, not what: no part of a conversation gets into a report.
        return SourceMessage(place, raw, None, f"not JSON: {_what(error)}", row)
    return read_data(data, raw, form, place=place, row=row)


def read_data(data: Any, raw: bytes, form: Form, *, place: str, row: str | None = None) -> SourceMessage:
    """A stored message that is decoded already; as `read_json`."""
    try:
        return SourceMessage(place, raw, form(data), None, row)
    except MissingDependencyError:
        raise
    except (UnreadableError, AgentStoresError) as error:
        return SourceMessage(place, raw, None, _what(error), row)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # Of the framework, about data that it did not write; its text may repeat the message.
        return SourceMessage(place, raw, None, f"not of this layout ({type(error).__name__})", row)


def require_object(data: Any) -> dict[str, Any]:
    """The data, which has to be a JSON object.

    Raises:
        UnreadableError: when it is none.
    """
    if not isinstance(data, dict):
        raise UnreadableError(f"a JSON object is expected, and this is of type {type(data).__name__}")
    return data


def _what(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
