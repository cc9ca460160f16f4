"""Notes: what a provider keeps with a thread, in the thread, and no view shows.

A note is a pinned message with a mark and an id of its own. So it is stored as durably as the conversation,
copied, exported, expired and deleted with it, and never trimmed; `list_messages` leaves it out. One is put in
the place of the one before by its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_stores.messages import ChatMessage

_MARK = "agent_stores"

SUMMARY = "summary"
"""The kind of the note that holds the summary of a conversation."""


def note_id(kind: str) -> str:
    """The id of the one message in a thread that is the note of a kind."""
    return f"agent_stores.{kind}"


NOTE_IDS = (note_id(SUMMARY),)
"""The ids of all notes."""


def make_note(kind: str, text: str, data: Mapping[str, Any]) -> ChatMessage:
    """A note.

    Args:
        kind: what it is.
        text: what it says.
        data: JSON-ready data about it.
    """
    return ChatMessage(
        "system",
        text,
        message_id=note_id(kind),
        pinned=True,
        additional_properties={_MARK: {"note": kind, **data}},
    )


def note_data(message: ChatMessage, kind: str) -> Mapping[str, Any] | None:
    """The data of a note of a kind; None for any other message."""
    data = message.additional_properties.get(_MARK)
    if message.pinned and isinstance(data, Mapping) and data.get("note") == kind:
        return data
    return None


def is_note(message: ChatMessage) -> bool:
    """Whether a message is a note of any kind."""
    data = message.additional_properties.get(_MARK)
    return message.pinned and isinstance(data, Mapping) and "note" in data
