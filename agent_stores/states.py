"""Serialized states: their header, and their signature.

A state is JSON-ready data that an application may keep, or hand to a client and get back. It holds no secret,
and nothing of it is trusted beyond what its reader checks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    StateError,
    StateSignatureError,
    UnsupportedVersionError,
)

SIGNATURE = "signature"
"""The field that holds a state's signature."""

StateKey: TypeAlias = str | bytes | Sequence[str | bytes]
"""A secret that signs states, or several: the first signs, all of them verify (to change keys)."""


def check_state_header(state: Any, *, expected_type: str, version: int = 1) -> dict[str, Any]:
    """Check a state's type and version; returns its other fields.

    Raises:
        StateError: when it is not a state, or of another type.
        UnsupportedVersionError: when a newer version wrote it.
    """
    if not isinstance(state, Mapping):
        raise StateError(
            f"the state is of type {type(state).__name__}; accepted is what serialize() returned"
        )
    fields = dict(state)
    found = fields.pop("type", None)
    if found != expected_type:
        raise StateError(f"the state is of type {found!r}; accepted is {expected_type!r}")
    written = fields.pop("version", None)
    if type(written) is not int or written < 1:
        raise StateError(f"the state's version is {written!r}; accepted is a version number")
    if written > version:
        raise UnsupportedVersionError(
            f"the state is of version {written}; this version of agent-stores reads up to {version}"
        )
    return fields


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
                f"the state's {name} must be that of this store, {own!r}, got {given!r}: "
                "a state may name only another thread"
            )
    return thread_id, fields


def sign_state(state: Mapping[str, Any], key: StateKey) -> dict[str, Any]:
    """The state with a signature over all of it: HMAC-SHA256 (RFC 2104), in hexadecimal.

    What is signed is the JSON of the other fields with sorted keys and no white space, in ASCII.

    Raises:
        ArgumentError: for an empty key.
    """
    fields = {name: value for name, value in state.items() if name != SIGNATURE}
    return {**fields, SIGNATURE: _digest(fields, _keys(key)[0])}


def verify_state(state: Mapping[str, Any], key: StateKey | None) -> dict[str, Any]:
    """The state without its signature, once that is verified.

    A state that is signed cannot be read without a key, and one that is not cannot be read with one.

    Raises:
        StateSignatureError: when the signature is missing, does not match, or cannot be verified.
    """
    if not isinstance(state, Mapping):
        raise StateError(
            f"the state is of type {type(state).__name__}; accepted is what serialize() returned"
        )
    fields = dict(state)
    signature = fields.pop(SIGNATURE, None)
    if key is None:
        if signature is not None:
            raise StateSignatureError("the state is signed: give the key that it was signed with as key=")
        return fields
    keys = _keys(key)
    if not isinstance(signature, str):
        raise StateSignatureError("the state is not signed, and a key was given: it is not accepted")
    given = signature.encode(errors="replace")
    if not any(hmac.compare_digest(_digest(fields, one).encode(), given) for one in keys):
        raise StateSignatureError("the state's signature does not match: it was changed, or signed otherwise")
    return fields


def _keys(key: StateKey) -> list[bytes]:
    if not isinstance(key, (str, bytes, Sequence)):
        raise ArgumentTypeError(
            f"key is of type {type(key).__name__}; accepted are str, bytes and a sequence of these"
        )
    given = [key] if isinstance(key, (str, bytes)) else list(key)
    if not given:
        raise ArgumentError("key holds no key; accepted is at least one")
    keys = []
    for one in given:
        if not isinstance(one, (str, bytes)):
            raise ArgumentTypeError(f"key is of type {type(one).__name__}; accepted are str and bytes")
        if not one:
            raise ArgumentError("key is empty; accepted is a secret of at least one byte")
        keys.append(one.encode(errors="surrogatepass") if isinstance(one, str) else one)
    return keys


def _digest(fields: Mapping[str, Any], key: bytes) -> str:
    try:
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StateError(f"the state is not JSON-ready: {error}") from None
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
