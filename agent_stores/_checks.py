"""Checks of single values that callers give: each returns the value to keep, or raises a clear error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from agent_stores._json import json_value
from agent_stores.errors import ArgumentError, ArgumentTypeError

Check = Callable[[Any, str], Any]
"""Takes a value and its name, returns the value to keep."""


def text(value: Any, where: str) -> Any:
    """Any text, the empty text included."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{where} is of type {type(value).__name__}; accepted is str")
    return value


def name(value: Any, where: str) -> Any:
    """Any non-empty text."""
    if not text(value, where):
        raise ArgumentError(f"{where} is empty; accepted is any non-empty text")
    return value


def flag(value: Any, where: str) -> Any:
    """A bool."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{where} is of type {type(value).__name__}; accepted is bool")
    return value


def token_count(value: Any, where: str) -> Any:
    """A number of tokens, 0 or more, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{where} is of type {type(value).__name__}; accepted are int and None")
    if value < 0:
        raise ArgumentError(f"{where} is {value}; accepted are 0 or more tokens, or None")
    return value


def binary(value: Any, where: str) -> Any:
    """Bytes, or what converts to them without a copy of meaning."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, (bytearray, memoryview)):
        raise ArgumentTypeError(f"{where} is of type {type(value).__name__}; accepted is bytes")
    return bytes(value)


def json_object(value: Any, where: str) -> dict[str, Any]:
    """A copy of a mapping as a JSON object; see `json_value`."""
    if not isinstance(value, Mapping):
        raise ArgumentTypeError(f"{where} is of type {type(value).__name__}; accepted is a mapping")
    return cast("dict[str, Any]", json_value(value, where)) if value else {}


def optional(check: Check) -> Check:
    """The check that also accepts None."""

    def checked(value: Any, where: str) -> Any:
        return None if value is None else check(value, where)

    return checked
