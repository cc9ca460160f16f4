"""Under which id a thread goes on in the target."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from agent_stores.errors import ArgumentError


class ThreadNames:
    """Names threads of a source in the target.

    Args:
        prefix: put before the id of each thread that `renamed` does not name.
        renamed: other ids, by the source's; None for threads that are left out.

    Raises:
        ArgumentError: when two threads would get one id.
    """

    def __init__(self, *, prefix: str = "", renamed: Mapping[str, str | None] | None = None) -> None:
        self._prefix = prefix
        self._renamed = dict(renamed or {})
        given: dict[str, str] = {}
        for old, new in self._renamed.items():
            if new is not None and (other := given.setdefault(new, old)) != old:
                raise ArgumentError(
                    f"threads {other!r} and {old!r} must get different ids, got {new!r} for both"
                )

    def __call__(self, thread_id: str) -> str | None:
        """The id in the target, or None for a thread that is left out."""
        if thread_id in self._renamed:
            return self._renamed[thread_id]
        return self._prefix + thread_id

    def is_renamed(self, thread_id: str) -> bool:
        """Whether its id in the target was given by itself."""
        return thread_id in self._renamed


def read_names(file: str) -> dict[str, str | None]:
    """A mapping of ids from a file: a JSON object, with null for threads that are left out.

    Raises:
        ArgumentError: when it cannot be read or is none.
    """
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"the file of ids {file!r} cannot be read: {error}") from None
    if not isinstance(data, dict) or not all(
        new is None or (isinstance(new, str) and new) for new in data.values()
    ):
        raise ArgumentError(
            f"the file of ids {file!r} must be a JSON object from the source's ids to "
            "the target's, or to null"
        )
    return data
