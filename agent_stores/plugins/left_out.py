"""What a framework cannot express is left out of what it is shown, and said once in the log."""

from __future__ import annotations

import logging

logger = logging.getLogger("agent_stores")


class LeftOut:
    """Logs what one codec leaves out of its views: a line for each kind of part, however often it occurs.

    Args:
        framework: the framework, as its users call it.
    """

    def __init__(self, framework: str) -> None:
        self._framework = framework
        self._said: set[tuple[str, str]] = set()

    def __call__(self, kind: str, why: str, *, message_id: str | None) -> None:
        """Say that a part of a message is left out of a view; it stays in the store."""
        if (kind, why) not in self._said:
            self._said.add((kind, why))
            logger.warning(
                "%s is not shown a part of type %r, which stays in the store: %s (message %r; said once)",
                self._framework,
                kind,
                why,
                message_id,
            )
