"""`AgentStoresSessionStore`: the sessions of Agent Framework, from 1.23 on, in any of our stores."""

from __future__ import annotations

from collections.abc import Mapping

from agent_framework import AgentSession, SessionStore
from typing_extensions import Unpack

from agent_stores._json import json_value
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.parts import FRAMEWORK
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.documents import document, document_data
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.plugins.thread_ids import escape
from agent_stores.store import ChatMessageStore

_ROW = "session"
_KIND = f"{FRAMEWORK}.{_ROW}"


class AgentStoresSessionStore(AsyncClosing, SessionStore):
    """A `SessionStore` over a store: each session is the one row of the thread ``{id}#session``.

    (In the id, ``%``, ``/`` and ``#`` are escaped.) Of two writers the last one wins, as in the framework's
    own stores. Messages belong into the history provider: those of `InMemoryHistoryProvider` are a part of
    the session, which is written as a whole.

    Args:
        source: a URL as `open_log` takes it, a `MessageLog` (which stays open), or a function that makes the
            store of a thread id.
        options: for a URL or a log, those of the store: ``tenant``, ``ttl``, ``ttl_refresh``, ``encryption``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
        MissingDependencyError: when the URL's backend is not installed; names the extra.
    """

    def __init__(self, source: StoreLike, **options: Unpack[PluginOptions]) -> None:
        super().__init__()
        self._opened: StoreResolver[ChatMessage] = StoreResolver(
            source, options=options, dangling_calls="keep", accepts=("source",)
        )

    async def get(self, session_id: str) -> AgentSession | None:
        """The session that is stored under an id, a new object each time; None when there is none.

        Raises:
            ValueError: for an empty id, or when a type that is registered for the state cannot be restored.
            StoreUnavailableError: when the server cannot be reached.
        """
        found = await self._store(session_id).latest(1)
        return AgentSession.from_dict(document_data(_KIND, found[-1].message)) if found else None

    async def set(self, session_id: str, session: AgentSession) -> None:
        """Store a session under an id, in place of the one that is stored there, in one step.

        Raises:
            ValueError: for an empty id, or a number in the state that is not finite.
            TypeError: for a subclass of `AgentSession`, or when the state holds what JSON cannot, and its
                type is not registered with the framework's `register_state_type`.
            MessageTooLargeError: when it is larger than the server can store.
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            OutcomeUnknownError: when it may or may not be stored; repeating the call is safe.
        """
        store = self._store(session_id)
        if type(session) is not AgentSession:
            raise ArgumentTypeError(f"session must be an AgentSession itself, got {type(session).__name__}")
        data = session.to_dict()
        if isinstance(data["service_session_id"], Mapping):
            data["service_session_id"] = dict(data["service_session_id"])
        await store.replace_all([document(_KIND, _ROW, json_value(data, "session"))])

    async def delete(self, session_id: str) -> None:
        """Delete the session that is stored under an id, if there is one; its conversation stays.

        Raises:
            ValueError: for an empty id.
            StoreUnavailableError: when the server cannot be reached.
        """
        await self._store(session_id).delete_thread()

    def _store(self, session_id: str) -> ChatMessageStore[ChatMessage]:
        self.validate_session_id(session_id)
        return self._opened.store(f"{escape(session_id)}#{_ROW}")
