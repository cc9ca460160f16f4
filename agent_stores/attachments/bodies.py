"""The bodies of messages with attachments: data parts become addresses, and addresses data parts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec

from agent_stores import _json
from agent_stores._attached import ADDRESS, PREFIX

_decoder = msgspec.json.Decoder(Any)


def may_have_data(body: bytes, over: int) -> bool:
    """Whether a body may have data parts above a size, or addresses of attachments."""
    return (len(body) > over and b'"type":"data"' in body) or b'"attachment:' in body


def with_addresses(body: bytes, put: Callable[[bytes], str | None], hold: Callable[[str], str]) -> bytes:
    """The body to store.

    Args:
        body: of a message, in the form in which it is stored or given.
        put: stores data, and returns its address; None for data that stays in the message.
        hold: returns the address to store for one that is in the message already.
    """
    plain = without_prefix(body)
    try:
        document = _json.decode(plain, _decoder, Any)
    except (msgspec.DecodeError, UnicodeError, ValueError):
        return body  # not a message
    found = False

    def change(part: dict[str, Any]) -> None:
        nonlocal found
        if part["type"] == "data":
            try:
                data = base64.b64decode(part["data"], validate=True)
            except (KeyError, TypeError, ValueError, binascii.Error):
                return
            if (address := put(data)) is None:
                return
            del part["data"]
            part["type"], part["uri"] = "uri", address
        else:
            part["uri"] = hold(part["uri"])
        found = True

    _walk(document, change)
    return PREFIX + _json.encode(document)[1:] if found else plain


def with_data(body: bytes, read: Callable[[str], bytes]) -> bytes:
    """The body with the data of its attachments inline."""
    document = _json.decode(without_prefix(body), _decoder, Any)

    def change(part: dict[str, Any]) -> None:
        if part["type"] == "uri":
            data = read(part.pop("uri"))
            part["type"], part["data"] = "data", base64.b64encode(data).decode()

    _walk(document, change)
    return _json.encode(document)


def addresses_in(body: bytes) -> list[str]:
    """The addresses of a body's attachments."""
    found: list[str] = []

    def note(part: dict[str, Any]) -> None:
        if part["type"] == "uri":
            found.append(part["uri"])

    _walk(_json.decode(without_prefix(body), _decoder, Any), note)
    return found


def without_prefix(body: bytes) -> bytes:
    """The message's document, in which addresses stand for data."""
    return b"{" + body[len(PREFIX) :] if body.startswith(PREFIX) else body


def _walk(document: Any, change: Callable[[dict[str, Any]], None]) -> None:
    """Call `change` for the data parts and attachments of a message, those of tool results included."""
    parts = document.get("contents") if isinstance(document, dict) else None
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict):
            continue
        kind, uri = part.get("type"), part.get("uri")
        if kind == "data" or (kind == "uri" and isinstance(uri, str) and ADDRESS.fullmatch(uri)):
            change(part)
        elif kind == "tool_result":
            _walk(part, change)
