"""`AgentStoresStorage`: a storage of AG2 over any of our stores."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ag2.events import (
    BaseEvent,
    ModelRequest,
    ModelResponse,
    ToolCallEvent,
    ToolResult,
    ToolResultEvent,
    ToolResultsEvent,
)
from ag2.history import Storage
from typing_extensions import Unpack

from agent_stores.messages import ChatMessage
from agent_stores.plugins.ag2.codec import EventCodec, event_from_json, event_to_json
from agent_stores.plugins.ag2.references import References
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.json_codec import Data
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.retention import NO_RESULT

if TYPE_CHECKING:
    from ag2 import Context
    from ag2.context import StreamId

_ORIGIN = "_agent_stores_message"  # on events that were read; AG2 stores no attributes with a leading "_"
_REMEMBERED = 1024  # streams


class _Origin(NamedTuple):
    """Where an event that was read comes from.

    Attributes:
        message: its message.
        data: the event as it was read.
        exact: whether AG2 wrote it.
        before: messages in front of it that AG2 is not shown.
        after: such messages behind the last event.
    """

    message: ChatMessage
    data: Data
    exact: bool
    before: Sequence[ChatMessage]
    after: Sequence[ChatMessage] = ()


class AgentStoresStorage(AsyncClosing, Storage):
    """The storage of streams, as ``MemoryStream(storage)`` takes it.

    The history of a stream is the thread with the stream's id, each event a row of it. What other frameworks
    wrote to the thread is shown as events.

    Args:
        store: where histories are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that
            makes the store of a thread id.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``window``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for wrong values. Nothing connects before the first operation.
    """

    def __init__(self, store: StoreLike, **options: Unpack[PluginOptions]) -> None:
        self._codec = EventCodec()
        self._opened: StoreResolver[Any] = StoreResolver(
            store, codec=self._codec, options=options, dangling_calls="keep"
        )
        self._references: OrderedDict[str, References] = OrderedDict()  # of the turn that a stream is in

    async def save_event(self, event: BaseEvent, context: Context) -> None:
        """Add an event at the end of the history of the context's stream.

        Raises:
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            ArgumentTypeError: when the event holds what JSON cannot.
        """
        thread_id = str(context.stream.id)
        if isinstance(event, ModelRequest) or thread_id not in self._references:
            self._references[thread_id] = References()
            if len(self._references) > _REMEMBERED:
                self._references.popitem(last=False)
        self._references.move_to_end(thread_id)
        data = self._references[thread_id].shorten(event_to_json(event))
        message = self._codec.encode(data, message_id=uuid.uuid4().hex)
        await self._opened.neutral(thread_id).add_messages([message])

    async def get_history(self, stream_id: StreamId) -> list[BaseEvent]:
        """The events of a stream, in order.

        Tool calls whose run ended before their results are given an error result when the conversation goes
        on after them, as model providers need one.
        """
        messages = await self._opened.neutral(str(stream_id)).list_messages()
        references = References()
        events: list[BaseEvent] = []
        hidden: list[ChatMessage] = []  # what AG2 is not shown, in front of the next event
        for message in messages:
            found = self._codec.json.decode(message)
            if found is None:
                hidden.append(message)
                continue
            data = references.complete(found.data)
            if data is not None:
                if not found.exact and message.created_at is not None:
                    data["created_at"] = message.created_at.timestamp()
                event = event_from_json(data)
                setattr(event, _ORIGIN, _Origin(message, event_to_json(event), found.exact, hidden))
                events.append(event)
                hidden = []
        if events and hidden:
            setattr(events[-1], _ORIGIN, getattr(events[-1], _ORIGIN)._replace(after=hidden))
        return _answered(events)

    async def set_history(self, stream_id: StreamId, events: Iterable[BaseEvent]) -> None:
        """Replace the history of a stream in one step.

        Events that `get_history` gave keep their ids, and other frameworks' messages among them stay theirs.
        So do messages that AG2 was not shown, as long as the event after them (or the last one) stays.
        """
        thread_id = str(stream_id)
        references = References()
        messages: list[ChatMessage] = []
        known: set[str | None] = set()
        for event in events:
            data = event_to_json(event)
            short = references.shorten(data)
            origin: _Origin | None = getattr(event, _ORIGIN, None)
            unchanged = origin is not None and origin.data == data
            if origin is not None and unchanged and not origin.exact:
                message = origin.message
            else:
                kept = origin.message.message_id if origin is not None and unchanged else None
                name = kept if kept is not None and kept not in known else uuid.uuid4().hex
                message = self._codec.encode(short, message_id=name)
            before, after = (origin.before, origin.after) if origin is not None else ((), ())
            for one in (*before, message, *after):
                if one is message or one.message_id not in known:
                    messages.append(one)
                known.add(one.message_id)
        await self._opened.neutral(thread_id).replace_all(messages)
        self._references[thread_id] = references

    async def drop_history(self, stream_id: StreamId) -> None:
        """Delete a stream's history."""
        self._references.pop(str(stream_id), None)
        await self._opened.store(str(stream_id)).delete_thread()


def _answered(events: Sequence[BaseEvent]) -> list[BaseEvent]:
    """The events, with results for calls that have none before the next request."""
    found: list[BaseEvent] = []
    pending: dict[str, ToolCallEvent] = {}
    results: dict[str, ToolResultEvent] = {}
    for event in events:
        if isinstance(event, ModelResponse):
            pending = {call.id: call for call in event.tool_calls.calls}
            results = {}
        elif isinstance(event, ToolResultEvent):
            results[event.parent_id] = event
        elif isinstance(event, ToolResultsEvent):
            for result in event.results:
                pending.pop(result.parent_id, None)
        elif isinstance(event, ModelRequest) and pending:
            made = [results.get(call.id) or _no_result(call) for call in pending.values()]
            found.append(ToolResultsEvent(made))
            pending = {}
        found.append(event)
    return found


def _no_result(call: ToolCallEvent) -> ToolResultEvent:
    return ToolResultEvent(parent_id=call.id, name=call.name, result=ToolResult(NO_RESULT))
