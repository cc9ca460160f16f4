"""The ids under which messages are stored: what makes a retry known without reading what is stored.

A message without an id gets one, which is set on the object: saving the object again, however much later,
adds nothing. There is one exception. An application may give the same object to one run after another, and
then each run has a message of its own; so an object that a run has stored gets another id in another run. A
run that failed to store it may be repeated, and goes on with the id that it gave.

The ids that services give are not always ids: Ollama, for one, draws a number below 999 for each answer. So
an answer with an id of its own is stored under this id and a digest of what it says, and is shown with its
own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from agent_stores.message_format import message_to_dict
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.parts import FRAMEWORK
from agent_stores.plugins.framework_data import framework_data, with_framework_data

_OURS = re.compile(r"as_[0-9a-f]{32}(#\d+)?")
_ANSWERS = ("assistant", "tool")


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
_loaded: WeakKeyDictionary[Any, tuple[str | None, str]] = WeakKeyDictionary()
_again: WeakKeyDictionary[Any, list[tuple[Any, str]]] = WeakKeyDictionary()


def with_ids(
    messages: Sequence[Any], neutral: Sequence[ChatMessage], run: object | None = None
) -> list[ChatMessage]:
    """Messages as they are to be stored, each with an id.

    Args:
        messages: the framework's messages; an object that has no id gets one.
        neutral: the same messages as ours.
        run: an object that lives as long as the run that saves them, if a run does.
    """
    named: list[ChatMessage] = []
    counts: dict[int, int] = {}
    for message, plain in zip(messages, neutral, strict=True):
        shown, message_id = _loaded.get(message, (None, ""))
        if message_id and shown == message.message_id:
            named.append(stored_as(plain, message_id))
            continue
        is_own = bool(plain.message_id) and (
            message not in _given or _given[message].message_id != plain.message_id
        )
        if is_own:
            named.append(_with_own_id(plain))
            continue
        message_id = _id_given(message, run)
        count = counts[id(message)] = counts.get(id(message), 0) + 1
        # An object that stands in one call twice is two messages, unless it says by an id that it is one.
        named.append(plain.replace(message_id=message_id if count == 1 else f"{message_id}#{count}"))
    return named


def loaded(messages: Sequence[Any], neutral: Sequence[ChatMessage]) -> None:
    """Note under which ids messages are stored: saving them once more, as they are, adds nothing."""
    for message, plain in zip(messages, neutral, strict=True):
        if plain.message_id:
            _loaded[message] = (message.message_id, plain.message_id)


def stored(messages: Sequence[Any]) -> None:
    """Note that messages are stored."""
    for message in messages:
        if message in _given:
            _given[message].is_stored = True


def replayed_ids(neutral: Sequence[ChatMessage], sources: Sequence[str | None]) -> list[ChatMessage]:
    """Messages with ids for those that another history provider loads, without one, in each run again.

    Such a message is known by what it says, and by how many that say the same come before it.

    Args:
        neutral: the messages.
        sources: who loaded each; None for the others, which stay as they are.
    """
    counts: dict[str, int] = {}
    named = []
    for plain, source in zip(neutral, sources, strict=True):
        if source is not None and plain.message_id is None:
            digest = _digest(plain, 16, source)
            counts[digest] = counts.get(digest, 0) + 1
            plain = plain.replace(message_id=f"as_{digest}#{counts[digest]}")
        named.append(plain)
    return named


def _digest(message: ChatMessage, size: int, *also: str) -> str:
    """A digest of a message's role and contents, in hexadecimal."""
    data = message_to_dict(message)
    said = json.dumps([data["role"], data.get("contents"), *also], sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=size).hexdigest()


def _with_own_id(plain: ChatMessage) -> ChatMessage:
    if plain.role not in _ANSWERS or _OURS.fullmatch(plain.message_id or ""):
        return plain
    return stored_as(plain, f"{plain.message_id}~{_digest(plain, 8)}")


def stored_as(plain: ChatMessage, message_id: str) -> ChatMessage:
    """A message under another id than its own, with which it is shown."""
    if message_id == plain.message_id:
        return plain
    rest = {**framework_data(plain, FRAMEWORK), "id": plain.message_id}
    properties = with_framework_data(plain.additional_properties, FRAMEWORK, rest)
    return plain.replace(message_id=message_id, additional_properties=properties)


def _id_given(message: Any, run: object | None) -> str:
    given = _given.get(message)
    if given is None or not message.message_id:
        given = _given[message] = _Given(_new_id(), run)
        message.message_id = given.message_id
        return given.message_id
    if run is None or not given.is_stored or (given.run is not None and given.run() is run):
        return given.message_id
    others = _again.setdefault(run, [])
    for other, message_id in others:
        if other is message:
            return message_id
    others.append((message, _new_id()))
    return others[-1][1]


def _new_id() -> str:
    return f"as_{os.urandom(16).hex()}"
