"""`ChatMessageStore`: one conversation over any `MessageLog`; written once, for every backend."""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Generic, cast

from typing_extensions import Self, TypeVar

from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConflictError,
    NotFoundError,
    StateError,
    StoreClosedError,
    StoreRefusedError,
)
from agent_stores.log import (
    Entry,
    MessageLog,
    Record,
    ThreadKey,
    ThreadPage,
    ThreadStats,
    TimeToLive,
    TtlRefresh,
)
from agent_stores.messages import ChatMessage
from agent_stores.notes import NOTE_IDS
from agent_stores.protocols import MessageCodec
from agent_stores.retention import (
    DanglingCalls,
    Window,
    check_limit,
    check_seconds,
    cut_at,
    group_cuts,
    repair,
)
from agent_stores.search import SearchableLog
from agent_stores.states import check_state_header
from agent_stores.stores.options import OnCorrupt, choice, identifier, sequence
from agent_stores.stores.planning import check_sizes
from agent_stores.stores.records import batch_id, make_records, read_entries
from agent_stores.stores.windows import read_window
from agent_stores.tokens import TokenCounter, estimate_tokens

M = TypeVar("M", default=ChatMessage)
N = TypeVar("N", default=ChatMessage)

_FAILED_CALLS = 16  # failed calls whose message ids are remembered for a retry


@dataclass(frozen=True)
class StoredMessage(Generic[M]):
    """A message with its place in the thread.

    Attributes:
        position: from 1 up, growing, with gaps where messages were deleted.
        message: the message.
    """

    position: int
    message: M


@dataclass(frozen=True)
class FoundMessage(Generic[M]):
    """A message that a search found.

    Attributes:
        thread_id: the thread that it is in.
        position: its place there.
        message: the message.
        score: how well it fits, compared with others of the same search; higher is better.
    """

    thread_id: str
    position: int
    message: M
    score: float


