"""The threads of one thread of a graph: the conversation, other lists of messages, and the records."""

from __future__ import annotations

from typing import Any, NamedTuple

from agent_stores.backend import ThreadKey
from agent_stores.errors import ArgumentError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.langgraph.records import Records, record_id
from agent_stores.plugins.store_resolver import StoreResolver
from agent_stores.plugins.thread_ids import escape, unescape
from agent_stores.store import ChatMessageStore

PREFIX = "#langgraph/"
"""Begins the ids of all threads that are no conversations."""


class ListKey(NamedTuple):
    """Names a list of messages.

    Attributes:
        thread_id: the graph's thread.
        namespace: the (sub)graph.
        channel: the channel that holds it.
    """

    thread_id: str
    namespace: str
    channel: str


class GraphThreads:
    """Finds the threads of a graph's threads.

    The conversation is the thread of the same id; the records are ``#langgraph/{thread}``; another list of
    messages is ``#langgraph/{thread}/{namespace}/{channel}``. In these names ``%``, ``/`` and ``#`` are
    escaped.

    Args:
        opened: the stores.
        channel: the channel whose messages are the conversation.
    """

    def __init__(self, opened: StoreResolver[Any], channel: str) -> None:
        self._opened = opened
        self.channel = channel
        """The channel whose messages are the conversation."""

    def records(self, thread_id: str) -> Records:
        """The records of a thread."""
        store = self._conversation(thread_id)
        return Records(store.log, ThreadKey(store.tenant, records_id(thread_id)), store._settings.ttl)

    def is_conversation(self, key: ListKey) -> bool:
        """Whether a list of messages is the conversation."""
        return key.namespace == "" and key.channel == self.channel

    def messages(self, key: ListKey) -> ChatMessageStore[ChatMessage]:
        """The thread of a list of messages."""
        if self.is_conversation(key):
            return self._conversation(key.thread_id)
        return self._opened.neutral(_list_id(key))

    def moved_id(self, key: ListKey, position: int) -> str:
        """The id of the record that holds a row which left the thread of a list."""
        return record_id("m", "" if self.is_conversation(key) else _list_id(key), str(position))

    async def parts(self, thread_id: str) -> list[str]:
        """The ids of the threads that exist for a thread, the conversation last."""
        prefix = records_id(thread_id)
        names = [stats.thread_id async for stats in self._opened.threads(prefix)]
        return [*(name for name in names if name == prefix or name[len(prefix)] == "/"), thread_id]

    async def thread_ids(self) -> list[str]:
        """The ids of all threads of graphs."""
        names = [stats.thread_id async for stats in self._opened.threads(PREFIX)]
        return [unescape(name.removeprefix(PREFIX)) for name in names if name.count("/") == 1]

    async def delete(self, thread_id: str) -> None:
        """Delete a thread with all that belongs to it."""
        store = self._conversation(thread_id)
        for part in await self.parts(thread_id):
            await store.delete_thread(part)

    async def copy(self, thread_id: str, new_thread_id: str) -> None:
        """Copy all that belongs to a thread; the records, which make it one, last."""
        store = self._conversation(thread_id)
        self._conversation(new_thread_id)
        old, new = records_id(thread_id), records_id(new_thread_id)
        for part in reversed(await self.parts(thread_id)):
            target = new_thread_id if part == thread_id else new + part.removeprefix(old)
            if await store.log.stats(ThreadKey(store.tenant, part)) is not None:
                await store.log.fork(ThreadKey(store.tenant, part), ThreadKey(store.tenant, target))

    def _conversation(self, thread_id: str) -> ChatMessageStore[ChatMessage]:
        if thread_id.startswith(PREFIX):
            raise ArgumentError(f"thread_id must not begin with {PREFIX!r}, got {thread_id!r}")
        return self._opened.neutral(thread_id)


def records_id(thread_id: str) -> str:
    """The thread id of a thread's records."""
    return f"{PREFIX}{escape(thread_id)}"


def _list_id(key: ListKey) -> str:
    return f"{records_id(key.thread_id)}/{escape(key.namespace)}/{escape(key.channel)}"
