"""Thread ids that are made of several names."""

from __future__ import annotations

_ESCAPES = {"%": "%25", "#": "%23", "/": "%2F"}


def escape(name: str, separators: str = "#/") -> str:
    """A name without the separators of a thread id; different names stay different."""
    for character in "%" + separators:
        name = name.replace(character, _ESCAPES[character])
    return name


def unescape(text: str) -> str:
    """The name that `escape` was given."""
    for character in "/#%":
        text = text.replace(_ESCAPES[character], character)
    return text
