"""A framework's message as JSON-ready data: what its own serialization says, or a clear error.

The framework's own leaves out silently what it cannot serialize. Raw representations of a provider are not
kept, nor does the framework keep them, and 1.x has the text of a tool's exception replaced by a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from typing import Any

from agent_stores._json import json_value
from agent_stores.errors import ArgumentTypeError

_OWN = ("role", "contents", "author_name", "message_id", "additional_properties", "raw_representation")


def dump_content(content: Any, where: str) -> dict[str, Any]:
    """A content of a message.

    Args:
        content: a `Content` of the framework.
        where: its name, for the error.

    Raises:
        ArgumentError, ArgumentTypeError: when it holds what JSON cannot.
    """
    data = dict(content.to_dict())
    if data.get("annotations"):
        data["annotations"] = [
            {name: value for name, value in annotation.items() if name != "raw_representation"}
            for annotation in data["annotations"]
        ]
    return {name: _json(value, f"{where}.{name}") for name, value in data.items()}


def dump_message(message: Any) -> dict[str, Any]:
    """A message's fields other than its contents; those that are None are left out."""
    role = message.role
    fields = {
        "role": role if isinstance(role, str) else role.value,
        "author_name": message.author_name,
        "additional_properties": _json(message.additional_properties, "additional_properties"),
        # What a later version adds.
        **{
            name: _json(value, name)
            for name, value in vars(message).items()
            if name not in _OWN and not name.startswith("_")
        },
    }
    return {name: value for name, value in fields.items() if value is not None}


def _json(value: Any, where: str) -> Any:
    try:
        return json_value(value, where)
    except ArgumentTypeError:
        return json_value(_as_framework(value), where)


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
