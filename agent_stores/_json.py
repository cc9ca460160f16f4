"""JSON as the library reads and writes it: fast for ordinary text, exact for all of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from agent_stores.errors import ArgumentError, ArgumentTypeError

T = TypeVar("T")

MAX_DEPTH = 100
"""How deep a JSON document may be nested: objects and arrays count one level each.

Every supported Python reads that many levels; without a limit one writes what another cannot read.
"""

_MAX_DIGITS = 4299  # of an int; msgspec does not read more
_MAX_INT = 10**_MAX_DIGITS - 1
_MAX_REPR = 80  # characters of a value in an error

_encoder = msgspec.json.Encoder()
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TO_ARRAYS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)).difference(b"[]{}"))


def encode(value: Any) -> bytes:
    """Encode JSON-ready data or structs as compact UTF-8 JSON.

    Text with unpaired surrogates (half an emoji, from a truncated stream) is not UTF-8. Such a document is
    written in ASCII with escapes, which keep it exactly.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value)
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()


def decode(data: bytes | str, decoder: msgspec.json.Decoder[T], as_type: Any) -> T:
    """Decode a JSON document to the decoder's type.

    Raises:
        msgspec.ValidationError: when a field has the wrong type.
        msgspec.DecodeError: when the document is not JSON.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        # msgspec rejects unpaired surrogates; the standard library reads them.
        try:
            text = data if isinstance(data, str) else data.decode()
            plain = json.loads(text, parse_constant=_reject_constant, parse_float=_finite_float)
        except ValueError:
            raise msgspec.DecodeError(str(error)) from None
        return cast("T", msgspec.convert(plain, as_type))


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_MAX_REPR]} is out of range")
    return value


def is_too_deep(document: bytes | str, max_depth: int = MAX_DEPTH) -> bool:
    """Whether a JSON document is nested more than `max_depth` levels deep; does not parse it.

    Parsers recurse, so this is asked before one sees a document from outside.
    """
    if isinstance(document, str):
        if document.count("[") + document.count("{") <= max_depth:
            return False
        document = document.encode(errors="surrogatepass")
    elif document.count(b"[") + document.count(b"{") <= max_depth:
        return False
    # Each round removes the innermost brackets of what is nested.
    brackets = _STRINGS.sub(b"", document).translate(_TO_ARRAYS, _NO_BRACKETS)
    for _ in range(max_depth):
        inner = brackets.replace(b"[]", b"")
        if len(inner) == len(brackets):  # the rest does not match: the parser will say where
            return brackets.count(b"[") > max_depth
        brackets = inner
    return bool(brackets)


def json_depth(value: Any) -> int:
    """How deep plain JSON data is nested; 0 for a value that is neither an object nor an array."""
    depth = 0
    level = [value] if type(value) in (dict, list) else []
    while level:
        depth += 1
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) in (dict, list)
        ]
    return depth


def json_value(value: Any, where: str, *, max_depth: int = MAX_DEPTH) -> Any:
    """A copy of `value` of plain JSON types: tuples become lists, mappings become dicts.

    Pairs of surrogates become the characters that they encode, as JSON cannot tell the two apart.

    Args:
        value: the caller's value.
        where: its name, for the error.
        max_depth: how many levels of objects and arrays it may have.

    Raises:
        ArgumentTypeError: when a part has a type that JSON does not have, or a key is not a str.
        ArgumentError: when a number is not finite or too large, or the value is nested too deep or without
            end.
    """
    try:
        return _copy(value, max_depth)
    except _TooDeepError:
        raise ArgumentError(f"{where} must be nested at most {max_depth} levels deep") from None
    except _InvalidError as error:
        path = "".join(f"[{key!r}]" for key in reversed(error.path))
        raise error.kind(f"{where}{path} {error}") from None


def join_surrogates(text: str) -> str:
    """The text with each pair of surrogates replaced by its character; unpaired ones stay."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


class _TooDeepError(Exception):
    """A value is nested deeper than it may be."""


class _InvalidError(Exception):
    """A part of a value is not JSON; collects the path to it."""

    def __init__(self, kind: type[Exception], reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.path: list[Any] = []


def _copy(value: Any, max_depth: int) -> Any:
    if isinstance(value, str):
        text = str.__str__(value)
        return text if text.isascii() else join_surrogates(text)
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        if not -_MAX_INT <= value <= _MAX_INT:
            raise _InvalidError(ArgumentError, f"must be an int of at most {_MAX_DIGITS} digits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _InvalidError(ArgumentError, f"must be a finite number, got {value}")
        return float(value)
    if isinstance(value, Mapping):
        return _copy_mapping(value, max_depth - 1)
    if isinstance(value, (list, tuple)):
        return _copy_array(value, max_depth - 1)
    raise _InvalidError(
        ArgumentTypeError,
        f"must be a str, int, float, bool, None, list or dict, got {type(value).__name__}",
    )


def _copy_mapping(value: Mapping[Any, Any], max_depth: int) -> dict[str, Any]:
    if max_depth < 0:
        raise _TooDeepError
    result = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _InvalidError(ArgumentTypeError, f"must have keys of type str, got {repr(key)[:_MAX_REPR]}")
        try:
            result[_copy(key, 0)] = _copy(item, max_depth)
        except _InvalidError as error:
            error.path.append(key)
            raise
    return result


def _copy_array(value: list[Any] | tuple[Any, ...], max_depth: int) -> list[Any]:
    if max_depth < 0:
        raise _TooDeepError
    result = []
    for index, item in enumerate(value):
        try:
            result.append(_copy(item, max_depth))
        except _InvalidError as error:
            error.path.append(index)
            raise
    return result
