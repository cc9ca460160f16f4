"""What the chat stores and the memory have in common: threads of LlamaIndex's messages.

LlamaIndex's messages have no ids. What comes back unchanged is known by its content and order, and keeps its
stored record, and so what other frameworks left with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr
from pydantic import SerializationInfo, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import Self, TypedDict

from agent_stores.backend import TtlRefresh
from agent_stores.errors import ArgumentError, ConflictError, StateError
from agent_stores.message_format import message_from_dict, message_to_dict
from agent_stores.messages import ChatMessage
from agent_stores.plugins.closing import AsyncClosing, SyncClosing
from agent_stores.plugins.json_diff import digest
from agent_stores.plugins.llama_index.codec import LlamaIndexCodec, MessageOf
from agent_stores.plugins.store_resolver import PluginOptions, StoreResolver, Ttl
from agent_stores.retention import Window
from agent_stores.store import ChatMessageStore, StoredMessage
from agent_stores.store_options import OnCorrupt
from agent_stores.tokens import TokenCounter

if TYPE_CHECKING:
    from agent_stores.attachments import Attachments
    from agent_stores.encryption import Keys

_PAGE = 1000
_ATTEMPTS = 32


class ChatStoreOptions(TypedDict, total=False):
    """The options of stores that show messages as they are stored; see `ChatMessageStore`."""

    tenant: str | None
    max_messages: int | None
    ttl: Ttl
    ttl_refresh: TtlRefresh
    on_corrupt: OnCorrupt
    count_tokens: TokenCounter | None
    encryption: Keys | None
    attachments: Attachments | None


class Stored(NamedTuple):
    """A stored message, and what LlamaIndex is shown of it."""

    stored: StoredMessage[ChatMessage]
    shown: list[MessageOf]

    @property
    def message(self) -> ChatMessage:
        """Our message."""
        return self.stored.message


class Carried(SyncClosing, AsyncClosing):
    """What is carried to another process as its JSON, which makes it again, and closed."""

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's JSON."""
        raise NotImplementedError

    @classmethod
    def _take_name(cls, options: dict[str, Any]) -> None:
        """Take the name of the class out of a state; raise for that of another one."""
        name = options.pop("class_name", cls.class_name())
        if name != cls.class_name():
            raise StateError(f"the state's class_name must be {cls.class_name()!r}, got {name!r}")

    def __reduce__(self) -> Any:
        cls = next(cls for cls in type(self).__mro__ if "class_name" in vars(cls))
        return restore, (cls, self.model_dump())  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """The same object: its conversations are where they are."""
        return self


