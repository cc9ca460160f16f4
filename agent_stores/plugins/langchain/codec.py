"""`LangChainCodec`: LangChain's messages, and ours."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage, messages_from_dict

from agent_stores.errors import ArgumentTypeError, MessageFormatError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.framework_data import framework_data, with_framework_data
from agent_stores.plugins.json_codec import Data, JsonCodec
from agent_stores.plugins.json_diff import digest, json_equal, without_defaults
from agent_stores.plugins.langchain.blocks import FRAMEWORK
from agent_stores.plugins.langchain.conversion import CHUNK, build_message, read_message, role_of
from agent_stores.plugins.parts import results_apart


class LangChainCodec:
    """A `MessageCodec` of LangChain's `BaseMessage` and all that derive from it.

    A message becomes one of ours, and comes back as it was. One that another framework wrote may take several
    of LangChain's, as one with two tool results does: messages are therefore read as lists.
    """

    def __init__(self) -> None:
        self._json = JsonCodec(FRAMEWORK, "LangChain", read_message, build_message, split=results_apart)

    def to_chat_message(self, message: BaseMessage) -> ChatMessage:
        """Our message for one of LangChain's.

        Raises:
            ArgumentTypeError, ArgumentError: when it is none, or holds what JSON cannot; the field is named.
            MessageFormatError: when LangChain would not read it again, as one whose fields were set since.
        """
        if not isinstance(message, BaseMessage):
            raise ArgumentTypeError(f"a message must be one of LangChain's, got {type(message).__name__}")
        dumped = message.model_dump()
        name, kind = message.id, str(dumped["type"])
        if kind != "remove":  # its id is that of the message to be removed
            del dumped["id"]
        found = self._encode(message, without_defaults(message, dumped, "type"))
        if not json_equal(_dumped(self.from_chat_message(found), dumped), dumped):
            found = self._encode(message, dumped)  # it is of a class that has other defaults
        if not name or kind == "remove":
            return found
        if kind.endswith(CHUNK):  # the id is that of all chunks of a message
            return shown_as(found.replace(message_id=f"{name}:{digest(dumped)}"), name)
        return found.replace(message_id=name)

    def from_chat_message(self, message: ChatMessage) -> list[BaseMessage]:
        """LangChain's messages for one of ours: one where one was written.

        Raises:
            MessageFormatError: when it is of a kind that the installed version of LangChain does not know.
        """
        name = framework_data(message, FRAMEWORK).get("id", message.message_id)
        return [
            _construct(found.data, name if number == 0 or name is None else f"{name}#{number}")
            for number, found in enumerate(self._json.decode_all(message))
        ]

    def _encode(self, message: BaseMessage, data: Data) -> ChatMessage:
        return self._json.encode(data, role=role_of(data), what=f"the {type(message).__name__}")


def shown_as(message: ChatMessage, name: str) -> ChatMessage:
    """The message, shown to LangChain under another id than the one it is stored under."""
    kept = {**framework_data(message, FRAMEWORK), "id": name}
    properties = with_framework_data(message.additional_properties, FRAMEWORK, kept)
    return message.replace(additional_properties=properties)


def _construct(data: Data, name: str | None) -> BaseMessage:
    try:
        (found,) = messages_from_dict([{"type": data["type"], "data": {"id": name, **data}}])
    except (ValueError, TypeError, KeyError) as error:
        raise MessageFormatError(
            f"the message {name!r} is not one that this version of LangChain reads: {error}"
        ) from error
    return found


def _dumped(messages: list[BaseMessage], like: Data) -> Any:
    """The dump of a message, with its id where the other one has it."""
    (message,) = messages
    return {name: value for name, value in message.model_dump().items() if name != "id" or name in like}
