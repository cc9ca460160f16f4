"""`AgentStoresSession`: a session of the OpenAI Agents SDK over any of our stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import Self, Unpack

from agent_stores.messages import ChatMessage
from agent_stores.plugins.openai_agents.codec import ItemOf, ResponsesItemCodec
from agent_stores.plugins.store_resolver import PluginOptions, StoreResolver, StoreSource
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import identifier

if TYPE_CHECKING:
    from agents import RunContextWrapper, TResponseInputItem
    from agents.memory import SessionSettings


class AgentStoresSession:
    """A conversation as ``Runner.run(agent, ..., session=...)`` takes it; implements the SDK's `Session`.

    Items come back as they were written, one stored message for each, in the order in which they were added;
    what other frameworks wrote to the thread is shown as items. Items with an id that are in the thread
    already are not added twice, and the same objects may be added again after a failed call.

    Args:
        session_id: the conversation's id: the thread id of the store.
        store: where it is kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id.
        session_settings: the SDK's settings; their ``limit`` is used where a call gives none.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``window`` (what `get_items` returns where no limit is given), ``on_corrupt``
            (``"skip"`` here, as in the SDK's own sessions, with a warning in the log) and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        store: StoreSource,
        *,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        self.session_id = identifier("session_id", session_id)
        self.session_settings = _settings(session_settings)
        self._codec = ResponsesItemCodec()
        self._opened: StoreResolver[Any] = StoreResolver(
            store, codec=self._codec, options=options, defaults={"on_corrupt": "skip"}, dangling_calls="keep"
        )

    @property
    def store(self) -> ChatMessageStore[Any]:
        """The store below; it takes items, and gives lists of them."""
        return self._opened.store(self.session_id)

    async def get_items(
        self, limit: int | None = None, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> list[TResponseInputItem]:
        """The conversation's items, oldest first.

        Args:
            limit: exactly the newest so many, or all where there are fewer; none for 0 or less. Without it
                the limit of the session's settings, else its window.
            wrapper: the run's context, which the SDK gives; for classes that derive from this one.

        Raises:
            StoreUnavailableError: when the server cannot be reached.
            CorruptMessageError: when an item cannot be read, unless they are skipped.
        """
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None:
            items = [found.item for _, found in await self._newest(limit)]
        else:
            items = [item for found in await self.store.list_messages() for item in found]
        return cast("list[TResponseInputItem]", items)

    async def add_items(
        self, items: Sequence[TResponseInputItem], *, wrapper: RunContextWrapper[Any] | None = None
    ) -> None:
        """Add items at the end, in order, all or none; the cost does not depend on the length.

        Raises:
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            OutcomeUnknownError: when they may or may not be stored; adding them again is safe.
            MessageTooLargeError: when one is larger than the store can hold.
            ArgumentError, ArgumentTypeError: for an item that JSON cannot hold; nothing is written.
        """
        await self.store.add_messages(list(items))

    async def pop_item(self, *, wrapper: RunContextWrapper[Any] | None = None) -> TResponseInputItem | None:
        """Delete the newest item and return it; None when there is none.

        Of a message that is shown as several items the last one is taken. An item that several callers pop
        at once goes to one of them.
        """
        neutral = self._opened.neutral(self.session_id)
        while True:
            newest = await self._newest(1)
            if not newest:
                return None
            message, found = newest[0]
            name = message.message_id or ""
            rest = [part for index, part in enumerate(message.contents) if index not in found.parts]
            shorter = message.replace(contents=rest)
            if len(found.parts) < len(message.contents) and self._codec.from_chat_message(shorter):
                await neutral.replace(name, shorter)
                return cast("TResponseInputItem", found.item)
            if await neutral.delete(name):
                return cast("TResponseInputItem", found.item)

    async def clear_session(self, *, wrapper: RunContextWrapper[Any] | None = None) -> None:
        """Delete all items of the conversation."""
        await self.store.clear()

    async def aclose(self) -> None:
        """Close what the session opened; what it was given stays open."""
        await self._opened.aclose()

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
        return f"AgentStoresSession({self.session_id!r})"

    async def _newest(self, count: int) -> list[tuple[ChatMessage, ItemOf]]:
        """The newest so many items, each with its message; a message may be shown as several, or as none."""
        neutral = self._opened.neutral(self.session_id)
        wanted = count
        while wanted > 0:
            stored = await neutral.latest(wanted)
            found = [(one.message, item) for one in stored for item in self._codec.items_of(one.message)]
            if len(found) >= count or len(stored) < wanted:
                return found[-count:]
            wanted = 2 * wanted + 8
        return []


def _settings(given: SessionSettings | Mapping[str, Any] | None) -> SessionSettings | None:
    if given is not None and not isinstance(given, Mapping):
        return given
    try:
        from agents.memory import SessionSettings
    except ImportError:  # before 0.8, where runs have no settings either
        return None
    return SessionSettings(**(given or {}))
