"""`AgentStoresSession`: a session of the OpenAI Agents SDK over any of our stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import Unpack

from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError, StoreError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.openai_agents.codec import Item, ResponsesItemCodec
from agent_stores.plugins.openai_agents.compaction import (
    IsExpired,
    Snapshot,
    newest_position,
    replace_history,
    take_snapshot,
)
from agent_stores.plugins.shown import newest, take_out
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import identifier

if TYPE_CHECKING:
    from agents import RunContextWrapper, TResponseInputItem
    from agents.memory import SessionSettings


class AgentStoresSession(AsyncClosing):
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
        store: StoreLike,
        *,
        session_settings: SessionSettings | Mapping[str, Any] | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        self.session_id = identifier("session_id", session_id)
        self.session_settings = _settings(session_settings)
        self._codec = ResponsesItemCodec()
        self._read_until: int | None = None  # where the history ended that was last read for compaction
        self._opened: StoreResolver[Any] = StoreResolver(
            store, codec=self._codec, options=options, defaults={"on_corrupt": "skip"}, dangling_calls="keep"
        )

    @property
    def store(self) -> ChatMessageStore[Any]:
        """The store below; it takes items, and gives lists of them."""
        return self._opened.store(self.session_id)

    @property
    def _neutral(self) -> ChatMessageStore[ChatMessage]:
        return self._opened.neutral(self.session_id)

    async def get_items(
        self, limit: int | None = None, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> list[TResponseInputItem]:
        """The conversation's items, oldest first.

        Args:
            limit: exactly the newest *n*, or all where there are fewer; none for 0 or less. Without it
                the limit of the session's settings, else its window.
            wrapper: the run's context, which the SDK gives; for classes that derive from this one.

        Raises:
            StoreUnavailableError: when the server cannot be reached.
            CorruptMessageError: when an item cannot be read, unless they are skipped.
        """
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None:
            items = [found.data for _, found in await newest(self._neutral, self._codec.items_of, limit)]
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
        return await self.pop_valid_item(lambda item: None)

    async def pop_valid_item(self, check: Callable[[Item], object]) -> TResponseInputItem | None:
        """The same as `pop_item`, for an item that passes a check.

        Args:
            check: is called before the item is deleted; what it raises is raised, and nothing is deleted.
        """
        show = self._codec.items_of
        while found := await newest(self._neutral, show, 1):
            message, shown = found[0]
            check(shown.data)
            if await take_out(self._neutral, message, shown.parts, show):
                return cast("TResponseInputItem", shown.data)
        return None

    async def clear_session(self, *, wrapper: RunContextWrapper[Any] | None = None) -> None:
        """Delete all items of the conversation."""
        await self.store.clear()

    async def close(self) -> None:
        """The same as `aclose`: close what the session opened; what it was given stays open."""
        await self.aclose()

    async def ping(self) -> bool:
        """Whether the server can be reached and answers.

        Raises:
            StoreClosedError: after `close`.
        """
        try:
            await self.store.stats()
        except StoreClosedError:
            raise
        except StoreError:
            return False
        return True

    def __repr__(self) -> str:
        return f"AgentStoresSession({self.session_id!r})"

    # -- what the SDK's compaction session looks for ------------------------------------------------------

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: IsExpired | None = None
    ) -> Snapshot | None:
        if not self._stores_items_as_given:
            return None
        return await take_snapshot(self._neutral, self._codec, limit, prune_prefix)

    async def _read_compaction_items(self, limit: int | None) -> tuple[list[TResponseInputItem], bool]:
        self._read_until = await newest_position(self._neutral)
        items = await self.get_items(limit)
        return items, limit is not None and len(items) < limit

    async def _atomic_replace_items(self, items: Sequence[TResponseInputItem]) -> bool:
        if not self._stores_items_as_given:
            return False
        until, self._read_until = self._read_until, None
        messages = [self._codec.to_chat_message(item) for item in items]
        await replace_history(self._neutral, messages, until)
        return True

    @property
    def _stores_items_as_given(self) -> bool:
        """Whether a class that derives from this one leaves the items to it."""
        kind = type(self)
        return (
            kind.get_items is AgentStoresSession.get_items and kind.add_items is AgentStoresSession.add_items
        )


def _settings(given: SessionSettings | Mapping[str, Any] | None) -> SessionSettings | None:
    try:
        from agents.memory import SessionSettings
    except ImportError:  # before 0.8, where runs have no settings either
        SessionSettings = None  # type: ignore[assignment,misc]
    if SessionSettings is not None and isinstance(given, SessionSettings):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ArgumentTypeError(
            f"session_settings must be the SDK's SessionSettings or a mapping, got {type(given).__name__}"
        )
    known = ("limit",) if SessionSettings is None else tuple(SessionSettings.__dataclass_fields__)
    unknown = sorted(set(given or ()) - set(known))
    if unknown:
        raise ArgumentError(f"session_settings must be among {', '.join(known)}, got {unknown[0]!r}")
    return None if SessionSettings is None else SessionSettings(**(given or {}))