class StoredThreads(Carried, BaseModel):
    """Conversations by key, each a thread of a store.

    As JSON, and pickled, it is the conversations of a store in memory; of any other store, the URL and the
    options. Logins, keys, attachments and `count_tokens` are not carried. With a login, `encryption` or
    `attachments`, the JSON has the location only, and is restored with ``from_dict(state, store=url)``, whose
    store must be there.

    Args:
        store: where they are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id; by default in this process's memory.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``on_corrupt`` and ``count_tokens``; for a URL, also ``encryption`` and
            ``attachments``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
        StateError: for the JSON of a store that needs a login.
    """

    # Options of others than these classes, and arguments for errors; a memory's store takes more of both.
    _not_taken: ClassVar[Sequence[str]] = ("window", "dangling_calls")
    _arguments: ClassVar[Sequence[str]] = ("store",)

    _opened: StoreResolver[Any] = PrivateAttr()
    _codec: LlamaIndexCodec = PrivateAttr(default_factory=LlamaIndexCodec)
    _is_in_memory: bool = PrivateAttr()

    def __init__(self, store: Any, options: dict[str, Any]) -> None:
        self._take_name(options)
        super().__init__()
        location, threads = options.pop("location", None), options.pop("threads", None)
        for name in self._not_taken:
            if name in options:
                raise ArgumentError(
                    f"{name} is accepted by AgentStoresMemory: a chat store shows messages as they are stored"
                )
        if isinstance(options.get("window"), Mapping):
            options["window"] = Window(**options["window"])
        given = cast("PluginOptions", options)
        opened: StoreResolver[Any] = StoreResolver(
            store, codec=self._codec, options=given, accepts=self._arguments
        )
        self._opened = opened
        self._is_in_memory = isinstance(store, str) and store.rstrip("/") == "memory:"
        is_new = self._is_in_memory or (isinstance(store, str) and ":memory:" in store)
        if location is not None and (is_new or location != self._opened.location):
            raise StateError(
                f"the state is of a store at {location!r}, and a state has no login and no keys: give that "
                f"store, as in from_dict(state, store=url), got one at {self._opened.location!r}"
            )
        if threads:
            if not self._is_in_memory:
                raise ArgumentError("threads must not be given together with a store that is not in memory")
            self._opened.wait(self._load(threads))

    def store_of(self, key: str) -> ChatMessageStore[Any]:
        """The store of a key; it takes LlamaIndex's messages, and gives lists of them."""
        return self._opened.store(key)

    @model_serializer(mode="wrap")
    def custom_model_dump(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Where the conversations are, or the conversations of a store in memory; without secrets."""
        state: dict[str, Any] = {
            name: _seconds(value)
            for name, value in self._opened.options.items()
            if value is not None and name != "count_tokens"
        }
        if window := state.get("window"):
            state["window"] = {name: _seconds(value) for name, value in vars(window).items()}
        if self._is_in_memory:
            state["threads"] = self._opened.wait(self._dump())
        elif self._opened.url is None:
            state["location"] = self._opened.location
        else:
            state["store"] = self._opened.url
        return {**handler(self), "class_name": self.class_name(), **state}

    async def _dump(self) -> dict[str, list[dict[str, Any]]]:
        return {
            key: [message_to_dict(item.message) for item in await self._all(key)]
            for key in await self._opened.thread_ids()
        }

    async def _load(self, threads: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        for key, documents in threads.items():
            await self._neutral(key).add_messages([message_from_dict(one) for one in documents])

    def _neutral(self, key: str) -> ChatMessageStore[ChatMessage]:
        """The store of our own messages on a thread."""
        return self._opened.neutral(key)

    async def _all(self, key: str) -> list[Stored]:
        """All messages as they are stored, oldest first."""
        return [
            Stored(stored, self._codec.messages_of(stored.message))
            async for stored in self._neutral(key).iter_messages(page_size=_PAGE)
        ]

    async def _rewrite(self, key: str, change: Callable[[list[Stored]], Sequence[ChatMessage]]) -> None:
        """Give a thread another content, in one step.

        Args:
            key: the thread.
            change: the new content for the present one; is asked again where another client added to it.
        """
        store = self._neutral(key)
        for attempt in range(_ATTEMPTS):
            stats = await store.stats()
            before = await self._all(key)
            wanted = list(change(before))
            if [item.message for item in before] == wanted:
                return
            last = None if attempt == _ATTEMPTS - 1 else stats.last_position
            try:
                await store.replace_all(wanted, expected_position=last)
                return
            except ConflictError:
                continue

    def _match_existing(
        self, before: Sequence[Stored], messages: Sequence[LlamaMessage]
    ) -> list[ChatMessage]:
        """Our messages for a new content of a thread: stored ones where they come back unchanged."""
        ours = [self._codec.to_chat_message(message) for message in messages]
        old = [_name(self._codec.to_chat_message(found.message)) for _, found in flat(before)]
        new = list(map(_name, ours))
        start = 0  # where they begin to differ
        while start < min(len(old), len(new)) and old[start] == new[start]:
            start += 1
        pairs = {index: index for index in range(start)}
        matcher = SequenceMatcher(None, old[start:], new[start:], autojunk=False)
        for a, b, size in matcher.get_matching_blocks():
            pairs |= {start + a + step: start + b + step for step in range(size)}
        hidden: list[ChatMessage] = []  # before all others
        result = [[message] for message in ours]
        at, place = 0, hidden
        for item in before:
            where = [pairs.get(at + step) for step in range(len(item.shown))]
            at += len(where)
            if not where:  # not shown to LlamaIndex: it goes with the message before it
                place.append(item.message)
            elif (first := where[0]) is None or where != list(range(first, first + len(where))):
                place = []
            else:
                result[first : first + len(where)] = [[] for _ in where]
                place = result[first + len(where) - 1]
                place.append(item.message)
        return [message for group in (hidden, *result) for message in group]


def restore(cls: Any, state: dict[str, Any]) -> Any:
    """An object of a class for its JSON; named by pickles."""
    return cls(**state)


def flat(items: Sequence[Stored]) -> Iterator[tuple[Stored, MessageOf]]:
    """LlamaIndex's messages, each with the stored one."""
    for item in items:
        for found in item.shown:
            yield item, found


def _seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _name(message: ChatMessage) -> str:
    return digest(message.to_dict())
