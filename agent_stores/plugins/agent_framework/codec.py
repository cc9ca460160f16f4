"""`AgentFrameworkCodec`: the framework's messages and ours."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from agent_stores.contents import AnyContent, ToolResultContent
from agent_stores.errors import ArgumentTypeError, MessageFormatError
from agent_stores.messages import ROLES, ChatMessage, Role
from agent_stores.plugins.agent_framework.compat import installed
from agent_stores.plugins.agent_framework.parts import FRAMEWORK, from_part, to_part
from agent_stores.plugins.agent_framework.serialization import dump_content, dump_message
from agent_stores.plugins.framework_data import framework_data, with_framework_data, without_framework_data
from agent_stores.plugins.json_diff import changed, difference
from agent_stores.plugins.unsupported import UnsupportedWarnings

if TYPE_CHECKING:
    from agent_framework import Message

_NESTED = ("items", "inputs", "outputs", "output", "function_call", "screenshot")


class AgentFrameworkCodec:
    """Converts the messages of the installed Agent Framework; implements `MessageCodec`.

    A message and each of its contents come back as they were, as far as the framework's own serialization
    says what they are: raw representations of a provider are not kept. What another version or framework
    wrote is read as this version says it; a part that it cannot say is left out, with a warning in the log.

    Raises:
        MissingDependencyError: when the framework is not installed.
    """

    def __init__(self) -> None:
        self._names = installed()
        self._unsupported = UnsupportedWarnings(f"the installed agent_framework, {self._names.version},")

    def to_chat_message(self, message: Message) -> ChatMessage:
        """Our message for the framework's.

        Raises:
            ArgumentTypeError: when it is not a message of the framework, or holds what JSON cannot; names the
                field.
            ArgumentError: for a number that is not finite.
        """
        if not isinstance(message, self._names.message):
            raise ArgumentTypeError(
                f"a message must be agent_framework's {self._names.message.__name__}, "
                f"got {type(message).__name__}"
            )
        known = self._names.content_fields
        parts = [
            to_part(dump_content(content, f"contents[{index}]"), known)
            for index, content in enumerate(message.contents)
        ]
        wanted = dump_message(message)
        properties = wanted["additional_properties"]
        plain = ChatMessage(
            cast("Role", wanted["role"] if wanted["role"] in ROLES else "user"),
            contents=parts,
            author_name=message.author_name,
            message_id=message.message_id or None,
            additional_properties=without_framework_data(properties, FRAMEWORK),
        )
        rest = difference(_plain(plain), wanted)
        if not rest:
            return plain
        kept = with_framework_data(plain.additional_properties, FRAMEWORK, rest)
        return plain.replace(additional_properties=kept)

    def from_chat_message(self, message: ChatMessage) -> Message:
        """The framework's message for ours.

        Raises:
            MessageFormatError: when the framework refuses what was kept of its message.
        """
        fields = {**_plain(message), "message_id": message.message_id}
        with contextlib.suppress(LookupError, TypeError, ValueError):  # it fits a changed message no more
            fields = changed(fields, framework_data(message, FRAMEWORK))
        unknown = fields.keys() - self._names.message_fields
        for name in unknown:
            self._unsupported.field(f"message.{name}", "it has no such field", message_id=message.message_id)
            del fields[name]
        try:
            contents = [
                c for c in (self._content(part, message) for part in message.contents) if c is not None
            ]
            return cast("Message", self._names.message(**fields, contents=contents))
        except (TypeError, ValueError) as error:
            raise MessageFormatError(
                f"the message {message.message_id!r} is not one of agent_framework's: {error}"
            ) from error

    def _content(self, part: AnyContent, message: ChatMessage) -> Any:
        data = from_part(part, self._names.content_fields)
        known = self._names.content_types
        if data is None or (known and data["type"] not in known):
            self._unsupported(part.type, "it has no such content", message_id=message.message_id)
            return None
        if isinstance(part, ToolResultContent):
            self._tell_contents(part, message)
        return self._names.content.from_dict(self._accepted(data, message))

    def _tell_contents(self, result: ToolResultContent, message: ChatMessage) -> None:
        """Say which parts of a tool's result it is not shown."""
        known = self._names.content_fields
        for inner in result.contents:
            if "items" not in known or from_part(inner, known) is None:
                self._unsupported(inner.type, "a tool's result cannot hold it", message_id=message.message_id)

    def _accepted(self, data: Mapping[str, Any], message: ChatMessage) -> dict[str, Any]:
        """A content's form without the fields that this version does not have."""
        accepted: dict[str, Any] = {}
        for name, value in data.items():
            if name not in self._names.content_fields:
                self._unsupported.field(
                    f"{data['type']}.{name}", "it has no such field", message_id=message.message_id
                )
            elif name in _NESTED and self._is_content(value):
                accepted[name] = self._accepted(value, message)
            elif name in _NESTED and isinstance(value, list):
                items: list[Any] = [
                    self._accepted(item, message) if self._is_content(item) else item for item in value
                ]
                accepted[name] = items
            else:
                accepted[name] = value
        return accepted

    def _is_content(self, value: Any) -> bool:
        return isinstance(value, dict) and value.get("type") in self._names.content_types


def _plain(message: ChatMessage) -> dict[str, Any]:
    """The fields of the framework's message that our neutral ones say."""
    fields = {
        "role": message.role,
        "author_name": message.author_name,
        "additional_properties": without_framework_data(message.additional_properties, FRAMEWORK),
    }
    return {name: value for name, value in fields.items() if value is not None}
