"""`Checkpoints`: reads, writes and deletes checkpoints as records and lists of messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_stores.plugins.langgraph.codec import dump, is_message_list, load
from agent_stores.plugins.langgraph.lists import MessageLists, Reference, positions
from agent_stores.plugins.langgraph.records import Data, Records, data_of, record_id
from agent_stores.plugins.langgraph.threads import GraphThreads, ListKey
from agent_stores.plugins.thread_ids import unescape

BEGINNING = "00000000-0000-6000-8000-000000000000"
"""The id of the checkpoint that a conversation has before a graph writes to it."""

_INLINE = 256  # characters; larger values are records of their own, so that steps that keep them share them


class Place(NamedTuple):
    """Where a checkpoint is.

    Attributes:
        thread_id: its thread.
        namespace: the (sub)graph.
        checkpoint_id: its id; None for the newest.
    """

    thread_id: str
    namespace: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> Place:
        """The place that a config names."""
        names = config.get("configurable", {})
        return cls(
            str(names["thread_id"]), names.get("checkpoint_ns") or "", names.get("checkpoint_id") or None
        )

    @classmethod
    def of_record(cls, thread_id: str, record: str) -> Place:
        """The place that the id of a checkpoint's record names."""
        _, namespace, checkpoint_id = (unescape(name) for name in record.split("/"))
        return cls(thread_id, namespace, checkpoint_id)

    def config(self, checkpoint_id: str | None = None) -> RunnableConfig:
        """The config that names a checkpoint here."""
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.namespace,
                "checkpoint_id": checkpoint_id or self.checkpoint_id,
            }
        }

    def record(self, checkpoint_id: str | None = None) -> str:
        """The id of the checkpoint's record."""
        return record_id("c", self.namespace, checkpoint_id or self.checkpoint_id or "")

    def writes(self) -> str:
        """How the ids of the checkpoint's writes begin."""
        return record_id("w", self.namespace, self.checkpoint_id or "", "")

    def own_records(self, names: Iterable[str]) -> set[str]:
        """Those of some records that are the checkpoint's, or its writes."""
        record, writes = self.record(), self.writes()
        return {name for name in names if name == record or name.startswith(writes)}


