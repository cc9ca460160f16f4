"""The backend contract: six methods that a database implements, and the data that they exchange.

A backend stores threads. A thread has metadata (`Thread`) and rows (`Row`), ordered by position. A backend
never reads a row's body. `agent_stores.log.MessageLog` implements every operation once, over these methods.

Optional capabilities are in `agent_stores.capabilities`. The most important ones, `Appender` and
`LatestReader`, do the hot paths in one round trip. The log detects capabilities with ``isinstance``.
"""

from __future__ import annotations

import builtins
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

TtlRefresh = Literal["write", "read", "never"]
"""What renews a time-to-live: each write; each write and each read; or nothing, so that it is fixed."""

ThreadOrder = Literal["id", "recent"]
"""The order of a listing: by thread id, by code point; or by last write, newest first."""

Version: TypeAlias = Hashable
"""What the server compares on a commit: an ETag, a revision number. The log treats it as opaque."""

RECENT_REQUESTS = 32
"""How many request ids a thread remembers, newest last."""

MAX_RUN = 256
"""How many rows without a boundary delay a trim at most."""


class ThreadKey(NamedTuple):
    """Names a thread.

    Attributes:
        tenant: its owner; None, for no tenant, differs from every name.
        thread_id: any non-empty text, unique within the tenant.
    """

    tenant: str | None
    thread_id: str


class TimeToLive(msgspec.Struct, frozen=True):
    """The time-to-live of a thread.

    Attributes:
        seconds: its length; None for no expiry.
        refresh: what renews it.
    """

    seconds: float | None
    refresh: TtlRefresh = "write"


class Row(msgspec.Struct, frozen=True, gc=False):
    """A stored message.

    Attributes:
        message_id: any non-empty text, unique within the thread.
        body: the message's JSON document in UTF-8; empty where bodies were not asked for.
        position: from 1 up, increasing; never reused in a thread. 0 before the row is stored.
        boundary: whether a trim may cut directly before this row.
        pinned: whether trims and windows always keep it.
        bytes: the size of the body.
        tokens: the message's tokens, as counted when it was written.
        created_us: when the message was created, in microseconds since 1970 UTC.
    """

    message_id: str
    body: builtins.bytes  # below, `bytes` is a field
    position: int = 0
    boundary: bool = True
    pinned: bool = False
    bytes: int = 0
    tokens: int = 0
    created_us: int = 0


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a thread. Fields that end in ``_us`` are microseconds since 1970 UTC.

    Attributes:
        last_position: the highest visible position ever assigned. Rows above it are invisible.
        staged_position: the highest position of rows that an unfinished commit may have written; 0 for none.
        staged_clear: whether that commit is to remove every visible row.
        messages: how many rows the thread has, pinned ones included.
        pinned: how many of them are pinned.
        bytes: the size of their bodies.
        tokens: their tokens.
        first_us: when the first message ever added was created.
        last_us: when the last message added was created.
        updated_us: the time of the last write; listings by recency use it.
        ttl: the time-to-live in seconds; None for none.
        ttl_refresh: what renews it.
        ttl_explicit: whether `MessageLog.set_ttl` set it; appends then leave it unchanged.
        expires_us: when the thread expires; None for never.
        recent_request_ids: the ids of the last `RECENT_REQUESTS` calls that changed the thread, oldest first.
        metadata: the application's data, a JSON object.
        revision: how often `metadata` was changed.
    """

    last_position: int = 0
    staged_position: int = 0
    staged_clear: bool = False
    messages: int = 0
    pinned: int = 0
    bytes: int = 0
    tokens: int = 0
    first_us: int | None = None
    last_us: int | None = None
    updated_us: int = 0
    ttl: float | None = None
    ttl_refresh: TtlRefresh = "write"
    ttl_explicit: bool = False
    expires_us: int | None = None
    recent_request_ids: tuple[str, ...] = ()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    revision: int = 0

    def is_expired(self, now_us: int) -> bool:
        """Whether the thread has expired."""
        return self.expires_us is not None and self.expires_us <= now_us

    def is_visible(self, now_us: int) -> bool:
        """Whether the thread exists for callers: it has not expired, and a first commit was finished."""
        return not self.is_expired(now_us) and bool(self.recent_request_ids)

    @property
    def unpinned(self) -> int:
        """How many rows are not pinned."""
        return self.messages - self.pinned


class Snapshot(NamedTuple):
    """A thread, and some of its rows, as of one moment.

    Attributes:
        thread: its metadata.
        version: the thread's version at that moment.
        rows: the rows that were asked for, in the order of their positions.
    """

    thread: Thread
    version: Version
    rows: list[Row] = []  # noqa: RUF012 - never changed


class RowRange(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which rows of a thread to read; by default every visible one.

    Attributes:
        after: only positions above.
        before: only positions below.
        limit: with `newest`, exactly the newest `limit` rows that are not pinned, and every pinned row of the
            range; otherwise the oldest `limit` rows of the range, pinned or not.
        newest: see `limit`.
        bodies: whether the rows need a body.
        staged: include rows that an unfinished commit left above `Thread.last_position`, which are otherwise
            not returned; asked for only on servers whose `limits` bound a commit.
    """

    after: int = 0
    before: int | None = None
    limit: int | None = None
    newest: bool = False
    bodies: bool = True
    staged: bool = False


