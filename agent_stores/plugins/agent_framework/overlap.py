"""A client that sends the whole conversation again: which of its messages are stored already.

The framework's own providers compare what is saved with all that is stored. They know a message by its id, or
else by its role and contents, so that they also take a turn for a repetition that says the same as the last
one. Here only messages count that hold an answer: a user who says the same twice says it twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent_stores.message_format import message_to_dict
from agent_stores.messages import ChatMessage

_LEFT_OUT = ("additional_properties",)


def may_repeat(messages: Sequence[ChatMessage]) -> bool:
    """Whether messages may be a conversation that is stored: it holds an answer, and a message without id."""
    return any(message.role == "assistant" for message in messages) and any(
        message.message_id is None for message in messages
    )


def find_repeated(
    stored: Sequence[ChatMessage], shown_ids: Sequence[str | None], given: Sequence[ChatMessage]
) -> tuple[int, int]:
    """How many messages, from the first on, are stored or were trimmed; how many of them are stored.

    Args:
        stored: the newest messages of the thread, one more than are given, if there are as many.
        shown_ids: the ids that the framework's messages for them have.
        given: what is to be added, with the ids that the caller gave.
    """
    known = [(_said(message), shown) for message, shown in zip(stored, shown_ids, strict=True)]
    wanted = [(_said(message), message.message_id) for message in given]

    def repeats(end: int, size: int) -> bool:
        """Whether the newest `size` stored messages are those that end at an index of the given ones."""
        pairs = zip(known[len(known) - size :], wanted[end - size : end], strict=True)
        return any(message.role == "assistant" for message in given[end - size : end]) and all(
            shown == own if own is not None else said == now for (said, shown), (now, own) in pairs
        )

    for end in range(len(known), len(wanted) + 1):  # the whole thread is among them
        if known and repeats(end, len(known)):
            return end, len(known)
    for size in range(min(len(known), len(wanted)), 0, -1):  # they begin with the thread's end
        if repeats(size, size):
            return size, size
    return 0, 0


def _said(message: ChatMessage) -> str:
    """What a message says: its role and contents, without what frameworks keep beside them."""
    data = message_to_dict(message)
    parts = [part for part in data.get("contents", ()) if part.get("type") != "usage"]
    return json.dumps([data["role"], _plain(parts)], sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in _LEFT_OUT}
    return [_plain(item) for item in value] if isinstance(value, list) else value