class Checkpoints:
    """The checkpoints of all threads.

    Args:
        threads: finds their threads.
        lists: their lists of messages.
    """

    def __init__(self, threads: GraphThreads, lists: MessageLists) -> None:
        self.threads = threads
        self.lists = lists

    async def write(
        self,
        place: Place,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        changed: Mapping[str, Any],
        serde: SerializerProtocol,
    ) -> None:
        """Store a checkpoint whose parent is the one of `place`."""
        records = self.threads.records(place.thread_id)
        parent_id = None if place.checkpoint_id == BEGINNING else place.checkpoint_id
        parent: Data = {}
        rest: dict[str, Any] = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        inline, stored, references = dict[str, Any](), dict[str, str](), dict[str, Any]()
        values: dict[str, Data] = {}
        for channel, value in checkpoint["channel_values"].items():
            if is_message_list(value):
                if not parent and parent_id is not None:
                    parent = (await records.get([place.record()])).get(place.record(), {})
                kept = parent.get("lists", {}).get(channel)
                references[channel] = await self.lists.write(
                    ListKey(place.thread_id, place.namespace, channel),
                    value,
                    None if kept is None else Reference(*kept),
                    serde,
                )
                continue
            typed = dump(value, serde, f"the channel {channel!r}")
            version = checkpoint["channel_versions"].get(channel)
            if len(typed[1]) <= _INLINE or version is None:
                inline[channel] = typed
                continue
            name = stored[channel] = record_id("b", place.namespace, channel, str(version))
            if channel in changed:
                values[name] = {"value": typed}
        data = {
            "parent": parent_id,
            "checkpoint": dump(rest, serde, "the checkpoint"),
            "metadata": dump(metadata, serde, "the metadata"),
            "values": inline,
            "stored": stored,
            "lists": {channel: list(reference) for channel, reference in references.items()},
        }
        await records.add({**values, place.record(checkpoint["id"]): data})

    async def read(self, place: Place, serde: SerializerProtocol) -> CheckpointTuple | None:
        """A checkpoint, or the newest; None when there is none."""
        records = self.threads.records(place.thread_id)
        prefix = record_id("c", place.namespace, "")
        newest = place.checkpoint_id is None
        if newest:
            rows = await records.newest(prefix)
            last = max((one for one in rows if one.startswith(prefix)), default=place.record(BEGINNING))
            place = Place.of_record(place.thread_id, last)
            found = {one: data_of(rows[one]) for one in place.own_records(rows)}
            stored = found[last]["stored"].values() if last in found else ()
            found |= {one: data_of(rows[one]) for one in stored if one in rows}
        else:
            index = await records.index()
            names = place.own_records(index)
            found = await records.at([index[one] for one in names], names)
        name = place.record()
        if name not in found:
            is_beginning = place.checkpoint_id == BEGINNING and place.namespace == ""
            return await self._beginning(place, found, serde) if is_beginning else None
        (one,) = await self.build(place.thread_id, {name: found[name]}, found, serde, with_new=newest)
        return one

    async def build(
        self,
        thread_id: str,
        chosen: Mapping[str, Data],
        found: Mapping[str, Data],
        serde: SerializerProtocol,
        *,
        with_new: bool = False,
    ) -> list[CheckpointTuple]:
        """The checkpoints of records.

        Args:
            thread_id: their thread.
            chosen: the records of the checkpoints, by id.
            found: other records that were read, their writes among them.
            serde: the graph's serializer.
            with_new: whether the conversation has what others added since.
        """
        records = self.threads.records(thread_id)
        wanted = {name for data in chosen.values() for name in data["stored"].values()}
        values = {name: found[name] for name in wanted if name in found}
        values |= await records.get(wanted - set(values))
        lists = await self._lists(thread_id, chosen, serde, with_new=with_new)
        tuples = []
        for name, data in chosen.items():
            place = Place.of_record(thread_id, name)
            channels = {channel: load(typed, serde) for channel, typed in data["values"].items()}
            for channel, stored in data["stored"].items():
                if stored in values:
                    channels[channel] = load(values[stored]["value"], serde)
            channels |= {channel: lists[name, channel] for channel in data["lists"]}
            checkpoint = cast("Checkpoint", {**load(data["checkpoint"], serde), "channel_values": channels})
            parent = data["parent"]
            tuples.append(
                CheckpointTuple(
                    place.config(),
                    checkpoint,
                    load(data["metadata"], serde),
                    None if parent is None else place.config(parent),
                    _writes(place, found, serde),
                )
            )
        return tuples

    async def _lists(
        self, thread_id: str, chosen: Mapping[str, Data], serde: SerializerProtocol, *, with_new: bool
    ) -> dict[tuple[str, str], list[BaseMessage]]:
        """The lists of checkpoints, by the id of the checkpoint's record and the channel."""
        wanted: dict[ListKey, dict[str, Reference]] = {}
        for name, data in chosen.items():
            for channel, kept in data["lists"].items():
                key = ListKey(thread_id, Place.of_record(thread_id, name).namespace, channel)
                wanted.setdefault(key, {})[name] = Reference(*kept)
        found = {}
        for key, references in wanted.items():
            lists = await self.lists.restore(key, list(references.values()), serde, with_new=with_new)
            found.update({(name, key.channel): one for name, one in zip(references, lists, strict=True)})
        return found

    async def _beginning(
        self, place: Place, found: Mapping[str, Data], serde: SerializerProtocol
    ) -> CheckpointTuple | None:
        """The conversation that others began, as a checkpoint without a past."""
        channel = self.threads.channel
        key = ListKey(place.thread_id, "", channel)
        items = (await self.lists.read(self.threads.messages(key))).items
        shown = self.lists.decode([item for item in items if not item.own], serde)
        if not shown:
            return None
        created = items[0].message.created_at
        checkpoint: dict[str, Any] = {
            "v": 4,
            "id": BEGINNING,
            "ts": created.isoformat() if created else "1970-01-01T00:00:00+00:00",
            "channel_values": {channel: shown},
            "channel_versions": {channel: f"{1:032}.{0:016}"},
            "versions_seen": {},
            "updated_channels": None,
        }
        metadata: CheckpointMetadata = {"source": "update", "step": -2, "parents": {}}
        pending = _writes(place, found, serde)
        return CheckpointTuple(place.config(), cast("Checkpoint", checkpoint), metadata, None, pending)

    # -- deleting -------------------------------------------------------------------------------------------

    async def delete_runs(self, thread_id: str, run_ids: Collection[str], serde: SerializerProtocol) -> None:
        """Delete the checkpoints of runs in one thread."""
        records, index, found = await self._all(thread_id)
        keep = {
            name: data
            for name, data in found.items()
            if load(data["metadata"], serde).get("run_id") not in run_ids
        }
        await self._delete(thread_id, records, index, found, keep)

    async def keep_latest(self, thread_id: str, serde: SerializerProtocol) -> None:
        """Delete all checkpoints of a thread but the newest of each namespace."""
        records, index, found = await self._all(thread_id)
        newest: dict[str, str] = {}
        for name in sorted(found):
            newest[Place.of_record(thread_id, name).namespace] = name
        keep: dict[str, Data] = {}
        for name in newest.values():
            keep |= _with_ancestors(name, found, serde)
        await self._delete(thread_id, records, index, found, keep)

    async def _all(self, thread_id: str) -> tuple[Records, dict[str, int], dict[str, Data]]:
        records = self.threads.records(thread_id)
        index = await records.index()
        names = {name for name in index if name.startswith("c/")}
        return records, index, await records.at([index[name] for name in names], names)

    async def _delete(
        self,
        thread_id: str,
        records: Records,
        index: Mapping[str, int],
        found: Mapping[str, Data],
        keep: Mapping[str, Data],
    ) -> None:
        if len(keep) == len(found):
            return
        needed = set(keep)
        held: dict[ListKey, set[int]] = {}
        for name, data in found.items():
            namespace = Place.of_record(thread_id, name).namespace
            for channel, kept in data["lists"].items():
                used = held.setdefault(ListKey(thread_id, namespace, channel), set())
                if name in keep:
                    used |= set(positions(Reference(*kept).ranges))
        for data in keep.values():
            needed |= set(data["stored"].values())
        for key, used in held.items():
            needed |= {self.threads.moved_id(key, position) for position in used}
        places = [Place.of_record(thread_id, name) for name in keep]
        writes = tuple(place.writes() for place in places)
        # The checkpoints go last: a call that is interrupted can be made again.
        gone = [name for name in index if name not in needed and not (writes and name.startswith(writes))]
        gone.sort(key=lambda name: name.startswith("c/"))
        for key, used in held.items():
            await self.lists.keep_only(key, used)
        await records.delete(gone)


def _with_ancestors(name: str, found: Mapping[str, Data], serde: SerializerProtocol) -> dict[str, Data]:
    """A checkpoint, and those before it from which a channel that stores differences is rebuilt."""
    keep = {name: found[name]}
    metadata = load(found[name]["metadata"], serde)
    wanted = set(metadata.get("counters_since_delta_snapshot") or ())
    place = Place.of_record("", name)
    while True:
        data = found[name]
        wanted -= {*data["values"], *data["stored"], *data["lists"]}
        if not wanted or data["parent"] is None:
            return keep
        name = place.record(data["parent"])
        if name not in found:
            return keep
        keep[name] = found[name]


def _writes(place: Place, found: Mapping[str, Data], serde: SerializerProtocol) -> list[tuple[str, str, Any]]:
    prefix = place.writes()
    writes = []
    for name, data in found.items():
        if name.startswith(prefix):
            task, index = map(unescape, name.removeprefix(prefix).split("/"))
            writes.append((writes_sort_key(data["path"], task, int(index)), task, data))
    writes.sort(key=lambda write: write[0])
    return [(task, data["channel"], load(data["value"], serde)) for _, task, data in writes]
