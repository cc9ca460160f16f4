"""Serialized states: their header and their signature.

A state is JSON-ready data that an application keeps, or sends to a client and gets back. It contains no
secret, and its reader trusts nothing that it has not checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from agent_stores import _checks as check
from agent_stores._json import MAX_DEPTH
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    StateError,
    StateSignatureError,
    UnsupportedVersionError,
)

SIGNATURE = "signature"
"""The field of a state's signature."""

STATE_DEPTH = MAX_DEPTH + 16
"""How deep a state may be nested: that of an in-memory store wraps messages, that of a thread wraps it."""

_MAX_REPR = 80  # characters of a value in an error

StateKey: TypeAlias = str | bytes | Sequence[str | bytes]
"""A secret that signs states, or several for key rotation: the first one signs, and all of them verify."""


def check_state_header(state: Any, *, expected_type: str, version: int = 1) -> dict[str, Any]:
    """Check a state's type and version; returns its other fields.

    Raises:
        StateError: when it is not a state, not JSON-ready, or of another type.
        UnsupportedVersionError: when it is of a newer version.
    """
    fields = read_state(state)
    found = fields.pop("type", None)
    if found != expected_type:
        raise StateError(f"the state's type must be {expected_type!r}, got {_shorten(found)}")
    written = fields.pop("version", None)
    if type(written) is not int or written < 1:
        raise StateError(f"the state's version must be a positive int, got {_shorten(written)}")
    if written > version:
        raise UnsupportedVersionError(
            f"the state's version must be at most {version} for this version of agent-stores, "
            f"got {_shorten(written)}"
        )
    return fields


def read_state(state: Any) -> dict[str, Any]:
    """A copy of a state as a JSON object; checks nothing else.

    Raises:
        StateError: when it is not a JSON object, or is nested more than `STATE_DEPTH` levels deep.
    """
    try:
        return check.json_object(state, "the state", max_depth=STATE_DEPTH)
    except (ArgumentError, ArgumentTypeError) as error:
        raise StateError(str(error)) from None


def _shorten(value: Any) -> str:
    """A value from a state, for an error."""
    text = repr(value)
    return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}…"


def check_store_state(
    state: Any, expected_type: str, tenant: str | None, location: str
) -> tuple[str, dict[str, Any]]:
    """Check the state of a store against the store that it is restored on.

    Returns:
        The thread id, and fields that only a newer version knows.

    Raises:
        StateError: when it is malformed, or of another kind of store, tenant or server.
        UnsupportedVersionError: when a newer version wrote it.
    """
    fields = check_state_header(state, expected_type=expected_type)
    thread_id = fields.pop("thread_id", None)
    if not isinstance(thread_id, str) or not thread_id:
        raise StateError("the state's thread_id must be a non-empty str")
    for name, own in (("tenant", tenant), ("location", location)):
        given = fields.pop(name, own)
        if given != own:
            raise StateError(
                f"the state's {name} must be that of this store, {own!r}, got {_shorten(given)}: "
                "a state may name only another thread"
            )
    return thread_id, fields


def sign_state(state: Mapping[str, Any], key: StateKey) -> dict[str, Any]:
    """The state with a signature over its other fields: HMAC-SHA256 (RFC 2104), in hexadecimal.

    The signed text is the JSON of those fields in ASCII, with sorted keys and without white space.

    Raises:
        ArgumentError, ArgumentTypeError: for a key that is empty or of the wrong type.
        StateError: when the state is not JSON-ready.
    """
    fields = read_state(state)
    fields.pop(SIGNATURE, None)
    return {**fields, SIGNATURE: _digest(fields, _keys(key)[0])}


def verify_state(state: Mapping[str, Any], key: StateKey | None) -> dict[str, Any]:
    """Verify a state's signature; returns the state without it.

    A signed state cannot be read without a key, and an unsigned one cannot be read with a key.

    Raises:
        ArgumentError, ArgumentTypeError: for a key that is empty or of the wrong type.
        StateSignatureError: when the signature is missing, does not match, or cannot be verified.
        StateError: when the state is not a JSON object, or nested too deep.
    """
    fields = read_state(state)
    signature = fields.pop(SIGNATURE, None)
    if key is None:
        if signature is not None:
            raise StateSignatureError("key must be the key that signed the state, got None")
        return fields
    keys = _keys(key)
    if not isinstance(signature, str):
        raise StateSignatureError("the state must be signed when a key is given, got one without a signature")
    given = signature.encode(errors="replace")
    import hmac  # loads OpenSSL, which takes a while

    if not any(hmac.compare_digest(_digest(fields, one).encode(), given) for one in keys):
        raise StateSignatureError(
            "the state's signature does not match: the state was changed, or signed with another key"
        )
    return fields


def _keys(key: StateKey) -> list[bytes]:
    if not isinstance(key, (str, bytes, Sequence)):
        raise ArgumentTypeError(f"key must be a str, bytes or a sequence of these, got {type(key).__name__}")
    given = [key] if isinstance(key, (str, bytes)) else list(key)
    if not given:
        raise ArgumentError("key must contain at least one secret, got an empty sequence")
    keys = []
    for one in given:
        if not isinstance(one, (str, bytes)):
            raise ArgumentTypeError(f"each secret in key must be a str or bytes, got {type(one).__name__}")
        if not one:
            raise ArgumentError("each secret in key must be non-empty, got an empty one")
        keys.append(one.encode(errors="surrogatepass") if isinstance(one, str) else one)
    return keys


def _digest(fields: Mapping[str, Any], key: bytes) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    import hashlib
    import hmac

    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
