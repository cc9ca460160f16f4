"""The ids under which messages are stored: what makes a retry known without reading what is stored.

A message without an id gets one, which is set on the object: saving the object again, however much later,
adds nothing. There is one exception. An application may give the same object to one run after another, and
then each run has a message of its own; so an object that a run has stored gets another id in another run. A
run that failed to store it may be repeated, and goes on with the id that it gave.

The ids that services give are not always ids: Ollama, for one, draws a number below 999 for each answer. So
an answer with an id of its own is stored under this id and a digest of what it says, and is shown with its
own.

A client may send the whole conversation again, without ids. The framework's own providers compare what is
saved with all that is stored, and also take a turn for a repetition that says the same as the last one. Here
only messages count that hold an answer: a user who says the same twice says it twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from agent_stores.message_format import message_to_dict
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.parts import FRAMEWORK
from agent_stores.plugins.framework_data import framework_data, with_framework_data

_OURS = re.compile(r"as_[0-9a-f]{32}(#\d+)?")
_ANSWERS = ("assistant", "tool")


@dataclass
class _Known:
    """What is known of a message object.

    Attributes:
        shown_id: the id that the object has, unless it was changed since.
        stored_id: the id under which it is stored.
        is_loaded: whether it was read from a store.
        run: the run that gave it its id, if one did.
        is_stored: whether a message was stored under the id that it was given here.
    """

    shown_id: str | None
    stored_id: str
    is_loaded: bool = False
    run: ReferenceType[object] | None = None
    is_stored: bool = False


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()
_runs: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


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
        known = _known.get(message)
        if known is None or known.shown_id != message.message_id:
            if plain.message_id:
                named.append(_with_own_id(plain))
                continue
            message.message_id = name = _new_id()
            known = _known[message] = _Known(name, name, run=None if run is None else ref(run))
        if known.is_loaded:
            named.append(stored_as(plain, known.stored_id))
            continue
        message_id = _id_in_run(known, run)
        count = counts[id(message)] = counts.get(id(message), 0) + 1
        # An object that stands in one call twice is two messages, unless it says by an id that it is one.
        named.append(plain.replace(message_id=message_id if count == 1 else f"{message_id}#{count}"))
    return named


def loaded(messages: Sequence[Any], neutral: Sequence[ChatMessage]) -> None:
    """Note under which ids messages are stored: saving them once more, as they are, adds nothing."""
    for message, plain in zip(messages, neutral, strict=True):
        if plain.message_id:
            _known[message] = _Known(message.message_id, plain.message_id, is_loaded=True)


def stored(messages: Sequence[Any]) -> None:
    """Note that messages are stored."""
    for message in messages:
        if message in _known:
            _known[message].is_stored = True


def stored_as(plain: ChatMessage, message_id: str) -> ChatMessage:
    """A message under another id than its own, with which it is shown."""
    if message_id == plain.message_id:
        return plain
    rest = {**framework_data(plain, FRAMEWORK), "id": plain.message_id}
    properties = with_framework_data(plain.additional_properties, FRAMEWORK, rest)
    return plain.replace(message_id=message_id, additional_properties=properties)


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
            name = f"as_{_digest(f'{source} {_said(plain)}', 16)}"
            counts[name] = counts.get(name, 0) + 1
            plain = plain.replace(message_id=f"{name}#{counts[name]}")
        named.append(plain)
    return named


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
    return json.dumps([data["role"], _without_properties(parts)], sort_keys=True)


def _without_properties(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: item for name, item in value.items() if name != "additional_properties"}
        return {name: _without_properties(item) for name, item in kept.items()}
    return [_without_properties(item) for item in value] if isinstance(value, list) else value


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def _with_own_id(plain: ChatMessage) -> ChatMessage:
    if plain.role not in _ANSWERS or _OURS.fullmatch(plain.message_id or ""):
        return plain
    return stored_as(plain, f"{plain.message_id}~{_digest(_said(plain), 8)}")


def _id_in_run(known: _Known, run: object | None) -> str:
    """The id that was given to an object, or that of another run's message which is the same object."""
    if run is None or not known.is_stored or (known.run is not None and known.run() is run):
        return known.stored_id
    return f"as_{_digest(known.stored_id + _runs.setdefault(run, _new_id()), 16)}"


def _new_id() -> str:
    return f"as_{os.urandom(16).hex()}"
