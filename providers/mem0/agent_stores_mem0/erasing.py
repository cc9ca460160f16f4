"""Erasing what mem0 remembers of a user, or of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent_stores import ArgumentError, ContextProviderError
from agent_stores_mem0.background import BackgroundWriter
from agent_stores_mem0.clients import Connection
from agent_stores_mem0.scopes import Entities, Scope

_BATCH = 100  # memories that are listed, and deleted, at once
_PARALLEL_DELETES = 8
_COUNTED = 1_000_000  # memories that are counted at most


class ErasesMemories:
    """The part of `Mem0Provider` that erases; implements `agent_stores.Erasable`."""

    _connection: Connection
    _storing: Scope
    _is_per_thread: bool
    _writer: BackgroundWriter
    _close_timeout: float

    async def erase(self, thread_ids: Sequence[str] = (), *, dry_run: bool = False) -> int:
        """Delete all memories of the user, or without a user those of the threads; returns how many.

        Of a user, the memories of all threads and agents go; `application_id` narrows both, as what the user
        told other applications stays. Turns that wait to be stored are stored first.

        Args:
            thread_ids: the threads, for a provider that is scoped to the thread of each run.
            dry_run: only count.

        Raises:
            ArgumentError: without a user and a thread; the memories are then shared.
            ContextProviderError: when mem0 fails; its own text is left out, as it may repeat memories.
        """
        partitions = self._erased(thread_ids)
        if not dry_run:
            await self._writer.flush(seconds=self._close_timeout)
        count = 0
        try:
            for entities in partitions:
                count += await self._erase(entities, dry_run)
        except Exception as error:
            raise ContextProviderError(
                f"mem0 could not erase all memories: {type(error).__name__}; erase() can be called again"
            ) from None
        return count

    def _erased(self, thread_ids: Sequence[str]) -> list[Entities]:
        scope = self._storing
        narrow = Scope(application_id=scope.application_id)
        if scope.user_id is not None:
            return [narrow._replace(user_id=scope.user_id).entities()]
        if not self._is_per_thread and scope.thread_id is None:
            raise ArgumentError("user_id or thread_id must be given to erase: other memories are shared")
        names = [scope.thread_id] if scope.thread_id is not None else thread_ids
        return [narrow._replace(thread_id=name).entities() for name in names]

    async def _erase(self, entities: Entities, dry_run: bool) -> int:
        api = await self._connection.get()
        if dry_run:
            return len(await api.ids(entities, limit=_COUNTED))
        deleted: set[str] = set()
        while ids := set(await api.ids(entities, limit=_BATCH)) - deleted:
            waiting = sorted(ids)
            for start in range(0, len(waiting), _PARALLEL_DELETES):
                await asyncio.gather(*map(api.delete, waiting[start : start + _PARALLEL_DELETES]))
            deleted |= ids
        return len(deleted)
