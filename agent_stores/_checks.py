"""Checks of single arguments: each returns the value to keep, or raises an error that names the argument."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast

from agent_stores import _json
from agent_stores.errors import ArgumentError, ArgumentTypeError

LARGEST = 2**53 - 1
"""The largest limit or position: the integers that every backend counts exactly."""

HOST_AND_PORT = re.compile(r"[\w.-]+:\d{2,5}(/\d*)?")
"""A host and a port for certain, which an error may repeat: other text may hold a password."""

Check = Callable[[Any, str], Any]
"""Takes a value and its name, returns the value to keep."""


def text(value: Any, where: str) -> Any:
    """Any text, including the empty text."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{where} must be a str, got {type(value).__name__}")
    value = str.__str__(value)  # encoders take no subclass
    return value if value.isascii() else _json.join_surrogates(value)


def name(value: Any, where: str) -> Any:
    """Any non-empty text."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{where} must be a non-empty str, got {type(value).__name__}")
    if not value:
        raise ArgumentError(f"{where} must be a non-empty str, got an empty one")
    return text(value, where)


def flag(value: Any, where: str) -> Any:
    """A bool."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{where} must be a bool, got {type(value).__name__}")
    return value


def token_count(value: Any, where: str) -> Any:
    """A number of tokens, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{where} must be a non-negative int or None, got {type(value).__name__}")
    if value < 0:
        raise ArgumentError(f"{where} must be a non-negative int or None, got {value}")
    return _json.json_value(value, where)


def binary(value: Any, where: str) -> Any:
    """Bytes; a bytearray or memoryview is copied."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, (bytearray, memoryview)):
        raise ArgumentTypeError(f"{where} must be bytes, got {type(value).__name__}")
    return bytes(value)


def json_object(
    value: Any, where: str, *, max_depth: int = _json.MAX_DEPTH, max_bytes: int | None = None
) -> dict[str, Any]:
    """A copy of a mapping as a JSON object; see `json_value`.

    Args:
        value: the caller's value.
        where: its name, for the error.
        max_depth: how many levels of objects and arrays it may have.
        max_bytes: how large its JSON may be; None for no limit.

    Raises:
        ArgumentTypeError: when it is not a mapping, or JSON does not have the type of a part of it.
        ArgumentError: when it is too deep or too large, or a number in it is.
    """
    if not isinstance(value, Mapping):
        raise ArgumentTypeError(f"{where} must be a mapping, got {type(value).__name__}")
    if not value:
        return {}
    found = cast("dict[str, Any]", _json.json_value(value, where, max_depth=max_depth))
    if max_bytes is not None and (size := len(_json.encode(found))) > max_bytes:
        raise ArgumentError(f"{where} must be at most {max_bytes} bytes as JSON, got {size}")
    return found


def optional(check: Check) -> Check:
    """The check that also takes None."""

    def checked(value: Any, where: str) -> Any:
        return None if value is None else check(value, where)

    return checked


def check_limit(name: str, value: int | None) -> int | None:
    """Check a limit that counts something: None for all, 0 for none, or a positive number.

    Raises:
        ArgumentTypeError: when it is neither an int nor None.
        ArgumentError: when it is negative, or above `LARGEST`.
    """
    return None if value is None else check_count(name, value, "a non-negative int or None")


def check_count(name: str, value: int, expected: str = "a non-negative int") -> int:
    """Check a number of something that may be 0, and not None; `expected` says what it must be.

    Raises:
        ArgumentTypeError: when it is not an int.
        ArgumentError: when it is negative, or above `LARGEST`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        given = "None" if value is None else type(value).__name__
        raise ArgumentTypeError(f"{name} must be {expected}, got {given}")
    if value < 0:
        raise ArgumentError(f"{name} must be {expected}, got {value}")
    if value > LARGEST:
        raise ArgumentError(f"{name} must be at most 2**53 - 1, got a larger int")
    return int(value)  # drivers and encoders take no subclass


def check_seconds(name: str, value: float | timedelta | None, *, zero: bool) -> float | None:
    """Check a duration; returns it in seconds.

    Args:
        name: the argument's name.
        value: seconds, or a timedelta; None for none.
        zero: whether it may be 0.

    Raises:
        ArgumentTypeError: when it is not a number, a timedelta or None.
        ArgumentError: when it is negative, not finite, 1e11 seconds or more, or 0 without `zero`.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    expected = f"{'non-negative' if zero else 'positive'} number of seconds, a timedelta or None"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{name} must be a {expected}, got {type(value).__name__}")
    if value < 0 or value != value or (value == 0 and not zero):
        raise ArgumentError(f"{name} must be a {expected}, got {value}")
    if value >= 1e11:
        raise ArgumentError(f"{name} must be less than 1e11 seconds, got {float(min(value, 1e300)):g}")
    return float(value)


def positive_seconds(name: str, value: float | timedelta | None) -> float:
    """Check a duration that is not optional; in seconds. Raises as `check_seconds`, or for None."""
    seconds = check_seconds(name, value, zero=False)
    if seconds is None:
        raise ArgumentError(f"{name} must be a positive number of seconds, got None")
    return seconds
