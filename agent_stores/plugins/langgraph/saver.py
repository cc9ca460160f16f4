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

from agent_stores._recent import RecentDict
from agent_stores.errors import ArgumentError
from agent_stores.plugins.blocking import blocking
from agent_stores.plugins.closing import AsyncClosing, SyncClosing
from agent_stores.plugins.langchain.codec import LangChainCodec
from agent_stores.plugins.langgraph.codec import GraphCodec
from agent_stores.plugins.langgraph.lists import CACHED, Snapshots
from agent_stores.plugins.langgraph.records import Data, record_id
from agent_stores.plugins.langgraph.thread import GraphThread, graph_thread_ids
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver


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
        self._channel = messages_channel
        self._messages = LangChainCodec()
        self._snapshots: Snapshots = RecentDict(CACHED)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the newest one; None when there is none.

        The newest has the messages that others added to the conversation since, at its end.
        """
        thread, namespace, checkpoint_id = self._place(config)
        return await thread.read(namespace, checkpoint_id)

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
        thread, namespace, parent_id = self._place(config)
        described = get_checkpoint_metadata(config, metadata)
        await thread.write(namespace, parent_id, checkpoint, described, new_versions)
        return thread.config(namespace, checkpoint["id"])

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
        thread, namespace, checkpoint_id = self._place(config)
        codec, records = self._codec(), thread.records
        added: dict[str, Data] = {}
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            name = record_id("w", namespace, checkpoint_id or "", task_id, str(index))
            typed = codec.dump(value, f"a write to {channel!r}")
            data = {"path": task_path, "channel": channel, "value": typed}
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
        wanted = config.get("configurable", {}) if config else {}
        last = before.get("configurable", {}).get("checkpoint_id") if before else None
        thread_ids = [wanted["thread_id"]] if config else await graph_thread_ids(self._opened)
        for thread_id in thread_ids:
            async for one in self._thread(thread_id).checkpoints(wanted, filter or {}, last or None):
                yield one
                if limit is not None:
                    limit -= 1
                    if limit == 0:
                        return

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread: its checkpoints, and its conversation."""
        await self._thread(thread_id).delete()

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread: its checkpoints, and its conversation.

        Raises:
            ThreadExistsError: when the target exists.
        """
        await self._thread(source_thread_id).copy(self._thread(target_thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, and the messages that no other checkpoint has.

        Reads the checkpoints of all threads, since a run does not name its thread.
        """
        if wanted := set(run_ids):
            for thread_id in await graph_thread_ids(self._opened):
                await self._thread(thread_id).delete_runs(wanted)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads.

        Args:
            thread_ids: the threads.
            strategy: ``"keep_latest"`` keeps the newest checkpoint of each namespace, with what a channel
                that stores differences needs; ``"delete"`` deletes the threads.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ArgumentError(f"strategy must be 'keep_latest' or 'delete', got {strategy!r}")
        for thread in map(self._thread, thread_ids):
            await (thread.delete() if strategy == "delete" else thread.keep_latest())

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

    def _codec(self) -> GraphCodec:
        return GraphCodec(self.serde, self._messages)

    def _thread(self, thread_id: Any) -> GraphThread:
        return GraphThread(self._opened, str(thread_id), self._channel, self._codec(), self._snapshots)

    def _place(self, config: RunnableConfig) -> tuple[GraphThread, str, str | None]:
        """The thread, the namespace and the checkpoint that a config names; None for the newest one."""
        names = config.get("configurable", {})
        thread = self._thread(names["thread_id"])
        return thread, names.get("checkpoint_ns") or "", names.get("checkpoint_id") or None
