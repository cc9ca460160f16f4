"""Which of the messages that are to be added are in the conversation already, and the ids of the others.

LangChain's ids do not always name one message: a cache gives an answer with the id of the first time, an
application changes a text and keeps the id. A given message is the stored one when it has the same id and the
same content, unless it is an answer directly behind a new message. What is not the same message is added,
under an id of its own where its id is taken, and is shown with LangChain's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import ref

from langchain_core.messages import BaseMessage

from agent_stores.backend import Row, ThreadKey
from agent_stores.messages import ChatMessage
from agent_stores.plugins.framework_data import framework_data
from agent_stores.plugins.json_diff import digest
from agent_stores.plugins.langchain.codec import LangChainCodec, shown_as
from agent_stores.plugins.merge_messages import joined
from agent_stores.store import ChatMessageStore

_PART_OF = re.compile(r"(.+?)(?:#\d+)+", re.DOTALL)
_given: dict[int, tuple[ref[BaseMessage], str]] = {}


class Added(NamedTuple):
    """What there is to add.

    Attributes:
        messages: the messages that are not in the conversation, each with an id.
        last: the id of the last message that was given, under which it is stored.
    """

    messages: list[ChatMessage]
    last: str


async def not_stored(
    given: Sequence[BaseMessage],
    codec: LangChainCodec,
    store: ChatMessageStore[ChatMessage],
    last: str | None,
) -> Added:
    """The messages of a call that are not in the conversation.

    Args:
        given: the messages, at least one.
        codec: converts them.
        store: the conversation.
        last: the id of the message that the history added last; an answer that is given alone answers it.

    Raises:
        ArgumentTypeError, ArgumentError: for a message that JSON cannot hold.
    """
    ours = [codec.to_chat_message(message) for message in given]
    is_new = [not message.id and id(message) not in _given for message in given]
    names = [one.message_id or id_of(message) for message, one in zip(given, ours, strict=True)]
    behind = last if last and len(ours) == 1 and ours[0].role == "assistant" else ""
    known = [name for name, new in zip(names, is_new, strict=True) if not new]
    known += [part[1] for name in known if (part := _PART_OF.fullmatch(name))]
    key = ThreadKey(store.tenant, store.thread_id)
    rows: Mapping[str, Row] = {}
    if known:
        wanted = dict.fromkeys([*known, behind] if behind else known)
        rows = await store.log.backend.find(key, list(wanted))
    twins = _Twins(codec)
    if rows:
        await twins.read(store, after=min(row.position for row in rows.values()) - 1)
    # Whether the message before is a new one; None when it may have been stored, and trimmed since.
    follows_new: bool | None = False
    earliest = rows[behind].position if behind in rows else 0
    taken, found, before = {*twins.ids.values()}, list[ChatMessage](), twins.ids.get(earliest, "")
    for message, one, name, new in zip(given, ours, names, is_new, strict=True):
        position = None
        if not (follows_new and one.role == "assistant"):
            position = twins.take(message, name, earliest)
        if position is not None and follows_new is None:
            first = await store.log.read(key, limit=1, bodies=False)
            if first and first[0].position == position:
                found.clear()
            elif one.role == "assistant":
                position = None
        if position is not None:
            before, follows_new = twins.ids[position], False
            continue
        stored = name
        if name in taken:
            stored = f"{name}~{digest({'message': one.to_dict(), 'before': before})}"
            one = shown_as(one, name) if one.message_id else one
        else:
            follows_new = True if new or follows_new else None
        taken.add(stored)
        found.append(one.replace(message_id=stored))
        before = stored
    return Added(found, before)


def id_of(message: BaseMessage) -> str:
    """The id of a message that has none: the same for as long as the object lives."""
    found = _given.get(id(message))
    if found is None or found[0]() is not message:
        key = id(message)
        found = _given[key] = (ref(message, lambda _: _given.pop(key, None)), os.urandom(16).hex())
    return found[1]


class _Twins:
    """The messages of a conversation from some position on, as LangChain is shown them.

    Attributes:
        ids: of stored messages, by position.
    """

    def __init__(self, codec: LangChainCodec) -> None:
        self.ids: dict[int, str] = {}
        self._codec = codec
        self._shown: dict[tuple[str | None, str], list[tuple[int, int]]] = {}
        self._taken: set[tuple[int, int]] = set()

    async def read(self, store: ChatMessageStore[ChatMessage], *, after: int) -> None:
        """Read those behind a position."""
        items = [item async for item in store.iter_messages(after=after)]
        positions = {item.message.message_id: item.position for item in items}
        self.ids = {item.position: item.message.message_id or "" for item in items}
        messages = [item.message for item in items]
        answers = [one for one in joined(messages) if framework_data(one, "openai_agents").get("joined")]
        for message in (*messages, *answers):
            self._add(message, positions[message.message_id])

    def take(self, message: BaseMessage, name: str, earliest: int) -> int | None:
        """The position of the same message, from some position on; each is the same as one message only."""
        said = _said(message)
        part = _PART_OF.fullmatch(name)
        for shown in (message.id or name, f"{part[1]}#" if part else name):
            places = self._shown.get((shown, said), [])
            for place in places:
                if place[0] >= earliest and place not in self._taken:
                    self._taken.add(place)
                    return place[0]
        return None

    def _add(self, message: ChatMessage, position: int) -> None:
        shown = self._codec.from_chat_message(message)
        for index, one in enumerate(shown):
            self._shown.setdefault((one.id, _said(one)), []).append((position, index))
            if len(shown) > 1:  # a view may show its parts apart, each under an id of its own
                self._shown.setdefault((f"{message.message_id}#", _said(one)), []).append((position, index))


def _said(message: BaseMessage) -> str:
    """A short name for what a message says, without its id."""
    data: Mapping[str, Any] = message.model_dump(mode="json", exclude={"id"})
    return digest(data)
