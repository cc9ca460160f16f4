"""What the tables of all services share: clients per event loop, time limits, retries and errors."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar

from agent_stores._concurrency import OpenedOnce
from agent_stores.attempts import Attempts, FailedAttempt, time_limit
from agent_stores.backends.tables.layout import ThreadCache
from agent_stores.backends.tables.table import ConditionFailed, Table
from agent_stores.connection_pool import LoopClients, ServerRegistry, let_go
from agent_stores.errors import (
    MessageTooLargeError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    redact,
)

T = TypeVar("T")

_ATTEMPTS = 5  # of a request, when the time allows them
_FIRST_PAUSE = 0.04  # seconds before the second attempt, at most

Kind: TypeAlias = Literal[
    "busy", "lost", "no table", "condition", "forbidden", "rejected", "too large", "other"
]
_ERRORS: Mapping[Kind, tuple[type[StoreError], str]] = {
    "busy": (StoreUnavailableError, "no answer from {}: {}"),
    "lost": (StoreUnavailableError, "no answer from {}: {}"),
    "no table": (StoreUnavailableError, "{} is not there yet: {}"),
    "forbidden": (StoreRejectedError, "{} rejects the operation: this login does not permit it: {}"),
    "rejected": (StoreRejectedError, "{} rejects the operation: {}"),
    "too large": (MessageTooLargeError, "larger than {} can store: {}"),
}


class Failure(NamedTuple):
    """What a failed request means.

    Attributes:
        kind: ``"busy"`` when it had no effect, and may succeed later; ``"lost"`` when it may have had one;
            ``"condition"`` when an item is missing, or a condition does not hold; others are final.
        detail: what the service or the client says.
        wait: how many seconds the service asks to wait.
        operation: the index of the operation whose condition does not hold.
    """

    kind: Kind
    detail: str
    wait: float = 0.0
    operation: int = 0


@dataclass(frozen=True, kw_only=True)
class ServiceConfig(ABC):
    """A table of a service, and how to connect to it.

    Attributes:
        table: the table's name.
        location: where it is, without secrets.
        identity: equal for tables whose connections may be shared; holds no secret.
        client: the caller's client; None for clients of ours.
        secrets: text that must never show.
    """

    table: str
    location: str
    identity: Hashable = field(repr=False)
    client: Any = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @abstractmethod
    async def connect(self, stack: contextlib.AsyncExitStack, timeout: float) -> Any:
        """Make an SDK's client on the running loop; what is to be closed later goes on the stack."""


class ServiceClient(OpenedOnce[Any]):
    """An SDK's client on one event loop, made when it is first needed."""

    async def aclose(self) -> None:
        """Close the connections, on their loop."""
        await super().aclose()
        await asyncio.sleep(0)  # aiohttp's transports end in the loop's next turn

    def close_sockets(self) -> None:
        """Close the sockets, when their loop is gone: nothing waits then."""
        let_go(lambda: self.aclose().send(None))


class TableServer(LoopClients[ServiceClient]):
    """The connections to a table, shared by the logs of a process that name it alike."""

    def __init__(self, config: ServiceConfig, timeout: float) -> None:
        super().__init__(ServiceClient, are_ours=config.client is None, timeout=timeout)
        self.connect = partial(config.connect, timeout=timeout)
        self.cache = ThreadCache()


class ServiceTable(Table, ABC):
    """A table of a service; subclasses make the requests.

    Args:
        config: the table, and how to connect to it.
        timeout: seconds that a request may take, attempts and pauses included.
    """

    errors: ClassVar[tuple[type[Exception], ...]]
    """What the SDK raises when a request fails, besides OSError and timeouts."""

    def __init__(self, config: ServiceConfig, *, timeout: float) -> None:
        self.location, self.config = config.location, config
        self.attempts = Attempts(config.location, timeout=timeout, limit=_ATTEMPTS, first_pause=_FIRST_PAUSE)
        self._server, self._finalizer = _registry.acquire(
            (type(self), config.identity, timeout), partial(TableServer, config, timeout), user=self
        )
        self.cache = self._server.cache

    async def aclose(self) -> None:
        """Close the connections, if no other log of this process uses them."""
        await _registry.release(self._server, self._finalizer)

    @abstractmethod
    async def create_table(self, sdk: Any) -> None:
        """Create the table with the SDK's client, if it is missing."""

    @staticmethod
    @abstractmethod
    def explain(error: Any) -> Failure:
        """What one of `errors` means."""

    async def request(
        self, ask: Callable[[Any], Awaitable[T]], *, write: bool = False, repeatable: bool = False
    ) -> T | None:
        """Make a request, several times if it is certain to have had no effect and time allows.

        A write creates a missing table, and is repeated after a lost reply if it is `repeatable`, so that
        repeating it does no harm. A read of an item or a table that is missing returns None.

        Raises:
            ConditionFailed: a condition of a write does not hold.
            StoreError: nothing was written.
            OutcomeUnknownError: the answer to a write was lost.
        """
        was_lost = needs_table = False

        async def attempt(deadline: float) -> T:
            if needs_table:
                await self.request(self.create_table, write=True, repeatable=True)
                deadline = time.monotonic() + self.attempts.timeout
            async with time_limit(deadline):
                return await ask(await self._server.get().get(self._server.connect))

        def explain(error: Exception) -> FailedAttempt | None:
            nonlocal was_lost, needs_table
            if isinstance(error, self.errors):
                failure = self.explain(error)
            elif isinstance(error, (OSError, asyncio.TimeoutError)):
                failure = Failure("busy" if isinstance(error, ConnectionRefusedError) else "lost", str(error))
            else:
                return None
            was_lost = was_lost or failure.kind == "lost"
            needs_table = failure.kind == "no table" and not was_lost
            final: Exception = store_error(failure, self.config, write=write)
            if failure.kind == "condition" or (failure.kind == "no table" and not write):
                final = ConditionFailed(failure.operation)
            return FailedAttempt(
                final,
                redact(failure.detail, self.config.secrets),
                error,
                may_retry=failure.kind in ("busy", "lost") or (failure.kind == "no table" and write),
                may_have_applied=failure.kind == "lost",
                wait=failure.wait,
            )

        try:
            return await self.attempts.run(attempt, explain, write=write, repeatable=repeatable)
        except ConditionFailed:
            if write:
                raise
            return None


def store_error(failure: Failure, config: ServiceConfig, *, write: bool = False) -> StoreError:
    """The library's error for a failure."""
    kind, text = _ERRORS.get(failure.kind, (StoreError, "{}: {}"))
    detail = redact(failure.detail, config.secrets) + ("; nothing was written" if write else "")
    return kind(text.format(config.location, detail))


_registry: ServerRegistry[TableServer] = ServerRegistry()
