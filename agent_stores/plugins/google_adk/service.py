"""`AgentStoresSessionService`: a session service of Google ADK over any of our stores."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.platform import time as platform_time
from google.adk.sessions.base_session_service import (
    BaseSessionService,
    GetSessionConfig,
    ListSessionsResponse,
)
from google.adk.sessions.session import Session
from typing_extensions import Unpack

from agent_stores.backend import ThreadKey
from agent_stores.errors import ConflictError
from agent_stores.listing import ThreadStats
from agent_stores.messages import ChatMessage
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.google_adk.codec import EventCodec
from agent_stores.plugins.google_adk.event_reader import EventReader, StoredEvent
from agent_stores.plugins.google_adk.parts import FRAMEWORK
from agent_stores.plugins.google_adk.states import kept, merged, scoped, split
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.plugins.thread_ids import escape, unescape
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import identifier

STATES = "#google_adk/"
"""Begins the ids of the threads that hold the state of applications and users."""


class AgentStoresSessionService(AsyncClosing, BaseSessionService):
    """Sessions as ``Runner(session_service=...)`` takes them; implements every method.

    A session is the thread ``{app_name}/{user_id}/{session_id}``, each event a row of it, which other
    frameworks read and add to. (In the names before the last, ``%``, ``/`` and ``#`` are escaped.) Its state
    is in the thread's metadata; that of users and of the application in threads of their own.

    Args:
        store: where they are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id.
        agent_name: the agent that answers of other frameworks are shown as coming from; by default the last
            one of the session.
        options: those of the store, for a URL or a log: ``tenant``, ``ttl``, ``ttl_refresh``,
            ``max_messages``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for wrong values. Nothing connects before the first operation.
    """

    def __init__(
        self, store: StoreLike, *, agent_name: str | None = None, **options: Unpack[PluginOptions]
    ) -> None:
        self._codec = EventCodec()
        self._opened: StoreResolver[Any] = StoreResolver(
            store, codec=self._codec, options=options, dangling_calls="keep"
        )
        self._reader = EventReader(self._codec, agent_name)
        self._locks: WeakValueDictionary[tuple[Any, ...], asyncio.Lock] = WeakValueDictionary()

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a session; a conversation of that id that another framework began goes on in it.

        Raises:
            AlreadyExistsError: when there is one with this id.
            ArgumentError: when the session's state is larger than 64 KiB.
        """
        session_id = session_id or str(uuid.uuid4())
        store = self._store(app_name, user_id, session_id)
        stats = await store.log.stats(store._key)
        exists = AlreadyExistsError(f"Session with id {session_id} already exists.")
        if kept(stats):
            raise exists
        deltas, now = split(state), platform_time.get_time()
        position = stats.last_position if stats else 0
        data = {"created": now, "position": position, "state": deltas.session}
        try:
            await store.update_metadata({FRAMEWORK: data}, expected_revision=stats.revision if stats else 0)
        except ConflictError:
            raise exists from None
        await self._change(app_name, None, deltas.app)
        await self._change(app_name, user_id, deltas.user)
        found = await self.get_session(app_name=app_name, user_id=user_id, session_id=session_id)
        if found is None:
            raise SessionNotFoundError(f"Session {session_id} not found.")
        return found

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """The session with its events, or None; reads no more events than `config` asks for."""
        store = self._store(app_name, user_id, session_id)
        stats = await store.log.stats(store._key)
        if stats is None or not (kept(stats) or stats.last_position):
            return None
        events = await self._reader.read(store, stats.last_position, config)
        newest = events or await self._reader.latest_events(store, stats.last_position)
        state = dict(kept(stats).get("state", {}))
        app, user = await self._scoped(app_name, None), await self._scoped(app_name, user_id)
        for delta in self._unapplied(stats, newest):
            changes = split(delta)
            state |= changes.session
            app |= changes.app
            user |= changes.user
        session = self._session(stats, app_name, user_id, session_id, merged(app, user, state))
        session.events = [one.event for one in events]
        if events:
            session.last_update_time = events[-1].event.timestamp
        session._storage_update_marker = str(stats.last_position)
        return session

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """The sessions of a user, or of all users, oldest first, without events; reads none."""
        prefix = f"{escape(identifier('app_name', app_name))}/"
        if user_id is not None:
            prefix += f"{escape(identifier('user_id', user_id))}/"
        app = await self._scoped(app_name, None)
        users: dict[str, dict[str, Any]] = {}
        found: list[Session] = []
        async for stats in self._opened.threads(prefix):
            parts = stats.thread_id.split("/", 2)
            if len(parts) < 3:
                continue
            owner = unescape(parts[1])
            if owner not in users:
                users[owner] = await self._scoped(app_name, owner)
            state = merged(app, users[owner], kept(stats).get("state", {}))
            found.append(self._session(stats, app_name, owner, parts[2], state))
        found.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=found)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session with its events; the state of the user and of the application stays."""
        await self._store(app_name, user_id, session_id).delete_thread()

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """The state of a user; keys have no prefix."""
        return await self._scoped(app_name, user_id)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Add an event to a session, and apply its changes of state.

        Partial events are not stored, nor is temporary state. An event that is stored already is not added
        again.

        Raises:
            StaleSessionError: when another writer added to the session since it was loaded; nothing was
                written. Load the session again.
            SessionNotFoundError: when there is no such session.
            StoreError: as stores do; after an `OutcomeUnknownError` the call may be made again.
        """
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        store = self._store(session.app_name, session.user_id, session.id)
        async with self._lock(session):
            expected = await self._position(session, store)
            position = await self._append(store, event, expected)
            if position == expected and any(one.id == event.id for one in session.events):
                return event  # the retry of a call that succeeded
            session._storage_update_marker = str(position)
            session.last_update_time = event.timestamp
            if event.actions.state_delta:
                await self._apply(session, store, position)
        return self._commit_event_to_session(session, event)

    async def close(self) -> None:
        """The same as `aclose`, under the name that runners call."""
        await self.aclose()

    async def _append(self, store: ChatMessageStore[ChatMessage], event: Event, expected: int) -> int:
        settings, log = store._settings, store.log
        rows = settings.to_rows([self._codec.to_chat_message(event)], log.max_message_bytes)
        try:
            return await log.append(
                store._key,
                rows,
                expected_position=expected,
                max_messages=settings.max_messages,
                ttl=settings.ttl,
            )
        except ConflictError:
            if await log.stats(store._key) is None:
                raise SessionNotFoundError(f"Session {store.thread_id!r} not found.") from None
            raise StaleSessionError(
                f"another writer added to session {store.thread_id!r} since it was loaded; nothing was "
                "written: load the session again"
            ) from None

    async def _position(self, session: Session, store: ChatMessageStore[ChatMessage]) -> int:
        """The position up to which a session knows the stored events."""
        marker = session._storage_update_marker
        if marker is not None and marker.isdecimal() and int(marker) > 0:
            return int(marker)
        stats = await store.log.stats(store._key)
        if stats is None:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        if marker is not None and marker.isdecimal():
            return int(marker)
        # A session that was not loaded here is known by its last event.
        stored = await self._reader.latest_events(store, stats.last_position)
        last = session.events[-1].id if session.events else None
        if (stored[-1].event.id if stored else None) != last:
            raise StaleSessionError(
                f"session {store.thread_id!r} has other events than the one given; load the session again"
            )
        return stats.last_position

    async def _apply(self, session: Session, store: ChatMessageStore[ChatMessage], position: int) -> None:
        """Apply the changes of state of the newest events, once; also of those whose writer died."""
        while True:
            stats = await store.log.stats(store._key)
            if stats is None or kept(stats).get("position", 0) >= position:
                return
            newest = await self._reader.latest_events(store, stats.last_position)
            state = dict(kept(stats).get("state", {}))
            for delta in self._unapplied(stats, newest):
                changes = split(delta)
                await self._change(session.app_name, None, changes.app)
                await self._change(session.app_name, session.user_id, changes.user)
                state |= changes.session
            data = {**kept(stats), "position": stats.last_position, "state": state}
            try:
                await store.update_metadata({FRAMEWORK: data}, expected_revision=stats.revision)
            except ConflictError:
                continue
            return

    @staticmethod
    def _unapplied(stats: ThreadStats, events: Sequence[StoredEvent]) -> list[dict[str, Any]]:
        """The changes of state that are not part of a session's stored state, oldest first."""
        position = kept(stats).get("position", 0)
        return [one.event.actions.state_delta for one in events if one.position > position]

    def _session(
        self, stats: ThreadStats, app_name: str, user_id: str, session_id: str, state: dict[str, Any]
    ) -> Session:
        updated = stats.last_at.timestamp() if stats.last_at else kept(stats).get("created", 0.0)
        return Session(
            id=session_id, app_name=app_name, user_id=user_id, state=state, last_update_time=updated
        )

    async def _scoped(self, app_name: str, user_id: str | None) -> dict[str, Any]:
        key = self._state_key(app_name, user_id)
        return scoped(await self._opened.neutral(STATES).log.stats(key))

    async def _change(self, app_name: str, user_id: str | None, changes: Mapping[str, Any]) -> None:
        if changes:
            store = self._opened.neutral(self._state_key(app_name, user_id).thread_id)
            await store.update_metadata({key: [value] for key, value in changes.items()})

    def _state_key(self, app_name: str, user_id: str | None) -> ThreadKey:
        name = f"{STATES}{escape(identifier('app_name', app_name))}"
        if user_id is not None:
            name += f"/{escape(identifier('user_id', user_id))}"
        return ThreadKey(self._opened.neutral(STATES).tenant, name)

    def _store(self, app_name: str, user_id: str, session_id: str) -> ChatMessageStore[ChatMessage]:
        names = identifier("app_name", app_name), identifier("user_id", user_id)
        thread_id = "/".join((*map(escape, names), identifier("session_id", session_id)))
        return self._opened.neutral(thread_id)

    def _lock(self, session: Session) -> asyncio.Lock:
        """Serializes the appends of parallel agents to one session in one event loop."""
        key = (asyncio.get_running_loop(), session.app_name, session.user_id, session.id)
        return self._locks.setdefault(key, asyncio.Lock())
