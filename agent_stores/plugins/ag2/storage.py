"""`AgentStoresStorage`: a storage of AG2 over any of our stores."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

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
from agent_stores.plugins.store_resolver import PluginOptions, StoreResolver, StoreSource
from agent_stores.retention import NO_RESULT

if TYPE_CHECKING:
    from ag2 import Context
    from ag2.context import StreamId

_ORIGIN = "_agent_stores_message"  # on events that were read; AG2 stores no attributes with a leading "_"
_REMEMBERED = 1024  # streams


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

    def __init__(self, store: StoreSource, **options: Unpack[PluginOptions]) -> None:
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
        for message in messages:
            found = self._codec.json.decode(message)
            data = None if found is None else references.complete(found.data)
            if found is not None and data is not None:
                if not found.exact and message.created_at is not None:
                    data["created_at"] = message.created_at.timestamp()
                event = event_from_json(data)
                setattr(event, _ORIGIN, (message, event_to_json(event), found.exact))
                events.append(event)
        return _answered(events)

    async def set_history(self, stream_id: StreamId, events: Iterable[BaseEvent]) -> None:
        """Replace the history of a stream in one step.

        Events that `get_history` gave keep their ids, and other frameworks' messages among them stay theirs.
        """
        thread_id = str(stream_id)
        references = References()
        messages: list[ChatMessage] = []
        known: set[str | None] = set()
        for event in events:
            data = event_to_json(event)
            short = references.shorten(data)
            message, before, exact = getattr(event, _ORIGIN, (None, None, True))
            unchanged = message is not None and before == data
            if message is None or exact or not unchanged:
                kept = message.message_id if message is not None and unchanged else None
                name = kept if kept is not None and kept not in known else uuid.uuid4().hex
                message = self._codec.encode(short, message_id=name)
            known.add(message.message_id)
            messages.append(message)
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
