"""Reading the events of a session from its thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig

from agent_stores.backend import Row
from agent_stores.messages import ChatMessage
from agent_stores.plugins.google_adk.codec import EventCodec
from agent_stores.store import ChatMessageStore

_PAGE = 64  # rows
_NEWEST = 4  # rows, among which are all events whose changes of state are not applied yet
_UNKNOWN_AGENT = "model"


class StoredEvent(NamedTuple):
    """An event with its position in the thread.

    Attributes:
        position: from 1 up.
        event: the event.
    """

    position: int
    event: Event


class EventReader:
    """Reads events.

    Args:
        codec: converts them.
        agent_name: the agent that answers of other frameworks are shown as coming from.
    """

    def __init__(self, codec: EventCodec, agent_name: str | None) -> None:
        self._codec = codec
        self._agent_name = agent_name

    async def read(
        self, store: ChatMessageStore[ChatMessage], last: int, config: GetSessionConfig | None
    ) -> list[StoredEvent]:
        """The events up to a position that a configuration asks for, oldest first."""
        count = None if config is None else config.num_recent_events
        after = None if config is None else config.after_timestamp
        if count == 0:
            return []
        if count is None and after is None:
            return self._decode(store, await store.log.read(store._key, before=last + 1))
        rows: list[Row] = []
        while True:
            before = rows[0].position if rows else last + 1
            size = _PAGE if count is None else max(1, min(count, _PAGE))
            page = await store.log.read(store._key, before=before, limit=size, newest=True)
            rows = page + rows
            events = self._decode(store, rows)
            enough = count is not None and len(events) >= count
            early = next((n for n in reversed(range(len(events))) if _is_before(events[n], after)), None)
            if enough or early is not None or len(page) < size:
                found = events if early is None else events[early + 1 :]
                return found if count is None else found[-count:]

    async def latest_events(self, store: ChatMessageStore[ChatMessage], last: int) -> list[StoredEvent]:
        """The last events up to a position."""
        rows = await store.log.read(store._key, before=last + 1, limit=_NEWEST, newest=True)
        return self._decode(store, rows)

    def _decode(self, store: ChatMessageStore[ChatMessage], rows: Sequence[Row]) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        names: dict[str, str] = {}
        agent = self._agent_name
        for row, message in store._settings.from_rows(rows, store.thread_id):
            if (decoded := self._codec.decode(message)) is None:
                continue
            event, own = decoded
            names |= {call.id: call.name for call in event.get_function_calls() if call.id and call.name}
            answers = event.get_function_responses()
            for answer in answers:
                answer.name = answer.name or names.get(answer.id or "")
            if own and event.author != "user":
                agent = self._agent_name or event.author
            elif not own and (answers or event.content is None or event.content.role != "user"):
                event.author = message.author_name or agent or _UNKNOWN_AGENT
            found.append(StoredEvent(row.position, event))
        return found


def _is_before(stored: StoredEvent, timestamp: float | None) -> bool:
    return timestamp is not None and stored.event.timestamp < timestamp
