"""`AgentFrameworkCodec`: the framework's messages and ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from typing import TYPE_CHECKING, Any, cast

from agent_stores.contents import ToolResultContent
from agent_stores.errors import ArgumentTypeError, MessageFormatError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework import compat
from agent_stores.plugins.agent_framework.parts import BETA_TYPE, FRAMEWORK, message_codec, result_fields
from agent_stores.plugins.framework_data import framework_data
from agent_stores.plugins.json_codec import Data, ignore

if TYPE_CHECKING:
    from agent_framework import Message

_NESTED = ("items", "inputs", "outputs", "output", "function_call", "screenshot")


class AgentFrameworkCodec:
    """Converts the messages of the installed Agent Framework; implements `MessageCodec`.

    A message and each of its contents come back as they were, as far as the framework's own serialization
    says what they are: raw representations of a provider are not kept, and 1.x has the text of a tool's
    exception replaced by a constant. What another version or framework wrote is read as this version says it;
    a part that it cannot say is left out, with a warning in the log.
    """

    def __init__(self) -> None:
        title = f"the installed agent_framework, {compat.VERSION},"
        self._json = message_codec(title, is_beta=compat.IS_BETA)

    def to_chat_message(self, message: Message) -> ChatMessage:
        """Our message for the framework's.

        Raises:
            ArgumentTypeError: when it is not a message of the framework, or holds what JSON cannot; names the
                field.
            ArgumentError: for a number that is not finite.
        """
        if not isinstance(message, compat.MESSAGE):
            name = compat.MESSAGE.__name__
            raise ArgumentTypeError(
                f"a message must be agent_framework's {name}, got {type(message).__name__}"
            )
        data = self._dump(message)
        name = message.message_id or None
        try:
            return self._json.encode(data, message_id=name)
        except ArgumentTypeError:
            return self._json.encode(_as_framework(data), message_id=name)

    def from_chat_message(self, message: ChatMessage) -> Message:
        """The framework's message for ours.

        Raises:
            MessageFormatError: when the framework refuses what was kept of its message.
        """
        decoded = self._json.decode(message)
        fields = dict(decoded.data) if decoded else {}
        name = message.message_id
        is_older = fields.pop("type", None) == BETA_TYPE and not compat.IS_BETA
        contents = []
        for data in fields.pop("contents", ()):
            kind = data["type"]
            if compat.CONTENT_TYPES and kind not in compat.CONTENT_TYPES:
                self._json.unsupported(f"{FRAMEWORK}.{kind}", "it has no such content", message_id=name)
                continue
            if is_older and kind == "function_result":
                data = {**data, **result_fields(ToolResultContent("-", data.get("result")), ignore)}
            contents.append(self._accepted(data, name))
        for field in fields.keys() - compat.MESSAGE_FIELDS:
            self._json.unsupported.field(f"message.{field}", "it has no such field", message_id=name)
            del fields[field]
        fields["message_id"] = framework_data(message, FRAMEWORK).get("id", name)
        try:
            made = [compat.CONTENT.from_dict(data) for data in contents]
            return cast("Message", compat.MESSAGE(**fields, contents=made))
        except (TypeError, ValueError) as error:
            raise MessageFormatError(
                f"the message {name!r} is not one of agent_framework's: {error}"
            ) from error

    def _dump(self, message: Any) -> Data:
        """A message as the framework's own serialization has it, which drops what is not JSON."""
        # Fields that a later version adds are among them.
        fields = {name: value for name, value in vars(message).items() if not name.startswith("_")}
        for name in ("message_id", "raw_representation"):
            fields.pop(name, None)
        role = message.role
        fields["type"] = BETA_TYPE if compat.IS_BETA else "message"
        fields["role"] = role if isinstance(role, str) else role.value
        fields["contents"] = [_dump_content(content) for content in message.contents]
        return {name: value for name, value in fields.items() if value is not None}

    def _accepted(self, value: Any, message_id: str | None) -> Any:
        """A content, or several, without the fields that this version does not have."""
        if isinstance(value, list):
            return [self._accepted(item, message_id) for item in value]
        if not isinstance(value, dict) or (
            compat.CONTENT_TYPES and value.get("type") not in compat.CONTENT_TYPES
        ):
            return value
        accepted: Data = {}
        for name, item in value.items():
            if name in compat.CONTENT_FIELDS:
                accepted[name] = self._accepted(item, message_id) if name in _NESTED else item
            elif item is not False:  # a version without the field means the same by it
                field = f"{value.get('type')}.{name}"
                self._json.unsupported.field(field, "it has no such field", message_id=message_id)
        return accepted


def _dump_content(content: Any) -> Data:
    data: Data = content.to_dict()
    if not data.get("annotations"):
        return data
    annotations = [
        {name: value for name, value in annotation.items() if name != "raw_representation"}
        for annotation in data["annotations"]
    ]
    return {**data, "annotations": annotations}


def _as_framework(value: Any) -> Any:
    """The JSON form that the framework itself gives to times and to objects that have one."""
    if isinstance(value, Mapping):
        return {
            name: str(item) if isinstance(item, (date, time)) else _as_framework(item)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_as_framework(item) for item in value]
    if callable(getattr(value, "to_dict", None)) and callable(getattr(type(value), "from_dict", None)):
        return _as_framework(value.to_dict())
    return value
