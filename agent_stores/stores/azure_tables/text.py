"""Long text in properties: as many as it takes, each as long as the service allows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agent_stores.log import ThreadKey

UNITS = 32 * 1024
"""The longest text of a property, in units of UTF-16, as the service counts: 64 KiB."""

PROPERTIES = 15
"""Properties of text in a row: 960 KiB of the row's 1 MiB, which leaves room for keys and the rest."""


def utf16_units(text: str) -> int:
    """How long a text is in UTF-16."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def pieces(text: str, units: int = UNITS) -> Iterator[str]:
    """A text in pieces of at most so many units of UTF-16; no character is parted."""
    if len(text) <= units and (2 * len(text) <= units or utf16_units(text) <= units):
        yield text
        return
    if text.isascii():
        for start in range(0, len(text), units):
            yield text[start : start + units]
        return
    data = text.encode("utf-16-le", "surrogatepass")
    start = 0
    while start < len(data):
        end = min(start + 2 * units, len(data))
        if end < len(data) and 0xDC <= data[end + 1] <= 0xDF and 0xD8 <= data[end - 1] <= 0xDB:
            end -= 2  # between the halves of one character
        yield data[start:end].decode("utf-16-le", "surrogatepass")
        start = end


def split_text(name: str, text: str) -> dict[str, str]:
    """A text as properties: ``name``, ``name1``, ``name2`` and so on."""
    return {f"{name}{number or ''}": piece for number, piece in enumerate(pieces(text))}


def join_text(name: str, entity: Mapping[str, Any]) -> str:
    """The text of a row's properties.

    Raises:
        KeyError: when the first is missing.
        TypeError: when one is not text.
    """
    first = entity[name]
    if f"{name}1" not in entity:
        return str.__str__(first)
    found = [first]
    while (piece := entity.get(f"{name}{len(found)}")) is not None:
        found.append(piece)
    return "".join(found)


def names(key: ThreadKey) -> dict[str, str]:
    """A thread's names as properties: as JSON in ASCII, since they may hold any character."""
    found = split_text("thread", json.dumps(key.thread_id))
    if key.tenant is not None:
        found.update(split_text("tenant", json.dumps(key.tenant)))
    return found


def read_names(entity: Mapping[str, Any]) -> ThreadKey:
    """The thread that a row names."""
    thread_id = str(json.loads(join_text("thread", entity)))
    if entity.get("tenant") is None:
        return ThreadKey(None, thread_id)
    return ThreadKey(str(json.loads(join_text("tenant", entity))), thread_id)
