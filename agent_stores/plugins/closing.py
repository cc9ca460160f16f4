"""How the classes of plug-ins are closed: with `aclose` or ``async with``, or with `close` or ``with``."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

if TYPE_CHECKING:
    from agent_stores.plugins.store_resolver import StoreResolver


class AsyncContext:
    """What is closed by `aclose`, at the end of ``async with``, too."""

    async def aclose(self) -> None:
        """Close it."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncClosing(AsyncContext):
    """The asynchronous form, for what has stores."""

    _opened: StoreResolver[Any]

    async def aclose(self) -> None:
        """Close what was opened here; what was given stays open."""
        await self._opened.aclose()


class SyncClosing:
    """The synchronous form, for what has stores."""

    _opened: StoreResolver[Any]

    def close(self) -> None:
        """Close what was opened here; what was given stays open."""
        self._opened.wait(self._opened.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
