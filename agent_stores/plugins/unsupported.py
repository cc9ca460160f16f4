"""What a framework cannot express is left out of what it is shown, and said once in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from agent_stores.contents import AnyContent, DataContent, ErrorContent, TextContent, UriContent

logger = logging.getLogger("agent_stores")


class UnsupportedWarnings:
    """Logs what one codec leaves out of its views: a line for each kind of part, however often it occurs.

    Args:
        framework: the framework, as its users call it.
    """

    def __init__(self, framework: str) -> None:
        self._framework = framework
        self._said: set[tuple[str, str]] = set()

    def __call__(self, kind: str, why: str, *, message_id: str | None) -> None:
        """Say that a part of a message is left out of a view; it stays in the store."""
        self._say(f"a part of type {kind!r}", why, message_id)

    def field(self, name: str, why: str, *, message_id: str | None) -> None:
        """Say that a field is left out of a view, of a message or of a part that is shown otherwise."""
        self._say(f"the field {name!r}", why, message_id)

    def filename(self, part: AnyContent, shown: Any, *, message_id: str | None) -> None:
        """Say that a file is shown without its name, where what it is shown as does not hold it."""
        if not isinstance(part, (DataContent, UriContent)) or part.filename is None:
            return
        in_address = isinstance(part, UriContent) and part.uri.endswith(f"/{part.filename}")
        if not in_address and not holds(shown, part.filename):
            self.field(f"{part.kind}.filename", "it has no place for it", message_id=message_id)

    def _say(self, what: str, why: str, message_id: str | None) -> None:
        if (what, why) not in self._said:
            self._said.add((what, why))
            logger.warning(
                "%s is not shown %s, which stays in the store: %s (message %r; said once)",
                self._framework,
                what,
                why,
                message_id,
            )


def error_text(part: ErrorContent) -> TextContent:
    """An error as the text that is shown where a framework has no errors; nothing of it is left out."""
    code = "" if part.code is None else f" (code {part.code})"
    details = "" if part.details is None else f"\n{part.details}"
    return TextContent(f"Error: {part.message}{code}{details}")


def holds(shown: Any, text: str) -> bool:
    """Whether a JSON value is a text, or has it in it."""
    if isinstance(shown, Mapping):
        return any(holds(value, text) for value in shown.values())
    if isinstance(shown, Sequence) and not isinstance(shown, str):
        return any(holds(value, text) for value in shown)
    return bool(shown == text)
