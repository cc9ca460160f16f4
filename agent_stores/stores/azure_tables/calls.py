"""The requests of one operation: time-outs, retries, and what is made of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from agent_stores.errors import StoreError, StoreUnavailableError
from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables.failures import (
    CLIENT_ERRORS,
    LostError,
    MissingError,
    NoTableError,
    is_transient,
    may_be_done,
    retry_after,
    status_of,
    store_error,
    told,
    unknown_error,
)
from agent_stores.stores.azure_tables.sdk import TableClient
from agent_stores.stores.azure_tables.transactions import Operation

if TYPE_CHECKING:
    from agent_stores.stores.azure_tables.server import AzureTableServer

if sys.version_info >= (3, 11):
    from asyncio import timeout as time_limit
else:
    from async_timeout import timeout as time_limit  # pyright: ignore[reportMissingImports]

T = TypeVar("T")

_FIRST_PAUSE = 0.02  # seconds before the second attempt, at most; doubles, with jitter
_LONGEST_PAUSE = 2.0
_FIRST_WAIT = 0.005  # seconds after a race was lost, at most
_LONGEST_WAIT = 0.2
_ATTEMPTS = 5  # of a request, when the time allows them
_AT_ONCE = 16  # requests that one operation makes at once
_NO_RETRY: Mapping[str, Any] = {"retry_total": 0}  # we do that, knowing what may be repeated


class Page(NamedTuple):
    """Rows that a query brought.

    Attributes:
        rows: in the order of their keys.
        more: where to go on; None after the last page.
    """

    rows: list[Any]
    more: Any


class Call:
    """One operation's requests: how much time it has, and what it does not know of what it wrote.

    Attributes:
        is_unknown: whether something may be stored of which it is not known.
    """

    def __init__(self, server: AzureTableServer, *, write: bool) -> None:
        self.server = server
        self.is_unknown = False
        self._write = write
        self._pauses = 0
        self.progress()

    def progress(self) -> None:
        """A step is done: the next one has its own time."""
        self._deadline = time.monotonic() + self.server.timeout

    async def get(self, partition: str, row: str) -> Any | None:
        """A row by its keys, or None."""
        try:
            return await self._ask(
                lambda table: table.get_entity(partition, row, **_NO_RETRY)  # keys are quoted by the client
            )
        except (MissingError, NoTableError):
            return None

    async def query(
        self,
        partition: str,
        first: str,
        end: str,
        *,
        top: int | None = None,
        select: Sequence[str] | None = None,
        more: Any = None,
    ) -> Page:
        """A page of the rows of a partition whose keys are from `first` on and before `end`.

        Args:
            partition: the partition.
            first: the first key.
            end: what all keys come before.
            top: how many rows at most; the service brings up to 1,000 at once.
            select: the properties to bring; all by default.
            more: where the page before ended.
        """
        start = more

        async def ask(table: TableClient) -> Page:
            pages = table.query_entities(
                "PartitionKey eq @partition and RowKey ge @first and RowKey lt @end",
                parameters={"partition": partition, "first": first, "end": end},
                results_per_page=None if top is None else max(1, min(top, 1000)),
                select=None if select is None else list(select),
                **_NO_RETRY,
            ).by_page(start)
            async for page in pages:
                rows = [row async for row in page]
                more = getattr(pages, "continuation_token", None) or None
                if rows or more is None:  # a page may be empty, and not the last
                    return Page(rows, more)
            return Page([], None)

        try:
            return await self._ask(ask)
        except (MissingError, NoTableError):
            return Page([], None)

    async def query_all(
        self, partition: str, first: str, end: str, *, select: Sequence[str] | None = None
    ) -> list[Any]:
        """All rows of a partition between two keys, in as many requests as there are pages."""
        page = await self.query(partition, first, end, select=select)
        rows = page.rows
        while page.more is not None:
            self.progress()
            page = await self.query(partition, first, end, select=select, more=page.more)
            rows += page.rows
        return rows

    async def submit(self, operations: Sequence[Operation]) -> list[str]:
        """Carry out the operations of one transaction, all or none; returns the rows' new versions.

        Raises:
            ChangedError, TakenError, MissingError: what stands against it; nothing was written.
            LostError: it may or may not be stored.
        """
        request = [one.request() for one in operations]

        async def ask(table: TableClient) -> list[str]:
            done = await table.submit_transaction(request, **_NO_RETRY)
            return [str(one.get("etag", "")) for one in done]

        try:
            return await self._ask(ask, write=True)
        except NoTableError:
            await self._create_table()
            return await self._ask(ask, write=True)

    async def upsert(self, entity: Mapping[str, Any]) -> None:
        """Write a row, whatever is there; once more where the answer is lost, which does no harm."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self.submit([Operation("upsert", entity)])
                return
            except LostError as error:
                cause = error.__cause__ or error
                if attempt == _ATTEMPTS:
                    raise self._error(cause) from cause
                await self.pause(cause)

    async def pause(self, error: BaseException | None = None) -> None:
        """Wait before another attempt: growing, with jitter, and at least as long as the service asks.

        Raises:
            StoreUnavailableError: when there is no time left for it.
        """
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._pauses, 10))
        self._pauses += 1
        seconds = longest * random.uniform(0.3, 1.0)  # noqa: S311
        asked = None if error is None else retry_after(error)
        seconds = seconds if asked is None else asked + seconds
        if time.monotonic() + seconds > self._deadline:
            if error is not None:
                raise self._error(error)
            raise self.timed_out()
        await asyncio.sleep(seconds)

    async def give_way(self, tries: int) -> None:
        """Wait a moment after somebody else was faster.

        Args:
            tries: how often that happened.

        Raises:
            StoreUnavailableError: when there is no time left.
        """
        if time.monotonic() > self._deadline:
            raise self.timed_out()
        longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(tries, 10))
        await asyncio.sleep(longest * random.uniform(0.2, 1.0))  # noqa: S311

    def timed_out(self) -> StoreError:
        """The error for an operation whose time is over."""
        if self.is_unknown:
            return unknown_error(self.server.address.location)
        text = f"{self.server.address.location} did not answer within {self.server.timeout:g} seconds"
        return StoreUnavailableError(f"{text}; nothing was written" if self._write else text)

    @contextlib.asynccontextmanager
    async def turn(self, key: ThreadKey) -> AsyncIterator[None]:
        """One writer of a thread at a time on this event loop: they would only be in each other's way."""
        lock = self.server.client().lock(key)
        try:
            async with time_limit(max(0.0, self._deadline - time.monotonic())):
                await lock.acquire()
        except asyncio.TimeoutError as error:
            raise self.timed_out() from error
        try:
            yield
        finally:
            lock.release()

    async def gather(self, calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
        """Make several requests at once, some at a time."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(call: Callable[[], Awaitable[T]]) -> T:
            async with free:
                return await call()

        tasks = [asyncio.ensure_future(one(call)) for call in calls]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _create_table(self) -> None:
        async def ask(table: TableClient) -> None:
            await table.create_table(**_NO_RETRY)

        def is_there(error: BaseException) -> bool:
            return status_of(error) == 409 and "BeingDeleted" not in str(error)

        await self._ask(ask, fine=is_there)

    async def _ask(
        self,
        ask: Callable[[TableClient], Awaitable[T]],
        *,
        write: bool = False,
        fine: Callable[[BaseException], bool] | None = None,
    ) -> T:
        """Make a request, several times if need be and time allows."""
        attempts = 0
        while True:
            table = self.server.client().table
            left = self._deadline - time.monotonic()
            try:
                async with time_limit(max(0.0, left)):
                    return await ask(table)
            except asyncio.CancelledError:
                self.is_unknown = self.is_unknown or write
                raise
            except CLIENT_ERRORS as error:
                if isinstance(error, asyncio.TimeoutError) and time.monotonic() >= self._deadline:
                    self.is_unknown = self.is_unknown or write
                    raise self.timed_out() from error
                if fine is not None and fine(error):
                    return None  # type: ignore[return-value]
                known = told(error)
                if known is not None:
                    raise known from error
                if write and may_be_done(error):
                    raise LostError from error
                attempts += 1
                if not is_transient(error) or attempts >= _ATTEMPTS:
                    raise self._error(error) from error
                await self.pause(error)

    def _error(self, error: BaseException) -> StoreError:
        address = self.server.address
        if self.is_unknown:
            return unknown_error(address.location)
        return store_error(error, place=address.location, secrets=address.secrets, write=self._write)
