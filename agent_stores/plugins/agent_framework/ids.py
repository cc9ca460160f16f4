"""Ids for messages that come without one: what makes a retry known without reading what is stored.

A message object is one message: its id is set on it when it is first saved, so that saving it again, however
much later, adds nothing. There is one exception. An application may give the same object to one run after
another, and then each run has a message of its own; so an object that a run has stored gets another id in
another run. A run that failed to store it may be repeated, and goes on with the id that it gave.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref


class _Given:
    """An id that was given here.

    Attributes:
        message_id: the id.
        run: the run that gave it, if one did.
        is_stored: whether a message was stored under it.
    """

    __slots__ = ("is_stored", "message_id", "run")

    def __init__(self, message_id: str, run: object | None) -> None:
        self.message_id = message_id
        self.run: ReferenceType[object] | None = None if run is None else ref(run)
        self.is_stored = False


_given: WeakKeyDictionary[Any, _Given] = WeakKeyDictionary()
_again: WeakKeyDictionary[Any, list[tuple[Any, str]]] = WeakKeyDictionary()


def message_ids(messages: Sequence[Any], run: object | None = None) -> list[str]:
    """The id of each message; an object that has none gets one.

    Args:
        messages: the framework's messages.
        run: an object that lives as long as the run that saves them, if a run does.
    """
    ids: list[str] = []
    counts: dict[int, int] = {}
    for message in messages:
        is_own = bool(message.message_id) and (
            message not in _given or _given[message].message_id != message.message_id
        )
        message_id = message.message_id if is_own else _id_given(message, run)
        count = counts[id(message)] = counts.get(id(message), 0) + 1
        # An object that stands in one call twice is two messages, unless it says by an id that it is one.
        ids.append(message_id if is_own or count == 1 else f"{message_id}#{count}")
    return ids


def stored(messages: Sequence[Any]) -> None:
    """Note that messages are stored."""
    for message in messages:
        if message in _given:
            _given[message].is_stored = True


def _id_given(message: Any, run: object | None) -> str:
    given = _given.get(message)
    if given is None or not message.message_id:
        given = _given[message] = _Given(os.urandom(16).hex(), run)
        message.message_id = given.message_id
        return given.message_id
    if run is None or not given.is_stored or (given.run is not None and given.run() is run):
        return given.message_id
    others = _again.setdefault(run, [])
    for other, message_id in others:
        if other is message:
            return message_id
    others.append((message, os.urandom(16).hex()))
    return others[-1][1]
