"""How many stored messages to ask for at once: as many as are likely to be of some megabytes together."""

from __future__ import annotations

_BYTES = 4_000_000
_FIRST = 50
_MOST = 500


class PageSize:
    """The size of the next page, by the sizes of the messages so far."""

    def __init__(self) -> None:
        self._messages = 0
        self._bytes = 0

    @property
    def next(self) -> int:
        """How many messages to ask for."""
        if not self._messages:
            return _FIRST
        return max(1, min(_MOST, _BYTES * self._messages // max(1, self._bytes)))

    def saw(self, messages: int, size: int) -> None:
        """Note a page.

        Args:
            messages: how many it held.
            size: their bytes together.
        """
        # The last page counts most: what follows is more like it than like the beginning.
        self._messages = self._messages // 2 + messages
        self._bytes = self._bytes // 2 + size
