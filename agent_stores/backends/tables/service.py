"""What the tables of all services share: clients per event loop, time limits, and retries."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from agent_stores.backends.tables.cache import ThreadCache
from agent_stores.backends.tables.table import ConditionFailed
from agent_stores.connection_pool import LoopClient, LoopClients, ServerRegistry
from agent_stores.errors import (
    MessageTooLargeError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
)

if sys.version_info >= (3, 11):
    from asyncio import timeout as time_limit
else:
    from async_timeout import timeout as time_limit  # pyright: ignore[reportMissingImports]

T = TypeVar("T")
C = TypeVar("C", bound=LoopClient)

_ATTEMPTS = 5  # of a request, when the time allows them
_FIRST_PAUSE = 0.02  # seconds before the second attempt, at most; doubles
_LONGEST_PAUSE = 2.0


class Failure(NamedTuple):
    """What a failed request means.

    Attributes:
        kind: ``"transient"`` when the same request may succeed later; ``"rejected"``, ``"too large"``,
            ``"other"``.
        detail: what the service or the client says, without secrets.
        may_have_applied: whether the service may have carried out the request.
        wait: how many seconds the service asks to wait; None if it does not.
    """

    kind: str
    detail: str
    may_have_applied: bool = False
    wait: float | None = None


class TableServer(Generic[C]):
    """The connections to a table, shared by the logs of a process that name it alike.

    Args:
        make_client: makes a client, on its event loop.
        are_ours: whether the clients are to be closed.
        timeout: seconds that a request may take, attempts and pauses included.
    """

    def __init__(self, make_client: Callable[[], C], *, are_ours: bool, timeout: float) -> None:
        self.users = 0
        self.cache = ThreadCache()
        self._clients = LoopClients(make_client, are_ours=are_ours, timeout=timeout)
        self.client = self._clients.get
        self.aclose = self._clients.aclose
        self.close_unused = self._clients.close_unused
        self.close_at_exit = self._clients.close_at_exit
        self.reset_after_fork = self._clients.reset_after_fork


class ServiceTable(ABC, Generic[C]):
    """A table of a service; subclasses make the requests.

    Args:
        location: where the table is, without secrets.
        identity: equal for tables whose connections may be shared.
        make_client: makes a client, on its event loop.
        are_ours: whether the clients are to be closed.
        timeout: seconds that a request may take, attempts and pauses included.
        secrets: text that must never show.
    """

    registry: ClassVar[ServerRegistry[Any]]
    errors: ClassVar[tuple[type[BaseException], ...]]
    """What the client raises when a request fails."""

    def __init__(
        self,
        location: str,
        identity: Hashable,
        make_client: Callable[[], C],
        *,
        are_ours: bool,
        timeout: float,
        secrets: Sequence[str] = (),
    ) -> None:
        self.location = location
        self._timeout = timeout
        self._redact = redactor(secrets)
        self._server: TableServer[C]
        self._server, self._finalizer = self.registry.acquire(
            identity, lambda: TableServer(make_client, are_ours=are_ours, timeout=timeout), user=self
        )

    @property
    def cache(self) -> ThreadCache:
        """What the process knows of the table's threads."""
        return self._server.cache

    async def aclose(self) -> None:
        """Close the connections, if no other log of this process uses them."""
        await self.registry.release(self._server, self._finalizer)

    @abstractmethod
    def _explain(self, error: BaseException) -> Failure:
        """What an error of the client or the service means."""

    async def _request(
        self, ask: Callable[[C], Awaitable[T]], *, write: bool = False, repeatable: bool = False
    ) -> T:
        """Make a request, several times if it is certain to have had no effect and time allows.

        Args:
            ask: makes the request.
            write: whether it writes.
            repeatable: whether repeating a write that took effect does no harm.

        Raises:
            StoreError: nothing was written.
            OutcomeUnknownError: the answer to a write was lost.
        """
        deadline, attempt, is_unknown = time.monotonic() + self._timeout, 0, False
        while True:
            client = self._server.client()
            try:
                async with time_limit(max(0.0, deadline - time.monotonic())):
                    return await ask(client)
            except ConditionFailed as error:
                if is_unknown:  # it may be the effect of the first attempt
                    raise self._outcome_unknown() from error
                raise
            except self.errors as error:
                if isinstance(error, asyncio.TimeoutError) and time.monotonic() >= deadline:
                    raise self._timed_out(write) from error
                failure = self._explain(error)
                is_unknown = is_unknown or (write and failure.may_have_applied)
                if is_unknown and not repeatable:
                    raise self._outcome_unknown() from error
                attempt += 1
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * random.uniform(0.3, 1)  # noqa: S311
                pause += failure.wait or 0.0
                is_over = attempt == _ATTEMPTS or time.monotonic() + pause > deadline
                if failure.kind != "transient" or is_over:
                    if is_unknown:
                        raise self._outcome_unknown() from error
                    raise store_error(failure, self.location, write=write) from error
            await asyncio.sleep(pause)

    def _timed_out(self, write: bool) -> StoreError:
        if write:
            return self._outcome_unknown()
        return StoreUnavailableError(f"{self.location} did not answer within {self._timeout:g} seconds")

    def _outcome_unknown(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"the connection to {self.location} was lost while a write was confirmed: "
            "it may or may not be stored"
        )


def store_error(failure: Failure, location: str, *, write: bool) -> StoreError:
    """The library's error for a failure."""
    detail = failure.detail + ("; nothing was written" if write else "")
    if failure.kind == "transient":
        return StoreUnavailableError(f"no answer from {location}: {detail}")
    if failure.kind == "rejected":
        return StoreRejectedError(f"{location} rejects the operation: {detail}")
    if failure.kind == "too large":
        return MessageTooLargeError(f"larger than {location} can store: {detail}")
    return StoreError(f"{location}: {detail}")


def redactor(secrets: Sequence[str]) -> Callable[[str], str]:
    """A function that puts a text on one line and removes secrets; they do not show in its repr."""

    def redact(text: str) -> str:
        text = " ".join(text.split())
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text

    return redact


def close_session(session: Any) -> None:
    """Close the sockets of an aiohttp session when its event loop is gone and cannot do it."""
    connector = getattr(session, "_connector", None)
    transports = [
        getattr(entry[0], "transport", None)
        for connections in list(getattr(connector, "_conns", {}).values())
        for entry in connections
    ]
    for transport in transports:
        protocol = getattr(transport, "_ssl_protocol", None)
        for each in filter(None, (transport, getattr(protocol, "_transport", None))):
            with contextlib.suppress(Exception):  # it is closed already
                each._closing = each._closed = True
                each._sock.close()
                each._sock = None
    if connector is not None:
        connector._conns.clear()
        connector._closed = True
