"""How every plug-in gets at its stores: from a URL, a log, or a function that makes them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from typing_extensions import TypedDict, TypeVar

from agent_stores.backend import ThreadOrder, TtlRefresh
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError
from agent_stores.listing import ThreadStats
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.plugins.closing import AsyncContext
from agent_stores.plugins.merge_messages import model_view
from agent_stores.protocols import MessageCodec
from agent_stores.retention import DanglingCalls, Window
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import OnCorrupt, identifier, log_options
from agent_stores.sync import block_on
from agent_stores.tokens import TokenCounter
from agent_stores.urls import open_log

if TYPE_CHECKING:
    from agent_stores.attachments import Attachments
    from agent_stores.encryption import Keys

M = TypeVar("M", default=ChatMessage)
T = TypeVar("T")

StoreLike: TypeAlias = "str | os.PathLike[str] | MessageLog | Callable[[str], ChatMessageStore[Any]]"
"""Where conversations are kept: a URL as `open_log` takes it, a log, or a function that makes the store of a
thread id."""


Ttl: TypeAlias = "float | timedelta | None"
"""A time-to-live, in seconds."""


class StoredOptions(TypedDict, total=False):
    """The options of plug-ins that show messages as they are stored; see `ChatMessageStore`."""

    tenant: str | None
    max_messages: int | None
    ttl: Ttl
    ttl_refresh: TtlRefresh
    on_corrupt: OnCorrupt
    count_tokens: TokenCounter | None
    encryption: Keys | None
    attachments: Attachments | None


class PluginOptions(StoredOptions, total=False):
    """The options of plug-ins that show what a model is to be shown; see `ChatMessageStore`."""

    window: Window | None
    dangling_calls: DanglingCalls


_REMEMBERED = 1024  # stores that are kept, so that the retry of a failed call is known as one
_PAGE = 500  # threads


class StoreResolver(AsyncContext, Generic[M]):
    """The stores of a plug-in, by thread id.

    Args:
        source: a URL, a log, or a function that makes the store of a thread id. A log is borrowed; what a URL
            opens and a function makes is closed by `aclose`, and a function is asked once for a thread id.
        codec: converts the framework's messages; None where the stores have our own.
        options: for a URL or a log, what the caller gave; the stores that a function makes have their own.
        defaults: for a URL or a log, the options that the caller did not give.
        dangling_calls: what reading does with tool calls that have no result, where the plug-in decides it.
        accepts: the class's other arguments, for errors.
        takes: the options that the class takes.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
        MissingDependencyError: when the URL's backend is not installed; names the extra.

    Attributes:
        url: a URL of the same log for another process; None where it needs a login that is not in the URL, or
            the log is a caller's.
    """

    def __init__(
        self,
        source: StoreLike,
        *,
        codec: MessageCodec[M] | None = None,
        options: PluginOptions,
        defaults: PluginOptions | None = None,
        dangling_calls: DanglingCalls | None = None,
        accepts: Sequence[str] = (),
        takes: type[Any] = PluginOptions,
    ) -> None:
        self._codec = codec
        self._options: PluginOptions = {**(defaults or {}), **options}
        if dangling_calls is not None:
            if "dangling_calls" in options:
                raise ArgumentError(
                    f"dangling_calls must be {dangling_calls!r} here, got {options['dangling_calls']!r}"
                )
            self._options["dangling_calls"] = dangling_calls
        known = takes.__annotations__
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ArgumentTypeError(
                f"keyword argument must be one of {', '.join([*accepts, *known])}, got {unknown[0]!r}"
            )
        self.url: str | None = None
        self._owned: MessageLog | None = None
        self._log: MessageLog | None = None  # that of all stores; a function may give each another one
        self._closed = False
        self._stores: OrderedDict[str, ChatMessageStore[M]] = OrderedDict()
        self._neutral: OrderedDict[str, tuple[ChatMessageStore[M], ChatMessageStore[ChatMessage]]] = (
            OrderedDict()
        )
        self._made: list[ChatMessageStore[Any]] = []
        self._make: Callable[[str], ChatMessageStore[M]]
        if isinstance(source, (str, os.PathLike)):
            wrapping = log_options(self._options)
            self._options_are_accepted()
            self._owned = self._log = open_log(source, **wrapping)
            # Keys and places of attachments are not in a URL: a store made of it alone would write in clear.
            self.url = None if any(wrapping.values()) else _url_without_login(source, self._owned.location)
            self._make = self._on_log(self._owned)
        elif isinstance(source, MessageLog):
            self._options_are_accepted()
            self._log = source
            self._make = self._on_log(source)
        elif callable(source):
            if options:
                raise ArgumentError(
                    f"{', '.join(sorted(options))} must be given to the stores, in the function that makes "
                    "them"
                )
            self._make = self._by_function(source, dangling_calls)
        else:
            raise ArgumentTypeError(
                "the store's source must be a URL, a MessageLog or a function that makes the store of a "
                f"thread id, got {type(source).__name__}"
            )

    def own(self, log: MessageLog) -> None:
        """Close a log with these stores."""
        self._owned = log

    @property
    def options(self) -> PluginOptions:
        """The options of the stores."""
        return self._options

    @property
    def location(self) -> str:
        """Where the conversations are, without secrets."""
        return self.store(next(reversed(self._stores), "threads")).location

    def store(self, thread_id: str) -> ChatMessageStore[M]:
        """The store of a thread; the same one as before, if it was asked for lately.

        Raises:
            StoreClosedError: after `aclose`.
            ArgumentError, ArgumentTypeError: for an id that is not accepted, or when the function made the
                store of another thread.
        """
        if self._closed:
            raise StoreClosedError("this plug-in's stores are closed")
        identifier("thread_id", thread_id)
        found = self._stores.get(thread_id)
        if found is None:
            found = self._stores[thread_id] = self._make(thread_id)
            if not self._made and len(self._stores) > _REMEMBERED:
                self._stores.popitem(last=False)  # it borrows its log, so there is nothing to close
        self._stores.move_to_end(thread_id)
        return found

    def neutral(self, thread_id: str) -> ChatMessageStore[ChatMessage]:
        """The store of our own messages on a thread, on the same connection as the framework's."""
        store = self.store(thread_id)
        found = self._neutral.get(thread_id)
        if found is None or found[0] is not store:
            # It has no resources of its own to close, other than the thread's, which it shares.
            found = self._neutral[thread_id] = (store, store.with_codec(None, dangling_calls="keep"))
            if not self._made and len(self._neutral) > _REMEMBERED:
                self._neutral.popitem(last=False)
        return found[1]

    async def view(self, thread_id: str, *, max_tokens: int | None = None) -> list[ChatMessage]:
        """A conversation as a model is to be shown it, in our own messages: the store's window, repaired.

        An answer that another framework keeps in several messages is one message. The calls of the last
        message are left alone: the framework may be about to answer them.

        Args:
            thread_id: the conversation.
            max_tokens: in place of the window's, if given.
        """
        shown = await self.neutral(thread_id).list_messages(max_tokens=max_tokens)
        return model_view(shown, self.store(thread_id).dangling_calls)

    def wait(self, work: Coroutine[Any, Any, T], thread_id: str | None = None) -> T:
        """Run a coroutine that works on these stores, and wait for it; see `block_on`.

        Args:
            work: the coroutine.
            thread_id: the one thread that it works on, if it is one.
        """
        try:
            log = self._log if thread_id is None else self.store(thread_id).log
        except BaseException:
            work.close()
            raise
        return block_on(work, log)

    async def threads(self, prefix: str = "", order: ThreadOrder = "id") -> AsyncIterator[ThreadStats]:
        """The threads of the tenant whose ids begin with a prefix; reads pages of them, and no messages."""
        store = self.store(next(reversed(self._stores), "threads"))
        cursor: str | None = None
        while True:
            page = await store.list_threads(prefix=prefix, limit=_PAGE, cursor=cursor, order=order)
            for stats in page.threads:
                yield stats
            cursor = page.cursor
            if cursor is None:
                return

    async def thread_ids(self) -> list[str]:
        """The ids of all threads of the tenant."""
        return [stats.thread_id async for stats in self.threads()]

    async def aclose(self) -> None:
        """Close what was opened here; afterwards every operation raises `StoreClosedError`."""
        self._closed = True
        stores: list[ChatMessageStore[Any]] = [*self._stores.values(), *self._made]
        stores += [neutral for _, neutral in self._neutral.values()]
        for store in stores:
            await store.aclose()
        self._stores.clear()
        self._neutral.clear()
        self._made.clear()
        if self._owned is not None:
            await self._owned.aclose()

    def _on_log(self, log: MessageLog) -> Callable[[str], ChatMessageStore[M]]:
        return lambda thread_id: ChatMessageStore(
            log, thread_id=thread_id, codec=self._codec, **self._options
        )

    def _options_are_accepted(self) -> None:
        """Check the options now, rather than when the first store is made."""
        from agent_stores.memory import InMemoryMessageLog

        self._on_log(InMemoryMessageLog())("x")

    def _by_function(
        self, function: Callable[[str], ChatMessageStore[Any]], dangling_calls: DanglingCalls | None
    ) -> Callable[[str], ChatMessageStore[M]]:
        def make(thread_id: str) -> ChatMessageStore[M]:
            store = function(thread_id)
            if not isinstance(store, ChatMessageStore):
                raise ArgumentTypeError(
                    "the function that makes stores must return a ChatMessageStore, "
                    f"got {type(store).__name__}"
                )
            if store.thread_id != thread_id:
                raise ArgumentError(
                    f"the function that makes stores must return a store of thread {thread_id!r}, "
                    f"got one of {store.thread_id!r}"
                )
            self._made.append(store)
            return store.with_codec(self._codec, dangling_calls=dangling_calls)

        return make


def _url_without_login(source: str | os.PathLike[str], location: str) -> str | None:
    if location.startswith("sqlite:"):  # the whole path, whatever another process's folder is
        return None if ":memory:" in location else location
    text = os.fspath(source)
    is_plain = "://" in text and "@" not in text and "?" not in text
    return text if is_plain else None
