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

from agent_stores import errors
from agent_stores.backends.tables.reader import ThreadCache
from agent_stores.backends.tables.table import ConditionFailed
from agent_stores.connection_pool import LoopClient, LoopClients, ServerRegistry

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


class TableServer(LoopClients[C]):
    """The connections to a table, shared by the logs of a process that name it alike; see `LoopClients`."""

    def __init__(self, make: Callable[[], C], *, are_ours: bool, timeout: float) -> None:
        super().__init__(make, are_ours=are_ours, timeout=timeout)
        self.users = 0
        self.cache = ThreadCache()


class ServiceTable(ABC, Generic[C]):
    """A table of a service; subclasses make the requests.

    Args:
        location: where the table is, without secrets.
        identity: equal for tables whose connections may be shared.
        make_client: makes a client, on its event loop.
        are_ours: whether the clients are to be closed.
        timeout: seconds that a request may take, attempts and pauses included.
        secrets: text that must never show.

    Attributes:
        cache: what the process knows of the table's threads.
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
        self.cache = self._server.cache

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
        unknown = errors.OutcomeUnknownError(
            f"the connection to {self.location} was lost while a write was confirmed: "
            "it may or may not be stored"
        )
        deadline, attempt, is_unknown = time.monotonic() + self._timeout, 0, False
        while True:
            client = self._server.get()
            try:
                async with time_limit(max(0.0, deadline - time.monotonic())):
                    return await ask(client)
            except ConditionFailed as error:
                if is_unknown:  # it may be the effect of the first attempt
                    raise unknown from error
                raise
            except self.errors as error:
                now = time.monotonic()
                if isinstance(error, asyncio.TimeoutError) and now >= deadline:
                    text = f"{self.location} did not answer within {self._timeout:g} seconds"
                    raise unknown if write else errors.StoreUnavailableError(text) from error
                failure = self._explain(error)
                is_unknown = is_unknown or (write and failure.may_have_applied)
                attempt += 1
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * random.uniform(0.3, 1)  # noqa: S311
                pause += failure.wait or 0.0
                may_repeat = failure.kind == "transient" and (repeatable or not is_unknown)
                if not may_repeat or attempt == _ATTEMPTS or now + pause > deadline:
                    if is_unknown:
                        raise unknown from error
                    raise store_error(failure, self.location, write=write) from error
            await asyncio.sleep(pause)


def store_error(failure: Failure, location: str, *, write: bool) -> errors.StoreError:
    """The library's error for a failure."""
    detail = failure.detail + ("; nothing was written" if write else "")
    if failure.kind == "transient":
        return errors.StoreUnavailableError(f"no answer from {location}: {detail}")
    if failure.kind == "rejected":
        return errors.StoreRejectedError(f"{location} rejects the operation: {detail}")
    if failure.kind == "too large":
        return errors.MessageTooLargeError(f"larger than {location} can store: {detail}")
    return errors.StoreError(f"{location}: {detail}")


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
    for connections in list(getattr(connector, "_conns", {}).values()):
        for entry in connections:
            transport = getattr(entry[0], "transport", None)
            protocol = getattr(transport, "_ssl_protocol", None)
            for each in filter(None, (transport, getattr(protocol, "_transport", None))):
                with contextlib.suppress(Exception):  # it is closed already
                    each._closing = each._closed = True
                    each._sock.close()
                    each._sock = None
    if connector is not None:
        connector._conns.clear()
        connector._closed = True