class Change(msgspec.Struct, frozen=True, gc=False):
    """What a commit changes.

    Attributes:
        thread: the thread's new metadata; None deletes the thread with all that belongs to it.
        expected: the version that the thread must have; None when it must not exist.
        put: rows to write, each with its position. A row at a position that exists replaces that row; it
            keeps that row's message id.
        delete: rows to remove; their bodies may be missing. Never more than the limits allow, and never with
            a position that is also put.
        clear: remove every row that is visible before the commit; put rows and staged rows stay.
    """

    thread: Thread | None
    expected: Version | None
    put: Sequence[Row] = ()
    delete: Sequence[Row] = ()
    clear: bool = False


class ListedThread(NamedTuple):
    """A thread in a listing.

    Attributes:
        key: its name.
        thread: its metadata.
        version: its version.
    """

    key: ThreadKey
    thread: Thread
    version: Version


class ListCursor(NamedTuple):
    """The last thread of the previous page.

    Attributes:
        updated_us: its `Thread.updated_us`.
        thread_id: its id.
    """

    updated_us: int
    thread_id: str


class ThreadQuery(msgspec.Struct, frozen=True, gc=False):
    """Which threads to list.

    Attributes:
        tenant: whose threads.
        prefix: only ids that begin so.
        after: only threads after this one, in the order asked for.
        limit: how many at most; fewer mean that there are no more.
        order: ``"id"`` or ``"recent"``; threads written at the same time are ordered by id.
        expired_before: instead, threads of every tenant that expired before this time (microseconds), in any
            order; `tenant`, `prefix`, `after` and `order` are then ignored. A server that removes expired
            threads by itself returns none.
    """

    tenant: str | None
    prefix: str = ""
    after: ListCursor | None = None
    limit: int = 100
    order: ThreadOrder = "id"
    expired_before: int | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server can store; None where there is no limit.

    Attributes:
        body_bytes: the largest body.
        commit_rows: the largest number of rows that one commit puts and deletes.
        commit_bytes: the largest sum of the bodies that one commit puts.
    """

    body_bytes: int | None = None
    commit_rows: int | None = None
    commit_bytes: int | None = None


class VersionConflict(Exception):
    """The thread's version is not the expected one: another writer was faster. Nothing was written."""


@runtime_checkable
class Backend(Protocol):
    """A database with threads. Raises `agent_stores.errors.StoreError` for what fails on the server.

    A backend may also define these attributes:

    - ``supports_inline`` (bool): no method waits for the event loop when `agent_stores.inline.may_block`
      is true, so that synchronous calls run on the caller's thread without an event loop.
    - ``loop_independent`` (bool): methods may be called from any event loop, at the same time.
    """

    @property
    def location(self) -> str:
        """Where the threads are, such as ``postgresql://host:5432/database``; never holds a secret."""
        ...

    @property
    def limits(self) -> Limits:
        """What the server can store."""
        ...

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """The thread's metadata and version, without rows; None when there is no such thread.

        An expired thread may be returned: the log checks `Thread.expires_us`.
        """
        ...

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """The thread and some of its rows, as of one moment; None when there is no such thread."""
        ...

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """The visible rows with these ids, without bodies, by id. Ids that are not there are not in it."""
        ...

    async def commit(self, key: ThreadKey, change: Change) -> Version | None:
        """Change a thread and its rows in one atomic step.

        Returns:
            The thread's new version; None after its deletion.

        Raises:
            VersionConflict: when the version is not the expected one; nothing was written.
            OutcomeUnknownError: when the connection was lost while the commit was confirmed.
        """
        ...

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        """Threads of one tenant, without reading rows; expired ones may be among them."""
        ...

    async def aclose(self) -> None:
        """Close what the backend opened; what it was given stays open. Called once."""
        ...
