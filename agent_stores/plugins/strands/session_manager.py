"""`AgentStoresSessionManager`: a session manager of Strands over any of our stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strands.session import RepositorySessionManager, SessionRepository
from strands.types.exceptions import SessionException
from strands.types.session import (
    Session,
    SessionAgent,
    SessionMessage,
    decode_bytes_values,
    encode_bytes_values,
)
from typing_extensions import Unpack

from agent_stores.errors import ConflictError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.closing import SyncClosing
from agent_stores.plugins.json_codec import Data
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.plugins.strands.codec import StrandsMessageCodec
from agent_stores.plugins.strands.state import SessionState, thread_of_agent
from agent_stores.plugins.thread_ids import escape
from agent_stores.store import StoredMessage
from agent_stores.store_options import identifier

if TYPE_CHECKING:
    from strands.multiagent import MultiAgentBase

_SESSION = "session"
_AGENT = "agent"


class AgentStoresSessionManager(SyncClosing, RepositorySessionManager, SessionRepository):
    """A session as ``Agent(session_manager=...)`` takes it, and the repository of sessions below it.

    The messages of the agent with the default id are the thread `session_id`, each message a row of it; those
    of another agent are the thread ``{session_id}#{agent_id}``. What is not a message is in the metadata of
    these threads. Methods block, as those of Strands' own managers do.

    Args:
        session_id: the session.
        store: where sessions are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes
            the store of a thread id.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for wrong values.
        StoreUnavailableError: when the server cannot be reached; the session is read here.
    """

    def __init__(self, session_id: str, store: StoreLike, **options: Unpack[PluginOptions]) -> None:
        self._codec = StrandsMessageCodec()
        self._opened: StoreResolver[Any] = StoreResolver(
            store, codec=self._codec, options=options, dangling_calls="keep"
        )
        self._state = SessionState(self._opened)
        super().__init__(session_id=identifier("session_id", session_id), session_repository=self)

    def initialize(self, agent: Any, **kwargs: Any) -> None:
        """Restore an agent; messages that another framework stored in its thread are part of its history."""
        if self.read_agent(self.session_id, agent.agent_id) is None and self._has_messages(agent.agent_id):
            self.create_agent(self.session_id, SessionAgent.from_agent(agent))
            self._is_new_session = False
        super().initialize(agent, **kwargs)

    # -- sessions and agents ------------------------------------------------------------------------------

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        """Create a session.

        Raises:
            SessionException: when it exists.
        """
        if self.read_session(session.session_id) is not None:
            raise SessionException(f"Session {session.session_id} already exists")
        self._write(session.session_id, "default", _SESSION, session.to_dict())
        return session

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        """The session, or None."""
        found = self._read(session_id, "default", _SESSION)
        return None if found is None else Session.from_dict(found)

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        """Delete a session with all that belongs to it.

        Raises:
            SessionException: when there is none.
        """
        if self.read_session(session_id) is None:
            raise SessionException(f"Session {session_id} does not exist")
        self._opened.wait(self._delete(escape(session_id, "#")))

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Store an agent's state."""
        self._write(session_id, session_agent.agent_id, _AGENT, session_agent.to_dict())

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        """An agent's state, or None."""
        found = self._read(session_id, agent_id, _AGENT)
        return None if found is None else SessionAgent.from_dict(found)

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Replace an agent's state.

        Raises:
            SessionException: when there is none.
        """
        previous = self.read_agent(session_id, session_agent.agent_id)
        if previous is None:
            raise SessionException(f"Agent {session_agent.agent_id} in session {session_id} does not exist")
        session_agent.created_at = previous.created_at
        self.create_agent(session_id, session_agent)

    # -- messages -----------------------------------------------------------------------------------------

    def create_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        """Add a message at the end of an agent's messages; adding it again changes nothing.

        Its id becomes the index of its row, which differs from the one that it has only if another client
        wrote to the thread: no message replaces another one.
        """
        self._opened.wait(self._add(thread_of_agent(session_id, agent_id), session_message))

    def read_message(
        self, session_id: str, agent_id: str, message_id: int, **kwargs: Any
    ) -> SessionMessage | None:
        """The message with an id, or None."""
        stored = self._stored(session_id, agent_id, message_id)
        return next(iter(self._codec.from_stored(stored)), None)

    def update_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        """Replace the message with that id.

        Raises:
            SessionException: when there is none.
        """
        stored = self._stored(session_id, agent_id, session_message.message_id)
        if not stored:
            raise SessionException(f"Message {session_message.message_id} does not exist")
        for previous in self._codec.from_stored(stored):
            session_message.created_at = previous.created_at
        store = self._opened.store(thread_of_agent(session_id, agent_id))
        self._opened.wait(store.replace(stored[0].message.message_id or "", session_message))

    def list_messages(
        self, session_id: str, agent_id: str, limit: int | None = None, offset: int = 0, **kwargs: Any
    ) -> list[SessionMessage]:
        """An agent's messages, in order.

        Args:
            session_id: the session.
            agent_id: the agent.
            limit: how many at most.
            offset: only messages with at least this id. Messages that the store has trimmed count.
            kwargs: not used.

        Raises:
            SessionException: when there is no such agent.
        """
        thread_id = thread_of_agent(session_id, agent_id)
        found = self._codec.from_stored(self._opened.wait(self._all(thread_id, after=offset)))
        if not found and self.read_agent(session_id, agent_id) is None:
            raise SessionException(f"Messages missing from agent: {agent_id} in session {session_id}")
        return found if limit is None else found[:limit]

    # -- multi-agent systems ------------------------------------------------------------------------------

    def create_multi_agent(self, session_id: str, multi_agent: MultiAgentBase, **kwargs: Any) -> None:
        """Store the state of a graph or swarm."""
        state = encode_bytes_values(multi_agent.serialize_state())
        self._write(session_id, "default", f"multi_agent.{multi_agent.id}", state)

    def read_multi_agent(self, session_id: str, multi_agent_id: str, **kwargs: Any) -> dict[str, Any] | None:
        """The state of a graph or swarm, or None."""
        found = self._read(session_id, "default", f"multi_agent.{multi_agent_id}")
        return None if found is None else dict(decode_bytes_values(found))

    def update_multi_agent(self, session_id: str, multi_agent: MultiAgentBase, **kwargs: Any) -> None:
        """Replace the state of a graph or swarm.

        Raises:
            SessionException: when there is none.
        """
        if self.read_multi_agent(session_id, multi_agent.id) is None:
            raise SessionException(
                f"MultiAgent state {multi_agent.id} in session {session_id} does not exist"
            )
        self.create_multi_agent(session_id, multi_agent)

    # -- below --------------------------------------------------------------------------------------------

    def _has_messages(self, agent_id: str) -> bool:
        thread_id = thread_of_agent(self.session_id, agent_id)
        return self._opened.wait(self._opened.store(thread_id).count()) > 0

    def _read(self, session_id: str, agent_id: str, name: str) -> Data | None:
        return self._opened.wait(self._state.read(session_id, thread_of_agent(session_id, agent_id), name))

    def _write(self, session_id: str, agent_id: str, name: str, value: Data) -> None:
        thread_id = thread_of_agent(session_id, agent_id)
        self._opened.wait(self._state.write(session_id, thread_id, name, value))

    def _stored(self, session_id: str, agent_id: str, message_id: int) -> list[StoredMessage[ChatMessage]]:
        """The row of a message; empty when there is none."""
        if not isinstance(message_id, int):
            raise ValueError(f"message_id=<{message_id}> | message id must be an integer")
        thread_id = thread_of_agent(session_id, agent_id)
        if message_id < 0:
            return []
        return self._opened.wait(self._all(thread_id, after=message_id, before=message_id + 2))

    async def _all(self, thread_id: str, **bounds: int) -> list[StoredMessage[ChatMessage]]:
        return [stored async for stored in self._opened.neutral(thread_id).iter_messages(**bounds)]

    async def _add(self, thread_id: str, message: SessionMessage) -> None:
        store = self._opened.neutral(thread_id)
        ours = self._codec.to_chat_message(message)
        while True:
            try:
                await store.add_messages([ours], expected_position=message.message_id)
            except ConflictError as conflict:
                if conflict.actual is None:
                    raise
                message.message_id = conflict.actual  # the index of the next row
            else:
                return

    async def _delete(self, thread_id: str) -> None:
        store = self._opened.store(thread_id)
        for found in [stats.thread_id async for stats in self._opened.threads(f"{thread_id}#")]:
            await store.delete_thread(found)
        await store.delete_thread()
