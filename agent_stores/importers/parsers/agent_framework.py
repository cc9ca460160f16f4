"""Microsoft Agent Framework's messages as JSON, of the betas and of 1.x; needs no package of it.

The two differ in names: the betas' ``chat_message`` has its role in an object, 1.x's ``message`` has plain
text there. What their contents hold is read by the plug-in's own reading of parts, so that the message is the
one that the plug-in itself would have stored.
"""

from __future__ import annotations

from typing import Any

from agent_stores.importers.parsers.decoding import require_object
from agent_stores.importers.source import UnreadableError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.parts import BETA_TYPE, message_codec

_ASIDE = ("message_id", "raw_representation")
_TYPES = ("message", BETA_TYPE)
_codec = message_codec("agent_framework")


def agent_framework_message(data: Any) -> ChatMessage:
    """The message of a stored one.

    Raises:
        UnreadableError: for what is no message of the framework.
        ArgumentError: for a number that JSON cannot hold.
    """
    stored = require_object(data)
    if stored.get("type", "message") not in _TYPES or "role" not in stored:
        raise UnreadableError("without a role, or of another type: no message of Agent Framework")
    wanted = {name: value for name, value in stored.items() if name not in _ASIDE and value is not None}
    wanted["type"] = stored.get("type", "message")
    wanted["role"] = _role(stored["role"])
    wanted["contents"] = _contents(stored)
    properties = stored.get("additional_properties")
    wanted["additional_properties"] = properties if isinstance(properties, dict) else {}
    return _codec.encode(wanted, message_id=stored.get("message_id") or None)


def _role(role: Any) -> str:
    value = role.get("value") if isinstance(role, dict) else role
    if not isinstance(value, str):
        raise UnreadableError(f"role must be a string, got {type(value).__name__}")
    return value


def _contents(stored: dict[str, Any]) -> list[dict[str, Any]]:
    contents = stored.get("contents")
    if contents is None:
        contents = []
    if not isinstance(contents, list):
        raise UnreadableError(f"contents must be an array, got {type(contents).__name__}")
    for index, content in enumerate(contents):
        if not isinstance(content, dict) or not isinstance(content.get("type"), str):
            raise UnreadableError(f"contents[{index}]: an object with a type is expected")
    return [_complete(content) for content in contents]


def _complete(content: dict[str, Any]) -> dict[str, Any]:
    """A content without fields that say nothing, as the framework's own serialization has it."""
    return {name: value for name, value in content.items() if value is not None}
