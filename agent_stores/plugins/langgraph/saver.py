"""`AgentStoresSaver`: a checkpointer of LangGraph over any of our stores."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from typing_extensions import Unpack

from agent_stores.errors import ArgumentError
from agent_stores.plugins.blocking import blocking
from agent_stores.plugins.closing import AsyncClosing, SyncClosing
from agent_stores.plugins.langgraph.checkpoints import Checkpoints, Place
from agent_stores.plugins.langgraph.codec import GraphMessageCodec, dump, load
from agent_stores.plugins.langgraph.lists import MessageLists
from agent_stores.plugins.langgraph.records import Data, record_id
from agent_stores.plugins.langgraph.threads import GraphThreads
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver

_PAGE = 50  # checkpoints of a listing that are read at once


class AgentStoresSaver(SyncClosing, AsyncClosing, BaseCheckpointSaver[str]):
    """Checkpoints of graphs, as ``compile(checkpointer=...)`` takes them; implements every method.

    A graph's messages are rows of the thread with the graph's thread id, stored once, which other frameworks
    read and add to; checkpoints refer to them. All else is in threads whose ids begin with ``#langgraph/``.

    Args:
        store: where they are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id.
        serde: the serializer of what is not a message. By default LangGraph's, restricted to types that are
            known to be safe; a type that it does not restore raises when it is written.
        messages_channel: the channel of the outermost graph whose messages are the conversation.
        options: those of the store, for a URL or a log: ``tenant``, ``ttl``, ``ttl_refresh``,
            ``max_messages``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for wrong values. Nothing connects before the first operation.
    """

    def __init__(
        self,
        store: StoreLike,
        *,
        serde: SerializerProtocol | None = None,
        messages_channel: str = "messages",
        **options: Unpack[PluginOptions],
    ) -> None:
        super().__init__(serde=serde or JsonPlusSerializer(allowed_msgpack_modules=None))
        self._opened: StoreResolver[Any] = StoreResolver(
            store, options=options, dangling_calls="keep", accepts=("serde", "messages_channel")
        )
        self._threads = GraphThreads(self._opened, messages_channel)
        self._checkpoints = Checkpoints(self._threads, MessageLists(self._threads, GraphMessageCodec()))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the newest one; None when there is none.

        The newest has the messages that others added to the conversation since, at its end.
        """
        return await self._checkpoints.read(Place.of(config), self.serde)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; its messages first, so that it never refers to what is not there.

        Raises:
            ArgumentTypeError: for a value that the serializer does not restore; nothing of it is written.
            StoreError: as stores do; after an `OutcomeUnknownError` the call may be made again.
        """
        place = Place.of(config)
        described = get_checkpoint_metadata(config, metadata)
        await self._checkpoints.write(place, checkpoint, described, new_versions, self.serde)
        return place.config(checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote before its step ended.

        Each index is stored once; errors, interrupts and their answers replace earlier ones.
        """
        place = Place.of(config)
        records = self._threads.records(place.thread_id)
        added: dict[str, Data] = {}
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            name = record_id("w", place.namespace, place.checkpoint_id or "", task_id, str(index))
            data = {
                "path": task_path,
                "channel": channel,
                "value": dump(value, self.serde, f"a write to {channel!r}"),
            }
            if index < 0:
                await records.put(name, data)
            else:
                added[name] = data
        await records.add(added)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first.

        Args:
            config: of which thread, and of which namespace and id if it names them; None for all threads.
            filter: values that the metadata must have.
            before: only checkpoints with a lower id than this one's.
            limit: how many at most.
        """
        if limit is not None and limit <= 0:
            return
        thread_ids = [Place.of(config).thread_id] if config else await self._threads.thread_ids()
        for thread_id in thread_ids:
            async for one in self._list(thread_id, config, filter or {}, before):
                yield one
                if limit is not None:
                    limit -= 1
                    if limit == 0:
                        return

    async def _list(
        self,
        thread_id: str,
        config: RunnableConfig | None,
        filter: dict[str, Any],
        before: RunnableConfig | None,
    ) -> AsyncIterator[CheckpointTuple]:
        names = config.get("configurable", {}) if config else {}
        last = Place.of(before).checkpoint_id if before else None
        records = self._threads.records(thread_id)
        index = await records.index()
        found = sorted(
            (
                (place, name)
                for name in index
                if name.startswith("c/") and (place := Place.of_record(thread_id, name))
                if names.get("checkpoint_ns") in (None, place.namespace)
                if names.get("checkpoint_id") in (None, "", place.checkpoint_id)
                if last is None or (place.checkpoint_id or "") < last
            ),
            key=lambda item: item[0].checkpoint_id or "",
            reverse=True,
        )
        for start in range(0, len(found), _PAGE):
            page = dict(found[start : start + _PAGE])
            data = await records.at([index[name] for name in page.values()], set(page.values()))
            chosen = {
                name: data[name]
                for name in page.values()
                if name in data and _matches(load(data[name]["metadata"], self.serde), filter)
            }
            prefixes = tuple(p.writes() for p, name in page.items() if name in chosen)
            writes = {name for name in index if name.startswith("w/") and name.startswith(prefixes)}
            data |= await records.at([index[name] for name in writes], writes)
            for one in await self._checkpoints.build(thread_id, chosen, data, self.serde):
                yield one

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread: its checkpoints, and its conversation."""
        await self._threads.delete(str(thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread: its checkpoints, and its conversation.

        Raises:
            ThreadExistsError: when the target exists.
        """
        await self._threads.copy(str(source_thread_id), str(target_thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, and the messages that no other checkpoint has.

        Reads the checkpoints of all threads, since a run does not name its thread.
        """
        if wanted := set(run_ids):
            for thread_id in await self._threads.thread_ids():
                await self._checkpoints.delete_runs(thread_id, wanted, self.serde)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads.

        Args:
            thread_ids: the threads.
            strategy: ``"keep_latest"`` keeps the newest checkpoint of each namespace, with what a channel
                that stores differences needs; ``"delete"`` deletes the threads.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ArgumentError(f"strategy must be 'keep_latest' or 'delete', got {strategy!r}")
        for thread_id in map(str, thread_ids):
            if strategy == "delete":
                await self._threads.delete(thread_id)
            else:
                await self._checkpoints.keep_latest(thread_id, self.serde)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after another one; versions of different branches differ."""
        number = 0 if current is None else int(str(current).split(".")[0])
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311 - not a secret

    # -- the same, for code without an event loop ---------------------------------------------------------

    get_tuple = blocking(aget_tuple, BaseCheckpointSaver.get_tuple)
    put = blocking(aput, BaseCheckpointSaver.put)
    put_writes = blocking(aput_writes, BaseCheckpointSaver.put_writes)
    delete_thread = blocking(adelete_thread, BaseCheckpointSaver.delete_thread)
    copy_thread = blocking(acopy_thread, BaseCheckpointSaver.copy_thread)
    delete_for_runs = blocking(adelete_for_runs, BaseCheckpointSaver.delete_for_runs)
    prune = blocking(aprune, BaseCheckpointSaver.prune)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """See `alist`; blocks."""

        async def read() -> Sequence[CheckpointTuple]:
            return [one async for one in self.alist(config, filter=filter, before=before, limit=limit)]

        yield from self._opened.wait(read())


def _matches(metadata: CheckpointMetadata, filter: dict[str, Any]) -> bool:
    return all(metadata.get(name) == value for name, value in filter.items())
