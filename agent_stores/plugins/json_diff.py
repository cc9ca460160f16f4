"""What one JSON object has that another has not: how a codec keeps a framework's message to the last field.

A codec gives a message the neutral form that says most, and reads that form back as plainly as it can. What
the plain reading lacks, or has otherwise, is the difference, and is kept beside the neutral form. So a
message comes back exactly, also with fields that the codec has never heard of, and nothing large that the
neutral form holds is stored twice.

A difference is an object with up to three members: ``set``, the values to put in; ``in``, the differences of
values that are objects or arrays themselves; and ``drop``, the names to take out. Indexes of arrays are names
like ``"0"``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from agent_stores.messages import ChatMessage
from agent_stores.plugins.framework_data import framework_data, with_framework_data

Difference = dict[str, Any]

DIFF_FIELDS = ("difference", "of")
"""The fields of a framework's data that `attach_diff` sets."""


def attach_diff(
    message: ChatMessage, framework: str, base: Mapping[str, Any], wanted: Mapping[str, Any], **more: Any
) -> ChatMessage:
    """The message, with what its plain reading lacks beside it.

    Args:
        message: the neutral form.
        framework: whose message it was.
        base: what the codec reads from the neutral form.
        wanted: what it has to read.
        more: what else the codec leaves.
    """
    found = difference(base, wanted)
    if found:
        more.update(difference=found, of=digest(base))
    if not more:
        return message
    properties = with_framework_data(message.additional_properties, framework, more)
    return message.replace(additional_properties=properties)


def apply_diff(message: ChatMessage, framework: str, base: Mapping[str, Any]) -> dict[str, Any]:
    """What the codec reads from the neutral form, with what was kept beside it.

    A message whose neutral form was changed since is read plainly: the difference is one to another message.
    """
    kept = framework_data(message, framework)
    if "difference" not in kept or kept.get("of") != digest(base):
        return dict(base)
    return changed(base, kept["difference"])


def digest(value: Mapping[str, Any]) -> str:
    """A short name for a JSON object, the same for the same content."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def difference(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> Difference:
    """What turns `base` into `wanted`; empty where they are the same, the types of numbers included."""
    return _between(base, wanted) or {}


def changed(base: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """What a difference turns `base` into; `base` stays as it is."""
    return cast("dict[str, Any]", _apply(base, by))


def without_defaults(model: Any, dumped: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The dump of a pydantic model without the fields that any model of its class has.

    Args:
        model: the model.
        dumped: its dump.
        kind: the field that says which class it is; it stays.
    """
    fields = type(model).model_fields
    return {
        name: value
        for name, value in dumped.items()
        if name == kind
        or name not in fields
        or fields[name].is_required()
        or not json_equal(fields[name].get_default(call_default_factory=True), value)
    }


def json_equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; 1, 1.0 and true differ."""
    if one is other:  # as most values are that a codec passes on
        return True
    if isinstance(one, str):
        return isinstance(other, str) and one == other
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and len(one) == len(other)
            and all(name in other and json_equal(value, other[name]) for name, value in one.items())
        )
    if isinstance(one, (list, tuple)):
        return (
            isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(json_equal, one, other))
        )
    return type(one) is type(other) and bool(one == other)


def _between(base: Any, wanted: Any) -> Difference | None:
    """The difference of two objects or two arrays of one length; None where the whole value is to be set."""
    if isinstance(base, Mapping) and isinstance(wanted, Mapping):
        pairs = {name: (base[name], value) for name, value in wanted.items() if name in base}
        new = {name: value for name, value in wanted.items() if name not in base}
        gone = [name for name in base if name not in wanted]
    elif isinstance(base, (list, tuple)) and isinstance(wanted, (list, tuple)) and len(base) == len(wanted):
        pairs = {str(index): pair for index, pair in enumerate(zip(base, wanted, strict=True))}
        new, gone = {}, []
    else:
        return None
    inner: Difference = {}
    for name, (one, other) in pairs.items():
        if json_equal(one, other):
            continue
        nested = _between(one, other)
        if nested is None:
            new[name] = other
        else:
            inner[name] = nested
    found = {"set": new, "in": inner, "drop": gone}
    return {name: value for name, value in found.items() if value}


def _apply(base: Any, by: Mapping[str, Any]) -> Any:
    inner, new, gone = by.get("in", {}), by.get("set", {}), by.get("drop", ())
    if isinstance(base, Mapping):
        result = {name: value for name, value in base.items() if name not in gone}
        for name, nested in inner.items():
            result[name] = _apply(base.get(name), nested)
        result.update(new)
        return result
    items = list(base) if isinstance(base, (list, tuple)) else []
    for name, nested in inner.items():
        items[int(name)] = _apply(items[int(name)], nested)
    for name, value in new.items():
        items[int(name)] = value
    return items
