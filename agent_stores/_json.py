"""JSON as the library writes and reads it: fast for ordinary text, exact for all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from agent_stores.errors import ArgumentError, ArgumentTypeError

T = TypeVar("T")

_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """Encode JSON-ready data or structs as compact UTF-8 JSON.

    Text with unpaired surrogates (half an emoji, as a truncated stream leaves it) is not UTF-8: such a
    document is written in ASCII with escapes, which keeps it exactly.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value)
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()


def decode(data: bytes | str, decoder: msgspec.json.Decoder[T], as_type: Any) -> T:
    """Decode a JSON document to the decoder's type.

    Raises:
        msgspec.ValidationError: when a field has another type than it should.
        msgspec.DecodeError: when the document is not JSON.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        # msgspec refuses escapes of unpaired surrogates, the standard library accepts them.
        try:
            plain = json.loads(data, parse_constant=_no_constant)
        except ValueError:
            raise error from None
        return cast("T", msgspec.convert(plain, as_type))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def json_value(value: Any, where: str) -> Any:
    """A copy of `value` made of plain JSON types: tuples become lists, mappings become dicts.

    Args:
        value: what the caller gave.
        where: its name, for the error.

    Raises:
        ArgumentTypeError: when a part is of a type that JSON does not have, or a key is not text.
        ArgumentError: when a number is not finite, or the data is nested without end.
    """
    try:
        return _plain(value, where)
    except RecursionError:
        raise ArgumentError(f"{where} is nested too deeply to be JSON") from None


def _plain(value: Any, where: str) -> Any:
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str or kind is int:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ArgumentError(f"{where} is {value}, which JSON cannot hold; finite numbers are accepted")
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ArgumentTypeError(
                    f"{where} has the key {key!r} of type {type(key).__name__}; JSON keys are str"
                )
            result[str.__str__(key)] = _plain(item, f"{where}[{key!r}]")
        return result
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ArgumentTypeError(
        f"{where} is of type {type(value).__name__}, which JSON cannot hold; "
        "accepted are str, int, float, bool, None, lists and dicts of these"
    )
