"""Checks of messages and content parts as a whole: how deep they are nested, and their unknown fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from agent_stores import _checks as check
from agent_stores._json import MAX_DEPTH, json_depth, json_value
from agent_stores.errors import ArgumentError

UNKNOWN_FIELDS = "$unknown"
"""The structs' name for `unknown_fields` in JSON; it is reserved, and no document has it."""

PART_DEPTH = MAX_DEPTH - 2
"""How deep the JSON of a part may be nested, as it is in an array in a message."""


def part_value(value: Any, where: str) -> Any:
    """A field of a part that is any JSON."""
    return json_value(value, where, max_depth=PART_DEPTH - 1)


def part_object(value: Any, where: str) -> Any:
    """A field of a part that is a JSON object."""
    return check.json_object(value, where, max_depth=PART_DEPTH - 1)


def check_depth(parts: Iterable[msgspec.Struct], where: str, limit: int) -> None:
    """Check how deep parts within a part are nested.

    Raises:
        ArgumentError: when one is nested more than `limit` levels deep.
    """
    if any(_depth(part) > limit for part in parts):
        raise ArgumentError(f"{where} must be nested at most {limit} levels deep")


def check_unknown_fields(
    value: Any, where: str, kind: type[msgspec.Struct], max_depth: int
) -> dict[str, Any]:
    """Check that no unknown field of a message or part has the name of a known one.

    It would replace what was checked, such as a message's role, when the message is read again.

    Raises:
        ArgumentError: when one has.
    """
    fields = check.json_object(value, where, max_depth=max_depth)
    if fields:
        for name in sorted(known_fields(kind).intersection(fields)):
            raise ArgumentError(f"{where} must not have the name of a known field, got {name!r}")
    return fields


def known_fields(kind: type[msgspec.Struct]) -> set[str]:
    """The names of the fields of a message or part in JSON, and the reserved one."""
    return {*kind.__struct_encode_fields__, cast("str", kind.__struct_config__.tag_field), UNKNOWN_FIELDS}


def has_unknown_call(data: Mapping[str, Any]) -> bool:
    """Whether the JSON of a part is an approval of a kind of call that only a newer version knows."""
    call = data.get("tool_call")
    return (
        data.get("type") in ("approval_request", "approval_response")
        and isinstance(call, Mapping)
        and isinstance(kind := call.get("type"), str)
        and kind not in ("", "tool_call")
    )


def _depth(part: msgspec.Struct) -> int:
    """How deep the JSON of a part is nested."""
    if part.__struct_config__.tag == "$opaque":
        return json_depth(part.data)  # type: ignore[attr-defined]
    deepest = 0
    for name in part.__struct_fields__:
        value = getattr(part, name)
        if isinstance(value, msgspec.Struct):
            depth = _depth(value)
        elif isinstance(value, tuple):
            depth = 1 + max(map(_depth, value), default=-1)
        elif name == "unknown_fields":  # they are at the level of the part itself
            depth = json_depth(value) - 1
        elif name == "additional_properties" and not value:  # not written
            depth = 0
        else:
            depth = json_depth(value)
        deepest = max(deepest, depth)
    return 1 + deepest
