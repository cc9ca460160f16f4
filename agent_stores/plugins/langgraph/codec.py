"""Messages of a graph's state as rows, and values of its other channels as text."""

from __future__ import annotations

import base64
import copy
import threading
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.event_hooks import SerdeEvent, register_serde_event_listener

from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.message_format import message_to_dict
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.framework_data import framework_data, with_framework_data
from agent_stores.plugins.json_diff import digest
from agent_stores.plugins.langchain.codec import LangChainCodec

FRAMEWORK = "langgraph"

Typed = list[str]
"""A value as JSON: the serializer's name of its type, and its bytes in Base64."""

_ROLES: Mapping[str, Role] = {"ai": "assistant", "human": "user", "tool": "tool", "function": "tool"}


class GraphCodec:
    """Converts what a graph's state holds, without loss: messages to `ChatMessage`, other values to text.

    A message keeps its neutral form, which other plug-ins read. Where JSON cannot hold all of a message (an
    artifact that is an object, a tuple), the graph's serializer keeps it in addition.

    Args:
        serde: the graph's serializer.
        messages: converts LangChain's messages.
    """

    def __init__(self, serde: SerializerProtocol, messages: LangChainCodec) -> None:
        self._serde = serde
        self._messages = messages

    def encode(self, message: BaseMessage, row_id: str | None, *, own: bool = True) -> ChatMessage:
        """The neutral form of a message.

        Args:
            message: the message; its own id may be missing.
            row_id: the id of its row.
            own: whether a checkpoint has it; any other message is one that was added to the conversation.

        Raises:
            ArgumentTypeError: when neither JSON nor the serializer can restore it.
        """
        kept: dict[str, Any] = {"own": True} if own else {}
        if message.id != row_id:
            kept["id"] = message.id
        try:
            ours = self._messages.to_chat_message(message)
        except (ArgumentError, ArgumentTypeError):
            ours = ChatMessage(_ROLES.get(message.type, "system"), str(message.text))
        ours = ours.replace(message_id=row_id)
        found = _with(ours, kept)
        plain = self.decode(found)
        if plain == [message]:
            return found
        exact = self.dump(message, "a message")
        if plain == [self.load(exact)]:  # the serializer restores no more of it
            return found
        return _with(ours, {**kept, "exact": exact, "of": _digest(ours)})

    def decode(self, message: ChatMessage) -> list[BaseMessage]:
        """The graph's messages for a stored one: exactly one where a graph wrote it."""
        kept = framework_data(message, FRAMEWORK)
        if "exact" in kept and kept.get("of") == _digest(message):
            return [self.load(kept["exact"])]
        found = self._messages.from_chat_message(message)
        if kept.get("own") and len(found) == 1:
            found[0].id = kept.get("id", message.message_id)
        return found

    def dump(self, value: Any, what: str) -> Typed:
        """A value as JSON.

        Raises:
            ArgumentTypeError: when the serializer does not restore a type in it; names the type.
        """
        kind, data = self._serde.dumps_typed(value)
        if kind == "msgpack":
            _check_restorable(kind, data, self._serde, what)
        return [kind, base64.b64encode(data).decode()]

    def load(self, typed: Typed) -> Any:
        """The value that `dump` was given."""
        return self._serde.loads_typed((typed[0], base64.b64decode(typed[1])))


def is_own(message: ChatMessage) -> bool:
    """Whether a graph wrote a message."""
    return bool(framework_data(message, FRAMEWORK).get("own"))


def copy_message(message: BaseMessage) -> BaseMessage:
    """A copy that shares nothing with a message that could be changed; faster than decoding it again."""
    new = message.model_copy()
    for name, value in message.__dict__.items():
        if not isinstance(value, (str, int, type(None))):
            vars(new)[name] = _copied(value)
    return new


def is_message_list(value: Any) -> bool:
    """Whether a channel's value is a list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, BaseMessage) for one in value)


def _check_restorable(kind: str, data: bytes, serde: SerializerProtocol, what: str) -> None:
    """Raise for a type that a strict serializer would restore as something else."""
    blocked: list[SerdeEvent] = []
    thread = threading.get_ident()

    def listen(event: SerdeEvent) -> None:
        if event["kind"].endswith("blocked") and threading.get_ident() == thread:
            blocked.append(event)

    unregister = register_serde_event_listener(listen)
    try:
        serde.loads_typed((kind, data))
    finally:
        unregister()
    if blocked:
        name = (blocked[0]["module"], blocked[0]["name"])
        raise ArgumentTypeError(
            f"{what} has a value of type {name[0]}.{name[1]}, which the serializer does not restore; "
            f"allow it with serde=JsonPlusSerializer(allowed_msgpack_modules=[{name!r}])"
        )


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {name: _copied(one) for name, one in value.items()}
    if type(value) is list:
        return [_copied(one) for one in value]
    return value if type(value) in (str, int, float, bool, type(None)) else copy.deepcopy(value)


def _digest(message: ChatMessage) -> str:
    return digest({"contents": message_to_dict(message)["contents"]})


def _with(message: ChatMessage, kept: Mapping[str, Any]) -> ChatMessage:
    properties = with_framework_data(message.additional_properties, FRAMEWORK, kept)
    return message.replace(additional_properties=properties)
