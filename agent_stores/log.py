"""`MessageLog`: what a backend is, and the data that goes to it and comes back.

A log is one object per server. It holds threads, named by tenant and thread id; a thread is a sequence of
records in the order of their positions. A log knows positions, ids, sizes and where a cut may fall; it never
reads a body. Messages, windows and views are the business of `ChatMessageStore`, above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

TtlRefresh = Literal["write", "read", "never"]
"""What renews a time-to-live: each write; each write and read; or nothing, so that it is fixed."""


class ThreadKey(NamedTuple):
    """Names a thread.

    Attributes:
        tenant: whose it is, or None where there are no tenants; None differs from every tenant.
        thread_id: any non-empty text, unique within the tenant.
    """

    tenant: str | None
    thread_id: str


class TimeToLive(msgspec.Struct, frozen=True):
    """How long a thread lives.

    Attributes:
        seconds: how long; None for ever.
        refresh: what renews it.
    """

    seconds: float | None
    refresh: TtlRefresh = "write"


class Record(msgspec.Struct, frozen=True, gc=False):
    """A message on its way into a log.

    Attributes:
        message_id: unique within the thread.
        body: the message's JSON document in UTF-8; a log does not look inside.
        created_us: when the message was made, in microseconds since 1970 UTC.
        tokens: what the store's token counter says.
        pinned: trimming and windows keep it, in front.
        calls: what it opens that a later record closes: the ids of its tool calls.
        results: what it closes: the ids of the calls that it answers.
    """

    message_id: str
    body: bytes
    created_us: int
    tokens: int = 0
    pinned: bool = False
    calls: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A message as it comes from a log.

    Attributes:
        position: its place in the thread, from 1 up; never used again in that thread.
        body: its JSON document.
        pinned: whether it is pinned.
        cut: whether a cut may fall just before it.
    """

    position: int
    body: bytes
    pinned: bool = False
    cut: bool = True


class Slice(msgspec.Struct, frozen=True):
    """What a read brings.

    Attributes:
        entries: in the order of their positions.
        has_older: whether the range that was asked for holds older entries that are not pinned.
        ends_at_cut: whether a cut may fall behind the last entry of the range.
    """

    entries: list[Entry]
    has_older: bool = False
    ends_at_cut: bool = True


class ThreadStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a log knows of a thread without reading its messages.

    Attributes:
        tenant: whose it is.
        thread_id: its id.
        messages: how many it holds, pinned ones included.
        bytes: the size of their JSON documents together.
        tokens: their tokens together, as counted when they were written.
        last_position: the position of the newest message that it ever held; 0 for a thread without any.
        first_at: when the first message that was added to it was made (UTC).
        last_at: when the last message that was added to it was made (UTC).
        expires_at: when it will be gone unless it is renewed (UTC); None for never.
    """

    tenant: str | None
    thread_id: str
    messages: int = 0
    bytes: int = 0
    tokens: int = 0
    last_position: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    expires_at: datetime | None = None


class ThreadPage(msgspec.Struct, frozen=True):
    """A page of a tenant's threads.

    Attributes:
        threads: in the order of their ids, by code point; a backend may order ids that begin with the same
            characters in another way: 68 of them, or 128 where they are letters and digits.
        cursor: what to ask for the next page with; None after the last one.
    """

    threads: list[ThreadStats]
    cursor: str | None = None


@runtime_checkable
class MessageLog(Protocol):
    """Threads of messages on one server.

    Every operation is one atomic step: another client sees all of it or nothing. Operations on a thread that
    does not exist, or has expired, find it empty. What fails raises a `StoreError`; the class says whether
    anything was written.
    """

    @property
    def location(self) -> str:
        """Where the threads are, such as ``postgresql://host:5432/database``; never holds a secret."""
        ...

    @property
    def max_message_bytes(self) -> int | None:
        """The largest body that can be held, in bytes; None where there is no limit."""
        ...

    async def append(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """Add records at the end of a thread, all or none, and trim it, in one step.

        A record whose id is in the thread already, or came earlier in `records`, is left out. The cost does
        not depend on the length of the thread.

        Args:
            key: the thread; it comes into being with its first record.
            records: in order; not empty.
            batch_id: names this call by its content. A call with one of the thread's last few batch ids is
                the retry of one that was stored: it changes nothing.
            expected_position: the `last_position` that the thread must have (0 for one without messages),
                unless all the records are in it already.
            max_messages: keep at most so many of the records that are not pinned; see `retention.cut_at`.
            ttl: the thread's time-to-live from now on, unless `set_ttl` set one; None leaves it as it is.

        Returns:
            The position of the thread's last message.

        Raises:
            ConflictError: when `expected_position` does not hold; nothing is written.
            OutcomeUnknownError: when the connection was lost while the write was confirmed.
        """
        ...

    async def read(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        last: int | None = None,
        first: int | None = None,
    ) -> Slice:
        """Read a range of a thread; renews a time-to-live that reads renew.

        Args:
            key: the thread.
            after: only positions above.
            before: only positions below.
            last: only the newest so many that are not pinned, by the rule of `retention.cut_at`, and all the
                pinned ones of the range.
            first: only the oldest so many; not with `last`.
        """
        ...

    async def get(self, key: ThreadKey, message_id: str) -> Entry | None:
        """Read one record, or None."""
        ...

    async def replace(self, key: ThreadKey, record: Record) -> bool:
        """Put a record in the place of the one with its id; False when there is none."""
        ...

    async def delete(self, key: ThreadKey, message_ids: Sequence[str]) -> int:
        """Delete records; returns how many there were."""
        ...

    async def pop_last(self, key: ThreadKey) -> Entry | None:
        """Delete the newest record that is not pinned, and return it; None when there is none."""
        ...

    async def clear(self, key: ThreadKey) -> int:
        """Delete all records but keep the thread, its settings and its last position; returns how many."""
        ...

    async def rewrite(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """Put records in the place of all that a thread holds, in one step: no reader sees it empty or both.

        The records get new positions, behind the last one; their ids may be those of records that go.

        Args:
            key: the thread; it comes into being with its first record.
            records: in order; none empties the thread.
            batch_id: names this call alone; the retry of a call that was stored changes nothing.
            expected_position: as for `append`.
            ttl: as for `append`.

        Returns:
            The position of the thread's last message.

        Raises:
            ConflictError: when `expected_position` does not hold; nothing is written.
            OutcomeUnknownError: when the connection was lost while the write was confirmed.
        """
        ...

    async def stats(self, key: ThreadKey) -> ThreadStats | None:
        """What is known of a thread, or None when there is no such thread."""
        ...

    async def set_ttl(self, key: ThreadKey, ttl: TimeToLive) -> bool:
        """Set a thread's time-to-live, counted from now; later appends keep it. False: no such thread."""
        ...

    async def fork(self, key: ThreadKey, new_key: ThreadKey, *, at: int | None = None) -> int:
        """Copy a thread up to and including position `at` (all of it by default) to a new thread.

        Positions and the time-to-live are the same in the copy.

        Returns:
            How many records were copied.

        Raises:
            NotFoundError: when there is no such thread.
            ThreadExistsError: when there is a thread of the new name.
        """
        ...

    async def delete_thread(self, key: ThreadKey) -> bool:
        """Delete a thread with everything that belongs to it; False when there was none."""
        ...

    async def list_threads(
        self, tenant: str | None, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> ThreadPage:
        """A page of a tenant's threads whose ids begin with `prefix`.

        Raises:
            ArgumentError: when the cursor is not one that this log gave.
        """
        ...

    async def purge_expired(self, *, limit: int = 1000) -> int:
        """Remove what is left of expired threads, at most `limit` threads; returns how many.

        Expired threads read as empty in any case. Servers that expire threads by themselves return 0.
        """
        ...

    async def aclose(self) -> None:
        """Close what this log opened; what it was given stays open. Closing twice is allowed."""
        ...
