"""Microsoft Agent Framework's messages as JSON, of the betas and of 1.x; needs no package of it.

The two differ in names: the betas' ``chat_message`` has its role in an object, 1.x's ``message`` has plain
text there. What their contents hold is read by the plug-in's own reading of parts, so that the message is the
one that the plug-in itself would have stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from agent_stores._json import json_value
from agent_stores.importers.parsers.decoding import require_object
from agent_stores.importers.source import UnreadableError
from agent_stores.messages import ROLES, ChatMessage, Role
from agent_stores.plugins.agent_framework.parts import FRAMEWORK, to_part
from agent_stores.plugins.framework_data import with_framework_data, without_framework_data
from agent_stores.plugins.json_diff import difference

_ASIDE = ("type", "contents", "message_id", "raw_representation")
_TYPES = ("message", "chat_message")
_SINCE_1 = frozenset({"hosted", "items"})


def agent_framework_message(data: Any) -> ChatMessage:
    """The message of a stored one.

    Raises:
        UnreadableError: for what is no message of the framework.
        ArgumentError: for a number that JSON cannot hold.
    """
    stored = cast("dict[str, Any]", json_value(require_object(data), "the message"))
    if stored.get("type", "message") not in _TYPES or "role" not in stored:
        raise UnreadableError("without a role, or of another type: no message of Agent Framework")
    contents = _contents(stored)
    properties = stored.get("additional_properties")
    wanted = {name: value for name, value in stored.items() if name not in _ASIDE and value is not None}
    wanted["role"] = role = _role(stored["role"])
    wanted["additional_properties"] = properties = properties if isinstance(properties, dict) else {}
    author = stored.get("author_name")
    # A difference to what the plug-in reads plainly is kept: which fields that has, depends on the version.
    fields = frozenset(_names(contents)) | (_SINCE_1 if stored.get("type") == "message" else frozenset())
    plain = ChatMessage(
        cast("Role", role if role in ROLES else "user"),
        contents=[to_part(content, fields) for content in contents],
        author_name=author if isinstance(author, str) else None,
        message_id=stored.get("message_id") or None,
        additional_properties=without_framework_data(properties, FRAMEWORK),
    )
    shown: dict[str, Any] = {"role": plain.role, "additional_properties": dict(plain.additional_properties)}
    if plain.author_name is not None:
        shown["author_name"] = plain.author_name
    rest = difference(shown, wanted)
    if not rest:
        return plain
    kept = with_framework_data(plain.additional_properties, FRAMEWORK, rest)
    return plain.replace(additional_properties=kept)


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


def _names(value: Any) -> Iterator[str]:
    """The names of fields in contents, at any depth: by them their version is told."""
    if isinstance(value, dict):
        yield from value
        for name, inner in value.items():
            if name != "additional_properties":
                yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)
