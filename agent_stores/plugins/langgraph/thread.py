"""`GraphThread`: reads, writes and deletes the checkpoints of one thread of a graph."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple, writes_sort_key

from agent_stores.backend import ThreadKey
from agent_stores.errors import ArgumentError
from agent_stores.plugins.langgraph.codec import GraphCodec, is_message_list
from agent_stores.plugins.langgraph.lists import MessageList, Reference, Snapshots
from agent_stores.plugins.langgraph.records import Data, Records, data_of, record_id
from agent_stores.plugins.store_resolver import StoreResolver
from agent_stores.plugins.thread_ids import escape, unescape

PREFIX = "#langgraph/"
"""Begins the ids of all threads that are no conversations."""

_BEGINNING = "00000000-0000-6000-8000-000000000000"
"""The id of the checkpoint that a conversation has before a graph writes to it."""

_INLINE = 256  # characters; larger values are records of their own, so that steps that keep them share them
_PAGE = 50  # checkpoints of a listing that are read at once


class GraphThread:
    """One thread of a graph.

    The conversation is the thread of the same id; the records are ``#langgraph/{thread}``; another list of
    messages is ``#langgraph/{thread}/{namespace}/{channel}``. In these names ``%``, ``/`` and ``#`` are
    escaped. A checkpoint is named by the id of its record.

    Args:
        opened: the stores.
        thread_id: the thread.
        channel: the channel of the outermost graph whose messages are the conversation.
        codec: converts what the graph's state holds.
        snapshots: what is known of lists of messages.

    Raises:
        ArgumentError: for an id that is reserved.
    """

    def __init__(
        self,
        opened: StoreResolver[Any],
        thread_id: str,
        channel: str,
        codec: GraphCodec,
        snapshots: Snapshots,
    ) -> None:
        if thread_id.startswith(PREFIX):
            raise ArgumentError(f"thread_id must not begin with {PREFIX!r}, got {thread_id!r}")
        self._opened = opened
        self._thread_id = thread_id
        self._store = opened.neutral(thread_id)
        self._channel = channel
        self._codec = codec
        self._snapshots = snapshots
        self._own_prefix = PREFIX + escape(thread_id)
        self.records = Records(self._store, self._own_prefix)

    def config(self, namespace: str, checkpoint_id: str) -> RunnableConfig:
        """The config that names a checkpoint."""
        return {
            "configurable": {
                "thread_id": self._thread_id,
                "checkpoint_ns": namespace,
                "checkpoint_id": checkpoint_id,
            }
        }

    # -- writing and reading ------------------------------------------------------------------------------

    async def write(
        self,
        namespace: str,
        parent_id: str | None,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        changed: Collection[str],
    ) -> None:
        """Store a checkpoint.

        Args:
            namespace: the (sub)graph.
            parent_id: the id of the checkpoint before it.
            checkpoint: the checkpoint.
            metadata: what it is.
            changed: the channels that have other values than in the one before it.
        """
        if parent_id == _BEGINNING:
            parent_id = None
        channels = checkpoint["channel_values"]
        parent: Data = {}
        if parent_id is not None and any(map(is_message_list, channels.values())):
            name = record_id("c", namespace, parent_id)
            parent = (await self.records.get([name])).get(name, {})
        data: Data = {"parent": parent_id, "values": {}, "stored": {}, "lists": {}}
        values: dict[str, Data] = {}
        for channel, value in channels.items():
            if is_message_list(value):
                kept = parent.get("lists", {}).get(channel)
                before = None if kept is None else Reference(*kept)
                data["lists"][channel] = list(await self._list(namespace, channel).write(value, before))
                continue
            typed = self._codec.dump(value, f"the channel {channel!r}")
            version = checkpoint["channel_versions"].get(channel)
            if len(typed[1]) <= _INLINE or version is None:
                data["values"][channel] = typed
                continue
            name = data["stored"][channel] = record_id("b", namespace, channel, str(version))
            if channel in changed:
                values[name] = {"value": typed}
        rest = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        data["checkpoint"] = self._codec.dump(rest, "the checkpoint")
        data["metadata"] = self._codec.dump(metadata, "the metadata")
        await self.records.add({**values, record_id("c", namespace, checkpoint["id"]): data})

    async def read(self, namespace: str, checkpoint_id: str | None) -> CheckpointTuple | None:
        """A checkpoint, or the newest for None; None when there is none."""
        if checkpoint_id is None:
            prefix = record_id("c", namespace, "")
            rows = await self.records.newest(prefix)
            name = max((one for one in rows if one.startswith(prefix)), default=prefix + _BEGINNING)
            found = {one: data_of(rows[one]) for one in _with_writes({name}, rows)}
            stored = found[name]["stored"].values() if name in found else ()
            found |= {one: data_of(rows[one]) for one in stored if one in rows}
        else:
            name = record_id("c", namespace, checkpoint_id)
            index = await self.records.index()
            found = await self.records.at({one: index[one] for one in _with_writes({name}, index)})
        if name in found:
            (one,) = await self._build([name], found, with_new=checkpoint_id is None)
            return one
        return await self._beginning(found) if name == record_id("c", "", _BEGINNING) else None

    async def checkpoints(
        self, wanted: Mapping[str, Any], filter: Mapping[str, Any], before: str | None
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first.

        Args:
            wanted: the namespace and the id that they must have, if they are there, as a config has them.
            filter: values that the metadata must have.
            before: only checkpoints with a lower id.
        """
        index = await self.records.index()
        names = {name: _parse(name) for name in index if name.startswith("c/")}
        chosen = [
            name
            for name, (namespace, checkpoint_id) in names.items()
            if wanted.get("checkpoint_ns") in (None, namespace)
            and wanted.get("checkpoint_id") in (None, "", checkpoint_id)
            and (before is None or checkpoint_id < before)
        ]
        chosen.sort(key=lambda name: names[name][1], reverse=True)
        for start in range(0, len(chosen), _PAGE):
            page = chosen[start : start + _PAGE]
            found = await self.records.at({name: index[name] for name in page})
            page = [name for name in page if name in found and self._matches(found[name], filter)]
            writes = _with_writes(set(page), index) - found.keys()
            found |= await self.records.at({one: index[one] for one in writes})
            for one in await self._build(page, found):
                yield one

    async def _build(
        self, names: Collection[str], found: Mapping[str, Data], *, with_new: bool = False
    ) -> list[CheckpointTuple]:
        """Checkpoints, from their records and those of their writes, and others that were read.

        With what others added to the conversation since, if `with_new`.
        """
        load = self._codec.load
        stored = {one for name in names for one in found[name]["stored"].values()}
        found = {**found, **await self.records.get(stored - found.keys())}
        lists = await self._restore(names, found, with_new=with_new)
        tuples = []
        for name in names:
            data, (namespace, checkpoint_id) = found[name], _parse(name)
            channels = {channel: load(typed) for channel, typed in data["values"].items()}
            for channel, one in data["stored"].items():
                if one in found:
                    channels[channel] = load(found[one]["value"])
            channels |= {channel: lists[name, channel] for channel in data["lists"]}
            checkpoint = cast("Checkpoint", {**load(data["checkpoint"]), "channel_values": channels})
            parent_id = data["parent"]
            tuples.append(
                CheckpointTuple(
                    self.config(namespace, checkpoint_id),
                    checkpoint,
                    load(data["metadata"]),
                    None if parent_id is None else self.config(namespace, parent_id),
                    self._writes(name, found),
                )
            )
        return tuples

    async def _restore(
        self, names: Collection[str], found: Mapping[str, Data], *, with_new: bool
    ) -> dict[tuple[str, str], list[BaseMessage]]:
        """The lists of checkpoints, by checkpoint and channel."""
        wanted: dict[tuple[str, str], dict[str, Reference]] = {}
        for name in names:
            for channel, kept in found[name]["lists"].items():
                wanted.setdefault((_parse(name)[0], channel), {})[name] = Reference(*kept)
        lists = {}
        for (namespace, channel), references in wanted.items():
            new = with_new and self._is_conversation(namespace, channel)
            restored = await self._list(namespace, channel).restore([*references.values()], with_new=new)
            lists.update({(name, channel): one for name, one in zip(references, restored, strict=True)})
        return lists

    async def _beginning(self, found: Mapping[str, Data]) -> CheckpointTuple | None:
        """The conversation that others began, as a checkpoint without a past."""
        conversation = self._list("", self._channel)
        items = await conversation.read()
        shown = conversation.decode(item for item in items if not item.own)
        if not shown:
            return None
        created = items[0].message.created_at
        checkpoint: dict[str, Any] = {
            "v": 4,
            "id": _BEGINNING,
            "ts": created.isoformat() if created else "1970-01-01T00:00:00+00:00",
            "channel_values": {self._channel: shown},
            "channel_versions": {self._channel: f"{1:032}.{0:016}"},
            "versions_seen": {},
            "updated_channels": None,
        }
        return CheckpointTuple(
            self.config("", _BEGINNING),
            cast("Checkpoint", checkpoint),
            {"source": "update", "step": -2, "parents": {}},
            None,
            self._writes(record_id("c", "", _BEGINNING), found),
        )

    def _writes(self, name: str, found: Mapping[str, Data]) -> list[tuple[str, str, Any]]:
        """The pending writes of a checkpoint, in the order in which they are applied."""
        prefix = f"w{name[1:]}/"
        writes = []
        for one, data in found.items():
            if one.startswith(prefix):
                task, index = map(unescape, one.removeprefix(prefix).split("/"))
                writes.append((writes_sort_key(data["path"], task, int(index)), task, data))
        writes.sort(key=lambda write: write[0])
        return [(task, data["channel"], self._codec.load(data["value"])) for _, task, data in writes]

    def _matches(self, data: Data, filter: Mapping[str, Any]) -> bool:
        metadata = self._codec.load(data["metadata"])
        return all(metadata.get(name) == value for name, value in filter.items())

    # -- deleting and copying -----------------------------------------------------------------------------

    async def delete_runs(self, run_ids: Collection[str]) -> None:
        """Delete the checkpoints of runs."""
        index, found = await self._all()
        runs = {name: self._codec.load(data["metadata"]).get("run_id") for name, data in found.items()}
        await self._keep({name for name, run in runs.items() if run not in run_ids}, index, found)

    async def keep_latest(self) -> None:
        """Delete all checkpoints but the newest of each namespace, and those that it is rebuilt from."""
        index, found = await self._all()
        newest = {_parse(name)[0]: name for name in sorted(found)}
        keep = {one for name in newest.values() for one in self._with_ancestors(name, found)}
        await self._keep(keep, index, found)

    async def delete(self) -> None:
        """Delete the thread with all that belongs to it."""
        for thread_id in await self._thread_ids():
            await self._store.delete_thread(thread_id)

    async def copy(self, target: GraphThread) -> None:
        """Copy all that belongs to the thread; the records, which make it one, last."""
        log, tenant = self._store.log, self._store.tenant
        for thread_id in reversed(await self._thread_ids()):
            new_id = target._thread_id
            if thread_id != self._thread_id:
                new_id = target._own_prefix + thread_id.removeprefix(self._own_prefix)
            if await log.stats(ThreadKey(tenant, thread_id)) is not None:
                await log.fork(ThreadKey(tenant, thread_id), ThreadKey(tenant, new_id))

    async def _all(self) -> tuple[dict[str, int], dict[str, Data]]:
        """The positions of all records, and the checkpoints."""
        index = await self.records.index()
        return index, await self.records.at({name: n for name, n in index.items() if name.startswith("c/")})

    async def _keep(self, keep: Collection[str], index: Iterable[str], found: Mapping[str, Data]) -> None:
        """Delete all checkpoints but some, and what only those that go need."""
        if len(keep) == len(found):
            return
        needed = _with_writes(keep, index)
        held: dict[tuple[str, str], set[int]] = {}
        for name, data in found.items():
            for channel, kept in data["lists"].items():
                used = held.setdefault((_parse(name)[0], channel), set())
                used.update(Reference(*kept).positions() if name in keep else ())
        for name in keep:
            needed.update(found[name]["stored"].values())
        for (namespace, channel), used in held.items():
            messages = self._list(namespace, channel)
            needed.update(map(messages.moved_id, used))
            await messages.keep_only(used)
        # The checkpoints go last: a call that is interrupted can be made again.
        gone = sorted((name for name in index if name not in needed), key=lambda name: name.startswith("c/"))
        await self.records.delete(gone)

    def _with_ancestors(self, name: str, found: Mapping[str, Data]) -> set[str]:
        """A checkpoint, and those before it from which a channel that stores differences is rebuilt."""
        keep = {name}
        metadata = self._codec.load(found[name]["metadata"])
        wanted = set(metadata.get("counters_since_delta_snapshot") or ())
        while True:
            data = found[name]
            wanted -= {*data["values"], *data["stored"], *data["lists"]}
            if not wanted or data["parent"] is None:
                return keep
            name = record_id("c", _parse(name)[0], data["parent"])
            if name not in found:
                return keep
            keep.add(name)

    # -- its threads --------------------------------------------------------------------------------------

    def _is_conversation(self, namespace: str, channel: str) -> bool:
        return namespace == "" and channel == self._channel

    def _list(self, namespace: str, channel: str) -> MessageList:
        """The list of messages that a channel holds."""
        if self._is_conversation(namespace, channel):
            store, name = self._store, ""
        else:
            name = f"{self._own_prefix}/{escape(namespace)}/{escape(channel)}"
            store = self._opened.neutral(name)
        return MessageList(store, self.records, name, self._codec, self._snapshots)

    async def _thread_ids(self) -> list[str]:
        """The ids of the threads that exist for this one, the conversation last."""
        prefix = self._own_prefix
        names = [stats.thread_id async for stats in self._opened.threads(prefix)]
        return [*(one for one in names if one == prefix or one[len(prefix)] == "/"), self._thread_id]


async def graph_thread_ids(opened: StoreResolver[Any]) -> list[str]:
    """The ids of all threads of graphs."""
    names = [stats.thread_id async for stats in opened.threads(PREFIX)]
    return [unescape(name.removeprefix(PREFIX)) for name in names if name.count("/") == 1]


def _parse(name: str) -> tuple[str, str]:
    """The namespace and the id of a checkpoint."""
    _, namespace, checkpoint_id = map(unescape, name.split("/"))
    return namespace, checkpoint_id


def _with_writes(checkpoints: Collection[str], names: Iterable[str]) -> set[str]:
    """Those of some records that are checkpoints, or their writes."""
    return {
        name
        for name in names
        if name in checkpoints or (name[0] == "w" and f"c{name[1:].rsplit('/', 2)[0]}" in checkpoints)
    }
