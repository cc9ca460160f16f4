"""What the chat stores and the memory have in common: operations on threads of LlamaIndex's messages.

LlamaIndex's messages have no ids. What comes back unchanged is known by its content and order, and keeps its
stored record, and so what other frameworks left with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from difflib import SequenceMatcher
from typing import Any, NamedTuple, cast

from llama_index.core.base.llms.types import ChatMessage as LlamaMessage

from agent_stores.errors import ArgumentError, ConflictError, StateError
from agent_stores.message_format import message_from_dict, message_to_dict
from agent_stores.messages import ChatMessage
from agent_stores.plugins.json_diff import digest
from agent_stores.plugins.llama_index.codec import LlamaIndexCodec, MessageOf
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.retention import Window
from agent_stores.store import ChatMessageStore, StoredMessage

_PAGE = 1000
_ATTEMPTS = 32


class Stored(NamedTuple):
    """A stored message, and what LlamaIndex is shown of it."""

    stored: StoredMessage[ChatMessage]
    shown: list[MessageOf]

    @property
    def message(self) -> ChatMessage:
        """Our message."""
        return self.stored.message


class Threads:
    """Conversations by key, each a thread of the store.

    Args:
        source: as `StoreResolver` takes it.
        options: what the caller gave, or `state` returned.
        is_view: whether options for what a model is shown are among those that are accepted.
        accepts: the class's other arguments, for errors.

    Raises:
        StateError: when the state is of a store elsewhere.
    """

    def __init__(
        self,
        source: StoreLike,
        options: Mapping[str, Any],
        *,
        is_view: bool = True,
        accepts: Sequence[str] = ("store",),
    ) -> None:
        given = dict(options)
        location, threads = given.pop("location", None), given.pop("threads", None)
        for name in () if is_view else ("window", "dangling_calls"):
            if name in given:
                raise ArgumentError(
                    f"{name} must be given to AgentStoresMemory; a chat store shows what is stored, as it is"
                )
        if isinstance(given.get("window"), Mapping):
            given["window"] = Window(**given["window"])
        self.codec = LlamaIndexCodec()
        self.opened: StoreResolver[Any] = StoreResolver(
            source, codec=self.codec, options=cast("PluginOptions", given), accepts=accepts
        )
        self.is_in_memory = isinstance(source, str) and source.rstrip("/") == "memory:"
        is_new = self.is_in_memory or (isinstance(source, str) and ":memory:" in source)
        if location is not None and (is_new or location != self.opened.location):
            raise StateError(
                f"the state is of a store at {location!r}, and a state has no login and no keys: give that "
                f"store, as in from_dict(state, store=url), got one at {self.opened.location!r}"
            )
        if threads:
            if not self.is_in_memory:
                raise ArgumentError("threads must not be given together with a store that is not in memory")
            self.opened.wait(self._load(threads))

    def state(self) -> dict[str, Any]:
        """What makes these threads again: JSON-ready, and without secrets."""
        options: dict[str, Any] = {
            name: _seconds(value)
            for name, value in self.opened.options.items()
            if value is not None and name != "count_tokens"
        }
        if window := options.get("window"):
            options["window"] = {name: _seconds(value) for name, value in vars(window).items()}
        if self.is_in_memory:
            return {**options, "threads": self.opened.wait(self._dump())}
        url = self.opened.url
        return {**options, **({"location": self.opened.location} if url is None else {"store": url})}

    async def _dump(self) -> dict[str, list[dict[str, Any]]]:
        return {
            key: [message_to_dict(item.message) for item in await self.all(key)]
            for key in await self.opened.thread_ids()
        }

    async def _load(self, threads: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        for key, documents in threads.items():
            await self.neutral(key).add_messages([message_from_dict(one) for one in documents])

    def store(self, key: str) -> ChatMessageStore[Any]:
        """The store of a key; it takes LlamaIndex's messages, and gives lists of them."""
        return self.opened.store(key)

    def neutral(self, key: str) -> ChatMessageStore[ChatMessage]:
        """The store of our own messages on the same thread."""
        return self.opened.neutral(key)

    async def all(self, key: str) -> list[Stored]:
        """All messages as they are stored, oldest first."""
        return [
            Stored(stored, self.codec.messages_of(stored.message))
            async for stored in self.neutral(key).iter_messages(page_size=_PAGE)
        ]

    async def latest(self, key: str) -> Stored | None:
        """The newest message that LlamaIndex is shown anything of."""
        wanted = 1
        while True:
            found = await self.neutral(key).latest(wanted)
            for stored in reversed(found):
                shown = self.codec.messages_of(stored.message)
                if shown:
                    return Stored(stored, shown)
            if len(found) < wanted:
                return None
            wanted *= 8

    async def rewrite(self, key: str, change: Callable[[list[Stored]], Sequence[ChatMessage]]) -> None:
        """Give a thread another content, in one step.

        Args:
            key: the thread.
            change: the new content for the present one; is asked again where another client added to it.
        """
        store = self.neutral(key)
        for attempt in range(_ATTEMPTS):
            stats = await store.stats()
            before = await self.all(key)
            wanted = list(change(before))
            if [item.message for item in before] == wanted:
                return
            last = None if attempt == _ATTEMPTS - 1 else stats.last_position
            try:
                await store.replace_all(wanted, expected_position=last)
                return
            except ConflictError:
                continue

    async def set(self, key: str, messages: Sequence[LlamaMessage]) -> None:
        """Let a thread hold these messages and no others, in one step."""
        await self.rewrite(key, lambda before: self.match_existing(before, messages))

    async def insert(self, key: str, index: int, message: LlamaMessage) -> None:
        """Put a message before the one at an index, as of a list, in one step."""

        def change(before: list[Stored]) -> list[ChatMessage]:
            messages = [found.message for _, found in _flat(before)]
            messages.insert(index, message)
            return self.match_existing(before, messages)

        await self.rewrite(key, change)

    async def delete_at(self, key: str, index: int) -> LlamaMessage | None:
        """Delete the message at an index, as of a list; None where there is none."""
        shown = list(_flat(await self.all(key)))
        if not -len(shown) <= index < len(shown):
            return None
        stored, found = shown[index]
        return found.message if await self.delete(key, stored.message, found) else None

    async def delete_last(self, key: str) -> LlamaMessage | None:
        """Delete the newest message; None where there is none."""
        while True:
            newest = await self.latest(key)
            if newest is None:
                return None
            if await self.delete(key, newest.message, newest.shown[-1]):
                return newest.shown[-1].message

    async def delete(self, key: str, message: ChatMessage, found: MessageOf) -> bool:
        """Delete what LlamaIndex is shown as one message; False when another client did."""
        store, name = self.neutral(key), message.message_id or ""
        rest = [part for index, part in enumerate(message.contents) if index not in found.parts]
        shorter = message.replace(contents=rest)
        if len(found.parts) < len(message.contents) and self.codec.messages_of(shorter):
            await store.replace(name, shorter)
            return True
        return await store.delete(name) > 0

    def match_existing(self, before: Sequence[Stored], messages: Sequence[LlamaMessage]) -> list[ChatMessage]:
        """Our messages for a new content of a thread: stored ones where they come back unchanged."""
        ours = [self.codec.to_chat_message(message) for message in messages]
        old = [_name(self.codec.to_chat_message(found.message)) for _, found in _flat(before)]
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


def _seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _flat(items: Sequence[Stored]) -> Iterator[tuple[Stored, MessageOf]]:
    for item in items:
        for found in item.shown:
            yield item, found


def _name(message: ChatMessage) -> str:
    return digest(message.to_dict())
