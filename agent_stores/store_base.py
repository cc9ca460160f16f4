"""`StoreBase`: the connection, the settings and the states of a store, and its thread as a whole."""

from __future__ import annotations

import copy
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from typing_extensions import Self, TypeVar

from agent_stores import _checks as check
from agent_stores._checks import check_limit, check_seconds
from agent_stores.backend import Row, ThreadKey, ThreadOrder, TimeToLive, TtlRefresh
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError
from agent_stores.failed_calls import FailedCalls
from agent_stores.listing import ThreadPage
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.protocols import MessageCodec
from agent_stores.retention import DanglingCalls, Window
from agent_stores.states import check_store_state
from agent_stores.store_options import OnCorrupt, choice, identifier, positive
from agent_stores.store_settings import StoreSettings
from agent_stores.tokens import TokenCounter

if TYPE_CHECKING:
    from agent_stores.attachments import Attachments
    from agent_stores.encryption import Keys
    from agent_stores.store import ChatMessageStore

M = TypeVar("M", default=ChatMessage)
N = TypeVar("N", default=ChatMessage)
R = TypeVar("R")


def random_thread_id() -> str:
    """A random thread id."""
    return f"thread_{os.urandom(16).hex()}"


class LogHandle:
    """A log that several stores use; the last one to be closed closes it, if it was opened for them.

    Args:
        log: the log.
        owned: whether it was opened for the stores.
    """

    def __init__(self, log: MessageLog, *, owned: bool) -> None:
        self.log = log
        self._owned = owned
        self._users = 1

    def retain(self) -> None:
        """Add a user."""
        self._users += 1

    async def release(self) -> None:
        """Remove a user."""
        self._users -= 1
        if self._owned and self._users == 0:
            await self.log.aclose()


