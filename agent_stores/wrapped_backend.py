"""`WrappedBackend`: what backends around another one have in common."""

from __future__ import annotations

from collections.abc import Sequence

from agent_stores.backend import (
    Backend,
    Change,
    Limits,
    ListedThread,
    Row,
    RowRange,
    Snapshot,
    ThreadKey,
    ThreadQuery,
    Version,
)


class WrappedBackend:
    """A backend that hands every call of the contract to another one; a subclass changes some of them.

    Args:
        inner: the other backend.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def location(self) -> str:
        """See `Backend.location`."""
        return self.inner.location

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`."""
        return self.inner.limits

    @property
    def supports_inline(self) -> bool:
        """See `Backend`."""
        return getattr(self.inner, "supports_inline", False)

    @property
    def loop_independent(self) -> bool:
        """See `Backend`."""
        return getattr(self.inner, "loop_independent", False)

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        return await self.inner.load(key)

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """See `Backend.rows`."""
        return await self.inner.rows(key, wanted)

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        return await self.inner.find(key, message_ids)

    async def commit(self, key: ThreadKey, change: Change) -> Version | None:
        """See `Backend.commit`; the rows to put come from `seal`."""
        return await self.inner.commit(key, change)

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        """See `Backend.threads`."""
        return await self.inner.threads(query)

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        await self.inner.aclose()
