"""What a backend may offer beyond the contract: each a small protocol, detected with ``isinstance``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from agent_stores.backend import Row, ThreadKey, TimeToLive


class Append(msgspec.Struct, frozen=True, gc=False):
    """An append to a thread.

    Attributes:
        rows: in order, not empty; their positions are 0.
        request_id: names the call and its retries.
        now_us: the time, in microseconds since 1970 UTC; a backend may use its server's.
        expected_position: the `last_position` that the thread must have, 0 for a thread without rows.
        max_messages: the largest number of rows that are not pinned.
        ttl: the thread's time-to-live, unless it is explicit; None leaves it unchanged.
        create: False returns None when there is no such thread, it has expired, or no message was ever added
            to it (`last_position` is 0).
    """

    rows: Sequence[Row]
    request_id: str
    now_us: int
    expected_position: int | None = None
    max_messages: int | None = None
    ttl: TimeToLive | None = None
    create: bool = True

    def totals(self) -> tuple[int, int, int]:
        """How many rows are pinned, and the bytes and tokens of all rows."""
        pinned = size = tokens = 0
        for row in self.rows:
            pinned += row.pinned
            size += row.bytes
            tokens += row.tokens
        return pinned, size, tokens


@runtime_checkable
class Appender(Protocol):
    """A backend that appends in one round trip."""

    async def append(self, key: ThreadKey, call: Append) -> int | None:
        """Append rows and trim the thread in one atomic step, as `MessageLog.append` does by commits.

        In this order: an expired thread is removed. A call whose `request_id` is among the thread's recent
        ones changes nothing, and so does one whose ids all exist. When some of the ids exist, or an id comes
        twice in `rows`, the backend returns None. `expected_position` is compared. Rows get the positions
        after `last_position`. While the thread has more than `max_messages` rows that are not pinned, the
        oldest ones are removed, up to a boundary (`agent_stores.thread_updates.trim_index`). Counters, times,
        `recent_request_ids`, the time-to-live (`agent_stores.thread_updates.with_ttl`, then `touch`),
        `updated_us` and the version change.

        A backend may return None, before it writes, for any other case, for example when a trim finds no
        boundary nearby. The log then appends by its fallback, `Operations.append`: load the thread, plan the
        change, commit it under the thread's version. A backend must return None when the thread has rows
        that an unfinished commit left (`Thread.staged_position`), and when the call exceeds the server's
        limits.

        Returns:
            The thread's last position; None when the log must append by its fallback.

        Raises:
            ConflictError: when `expected_position` differs; nothing was written.
            OutcomeUnknownError: when the connection was lost while the write was confirmed.
        """
        ...


@runtime_checkable
class LatestReader(Protocol):
    """A backend that reads the end of a thread in one round trip, with no more columns than a view needs."""

    async def latest(self, key: ThreadKey, limit: int | None, *, now_us: int, ids: bool = False) -> list[Row]:
        """The newest `limit` rows that are not pinned, all of them for None, and every pinned row, in order.

        A thread that does not exist, or has expired at `now_us`, has none. Renews a time-to-live that reads
        renew. Of each row, `position`, `body`, `pinned` and `boundary` are set; with `ids` also `message_id`,
        which an encrypted body is checked against.
        """
        ...


@runtime_checkable
class TenantLister(Protocol):
    """A backend that lists its tenants."""

    async def tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """Tenants that have threads, by name; None, for threads without a tenant, comes first.

        Args:
            after: only tenants after this name.
            limit: how many at most.
        """
        ...


def tenants_after(tenants: Iterable[str | None], after: str | None) -> list[str | None]:
    """Tenants in the order of `TenantLister.tenants`, that of code points; with a name, those after it."""
    ordered = sorted(tenants, key=lambda name: name or "")
    return [name for name in ordered if after is None or (name or "") > after]


class Subscription(Protocol):
    """Tells when a thread may have changed; a hint, which may come late, often or without a cause."""

    async def wait(self, seconds: float) -> None:
        """Return when the thread may have changed since the last call, or after that time.

        Raises:
            StoreUnavailableError: when the connection was lost, and with it perhaps a notification.
        """
        ...

    async def aclose(self) -> None:
        """Give its connection back."""
        ...


@runtime_checkable
class ChangeNotifier(Protocol):
    """A backend whose server notifies clients of changes."""

    async def subscribe(self, key: ThreadKey) -> Subscription | None:
        """Subscribe to changes of a thread; None when this server does not do that.

        Raises:
            StoreUnavailableError: when the server cannot be reached.
        """
        ...


@runtime_checkable
class Sweeper(Protocol):
    """A backend that leaves invisible data behind, which has to be removed later."""

    async def sweep(self, *, limit: int) -> int:
        """Remove invisible data in bounded steps; returns how many rows were removed, 0 when none is left."""
        ...


@runtime_checkable
class Scrubber(Protocol):
    """A backend whose server keeps traces of deleted threads, which `agent_stores.erase` removes."""

    async def scrub(self, keys: Sequence[ThreadKey]) -> bool:
        """Remove what the deletion of threads has left in files, indexes and lists; safe to repeat.

        Returns:
            False when something may be left that this backend cannot remove.
        """
        ...


class SearchQuery(msgspec.Struct, frozen=True, gc=False):
    """Which messages to search for.

    Attributes:
        tenant: whose messages.
        text: a text, not a language: its words are `agent_stores.search.search_terms`, and a message that has
            any of them is found.
        limit: how many messages at most.
        now_us: the time, in microseconds since 1970 UTC; threads that have expired by then are left out.
        thread_id: only messages of this thread.
        before: a thread and a position; of that thread, only messages below the position are found.
    """

    tenant: str | None
    text: str
    limit: int
    now_us: int
    thread_id: str | None = None
    before: tuple[str, int] | None = None


class SearchHit(NamedTuple):
    """A message that a search found.

    Attributes:
        thread_id: its thread.
        row: the message; `position` and `body` are set.
        score: how well it matches, compared with others of the same search; higher is better.
    """

    thread_id: str
    row: Row
    score: float


@runtime_checkable
class SearchableBackend(Protocol):
    """A backend that finds messages by their words."""

    async def search(self, query: SearchQuery) -> list[SearchHit]:
        """See `MessageLog.search`; the first search may build an index, which can take a while."""
        ...
