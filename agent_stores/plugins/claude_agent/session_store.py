"""`AgentStoresSessionStore`: a session store of the Claude Agent SDK over any of our stores."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timezone
from typing import Any, cast

from claude_agent_sdk import SessionStore, fold_session_summary
from claude_agent_sdk.types import (
    SessionKey,
    SessionListSubkeysKey,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
)
from typing_extensions import Unpack

from agent_stores.errors import ArgumentError, ConflictError, StoreError
from agent_stores.listing import ThreadStats
from agent_stores.messages import ChatMessage
from agent_stores.plugins.claude_agent.codec import FRAMEWORK, TranscriptEntryCodec
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.json_codec import Data
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.plugins.thread_ids import escape
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import identifier

logger = logging.getLogger("agent_stores")

_ATTEMPTS = 16  # to write a summary while other clients write it, too


class AgentStoresSessionStore(AsyncClosing, SessionStore):
    """Sessions as ``ClaudeAgentOptions(session_store=...)`` takes them; implements every method.

    A session is the thread ``{project_key}/{session_id}``, each entry a row of it; a transcript of a subagent
    is the thread ``{project_key}#{session_id}#{subpath}``. (In the names before the last, ``%``, ``/`` and
    ``#`` are escaped.) The session's summary is in the thread's metadata, so that listing reads no entries.

    Args:
        store: where they are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id.
        options: those of the store, for a URL or a log: ``tenant``, ``ttl``, ``ttl_refresh``,
            ``max_messages``, ``window`` (what `load` returns), ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for wrong values. Nothing connects before the first operation.
    """

    def __init__(self, store: StoreLike, **options: Unpack[PluginOptions]) -> None:
        self._codec = TranscriptEntryCodec()
        self._opened: StoreResolver[Any] = StoreResolver(
            store, codec=self._codec, options=options, dangling_calls="keep"
        )

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add entries at the end of a transcript, all or none.

        An entry whose ``uuid`` is in the transcript is not added again; entries without one always are,
        except when a call whose outcome is unknown is repeated with the same objects.

        Raises:
            StoreUnavailableError, StoreRejectedError, MessageTooLargeError: when nothing was written.
            OutcomeUnknownError: when they may or may not be stored; adding them again is safe.
        """
        if not entries:
            return
        store = self._opened.store(_thread_id(key))
        await store.add_messages(list(entries))
        if key.get("subpath") is None:
            try:
                await self._summarize(key, store)
            except StoreError as error:  # the entries are stored, and the next call folds them, too
                logger.warning("the summary of session %r is not up to date: %s", key["session_id"], error)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """The entries of a transcript, in order, as they were appended; None when there are none.

        Messages that another framework added are shown as entries that follow the previous one.
        """
        messages = await self._opened.neutral(_thread_id(key)).list_messages()
        return cast("list[SessionStoreEntry]", self._entries(key, messages)) or None

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, with the time of their last write; reads no entries."""
        return [
            {"session_id": session_id, "mtime": _milliseconds(stats)}
            async for session_id, stats in self._sessions(project_key)
        ]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """The summaries of a project's sessions; reads no entries.

        Sessions are left out whose summary does not cover all entries, so that the SDK reads those.
        """
        return [
            {"session_id": session_id, "mtime": _milliseconds(stats), "data": kept["summary"]}
            async for session_id, stats in self._sessions(project_key)
            if (kept := _kept(stats)).get("position") == stats.last_position and "summary" in kept
        ]

    async def delete(self, key: SessionKey) -> None:
        """Delete a session with all its subagents' transcripts, or one of these alone."""
        store = self._opened.store(_thread_id(key))
        if key.get("subpath") is None:
            prefix = _subkey_prefix(key)
            async for stats in self._threads(prefix):
                await store.delete_thread(stats.thread_id)
        await store.delete_thread()

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The subpaths of a session's subagents."""
        prefix = _subkey_prefix(key)
        return [stats.thread_id[len(prefix) :] async for stats in self._threads(prefix)]

    async def _summarize(self, key: SessionKey, store: ChatMessageStore[Any]) -> None:
        """Fold the entries that the summary does not cover into it, under the metadata's revision."""
        neutral = self._opened.neutral(store.thread_id)
        for _ in range(_ATTEMPTS):
            stats = await store.stats()
            kept = _kept(stats)
            if kept.get("too_large"):
                return
            position = kept.get("position", 0)
            stored = [found async for found in neutral.iter_messages(after=position)]
            if not stored:
                return
            previous: SessionSummaryEntry | None = None
            if "summary" in kept:
                previous = {"session_id": key["session_id"], "mtime": 0, "data": kept["summary"]}
            entries = self._entries(key, [found.message for found in stored])
            folded = fold_session_summary(previous, key, cast("list[SessionStoreEntry]", entries))
            new: Data = {"summary": folded["data"], "position": stored[-1].position}
            try:
                await store.update_metadata({FRAMEWORK: new}, expected_revision=stats.revision)
            except ConflictError:
                continue
            except ArgumentError:  # more than the metadata of a thread can hold
                await store.update_metadata({FRAMEWORK: {"too_large": True}})
            return

    def _entries(self, key: SessionKey, messages: Sequence[ChatMessage]) -> list[Data]:
        entries: list[Data] = []
        parent: str | None = None
        for message in messages:
            found = self._codec.json.decode(message)
            if found is None:
                continue
            entry = found.data if found.exact else _linked(found.data, message, key["session_id"], parent)
            parent = entry.get("uuid") or parent
            entries.append(entry)
        return entries

    async def _sessions(self, project_key: str) -> AsyncIterator[tuple[str, ThreadStats]]:
        prefix = f"{escape(identifier('project_key', project_key))}/"
        async for stats in self._threads(prefix):
            yield stats.thread_id[len(prefix) :], stats

    async def _threads(self, prefix: str) -> AsyncIterator[ThreadStats]:
        """The threads with messages whose ids begin with a prefix."""
        async for stats in self._opened.threads(prefix):
            if stats.messages:
                yield stats


def _thread_id(key: SessionKey) -> str:
    project_key = identifier("project_key", key["project_key"])
    session_id = identifier("session_id", key["session_id"])
    if "subpath" in key:
        return _subkey_prefix(key) + identifier("subpath", key["subpath"])
    return f"{escape(project_key)}/{session_id}"


def _subkey_prefix(key: SessionKey | SessionListSubkeysKey) -> str:
    return f"{escape(key['project_key'])}#{escape(key['session_id'])}#"


def _kept(stats: ThreadStats) -> Data:
    kept = stats.metadata.get(FRAMEWORK)
    return kept if isinstance(kept, dict) else {}


def _milliseconds(stats: ThreadStats) -> int:
    return round(stats.updated_at.timestamp() * 1000) if stats.updated_at else 0


def _linked(data: Data, message: ChatMessage, session_id: str, parent: str | None) -> Data:
    """The entry of another framework's message: what Claude needs to see it in the conversation."""
    created_at = message.created_at or datetime.now(timezone.utc)
    timestamp = created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "parentUuid": parent,
        "isSidechain": False,
        "userType": "external",
        "sessionId": session_id,
        **data,
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"agent-stores:{message.message_id}")),
        "timestamp": timestamp,
    }
