"""Running coroutines at once, and things that live as long as an event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


async def gather_or_cancel(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at once, each in a task of its own; returns their results in their order.

    When one raises, or the caller is cancelled, the others are cancelled and have ended before this raises:
    nothing goes on in the background.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    if not tasks:
        return []
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def settle(result: Any) -> Any:
    """What a function returned, or what that results in if it is to be awaited."""
    return await result if inspect.isawaitable(result) else result


class LoopLocal(Generic[T]):
    """Something that is bound to an event loop: opened once in each, and closed there.

    It is closed by `aclose`, when its last user releases it, or else when its loop shuts down
    its asynchronous generators, as `asyncio.run` does at its end. So nothing leaks that is never closed.

    Args:
        opener: opens it; what has to be closed is put on the stack that it is given.
    """

    def __init__(self, opener: Callable[[AsyncExitStack], Awaitable[T]]) -> None:
        self._opener = opener
        self._entries: WeakKeyDictionary[asyncio.AbstractEventLoop, _Entry[T]] = WeakKeyDictionary()

    async def get(self) -> T:
        """The one of the running loop, opened now if it is not open."""
        return await self._entry().get(self._opener)

    def retain(self) -> None:
        """Count one more user, in the running loop."""
        self._entry().users += 1

    async def release(self) -> None:
        """Count one user less, and close the one of the running loop after the last."""
        entry = self._entry()
        entry.users -= 1
        if entry.users <= 0:
            await entry.aclose()

    async def aclose(self) -> None:
        """Close the one of the running loop, if it is open; the next `get` opens another."""
        entry = self._entries.get(asyncio.get_running_loop())
        if entry is not None:
            await entry.aclose()

    def _entry(self) -> _Entry[T]:
        loop = asyncio.get_running_loop()
        entry = self._entries.get(loop)
        if entry is None:
            # What is open refers to its loop, which weak keys alone would keep for ever.
            for known in [reference() for reference in self._entries.keyrefs()]:
                if known is not None and known.is_closed():
                    self._entries.pop(known, None)
            entry = self._entries[loop] = _Entry()
        return entry


class OpenedOnce(Generic[T]):
    """Something on one event loop, opened when it is first needed."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._value: list[T] = []

    async def get(self, opener: Callable[[AsyncExitStack], Awaitable[T]]) -> T:
        """What is open, or is opened now; what is to be closed goes on the stack that `opener` is given."""
        async with self._lock:
            if not self._value:
                try:
                    self._value = [await opener(self._stack)]
                except BaseException:
                    await self._stack.aclose()
                    raise
            return self._value[0]

    async def aclose(self) -> None:
        """Close it, if it is open."""
        async with self._lock:
            self._value = []
            await self._stack.aclose()


class _Entry(OpenedOnce[T]):
    """What a loop closes at its end, as it does with all asynchronous generators."""

    def __init__(self) -> None:
        super().__init__()
        self.users = 0
        self._holder: AsyncGenerator[None, None] | None = None

    async def get(self, opener: Callable[[AsyncExitStack], Awaitable[T]]) -> T:
        if self._holder is None:
            self._holder = self._hold()
            await self._holder.__anext__()
        return await super().get(opener)

    async def aclose(self) -> None:
        holder, self._holder = self._holder, None
        if holder is not None:
            await holder.aclose()

    async def _hold(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await super().aclose()
