"""Deleting checkpoints, and all that no other checkpoint needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from langgraph.checkpoint.serde.base import SerializerProtocol

from agent_stores.plugins.langgraph.checkpoints import Checkpoints, Place
from agent_stores.plugins.langgraph.codec import load
from agent_stores.plugins.langgraph.lists import Reference, positions
from agent_stores.plugins.langgraph.records import Data, Records, record_id


class Pruning:
    """Deletes checkpoints.

    Args:
        checkpoints: the checkpoints.
        serde: the graph's serializer.
    """

    def __init__(self, checkpoints: Checkpoints, serde: SerializerProtocol) -> None:
        self._checkpoints = checkpoints
        self._threads = checkpoints.threads
        self._serde = serde

    async def delete_runs(self, thread_id: str, run_ids: Collection[str]) -> None:
        """Delete the checkpoints of runs in one thread."""
        records, index, found = await self._read(thread_id)
        keep = {
            name: data
            for name, data in found.items()
            if load(data["metadata"], self._serde).get("run_id") not in run_ids
        }
        await self._delete(thread_id, records, index, found, keep)

    async def keep_latest(self, thread_id: str) -> None:
        """Delete all checkpoints of a thread but the newest of each namespace."""
        records, index, found = await self._read(thread_id)
        newest: dict[str, str] = {}
        for name in sorted(found):
            newest[Place.of_record(thread_id, name).namespace] = name
        keep: dict[str, Data] = {}
        for name in newest.values():
            keep |= self._with_ancestors(thread_id, name, found)
        await self._delete(thread_id, records, index, found, keep)

    async def _read(self, thread_id: str) -> tuple[Records, dict[str, int], dict[str, Data]]:
        records = self._threads.records(thread_id)
        index = await records.index()
        names = {name for name in index if name.startswith("c/")}
        return records, index, await records.at([index[name] for name in names], names)

    def _with_ancestors(self, thread_id: str, name: str, found: Mapping[str, Data]) -> dict[str, Data]:
        """A checkpoint, and those before it from which a channel that stores differences is rebuilt."""
        keep = {name: found[name]}
        metadata = load(found[name]["metadata"], self._serde)
        wanted = set(metadata.get("counters_since_delta_snapshot") or ())
        place = Place.of_record(thread_id, name)
        while True:
            data = found[name]
            wanted -= {*data["values"], *data["stored"], *data["lists"]}
            if not wanted or data["parent"] is None:
                return keep
            name = place.record(data["parent"])
            if name not in found:
                return keep
            keep[name] = found[name]

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
        held: dict[tuple[str, str], set[int]] = {}
        for name, data in found.items():
            place = Place.of_record(thread_id, name)
            for channel, kept in data["lists"].items():
                used = held.setdefault((place.namespace, channel), set())
                if name in keep:
                    used |= set(positions(Reference(*kept).ranges))
        for data in keep.values():
            needed |= set(data["stored"].values())
        for (namespace, channel), used in held.items():
            store = self._threads.messages(thread_id, namespace, channel)
            label = "" if self._threads.is_conversation(namespace, channel) else store.thread_id
            needed |= {record_id("m", label, str(position)) for position in used}
        places = [Place.of_record(thread_id, name) for name in keep]
        writes = tuple(place.writes(place.checkpoint_id or "") for place in places)
        # The checkpoints go last: a call that is interrupted can be made again.
        gone = [name for name in index if name not in needed and not (writes and name.startswith(writes))]
        gone.sort(key=lambda name: name.startswith("c/"))
        for (namespace, channel), used in held.items():
            store = self._threads.messages(thread_id, namespace, channel)
            items = (await self._checkpoints.lists.read(store)).items
            unused = [item.row.message_id for item in items if item.own and item.position not in used]
            if unused:
                await store.delete(unused)
                self._checkpoints.lists.forget(store.tenant, store.thread_id)
        await records.delete(gone)
