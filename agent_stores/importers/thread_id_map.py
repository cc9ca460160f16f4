"""The ids of migrated threads in the target."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from agent_stores.errors import ArgumentError, NotFoundError


class ThreadIdMap:
    """Maps thread ids of a source to thread ids of the target.

    Args:
        prefix: prepended to each id that is not in `renamed`.
        renamed: target ids by source id; None skips the thread.

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
        """The id in the target; None if the thread is skipped."""
        if thread_id in self._renamed:
            return self._renamed[thread_id]
        return self._prefix + thread_id

    def is_renamed(self, thread_id: str) -> bool:
        """Whether `renamed` contains the id."""
        return thread_id in self._renamed


def read_id_map(file: str) -> dict[str, str | None]:
    """Read `renamed` from a JSON file; null skips a thread.

    Raises:
        NotFoundError: when there is no such file.
        ArgumentError: when it cannot be read or is not such an object.
    """
    try:
        data = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {file!r}") from None
    except OSError as error:
        raise ArgumentError(f"the file {file!r} cannot be read: {error.strerror}") from None
    except ValueError:  # neither text nor JSON
        data = None
    if not isinstance(data, dict) or not all(
        new is None or (isinstance(new, str) and new) for new in data.values()
    ):
        raise ArgumentError(
            f"the file of ids {file!r} must be a JSON object from the source's ids to "
            "the target's, or to null"
        )
    return data
