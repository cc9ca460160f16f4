"""`LangChainCodec`: LangChain's messages, and ours."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.messages import BaseMessage, messages_from_dict

from agent_stores._json import json_value
from agent_stores.contents import AnyContent
from agent_stores.errors import ArgumentTypeError, MessageFormatError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.framework_data import framework_data, with_framework_data
from agent_stores.plugins.json_diff import apply_diff, attach_diff, digest, json_equal
from agent_stores.plugins.langchain.blocks import FRAMEWORK, Block
from agent_stores.plugins.langchain.conversion import Data, neutral, plain
from agent_stores.plugins.parts import results_apart
from agent_stores.plugins.unsupported import UnsupportedWarnings

_CHUNK = "MessageChunk"


class LangChainCodec:
    """A `MessageCodec` of LangChain's `BaseMessage` and all that derive from it.

    A message becomes one of ours, and comes back as it was. One that another framework wrote may take several
    of LangChain's, as one with two tool results does: messages are therefore read as lists.
    """

    def __init__(self) -> None:
        self._unsupported = UnsupportedWarnings("LangChain")

    def to_chat_message(self, message: BaseMessage) -> ChatMessage:
        """Our message for one of LangChain's.

        Raises:
            ArgumentTypeError, ArgumentError: when it is none, or holds what JSON cannot; the field is named.
        """
        if not isinstance(message, BaseMessage):
            raise ArgumentTypeError(f"a message must be one of LangChain's, got {type(message).__name__}")
        dumped = cast("Data", json_value(message.model_dump(), f"the {type(message).__name__}"))
        name = dumped.pop("id", None)
        ours, shape = neutral(dumped)
        if dumped["type"] == "remove":
            shape["id"] = name  # of the message to be removed
        elif dumped["type"].endswith(_CHUNK) and name:
            shape["id"] = name  # of all chunks of a message
            ours = ours.replace(message_id=f"{name}:{digest(dumped)}")
        elif name:
            ours = ours.replace(message_id=name)
        base = plain(ours, shape) or {"type": dumped["type"]}
        found = attach_diff(ours, FRAMEWORK, base, _without_defaults(message, dumped, base), **shape)
        if not json_equal(_dumped(self.from_chat_message(found)), dumped):
            kept = {**({"id": name} if "id" in shape else {}), "original": dumped}
            found = ours.replace(additional_properties=with_framework_data({}, FRAMEWORK, kept))
        return found

    def from_chat_message(self, message: ChatMessage) -> list[BaseMessage]:
        """LangChain's messages for one of ours: one where one was written.

        Raises:
            MessageFormatError: when it is of a kind that the installed version of LangChain does not know.
        """
        kept = framework_data(message, FRAMEWORK)
        if "original" in kept:
            return [_construct(message, kept["original"], kept.get("id", message.message_id))]

        leave_out = _Leaving(self._unsupported, message.message_id)
        runs = results_apart(message)
        found = []
        for number, run in enumerate(runs):
            one = message if len(runs) == 1 else _part_of(message, run, number)
            base = plain(one, kept if len(runs) == 1 else {}, leave_out)
            if base is not None:
                data = apply_diff(one, FRAMEWORK, base) if len(runs) == 1 else base
                found.append(_construct(message, data, kept.get("id", one.message_id)))
        return found


class _Leaving:
    """What is left out of one message."""

    def __init__(self, unsupported: UnsupportedWarnings, message_id: str | None) -> None:
        self._unsupported = unsupported
        self._message_id = message_id

    def part(self, part: AnyContent, why: str) -> None:
        self._unsupported(part.type, why, message_id=self._message_id)

    def filename(self, part: AnyContent, shown: Block) -> None:
        self._unsupported.filename(part, shown, message_id=self._message_id)


def _part_of(message: ChatMessage, run: list[int], number: int) -> ChatMessage:
    """A message of some of the parts; its id says of which message it is a part."""
    name = message.message_id
    return message.replace(
        contents=[message.contents[index] for index in run],
        message_id=name if number == 0 or name is None else f"{name}#{number}",
    )


def _construct(message: ChatMessage, data: Data, name: str | None) -> BaseMessage:
    try:
        (found,) = messages_from_dict([{"type": data["type"], "data": {**data, "id": name}}])
    except (ValueError, TypeError, KeyError) as error:
        raise MessageFormatError(
            f"the message {message.message_id!r} is not one that this version of LangChain reads: {error}"
        ) from error
    return found


def _without_defaults(message: BaseMessage, dumped: Data, base: Data) -> Data:
    """What a message says beyond what any message of its class says."""
    fields = type(message).model_fields
    return {
        name: value
        for name, value in dumped.items()
        if name in base
        or name not in fields
        or fields[name].is_required()
        or not json_equal(fields[name].get_default(call_default_factory=True), value)
    }


def _dumped(messages: list[BaseMessage]) -> Any:
    if len(messages) != 1:
        return None
    dumped = messages[0].model_dump()
    del dumped["id"]
    return dumped
