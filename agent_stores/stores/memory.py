"""The in-memory backend: threads in a dictionary of this process, and the store over it."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, cast

from typing_extensions import TypeVar, Unpack

from agent_stores.contents import TextContent
from agent_stores.errors import (
    ArgumentError,
    MessageFormatError,
    NotFoundError,
    StateError,
    StoreClosedError,
    ThreadExistsError,
    UnsupportedVersionError,
)
from agent_stores.log import Entry, Record, Slice, ThreadKey, ThreadPage, ThreadStats, TimeToLive
from agent_stores.message_format import decode_message, message_from_dict, message_to_dict
from agent_stores.messages import ChatMessage
from agent_stores.retention import check_limit, cut_at
from agent_stores.search import SEARCHED_ROLES, Found, all_words, search_terms
from agent_stores.stores.base import ChatMessageStore
from agent_stores.stores.options import StoreOptions
from agent_stores.stores.planning import Head, Row, fork_head, head_stats, plan_append, plan_rewrite, recut
from agent_stores.stores.records import batch_id

M = TypeVar("M", default=ChatMessage)
F = TypeVar("F", bound=Callable[..., Any])

_CURSOR = "after:"


class _Thread:
    __slots__ = ("head", "ids", "rows")

    def __init__(self) -> None:
        self.head = Head()
        self.rows: list[Row] = []
        self.ids: set[str] = set()


def _whole(operation: F) -> F:
    """An operation that other threads see all of or nothing; it never waits for anything itself."""

    @functools.wraps(operation)
    async def run(log: InMemoryMessageLog, *args: Any, **options: Any) -> Any:
        with log._lock:
            return await operation(log, *args, **options)

    return cast("F", run)


class InMemoryMessageLog:
    """Threads that live as long as this object; for tests, samples and conversations that may be lost.

    Operations are whole for tasks of one event loop, and for those of several loops, on threads of their own.

    Args:
        clock: seconds since 1970, for tests of expiry.
    """

    location = "memory"
    max_message_bytes: int | None = None
    supports_inline = True
    """Whether its operations can run on the caller's thread, without an event loop: none of them waits."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._threads: dict[ThreadKey, _Thread] = {}
        self._closed = False

    @_whole
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
        """See `MessageLog.append`."""
        now = self._now()
        thread = self._find(key) or _Thread()
        head = thread.head
        plan = plan_append(
            head,
            records,
            batch_id=batch_id,
            present=thread.ids.intersection(record.message_id for record in records),
            expected_position=expected_position,
        )
        if not plan.rows:
            return head.last_position
        for first, last in plan.closed:
            for index in range(len(thread.rows) - 1, -1, -1):
                row = thread.rows[index]
                if row.position < first:
                    break
                if row.position <= last:
                    thread.rows[index] = row._replace(cut=False)
        thread.rows += plan.rows
        thread.ids.update(row.record.message_id for row in plan.rows)
        excess = head.excess(max_messages)
        if excess > 0:
            loose = [row for row in thread.rows if not row.record.pinned]
            kept = loose[cut_at([row.cut for row in loose], excess) :]
            start = kept[0].position if kept else head.last_position + 1
            self._drop(thread, [r for r in thread.rows if not r.record.pinned and r.position < start])
            head.forget_calls(before=start)
        if ttl is not None:
            head.set_ttl(ttl, now, by_hand=False)
        head.written(now)
        self._threads[key] = thread
        return head.last_position

    @_whole
    async def read(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        last: int | None = None,
        first: int | None = None,
    ) -> Slice:
        """See `MessageLog.read`."""
        now = self._now()
        thread = self._find(key)
        if thread is None:
            return Slice([])
        if thread.head.ttl_refresh == "read":
            thread.head.renew(now)
        rows = [row for row in thread.rows if row.position > after]
        beyond = [row for row in rows if before is not None and row.position >= before]
        rows = rows[: len(rows) - len(beyond)]
        has_older = False
        if first is not None:
            rows = rows[:first]
        if last is not None:
            loose = [row for row in rows if not row.record.pinned]
            start = cut_at([row.cut for row in loose], len(loose) - last)
            shown = {row.position for row in loose[start:]}
            rows = [row for row in rows if row.record.pinned or row.position in shown]
            has_older = start > 0
        return Slice([_entry(row) for row in rows], has_older, not beyond or beyond[0].cut)

    @_whole
    async def get(self, key: ThreadKey, message_id: str) -> Entry | None:
        """See `MessageLog.get`."""
        self._now()
        thread = self._find(key)
        if thread is None or message_id not in thread.ids:
            return None
        return next(_entry(row) for row in thread.rows if row.record.message_id == message_id)

    @_whole
    async def replace(self, key: ThreadKey, record: Record) -> bool:
        """See `MessageLog.replace`."""
        now = self._now()
        thread = self._find(key)
        if thread is None or record.message_id not in thread.ids:
            return False
        for index, row in enumerate(thread.rows):
            if row.record.message_id == record.message_id:
                thread.head.add(row.record, -1)
                thread.head.add(record)
                thread.rows[index] = row._replace(record=record)
        self._recut(thread)
        thread.head.written(now)
        return True

    @_whole
    async def delete(self, key: ThreadKey, message_ids: Sequence[str]) -> int:
        """See `MessageLog.delete`."""
        now = self._now()
        thread = self._find(key)
        gone = [r for r in thread.rows if r.record.message_id in set(message_ids)] if thread else []
        if thread and gone:
            self._take_out(thread, gone, now)
        return len(gone)

    @_whole
    async def pop_last(self, key: ThreadKey) -> Entry | None:
        """See `MessageLog.pop_last`."""
        now = self._now()
        thread = self._find(key)
        newest = [row for row in thread.rows if not row.record.pinned][-1:] if thread else []
        if not thread or not newest:
            return None
        self._take_out(thread, newest, now)
        return _entry(newest[0])

    @_whole
    async def clear(self, key: ThreadKey) -> int:
        """See `MessageLog.clear`."""
        now = self._now()
        thread = self._find(key)
        gone = list(thread.rows) if thread else []
        if thread and gone:
            self._take_out(thread, gone, now)
        return len(gone)

    @_whole
    async def rewrite(
        self,
        key: ThreadKey,
        records: Sequence[Record],
        *,
        batch_id: str,
        expected_position: int | None = None,
        ttl: TimeToLive | None = None,
    ) -> int:
        """See `MessageLog.rewrite`."""
        now = self._now()
        thread = self._find(key) or _Thread()
        head = thread.head
        plan = plan_rewrite(head, records, batch_id=batch_id, expected_position=expected_position)
        if plan is None or not (records or thread.rows):
            return head.last_position
        thread.rows = plan.rows
        thread.ids = {row.record.message_id for row in plan.rows}
        if ttl is not None:
            head.set_ttl(ttl, now, by_hand=False)
        head.written(now)
        self._threads[key] = thread
        return head.last_position

    @_whole
    async def stats(self, key: ThreadKey) -> ThreadStats | None:
        """See `MessageLog.stats`."""
        self._now()
        thread = self._find(key)
        return None if thread is None else head_stats(key, thread.head)

    @_whole
    async def set_ttl(self, key: ThreadKey, ttl: TimeToLive) -> bool:
        """See `MessageLog.set_ttl`."""
        now = self._now()
        thread = self._find(key)
        if thread is None:
            return False
        thread.head.set_ttl(ttl, now, by_hand=True)
        return True

    @_whole
    async def fork(self, key: ThreadKey, new_key: ThreadKey, *, at: int | None = None) -> int:
        """See `MessageLog.fork`."""
        self._now()
        thread = self._find(key)
        if thread is None:
            raise NotFoundError(f"there is no thread {key.thread_id!r} to fork")
        if self._find(new_key) is not None:
            raise ThreadExistsError(f"there is a thread {new_key.thread_id!r} already")
        copy = _Thread()
        copy.rows = [row for row in thread.rows if at is None or row.position <= at]
        copy.ids = {row.record.message_id for row in copy.rows}
        copy.head = fork_head(thread.head, at)
        for row in copy.rows:
            copy.head.add(row.record)
            copy.head.last_us = row.record.created_us
        self._recut(copy)
        self._threads[new_key] = copy
        return len(copy.rows)

    @_whole
    async def delete_thread(self, key: ThreadKey) -> bool:
        """See `MessageLog.delete_thread`."""
        self._now()
        existed = self._find(key) is not None
        self._threads.pop(key, None)
        return existed

    @_whole
    async def list_threads(
        self, tenant: str | None, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> ThreadPage:
        """See `MessageLog.list_threads`; the cursor names the last thread of the page before."""
        self._now()
        if cursor is not None and not cursor.startswith(_CURSOR):
            raise ArgumentError("cursor is not one that list_threads returned")
        keys = sorted(
            key
            for key in list(self._threads)
            if key.tenant == tenant
            and key.thread_id.startswith(prefix)
            and (cursor is None or key.thread_id > cursor[len(_CURSOR) :])
            and self._find(key) is not None
        )
        page = keys[:limit]
        return ThreadPage(
            [head_stats(key, self._threads[key].head) for key in page],
            _CURSOR + page[-1].thread_id if page and len(keys) > limit else None,
        )

    @_whole
    async def purge_expired(self, *, limit: int = 1000) -> int:
        """See `MessageLog.purge_expired`."""
        now = self._now()
        gone = [key for key, thread in self._threads.items() if thread.head.is_expired(now)][:limit]
        for key in gone:
            del self._threads[key]
        return len(gone)

    @_whole
    async def search(
        self,
        tenant: str | None,
        query: str,
        *,
        limit: int = 10,
        thread_id: str | None = None,
        before: tuple[str, int] | None = None,
    ) -> list[Found]:
        """See `SearchableLog.search`; looks at every message of the tenant."""
        check_limit("limit", limit)
        self._now()
        rows = [
            (key, row, words)
            for key in list(self._threads)
            if key.tenant == tenant and thread_id in (None, key.thread_id)
            if (thread := self._find(key)) is not None
            for row in thread.rows
            if before is None or key.thread_id != before[0] or row.position < before[1]
            if (words := _words(row.record.body))
        ]
        terms = search_terms(query)
        holders = {term: sum(term in words for _, _, words in rows) for term in terms}
        found = []
        for key, row, words in rows:
            score = sum(math.log1p(len(rows) / holders[term]) for term in terms if term in words)
            if score:
                place = (score / math.log(math.e + len(words)), row.record.created_us, row.position)
                found.append((place, Found(key.thread_id, _entry(row), place[0])))
        return [hit for _, hit in sorted(found, key=lambda item: item[0], reverse=True)[:limit]]

    async def aclose(self) -> None:
        """Forget everything."""
        self._closed = True
        self._threads.clear()

    def _now(self) -> int:
        if self._closed:
            raise StoreClosedError("this in-memory log is closed")
        return int(self._clock() * 1_000_000)

    def _find(self, key: ThreadKey) -> _Thread | None:
        thread = self._threads.get(key)
        if thread is not None and thread.head.is_expired(int(self._clock() * 1_000_000)):
            del self._threads[key]
            return None
        return thread

    def _drop(self, thread: _Thread, rows: list[Row]) -> None:
        gone = {row.position for row in rows}
        thread.rows = [row for row in thread.rows if row.position not in gone]
        for row in rows:
            thread.ids.discard(row.record.message_id)
            thread.head.add(row.record, -1)

    def _take_out(self, thread: _Thread, rows: list[Row], now: int) -> None:
        self._drop(thread, rows)
        thread.head.forget_batches()
        self._recut(thread)
        thread.head.written(now)

    @staticmethod
    def _recut(thread: _Thread) -> None:
        cuts, thread.head.open_calls = recut(
            (row.position, row.record.calls, row.record.results) for row in thread.rows
        )
        thread.rows = [row._replace(cut=cuts[row.position]) for row in thread.rows]


def _entry(row: Row) -> Entry:
    record = row.record
    return Entry(row.position, record.body, record.pinned, row.cut)


def _words(body: bytes) -> frozenset[str]:
    """The words by which a message can be found."""
    try:
        message = decode_message(body)
    except (MessageFormatError, UnsupportedVersionError):
        return frozenset()
    if message.role not in SEARCHED_ROLES:
        return frozenset()
    return frozenset(
        word for part in message.contents if isinstance(part, TextContent) for word in all_words(part.text)
    )


class InMemoryChatMessageStore(ChatMessageStore[M]):
    """A conversation in this process's memory; its state holds the messages themselves.

    Args:
        log: an `InMemoryMessageLog` to share between stores; each store has one of its own by default.
        options: those of `ChatMessageStore`: ``thread_id``, ``tenant``, ``max_messages``, ``ttl`` and so on.
    """

    state_type = "memory"

    def __init__(self, *, log: InMemoryMessageLog | None = None, **options: Unpack[StoreOptions[M]]) -> None:
        own = InMemoryMessageLog() if log is None else log
        super().__init__(own, **options)
        if log is None:
            self._own(own)

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        """The store's state, with the messages as they are stored."""
        state = await super().serialize(**kwargs)
        log = self._use()
        await self._seed(log)
        entries = (await log.read(self._key)).entries
        return {**state, "messages": [message_to_dict(decode_message(entry.body)) for entry in entries]}

    async def update_from_state(
        self, serialized_store_state: MutableMapping[str, Any], **kwargs: Any
    ) -> None:
        """Bring the conversation of a state back; messages that are here already are not added twice.

        Raises:
            StateError: when the state is malformed, or of another store or tenant.
            MessageFormatError: when a message in it is malformed.
            UnsupportedVersionError: when a newer version wrote it.
        """
        log = self._use()
        thread_id, extra = self._read_state(serialized_store_state)
        documents = extra.pop("messages", [])
        if not isinstance(documents, (list, tuple)):
            raise StateError("the state's messages are not an array")
        messages = [message_from_dict(document) for document in documents]
        self._point(thread_id, extra)
        if messages:
            records = self._records(messages)
            await log.append(
                self._key,
                records,
                batch_id=batch_id(records),
                max_messages=self._max_messages,
                ttl=self._ttl,
            )