class StoreBase(Generic[M]):
    """The part of `ChatMessageStore` that handles its thread as a whole; see there for the arguments."""

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
        metadata: Mapping[str, Any] | None = None,
        codec: MessageCodec[M] | None = None,
        window: Window | None = None,
        dangling_calls: DanglingCalls = "synthesize",
        on_corrupt: OnCorrupt = "raise",
        count_tokens: TokenCounter | None = None,
        encryption: Keys | None = None,
        attachments: Attachments | None = None,
    ) -> None:
        for name, given in (("encryption", encryption), ("attachments", attachments)):
            if given is not None:
                raise ArgumentError(f"{name} must be given to the log, or to a store that opens its own")
        if not hasattr(log, "backend"):  # a proxy of a log has one, too
            raise ArgumentTypeError(f"log must be a MessageLog, got {type(log).__name__}")
        self._key = ThreadKey(
            None if tenant is None else identifier("tenant", tenant),
            random_thread_id() if thread_id is None else identifier("thread_id", thread_id),
        )
        self._settings = StoreSettings(
            max_messages=max_messages,
            ttl=ttl,
            ttl_refresh=ttl_refresh,
            messages=messages,
            metadata=metadata,
            codec=codec,
            window=window,
            dangling_calls=dangling_calls,
            on_corrupt=on_corrupt,
            count_tokens=count_tokens,
        )
        self._new_thread = self._settings.make_new_thread()
        self._is_created = self._new_thread is None
        self._failed = FailedCalls()
        self._state_extra: dict[str, Any] = {}
        self._handle = LogHandle(log, owned=False)
        self._closed = False

    @property
    def thread_id(self) -> str:
        """The conversation's id."""
        return self._key.thread_id

    @property
    def tenant(self) -> str | None:
        """The conversation's owner."""
        return self._key.tenant

    @property
    def location(self) -> str:
        """Where the conversation is kept, without secrets."""
        return self._handle.log.location

    @property
    def dangling_calls(self) -> DanglingCalls:
        """What `list_messages` does with tool calls that have no result."""
        return self._settings.dangling_calls

    @property
    def log(self) -> MessageLog:
        """The log, which other stores may share."""
        return self._handle.log

    async def serialize(self, **kwargs: Any) -> dict[str, Any]:
        """The store's state: JSON-ready, without secrets; names the conversation, not its messages.

        `deserialize` and `update_from_state` take it. It has the thread id, the tenant and the server's name,
        so that it cannot be used on another server; settings such as `max_messages` come from the code.
        """
        self._open_log()
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
                names must be given, too, since the state may come from a client.

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

        Only the thread id is taken from the state. A state of another kind of store, server or tenant is
        rejected.

        Raises:
            StateError: when the state is malformed, or of another store, server or tenant.
            UnsupportedVersionError: when a newer version wrote it.
        """
        self._switch_thread(*self._read_state(serialized_store_state))

    # -- the thread as a whole ----------------------------------------------------------------------------

    async def metadata(self) -> dict[str, Any]:
        """The thread's metadata, a JSON object; empty for a thread that does not exist.

        `ChatMessageStore.stats` has it together with its revision.
        """
        log = self._open_log()
        stats = await self._read(partial(log.stats, self._key))
        return {} if stats is None else stats.metadata

    async def update_metadata(
        self, changes: Mapping[str, Any], *, expected_revision: int | None = None
    ) -> int:
        """Merge values into the thread's metadata, by key, in one step; creates the thread if needed.

        Args:
            changes: JSON-ready values; None deletes a key.
            expected_revision: the `ThreadStats.revision` that the metadata must still have.

        Returns:
            The metadata's revision.

        Raises:
            ConflictError: when another client changed it since `expected_revision`; nothing was written.
            ArgumentError, ArgumentTypeError: for values that JSON cannot hold, or more than 64 KiB.
        """
        log = self._open_log()
        check_limit("expected_revision", expected_revision)
        values = check.json_object(changes, "changes")
        return await log.update_metadata(
            self._key,
            values,
            expected_revision=expected_revision,
            max_messages=self._settings.max_messages,
            ttl=self._settings.ttl,
            new_thread=self._new_thread,
        )

    async def set_ttl(self, ttl: float | timedelta | None, *, refresh: TtlRefresh | None = None) -> bool:
        """Set this thread's time-to-live, counted from now; it then overrides that of stores.

        Args:
            ttl: seconds; None for no expiry.
            refresh: what renews it; by default the store's `ttl_refresh`.

        Returns:
            False when there is no such thread.
        """
        seconds = check_seconds("ttl", ttl, zero=False)
        how = self._settings.ttl_refresh if refresh is None else choice("refresh", refresh, TtlRefresh)
        log = self._open_log()
        await self._create_thread()
        return await log.set_ttl(self._key, TimeToLive(seconds, how))

    async def fork(self, new_thread_id: str | None = None, *, at: int | None = None) -> Self:
        """Branch: a store on a copy of this thread up to and including position `at` (all by default).

        Later writes to either thread do not show in the other. The new store has this one's settings and
        shares its connection; each is closed on its own.

        Raises:
            NotFoundError: when this thread does not exist.
            ThreadExistsError: when the new thread exists.
        """
        log = self._open_log()
        check_limit("at", at)
        new_id = random_thread_id() if new_thread_id is None else identifier("new_thread_id", new_thread_id)
        await self._create_thread()
        branch = copy.copy(self)
        branch._switch_thread(new_id, {})
        await log.fork(self._key, branch._key, at=at)
        branch._handle.retain()
        return branch

    def with_codec(
        self, codec: MessageCodec[N] | None, *, dangling_calls: DanglingCalls | None = None
    ) -> ChatMessageStore[N]:
        """A store on the same thread for the messages of another framework.

        It has this one's other settings and shares its connection; each is closed on its own.

        Args:
            codec: converts the framework's messages; None for our own `ChatMessage`.
            dangling_calls: in place of this store's, if given.
        """
        self._open_log()
        other = cast("ChatMessageStore[N]", copy.copy(self))
        other._settings = self._settings.with_codec(codec, dangling_calls)
        other._failed = FailedCalls()
        other._handle.retain()
        return other

    async def list_threads(
        self,
        *,
        prefix: str = "",
        limit: int = 100,
        cursor: str | None = None,
        order: ThreadOrder = "id",
    ) -> ThreadPage:
        """A page of the threads of this store's tenant.

        Args:
            prefix: only ids that begin so.
            limit: how many at most, from 1 up.
            cursor: the `cursor` of the previous page.
            order: ``"id"``, by code point, or ``"recent"``, the most recently written first.
        """
        positive("limit", limit)
        prefix = check.text(prefix, "prefix")
        choice("order", order, ThreadOrder)
        return await self._open_log().list_threads(
            self.tenant, prefix=prefix, limit=limit, cursor=cursor, order=order
        )

    async def delete_thread(self, thread_id: str | None = None) -> bool:
        """Delete a thread of this store's tenant, by default this one; False when there was none."""
        log = self._open_log()
        if thread_id is None or thread_id == self.thread_id:
            self._forget_new_thread()
            return await log.delete_thread(self._key)
        return await log.delete_thread(ThreadKey(self.tenant, identifier("thread_id", thread_id)))

    async def purge_expired(self, *, limit: int = 1000) -> int:
        """Remove expired threads, of every tenant, at most `limit`; returns how many."""
        return await self._open_log().purge_expired(limit=positive("limit", limit))

    async def aclose(self) -> None:
        """Close the store, and what it opened; afterwards every operation raises `StoreClosedError`."""
        if not self._closed:
            self._closed = True
            await self._handle.release()

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

    # -- for derived classes ------------------------------------------------------------------------------

    def _take_ownership(self, log: MessageLog) -> None:
        """Make this store the owner of its log, which is closed with it."""
        self._handle = LogHandle(log, owned=True)

    def _read_state(self, state: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Check a state; returns its thread id, and fields that only a newer version knows."""
        return check_store_state(state, f"agent_stores.{self.state_type}", self.tenant, self.location)

    def _switch_thread(self, thread_id: str, state_extra: dict[str, Any]) -> None:
        """Point the store at another thread of its tenant, which it does not create."""
        self._open_log()
        self._key = ThreadKey(self._key.tenant, thread_id)
        self._state_extra = state_extra
        self._failed = FailedCalls()
        self._forget_new_thread()

    def _forget_new_thread(self) -> None:
        """Begin the thread with nothing from now on."""
        self._new_thread = None
        self._is_created = True

    def _open_log(self) -> MessageLog:
        if self._closed:
            raise StoreClosedError(f"this store of thread {self.thread_id!r} is closed")
        return self._handle.log

    async def _create_thread(self, *, again: bool = False) -> None:
        """Create the thread with what it begins with, unless that was done."""
        if self._new_thread is None or (self._is_created and not again):
            return
        settings = self._settings
        log = self._open_log()
        await log.create(self._key, self._new_thread, max_messages=settings.max_messages, ttl=settings.ttl)
        self._is_created = True

    async def _read(self, read: Callable[[], Awaitable[R]], *, is_whole: bool = True) -> R:
        """Create the thread, and read it; again when it may have expired since this store created it.

        Args:
            read: reads the thread; what it returns is false when there is none.
            is_whole: whether it reads a thread from its beginning to its end.
        """
        await self._create_thread()
        found = await read()
        if not found and is_whole and self._new_thread is not None:
            await self._create_thread(again=True)
            found = await read()
        return found

    def _from_row(self, row: Row | None) -> M | None:
        """The caller's message for a row."""
        messages = self._settings.from_rows([row], self.thread_id) if row else []
        return messages[0][1] if messages else None