class ChatMessageStore(Generic[M]):
    """One conversation, kept in a log; implements `ChatMessageStoreProtocol`.

    Args:
        log: where the conversation is kept. It is borrowed: `aclose` does not close it.
        thread_id: the conversation's id; a random one is made when none is given.
        tenant: whose it is. Threads of different tenants never meet, whatever their ids.
        max_messages: keep at most the newest so many messages; None keeps all. Tool calls are kept with
            their results, and pinned system messages do not count (see `agent_stores.retention`).
        ttl: time-to-live of the whole thread, in seconds; None sets none.
        ttl_refresh: what renews it: ``"write"``, ``"read"`` (reads and writes), or ``"never"`` (fixed).
        messages: put into the thread when it is first used, if nobody ever wrote to it.
        codec: converts a framework's messages; our own `ChatMessage` without one.
        window: what `list_messages` returns when it is called without limits; everything by default.
        dangling_calls: what `list_messages` does with tool calls that have no result: ``"synthesize"`` an
            error result, ``"drop"`` the call, or ``"raise"``. The stored messages are not changed. With
            ``"keep"`` all messages are shown as they are stored.
        on_corrupt: what to do with a stored message that cannot be read: ``"raise"`` an error that names it,
            or ``"skip"`` it with a warning in the log.
        count_tokens: counts the tokens of a message; an offline estimate by default.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing is read or written and no
            connection is made before the first operation.
    """

    state_type: ClassVar[str] = "custom"
    """Names the kind of store in its states."""

    def __init__(
        self,
        log: MessageLog,
        *,
        thread_id: str | None = None,
        tenant: str | None = None,
        max_messages: int | None = None,
        ttl: float | timedelta | None = None,
        ttl_refresh: TtlRefresh = "write",
        messages: Sequence[M] | None = None,
        codec: MessageCodec[M] | None = None,
        window: Window | None = None,
        dangling_calls: DanglingCalls = "synthesize",
        on_corrupt: OnCorrupt = "raise",
        count_tokens: TokenCounter | None = None,
    ) -> None:
        self._key = ThreadKey(
            None if tenant is None else identifier("tenant", tenant),
            f"thread_{uuid.uuid4().hex}" if thread_id is None else identifier("thread_id", thread_id),
        )
        self._max_messages = check_limit("max_messages", max_messages)
        seconds = check_seconds("ttl", ttl, zero=False)
        choice("ttl_refresh", ttl_refresh, TtlRefresh)
        self._ttl = None if seconds is None else TimeToLive(seconds, ttl_refresh)
        self._ttl_refresh: TtlRefresh = ttl_refresh
        if codec is not None and not isinstance(codec, MessageCodec):
            raise ArgumentTypeError(f"codec is of type {type(codec).__name__}; accepted is a MessageCodec")
        self._codec = codec
        if window is not None and not isinstance(window, Window):
            raise ArgumentTypeError(f"window is of type {type(window).__name__}; accepted is Window")
        self._window = window or Window()
        self._dangling_calls: DanglingCalls = choice("dangling_calls", dangling_calls, DanglingCalls)
        self._on_corrupt: OnCorrupt = choice("on_corrupt", on_corrupt, OnCorrupt)
        if count_tokens is not None and not callable(count_tokens):
            raise ArgumentTypeError(
                f"count_tokens is of type {type(count_tokens).__name__}; accepted is a callable"
            )
        self._count_tokens = count_tokens or estimate_tokens
        self._initial = [] if messages is None else self._convert(sequence("messages", messages))
        self._failed: list[tuple[list[M], list[str]]] = []
        self._state_extra: dict[str, Any] = {}
        self._resource = _Shared(log, owned=False)
        self._closed = False

    # -- the protocol ---------------------------------------------------------------------------------

    async def add_messages(self, messages: Sequence[M], *, expected_position: int | None = None) -> None:
        """Add messages at the end of the thread, in order, all or none.

        A message with a `message_id` that is in the thread already is not added twice, so a call that failed
        can be made again. Messages without an id get one; when a call with such messages fails, calling
        again with the same objects on this store adds them once. The cost does not depend on the length of
        the thread.

        Args:
            messages: what to add; an empty sequence does nothing.
            expected_position: the `last_position` of `stats` that the thread must still have.

        Raises:
            ConflictError: when somebody else wrote to the thread since `expected_position`.
            MessageTooLargeError: when one is larger than the store can hold.
            StoreUnavailableError, StoreRefusedError: when nothing was written.
            OutcomeUnknownError: when it may or may not be stored; calling again is safe.
            ArgumentError, ArgumentTypeError: for messages or positions that are not accepted.
        """
        log = self._use()
        check_limit("expected_position", expected_position)
        given = sequence("messages", messages)
        if not given:
            return
        ids = self._ids_of_failed_call(given)
        records = self._records(self._convert(given), ids)
        check_sizes(records, log.max_message_bytes)
        try:
            await self._seed(log)
            await log.append(
                self._key,
                records,
                batch_id=batch_id(records),
                expected_position=expected_position,
                max_messages=self._max_messages,
                ttl=self._ttl,
            )
        except BaseException:  # a cancelled call may be stored too
            if ids is None:
                self._failed = [
                    *self._failed[1 - _FAILED_CALLS :],
                    (given, [record.message_id for record in records]),
                ]
            raise
        if ids is not None:  # it is stored now: the same objects once more are new messages
            self._failed = [call for call in self._failed if call[1] is not ids]

    async def list_messages(
        self,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        max_tokens: int | None = None,
        max_age: float | timedelta | None = None,
    ) -> list[M]:
        """The conversation as a model is to be shown it, oldest message first, pinned ones in front.

        Limits that are not given are those of the store's window. Tool calls stand directly before their
        results, and a call without one is treated as `dangling_calls` says.

        Args:
            last: at most the newest so many, pinned ones not counted.
            before: only messages at positions below.
            after: only messages at positions above.
            max_tokens: at most so many tokens; the newest message or group is shown even if it is longer.
            max_age: only messages made in the last so many seconds.

        Raises:
            CorruptMessageError: when a message cannot be read, unless they are skipped.
            UnansweredToolCallError: when `dangling_calls` is ``"raise"``.
            StoreUnavailableError: when the server cannot be reached.
        """
        log = self._use()
        window = Window(
            last=self._window.last if last is None else last,
            max_tokens=self._window.max_tokens if max_tokens is None else max_tokens,
            max_age=self._window.max_age if max_age is None else max_age,
        )
        check_limit("before", before)
        check_limit("after", after)
        await self._seed(log)
        shown = await read_window(
            log,
            self._key,
            window,
            after=after or 0,
            before=before,
            decode=self._decode,
            count_tokens=self._count_tokens,
        )
        view = repair(shown, self._dangling_calls)
        codec = self._codec
        return cast("list[M]", view) if codec is None else [codec.from_chat_message(m) for m in view]

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        """The store's state: JSON-ready, without secrets; names the conversation, not its messages.

        `deserialize` and `update_from_state` take it. It holds the thread id, the tenant and the server's
        name, so that it cannot be used on another; settings such as `max_messages` come from the code.
        """
        self._use()
        return {
            **self._state_extra,
            "type": f"agent_stores.{self.state_type}",
            "version": 1,
            "thread_id": self.thread_id,
            "tenant": self.tenant,
            "location": self.location,
        }

    @classmethod
    async def deserialize(cls, serialized_store_state: MutableMapping[str, Any], **kwargs: Any) -> Self:
        """A store on the conversation of a state.

        Args:
            serialized_store_state: what `serialize` returned.
            kwargs: the constructor's arguments: connection, credentials and settings. A tenant that the state
                names must be given too, since the state may come from a client.

        Raises:
            StateError: when the state is malformed, or of another store, server or tenant.
            UnsupportedVersionError: when a newer version wrote it.
        """
        store = cls(**kwargs)
        await store.update_from_state(serialized_store_state)
        return store

    async def update_from_state(
        self, serialized_store_state: MutableMapping[str, Any], **kwargs: Any
    ) -> None:
        """Point this store at the conversation of a state; adds nothing to it.

        Only the thread id is taken from the state. A state that names another kind of store, server or
        tenant than this store's is refused.

        Raises:
            StateError: when the state is malformed, or of another store, server or tenant.
            UnsupportedVersionError: when a newer version wrote it.
        """
        self._use()
        thread_id, extra = self._read_state(serialized_store_state)
        self._point(thread_id, extra)

    # -- beyond the protocol --------------------------------------------------------------------------

    @property
    def thread_id(self) -> str:
        """The conversation's id."""
        return self._key.thread_id

    @property
    def tenant(self) -> str | None:
        """Whose conversation it is."""
        return self._key.tenant

    @property
    def location(self) -> str:
        """Where it is kept, without secrets."""
        return self._resource.log.location

    @property
    def dangling_calls(self) -> DanglingCalls:
        """What `list_messages` does with tool calls that have no result."""
        return self._dangling_calls

    @property
    def log(self) -> MessageLog:
        """The log below, which other stores may share."""
        return self._resource.log

    async def iterate(
        self, *, after: int = 0, before: int | None = None, page_size: int = 256
    ) -> AsyncIterator[StoredMessage[M]]:
        """All messages as they are stored, oldest first, read in pages: for export, search and display.

        Nothing is windowed, moved or repaired, and pinned messages stand where they were added.

        Args:
            after: only positions above.
            before: only positions below.
            page_size: how many messages to read at once.
        """
        check_limit("after", after)
        check_limit("before", before)
        if check_limit("page_size", page_size) in (None, 0):
            raise ArgumentError(f"page_size is {page_size}; accepted is a positive number of messages")
        log = self._use()
        await self._seed(log)
        while True:
            page = await self._use().read(self._key, after=after, before=before, first=page_size)
            for entry, message in self._decode(page.entries):
                yield StoredMessage(entry.position, self._to_caller(message))
            if len(page.entries) < page_size:
                return
            after = page.entries[-1].position

    async def newest(self, count: int) -> list[StoredMessage[M]]:
        """Exactly the newest so many messages as they are stored, or all where there are fewer, oldest first.

        Nothing is windowed, moved or repaired, and a tool call may be parted from its results.

        Raises:
            ArgumentError: when `count` is negative.
            CorruptMessageError: when a message cannot be read, unless they are skipped, and not counted.
        """
        if check_limit("count", count) is None:
            raise ArgumentTypeError("count is None; accepted is a number of messages")
        log = self._use()
        await self._seed(log)
        found: list[tuple[Entry, ChatMessage]] = []
        wanted = count
        while wanted:
            # A log moves the cut off a tool group, so that fewer may come than are wanted; pinned ones come
            # in any case.
            part = await self._use().read(self._key, last=wanted)
            found = sorted(self._decode(part.entries), key=lambda item: item[0].position)
            if not part.has_older or sum(not entry.pinned for entry, _ in found) >= count:
                break
            wanted = 2 * wanted + 8
        return [
            StoredMessage(entry.position, self._to_caller(message))
            for entry, message in found[max(0, len(found) - count) :]
        ]

    async def get(self, message_id: str) -> M | None:
        """The message with that id as it is stored, or None."""
        log = self._use()
        await self._seed(log)
        entry = await log.get(self._key, identifier("message_id", message_id))
        messages = self._decode([entry]) if entry else []
        return self._to_caller(messages[0][1]) if messages else None

    async def replace(self, message_id: str, message: M) -> None:
        """Put a message in the place of the one with that id; it keeps its position and its id.

        Raises:
            NotFoundError: when there is none with that id.
            MessageTooLargeError: when it is larger than the store can hold.
        """
        log = self._use()
        identifier("message_id", message_id)
        await self._seed(log)
        records = make_records(self._convert([message]), self._count_tokens, ids=[message_id], replacing=True)
        check_sizes(records, log.max_message_bytes)
        if not await log.replace(self._key, records[0]):
            raise NotFoundError(f"there is no message {message_id!r} in the thread {self.thread_id!r}")

    async def delete(self, message_ids: str | Sequence[str]) -> int:
        """Delete messages by id; returns how many there were."""
        log = self._use()
        ids = [message_ids] if isinstance(message_ids, str) else sequence("message_ids", message_ids)
        for message_id in ids:
            identifier("message_ids", message_id)
        await self._seed(log)
        return await log.delete(self._key, ids) if ids else 0

    async def pop_last(self) -> M | None:
        """Delete the newest message that is not pinned and return it; None when there is none."""
        log = self._use()
        await self._seed(log)
        entry = await log.pop_last(self._key)
        messages = self._decode([entry]) if entry else []
        return self._to_caller(messages[0][1]) if messages else None

    async def clear(self) -> int:
        """Delete all messages; the thread, its time-to-live and its position remain. Returns how many."""
        log = self._use()
        self._initial = []
        return await log.clear(self._key)

    async def rewrite(self, messages: Sequence[M], *, expected_position: int | None = None) -> None:
        """Put messages in the place of all that the thread holds, in one step.

        No reader sees the thread empty in between, or with both. Messages keep their ids, and get new
        positions. `max_messages` holds here, too.

        Args:
            messages: what the thread is to hold; none empties it.
            expected_position: the `last_position` of `stats` that the thread must still have.

        Raises:
            ConflictError: when somebody else wrote to the thread since `expected_position`.
            MessageTooLargeError, StoreUnavailableError, StoreRefusedError: when nothing was changed.
            OutcomeUnknownError: when it may or may not be done; calling again is safe.
        """
        log = self._use()
        check_limit("expected_position", expected_position)
        records = self._records(self._convert(sequence("messages", messages)))
        if self._max_messages is not None:
            records = _newest_records(records, self._max_messages)
        check_sizes(records, log.max_message_bytes)
        self._initial = []
        await log.rewrite(
            self._key,
            records,
            batch_id=uuid.uuid4().hex[:18],
            expected_position=expected_position,
            ttl=self._ttl,
        )

    async def count(self) -> int:
        """How many messages the thread holds."""
        return (await self.stats()).messages

    async def stats(self) -> ThreadStats:
        """Messages, bytes, tokens, last position and times; zeros for a thread that nobody wrote to."""
        log = self._use()
        await self._seed(log)
        return await log.stats(self._key) or ThreadStats(tenant=self.tenant, thread_id=self.thread_id)

    async def set_ttl(self, ttl: float | timedelta | None, *, refresh: TtlRefresh | None = None) -> bool:
        """Set this thread's time-to-live, counted from now; it then goes before the store's own.

        Args:
            ttl: seconds; None lets the thread live for ever.
            refresh: what renews it; by default as the store's `ttl_refresh`.

        Returns:
            False when there is no such thread.
        """
        seconds = check_seconds("ttl", ttl, zero=False)
        how = self._ttl_refresh if refresh is None else choice("refresh", refresh, TtlRefresh)
        log = self._use()
        await self._seed(log)
        return await log.set_ttl(self._key, TimeToLive(seconds, how))

    async def fork(self, new_thread_id: str | None = None, *, at: int | None = None) -> Self:
        """Branch: a store on a copy of this thread up to and including position `at` (all by default).

        Later writes to either side do not show in the other. The new store has this one's settings and
        shares its connection; each is closed on its own.

        Raises:
            NotFoundError: when nobody ever wrote to this thread.
            ThreadExistsError: when there is a thread of the new id.
        """
        log = self._use()
        check_limit("at", at)
        branch = copy.copy(self)
        branch._key = ThreadKey(
            self.tenant,
            f"thread_{uuid.uuid4().hex}"
            if new_thread_id is None
            else identifier("new_thread_id", new_thread_id),
        )
        await self._seed(log)
        await log.fork(self._key, branch._key, at=at)
        if at is not None:  # what was noted may be about messages that the copy does not have
            await log.delete(branch._key, NOTE_IDS)
        branch._failed, branch._initial, branch._state_extra = [], [], {}
        branch._resource.retain()
        return branch

    async def search(
        self, query: str, *, limit: int = 10, all_threads: bool = False
    ) -> list[FoundMessage[M]]:
        """Find messages by their words, best first: those of users and assistants that have any of them.

        Args:
            query: any text.
            limit: how many at most.
            all_threads: look in all threads of this store's tenant; in this one only by default.

        Raises:
            StoreRefusedError: when the server offers no search; see `agent_stores.search.SearchableLog`.
        """
        check_limit("limit", limit)
        if not isinstance(query, str):
            raise ArgumentTypeError(f"query is of type {type(query).__name__}; accepted is str")
        log = self._use()
        await self._seed(log)
        if not isinstance(log, SearchableLog):
            raise StoreRefusedError(f"{self.location} offers no search")
        hits = await log.search(
            self.tenant, query, limit=limit, thread_id=None if all_threads else self.thread_id
        )
        return [
            FoundMessage(hit.thread_id, hit.entry.position, self._to_caller(message), hit.score)
            for hit in hits
            for _, message in self._decode([hit.entry])
        ]

    def with_codec(
        self, codec: MessageCodec[N] | None, *, dangling_calls: DanglingCalls | None = None
    ) -> ChatMessageStore[N]:
        """A store on the same thread that takes and gives the messages of another framework.

        It has this one's other settings and shares its connection; each is closed on its own.

        Args:
            codec: converts the framework's messages; None for our own `ChatMessage`.
            dangling_calls: in place of this store's, if given.
        """
        self._use()
        if codec is not None and not isinstance(codec, MessageCodec):
            raise ArgumentTypeError(f"codec is of type {type(codec).__name__}; accepted is a MessageCodec")
        other = cast("ChatMessageStore[N]", copy.copy(self))
        other._codec = codec
        other._failed = []
        if dangling_calls is not None:
            other._dangling_calls = choice("dangling_calls", dangling_calls, DanglingCalls)
        other._resource.retain()
        return other

    async def list_threads(
        self, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> ThreadPage:
        """A page of the threads of this store's tenant, in the order of their ids.

        Args:
            prefix: only ids that begin so.
            limit: how many at most, from 1 up.
            cursor: the `cursor` of the page before.
        """
        if check_limit("limit", limit) in (None, 0):
            raise ArgumentError(f"limit is {limit}; accepted is a positive number of threads")
        if not isinstance(prefix, str):
            raise ArgumentTypeError(f"prefix is of type {type(prefix).__name__}; accepted is str")
        return await self._use().list_threads(self.tenant, prefix=prefix, limit=limit, cursor=cursor)

    async def delete_thread(self, thread_id: str | None = None) -> bool:
        """Delete a thread of this store's tenant, by default this one; False when there was none."""
        log = self._use()
        if thread_id is None or thread_id == self.thread_id:
            self._initial = []
            return await log.delete_thread(self._key)
        return await log.delete_thread(ThreadKey(self.tenant, identifier("thread_id", thread_id)))

    async def purge_expired(self, *, limit: int = 1000) -> int:
        """Remove what is left of expired threads, of every tenant, at most `limit`; returns how many."""
        check_limit("limit", limit)
        return await self._use().purge_expired(limit=limit)

    async def aclose(self) -> None:
        """Close the store, and what it opened; afterwards every operation raises `StoreClosedError`."""
        if not self._closed:
            self._closed = True
            await self._resource.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        tenant = "" if self.tenant is None else f", tenant={self.tenant!r}"
        return f"{type(self).__name__}(thread_id={self.thread_id!r}{tenant}, location={self.location!r})"

    # -- for the stores of the backends ---------------------------------------------------------------

    def _own(self, log: MessageLog) -> None:
        """Make this store the owner of its log, to be closed with it."""
        self._resource = _Shared(log, owned=True)

    def _read_state(self, state: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Check a state; returns its thread id, and fields that only a newer version knows."""
        fields = check_state_header(state, expected_type=f"agent_stores.{self.state_type}")
        thread_id = fields.pop("thread_id", None)
        if not isinstance(thread_id, str) or not thread_id:
            raise StateError("the state's thread_id is missing or not text")
        for name, own in (("tenant", self.tenant), ("location", self.location)):
            given = fields.pop(name, own)
            if given != own:
                raise StateError(
                    f"the state is of the {name} {given!r}, and this store is of {own!r}: "
                    "a state may name only another thread"
                )
        return thread_id, fields

    def _point(self, thread_id: str, extra: dict[str, Any]) -> None:
        """Turn to another thread of the same tenant."""
        self._key = ThreadKey(self._key.tenant, thread_id)
        self._state_extra = extra
        self._failed = []
        self._initial = []  # restoring adds nothing

    # -- inside ---------------------------------------------------------------------------------------

    def _use(self) -> MessageLog:
        if self._closed:
            raise StoreClosedError(f"this store of the thread {self.thread_id!r} is closed")
        return self._resource.log

    async def _seed(self, log: MessageLog) -> None:
        """Put the initial messages into a thread that nobody ever wrote to."""
        if not self._initial:
            return
        records = self._records(self._initial)
        check_sizes(records, log.max_message_bytes)
        with contextlib.suppress(ConflictError):  # somebody wrote to the thread before
            await log.append(
                self._key,
                records,
                batch_id=batch_id(records),
                expected_position=0,
                max_messages=self._max_messages,
                ttl=self._ttl,
            )
        self._initial = []

    def _convert(self, messages: Sequence[M]) -> list[ChatMessage]:
        codec = self._codec
        if codec is not None:
            return [codec.to_chat_message(message) for message in messages]
        for index, message in enumerate(messages):
            if not isinstance(message, ChatMessage):
                raise ArgumentTypeError(
                    f"messages[{index}] is of type {type(message).__name__}; accepted is ChatMessage"
                )
        return list(cast("Sequence[ChatMessage]", messages))

    def _to_caller(self, message: ChatMessage) -> M:
        return cast("M", message) if self._codec is None else self._codec.from_chat_message(message)

    def _records(self, messages: Sequence[ChatMessage], ids: Sequence[str] | None = None) -> list[Record]:
        return make_records(messages, self._count_tokens, ids=ids)

    def _decode(self, entries: Sequence[Entry]) -> list[tuple[Entry, ChatMessage]]:
        return read_entries(entries, thread_id=self.thread_id, on_corrupt=self._on_corrupt)

    def _ids_of_failed_call(self, messages: list[M]) -> list[str] | None:
        """The ids that the same messages, as objects, got in a call that failed."""
        for given, ids in self._failed:
            if len(given) == len(messages) and all(a is b for a, b in zip(given, messages, strict=True)):
                return ids
        return None


def _newest_records(records: list[Record], limit: int) -> list[Record]:
    """The records that a thread with a limit keeps of these."""
    loose = [record for record in records if not record.pinned]
    cuts, _ = group_cuts((record.calls, record.results) for record in loose)
    gone = {id(record) for record in loose[: cut_at(cuts, len(loose) - limit)]}
    return [record for record in records if id(record) not in gone]


class _Shared:
    """A log that several stores use; the last one to be closed closes it, if it was opened for them."""

    def __init__(self, log: MessageLog, *, owned: bool) -> None:
        self.log = log
        self._owned = owned
        self._users = 1

    def retain(self) -> None:
        self._users += 1

    async def release(self) -> None:
        self._users -= 1
        if self._owned and self._users == 0:
            await self.log.aclose()
