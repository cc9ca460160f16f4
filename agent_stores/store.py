"""`ChatMessageStore`: one conversation over any `MessageLog`, the same for every backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Generic, cast

from typing_extensions import NamedTuple, TypeVar

from agent_stores import _checks as check
from agent_stores._checks import check_count, check_limit, check_seconds
from agent_stores.backend import Row
from agent_stores.committer import new_request_id
from agent_stores.errors import ArgumentTypeError, NotFoundError, OutcomeUnknownError, StoreError
from agent_stores.failed_calls import FailedCall
from agent_stores.listing import ThreadStats
from agent_stores.message_rows import decode_rows, keep_newest
from agent_stores.messages import ChatMessage
from agent_stores.retention import repair
from agent_stores.store_base import StoreBase
from agent_stores.store_options import identifier, positive, sequence
from agent_stores.watching import watch
from agent_stores.window import read_window

M = TypeVar("M", default=ChatMessage)


class StoredMessage(NamedTuple, Generic[M]):
    """A message with its position in the thread.

    Attributes:
        position: from 1 up, increasing, with gaps where messages were deleted.
        message: the message.
    """

    position: int
    message: M


class SearchResult(NamedTuple, Generic[M]):
    """A message that a search found.

    Attributes:
        thread_id: its thread.
        position: its position there.
        message: the message.
        score: how well it matches, compared with others of the same search; higher is better.
    """

    thread_id: str
    position: int
    message: M
    score: float


class ChatMessageStore(StoreBase[M]):
    """One conversation, kept in a log; implements `ChatMessageStoreProtocol`.

    Args:
        log: where the conversation is kept. It is borrowed: `aclose` does not close it.
        thread_id: the conversation's id; a random one by default.
        tenant: its owner. Tenants are isolated, whatever their ids.
        max_messages: keep at most the newest *n* messages; None keeps all. Tool calls are kept with their
            results, and pinned system messages do not count (see `agent_stores.retention`).
        ttl: time-to-live of the whole thread, in seconds; None sets none.
        ttl_refresh: what renews it: ``"write"``, ``"read"`` (reads and writes), or ``"never"`` (fixed).
        messages: the messages that the thread begins with, whenever it is created.
        metadata: the metadata that the thread begins with, a JSON object of at most 64 KiB.
        codec: converts a framework's messages; our own `ChatMessage` without one.
        window: what `list_messages` returns when it is called without limits; everything by default.
        dangling_calls: what `list_messages` does with tool calls that have no result: ``"synthesize"`` an
            error result, ``"drop"`` the call, or ``"raise"``. Stored messages do not change. ``"keep"``
            returns all messages as they are stored.
        on_corrupt: what to do with a stored message that cannot be decoded: ``"raise"`` an error that names
            it, or ``"skip"`` it with a warning in the log.
        count_tokens: counts the tokens of a message; an offline estimate by default.
        encryption: the keys, for stores that open their own log; a log is given them when it is made.
        attachments: where large data is stored, likewise.

    Raises:
        ArgumentError, ArgumentTypeError: for an argument with a wrong value. Nothing is read or written, and
            no connection is made, before the first operation.
    """

    # -- the protocol -------------------------------------------------------------------------------------

    async def add_messages(self, messages: Sequence[M], *, expected_position: int | None = None) -> None:
        """Add messages at the end of the thread, in order, all or none.

        A message with a `message_id` that is in the thread is not added again, so a call that failed can be
        repeated. Messages without an id get one; when the outcome of a call is unknown, repeating it with the
        same objects on this store adds them once. The cost does not depend on the length of the thread.

        Args:
            messages: what to add; an empty sequence does nothing.
            expected_position: the `last_position` of `stats` that the thread must still have.

        Raises:
            ConflictError: when another client wrote to the thread since `expected_position`.
            MessageTooLargeError: when a message is larger than the server can store.
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            OutcomeUnknownError: when it may or may not be stored; repeating the call is safe.
            ArgumentError, ArgumentTypeError: for an argument with a wrong value.
        """
        log = self._open_log()
        check_limit("expected_position", expected_position)
        given = sequence("messages", messages)
        if not given:
            return
        failed = self._failed.find(given)
        settings = self._settings
        rows = settings.to_rows(given, log.max_message_bytes, failed.message_ids if failed else None)
        request_id = failed.request_id if failed else new_request_id()
        try:
            await log.append(
                self._key,
                rows,
                request_id=request_id,
                expected_position=expected_position,
                max_messages=settings.max_messages,
                ttl=settings.ttl,
                new_thread=self._new_thread,
            )
        except BaseException as error:  # a cancelled call may be stored, too
            if isinstance(error, OutcomeUnknownError) or not isinstance(error, StoreError):
                self._failed.remember(FailedCall(given, [row.message_id for row in rows], request_id))
            raise
        if failed is not None:
            self._failed.forget(failed)

    async def list_messages(
        self,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        max_tokens: int | None = None,
        max_age: float | timedelta | None = None,
    ) -> list[M]:
        """The conversation as a model is shown it, oldest message first, pinned ones before all others.

        Limits that are not given are those of the store's window. Each tool call comes directly before its
        results, and a call without one is treated as `dangling_calls` says, so that the chat-completions API
        accepts the conversation. For providers that need a user message first, see `Window.start_on`.

        Args:
            last: at most the newest *n* messages; pinned ones do not count.
            before: only messages at lower positions.
            after: only messages at higher positions.
            max_tokens: at most *n* tokens; the newest message or group is returned even if it is longer.
            max_age: only messages created in the last *n* seconds.

        Raises:
            CorruptMessageError: when a message cannot be decoded, unless those are skipped.
            UnansweredToolCallError: when `dangling_calls` is ``"raise"``.
            StoreUnavailableError: when the server cannot be reached.
        """
        log = self._open_log()
        settings = self._settings
        window = settings.window
        if last is not None or max_tokens is not None or max_age is not None:
            window = window.override(last=last, max_tokens=max_tokens, max_age=max_age)
        check_limit("before", before)
        check_limit("after", after)
        read = partial(
            read_window,
            log,
            self._key,
            window,
            after=after or 0,
            before=before,
            decode=partial(decode_rows, thread_id=self.thread_id, on_corrupt=settings.on_corrupt),
            count_tokens=settings.count_tokens,
        )
        shown = await self._read(read, is_whole=not after and before is None)
        view = repair(shown, settings.dangling_calls)
        return cast("list[M]", view) if settings.codec is None else list(map(settings.from_message, view))

    # -- reading ------------------------------------------------------------------------------------------

    async def iter_messages(
        self, *, after: int = 0, before: int | None = None, page_size: int = 256
    ) -> AsyncIterator[StoredMessage[M]]:
        """All messages as they are stored, oldest first, read in pages: for export, search and display.

        Nothing is limited, moved or repaired; pinned messages come where they were added.

        Args:
            after: only higher positions.
            before: only lower positions.
            page_size: how many messages to read at once.
        """
        check_count("after", after)
        check_limit("before", before)
        positive("page_size", page_size)
        self._open_log()

        async def read() -> list[Row]:
            return await self._open_log().read(self._key, after=after, before=before, limit=page_size)

        rows = await self._read(read, is_whole=not after and before is None)
        while True:
            for row, message in self._settings.from_rows(rows, self.thread_id):
                yield StoredMessage(row.position, message)
            if len(rows) < page_size:
                return
            after = rows[-1].position
            rows = await read()

    def watch(
        self, *, after: int | None = None, longest_pause: float = 1.0
    ) -> AsyncIterator[StoredMessage[M]]:
        """The messages that any client adds, in order and each once, as they come; it never ends by itself.

        Where the server notifies of changes, each watcher has a connection of its own for that. Elsewhere the
        thread is polled, with pauses that grow from 0.05 s to `longest_pause` while nothing comes, and so is
        a server that cannot be reached. A thread that was deleted and created again is followed
        from its first message. Messages that were deleted or trimmed before they were read are not returned.

        Args:
            after: only higher positions; by default, messages that are added from now on.
            longest_pause: seconds.

        Raises:
            ArgumentError, ArgumentTypeError: for invalid values.
            CorruptMessageError: when a message cannot be decoded, unless those are skipped.
        """
        check_limit("after", after)
        if (pause := check_seconds("longest_pause", longest_pause, zero=False)) is None:
            raise ArgumentTypeError("longest_pause must be a positive number of seconds, got None")
        return watch(self, self._open_log().backend, self._key, after, pause)

    async def latest(self, count: int) -> list[StoredMessage[M]]:
        """Exactly the newest *n* messages as they are stored, or all if there are fewer, oldest first.

        Nothing is limited, moved or repaired, and a tool call may be separated from its results.

        Raises:
            ArgumentError: when `count` is negative.
            CorruptMessageError: when a message cannot be decoded, unless those are skipped, and not counted.
        """
        wanted = check_count("count", count)
        while True:
            rows = await self._read(partial(self._open_log().latest, self._key, wanted))
            found = self._settings.from_rows(rows, self.thread_id)
            if len(found) >= count or sum(not row.pinned for row in rows) < wanted:
                return [StoredMessage(row.position, m) for row, m in found[max(0, len(found) - count) :]]
            wanted = 2 * wanted + 8

    async def get(self, message_id: str) -> M | None:
        """The message with that id as it is stored, or None."""
        log = self._open_log()
        message_id = identifier("message_id", message_id)
        await self._create_thread()
        return self._from_row(await log.get(self._key, message_id))

    async def count(self) -> int:
        """How many messages the thread has."""
        return (await self.stats()).messages

    async def stats(self) -> ThreadStats:
        """Counts, last position, times and metadata; zeros for a thread that does not exist."""
        log = self._open_log()
        return await self._read(partial(log.stats, self._key)) or ThreadStats(
            tenant=self.tenant, thread_id=self.thread_id
        )

    async def search(
        self, query: str, *, limit: int = 10, all_threads: bool = False
    ) -> list[SearchResult[M]]:
        """Find messages of users and assistants that have any of the query's words, best first.

        Args:
            query: any text.
            limit: how many at most.
            all_threads: search all threads of this store's tenant; only this one by default.

        Raises:
            StoreRejectedError: when the server has no search.
        """
        log = self._open_log()
        check_count("limit", limit)
        query = check.text(query, "query")
        await self._create_thread()
        thread_id = None if all_threads else self.thread_id
        hits = await log.search(self.tenant, query, limit=limit, thread_id=thread_id)
        return [
            SearchResult(hit.thread_id, row.position, message, hit.score)
            for hit in hits
            for row, message in self._settings.from_rows([hit.row], hit.thread_id)
        ]

    # -- editing ------------------------------------------------------------------------------------------

    async def replace(self, message_id: str, message: M) -> None:
        """Replace the message with that id; it keeps its position and its id.

        Raises:
            NotFoundError: when there is none with that id.
            MessageTooLargeError: when it is larger than the server can store.
        """
        log = self._open_log()
        message_id = identifier("message_id", message_id)
        await self._create_thread()
        rows = self._settings.to_rows([message], log.max_message_bytes, [message_id], replace_ids=True)
        if not await log.replace(self._key, rows[0]):
            raise NotFoundError(f"message {message_id!r} does not exist in thread {self.thread_id!r}")

    async def delete(self, message_ids: str | Sequence[str]) -> int:
        """Delete messages by id; returns how many there were."""
        log = self._open_log()
        ids = [message_ids] if isinstance(message_ids, str) else sequence("message_ids", message_ids)
        ids = [identifier("message_ids", message_id) for message_id in ids]
        await self._create_thread()
        return await log.delete(self._key, ids) if ids else 0

    async def pop_last(self) -> M | None:
        """Delete the newest message that is not pinned and return it; None when there is none."""
        log = self._open_log()
        await self._create_thread()
        return self._from_row(await log.pop_last(self._key))

    async def clear(self) -> int:
        """Delete all messages; the thread, its metadata, time-to-live and last position remain.

        Returns:
            How many messages were deleted.
        """
        log = self._open_log()
        self._forget_new_thread()
        return await log.clear(self._key)

    async def replace_all(self, messages: Sequence[M], *, expected_position: int | None = None) -> None:
        """Replace all messages of the thread in one step: no reader sees it empty, or with both.

        Messages keep their ids, and get new positions. `max_messages` applies.

        Args:
            messages: the thread's new messages; none empties it.
            expected_position: the `last_position` of `stats` that the thread must still have.

        Raises:
            ConflictError: when another client wrote to the thread since `expected_position`.
            MessageTooLargeError, StoreUnavailableError, StoreRejectedError: when nothing was changed.
            OutcomeUnknownError: when it may or may not be done; repeating the call is safe.
        """
        log = self._open_log()
        check_limit("expected_position", expected_position)
        settings = self._settings
        rows = settings.to_rows(sequence("messages", messages), log.max_message_bytes)
        self._forget_new_thread()
        await log.replace_all(
            self._key,
            keep_newest(rows, settings.max_messages),
            expected_position=expected_position,
            ttl=settings.ttl,
        )
