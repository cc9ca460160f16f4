"""`MessageLog`: many threads on one server. Every operation, implemented once over a `Backend`.

A log knows positions, ids, sizes and boundaries of rows; it never reads a body. Messages, windows and views
are the business of `ChatMessageStore`, above it. `agent_stores.operations` says what each operation changes,
`agent_stores.committer` how a change takes effect exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_stores._checks import check_count
from agent_stores.backend import Backend, Row, RowRange, ThreadKey, ThreadOrder, ThreadQuery, TimeToLive
from agent_stores.capabilities import (
    Append,
    Appender,
    LatestReader,
    SearchableBackend,
    SearchHit,
    SearchQuery,
    TenantLister,
)
from agent_stores.committer import Committer, new_request_id
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError, StoreRejectedError
from agent_stores.forking import fork_thread
from agent_stores.listing import ThreadPage, ThreadStats, decode_cursor, list_page, make_stats
from agent_stores.operations import NewThread, Operations
from agent_stores.sealing import check_metadata, seal_rows, wrap_backend

if TYPE_CHECKING:
    from agent_stores.attachments import Attachments
    from agent_stores.encryption import Keys

__all__ = ["MessageLog", "NewThread", "ThreadKey", "ThreadPage", "ThreadStats", "TimeToLive"]


class MessageLog:
    """Threads of messages on one server. All methods are safe to call from any task.

    Every operation is one atomic step. A thread that does not exist, or has expired, is empty. What fails
    raises a `StoreError`; the class says whether anything was written.

    Args:
        backend: the database; `aclose` closes it.
        clock: returns seconds since 1970 UTC; for tests of expiry.
        encryption: the keys that encrypt bodies and metadata; None stores them in the clear.
        attachments: where large data of messages is stored; None stores it in the messages.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        clock: Callable[[], float] = time.time,
        encryption: Keys | None = None,
        attachments: Attachments | None = None,
    ) -> None:
        self.backend = backend = wrap_backend(backend, encryption, attachments)
        self._appender = backend if isinstance(backend, Appender) else None
        self._latest = backend if isinstance(backend, LatestReader) else None
        self._committer = Committer(backend, clock)
        self._operations = Operations(backend, self._committer)
        self._closed = False

    @property
    def location(self) -> str:
        """Where the threads are, such as ``postgresql://host:5432/database``; never holds a secret."""
        return self.backend.location

    @property
    def max_message_bytes(self) -> int | None:
        """The largest message, in bytes of its JSON; None where there is no limit."""
        return self.backend.limits.body_bytes

    @property
    def supports_inline(self) -> bool:
        """Whether synchronous calls can run on the caller's thread without an event loop."""
        return getattr(self.backend, "supports_inline", False)

    @property
    def loop_independent(self) -> bool:
        """Whether calls may come from any event loop."""
        return getattr(self.backend, "loop_independent", False)

    # -- adding and reading -------------------------------------------------------------------------------

    async def append(
        self,
        key: ThreadKey,
        rows: Sequence[Row],
        *,
        request_id: str | None = None,
        expected_position: int | None = None,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
        new_thread: NewThread | None = None,
    ) -> int:
        """Add rows at the end of a thread, all or none, and trim it, in one atomic step.

        Rows whose ids are in the thread, or came earlier in `rows`, are skipped. So are rows directly before
        one that is in the thread, when nothing is at the positions before it: an earlier call stored them,
        and they were trimmed or deleted since. The cost does not depend on the length of the thread.

        Args:
            key: the thread; its first row creates it.
            rows: in order, without positions.
            request_id: names this call and its retries; a call that the thread remembers changes nothing.
            expected_position: the `last_position` that the thread must have, unless every row is in it.
            max_messages: the largest number of rows that are not pinned (`thread_updates.trim_index`).
            ttl: the thread's time-to-live from now on, unless `set_ttl` set one; None leaves it unchanged.
            new_thread: what the thread begins with, before `rows`, if no message was ever added to it.

        Returns:
            The position of the thread's last message.

        Raises:
            ConflictError: when `expected_position` differs; nothing is written.
            OutcomeUnknownError: when the connection was lost while the write was confirmed.
        """
        self._open()
        if not rows:
            raise ArgumentError("rows must not be empty")
        call = Append(
            await seal_rows(self.backend, key, rows),
            request_id=request_id or new_request_id(),
            now_us=self._committer.now_us(),
            expected_position=expected_position,
            max_messages=max_messages,
            ttl=ttl,
            create=new_thread is None,
        )
        if self._appender is not None:
            position = await self._appender.append(key, call)
            if position is not None:
                return position
        return await self._operations.append(key, call, new_thread)

    async def create(
        self,
        key: ThreadKey,
        new_thread: NewThread,
        *,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> None:
        """Create a thread with what it begins with, unless a message was added to it before."""
        await self._open().create(key, new_thread, max_messages, ttl)

    async def latest(self, key: ThreadKey, limit: int | None = None) -> list[Row]:
        """The newest `limit` rows that are not pinned, all for None, and every pinned row, in order.

        Of each row, only `position`, `body`, `pinned` and `boundary` are certain to be set. Renews a
        time-to-live that reads renew.
        """
        self._open()
        if self._latest is not None:
            return await self._latest.latest(key, limit, now_us=self._committer.now_us())
        return await self.read(key, limit=limit, newest=True)

    async def read(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        bodies: bool = True,
    ) -> list[Row]:
        """Read a range of a thread (`RowRange`); renews a time-to-live that reads renew."""
        self._open()
        wanted = RowRange(after=after, before=before, limit=limit, newest=newest, bodies=bodies)
        snapshot = await self.backend.rows(key, wanted)
        if snapshot is None or not snapshot.thread.is_visible(self._committer.now_us()):
            return []
        if snapshot.thread.ttl_refresh == "read" and snapshot.thread.ttl is not None:
            await self._operations.renew(key, snapshot)
        return snapshot.rows

    async def get(self, key: ThreadKey, message_id: str) -> Row | None:
        """The row with an id, or None."""
        self._open()
        found = (await self.backend.find(key, [message_id])).get(message_id)
        if found is None:
            return None
        rows = await self.read(key, after=found.position - 1, before=found.position + 1, limit=1)
        return rows[0] if rows and rows[0].message_id == message_id else None

    # -- editing ------------------------------------------------------------------------------------------

    async def replace(self, key: ThreadKey, row: Row) -> bool:
        """Replace the row of the same id, in its position; returns whether there is one."""
        return await self._open().replace(key, row)

    async def delete(self, key: ThreadKey, message_ids: Sequence[str]) -> int:
        """Delete rows by id; returns how many there were.

        On a server that limits a commit, more rows than that are deleted in several steps.
        """
        return await self._open().delete(key, message_ids)

    async def pop_last(self, key: ThreadKey) -> Row | None:
        """Delete the newest row that is not pinned, and return it; None when there is none."""
        return await self._open().pop_last(key)

    async def clear(self, key: ThreadKey) -> int:
        """Delete all rows; the thread, its metadata and its last position remain. Returns how many rows."""
        return await self._open().clear(key)

    async def replace_all(
        self,
        key: ThreadKey,
        rows: Sequence[Row],
        *,
        request_id: str | None = None,
        expected_position: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """Replace all rows of a thread in one step: no reader sees it empty, or with both.

        The rows get new positions, after the last one; their ids may be those of rows that go.

        Args:
            key: the thread; its first row creates it.
            rows: in order, each id once; none empties the thread.
            request_id: names this call and its retries; a call that the thread remembers changes nothing.
            expected_position: as for `append`.
            ttl: as for `append`.

        Returns:
            The position of the thread's last message.

        Raises:
            ConflictError: when `expected_position` differs; nothing is written.
            OutcomeUnknownError: when the connection was lost while the write was confirmed.
        """
        self._open()
        request_id, now_us = request_id or new_request_id(), self._committer.now_us()
        rows = await seal_rows(self.backend, key, rows)
        call = Append(rows, request_id, now_us, expected_position, ttl=ttl)
        return await self._operations.replace_all(key, call)

    async def stats(self, key: ThreadKey) -> ThreadStats | None:
        """What is known of a thread, its metadata included; None when there is no such thread."""
        self._open()
        base = await self._committer.load(key)
        check_metadata(key, base.thread)
        return make_stats(key, base.thread) if base.exists else None

    async def update_metadata(
        self,
        key: ThreadKey,
        changes: Mapping[str, Any],
        *,
        expected_revision: int | None = None,
        max_messages: int | None = None,
        ttl: TimeToLive | None = None,
        new_thread: NewThread | None = None,
    ) -> int:
        """Merge JSON-ready values into a thread's metadata, by key; creates the thread if there is none.

        Args:
            key: the thread.
            changes: new values by key; None deletes a key.
            expected_revision: the `ThreadStats.revision` that the metadata must have.
            max_messages: as for `create`.
            ttl: as for `append`.
            new_thread: what the thread begins with if there is none.

        Returns the metadata's revision.

        Raises:
            ConflictError: when `expected_revision` differs; nothing is written.
            ArgumentError: when the metadata would be larger than `METADATA_BYTES`; nothing is written.
        """
        return await self._open().update_metadata(
            key, changes, expected_revision, max_messages, ttl, new_thread
        )

    async def set_ttl(self, key: ThreadKey, ttl: TimeToLive) -> bool:
        """Set a thread's time-to-live, counted from now; later appends keep it. Returns whether it exists."""
        return await self._open().set_ttl(key, ttl)

    async def fork(self, key: ThreadKey, new_key: ThreadKey, *, at: int | None = None) -> int:
        """Copy a thread up to and including position `at` (all of it by default) to a new thread.

        Positions, metadata and the time-to-live are the same. Returns how many rows were copied.

        Raises:
            NotFoundError, ThreadExistsError: when there is no such thread; when the new thread exists.
        """
        self._open()
        return await fork_thread(self.backend, self._committer, key, new_key, at)

    async def delete_thread(self, key: ThreadKey) -> bool:
        """Delete a thread with all that belongs to it; returns whether there was one."""
        return await self._open().delete_thread(key)

    async def list_threads(
        self,
        tenant: str | None,
        *,
        prefix: str = "",
        limit: int = 100,
        cursor: str | None = None,
        order: ThreadOrder = "id",
    ) -> ThreadPage:
        """A page of a tenant's threads, without reading messages.

        Args:
            tenant: whose threads; None for those without a tenant.
            prefix: only ids that begin so.
            limit: how many at most, from 1 up.
            cursor: the `ThreadPage.cursor` of the previous page, of the same order.
            order: ``"id"``, or ``"recent"`` for the most recently written first.
        """
        self._open()
        query = ThreadQuery(tenant, prefix, decode_cursor(order, cursor), limit, order)
        return await list_page(self.backend, query, self._committer.now_us())

    async def list_tenants(self, *, after: str | None = None, limit: int = 100) -> list[str | None]:
        """At most `limit` tenants that have threads, after a name, by name; None, for no tenant, comes first.

        Raises:
            StoreRejectedError: when the server cannot list them.
        """
        self._open()
        if not isinstance(self.backend, TenantLister):
            raise StoreRejectedError(f"{self.location} cannot list tenants")
        check_count("limit", limit)
        if not (after is None or isinstance(after, str)):
            raise ArgumentTypeError(f"after must be a str or None, got {type(after).__name__}")
        return await self.backend.tenants(after=after, limit=limit)

    async def purge_expired(self, *, limit: int = 1000) -> int:
        """Remove up to `limit` expired threads, of all tenants, and up to `limit` items of unused data.

        Returns how many threads; servers that expire threads by themselves return 0.
        """
        return await self._open().purge_expired(limit)

    @property
    def supports_search(self) -> bool:
        """Whether `search` is available."""
        return isinstance(self.backend, SearchableBackend)

    async def search(
        self,
        tenant: str | None,
        query: str,
        *,
        limit: int = 10,
        thread_id: str | None = None,
        before: tuple[str, int] | None = None,
    ) -> list[SearchHit]:
        """The messages of one tenant that have words of a query, best first; see `agent_stores.search`.

        Args:
            tenant: whose messages; None for those without a tenant.
            query: any text.
            limit: how many messages at most.
            thread_id: only messages of this thread.
            before: a thread and a position; of that thread, only messages below the position are found.

        Raises:
            StoreRejectedError: when the server has no search.
        """
        self._open()
        check_count("limit", limit)
        if not isinstance(self.backend, SearchableBackend):
            refusal = getattr(self.backend, "search_refusal", "has no search")
            raise StoreRejectedError(f"{self.location} {refusal}")
        now_us = self._committer.now_us()
        return await self.backend.search(SearchQuery(tenant, query, limit, now_us, thread_id, before))

    async def aclose(self) -> None:
        """Close what the backend opened; what it was given stays open. Closing twice is allowed."""
        if not self._closed:
            self._closed = True
            await self.backend.aclose()

    def _open(self) -> Operations:
        """The operations, unless the log is closed."""
        if self._closed:
            raise StoreClosedError(f"the log of {self.location} is closed")
        return self._operations
