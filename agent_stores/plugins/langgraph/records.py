"""What a saver keeps of a thread beyond its messages: checkpoints, values of channels, and pending writes.

They are rows of a thread of their own, the *records*. A row's id names what it is, with ``/`` and ``%`` of
the parts escaped:

- ``c/{namespace}/{checkpoint id}``: a checkpoint.
- ``b/{namespace}/{channel}/{version}``: a value that is too large to be part of the checkpoint.
- ``w/{namespace}/{checkpoint id}/{task id}/{index}``: a pending write.
- ``m/{list}/{position}``: a message that is no longer in its list, for checkpoints that refer to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from agent_stores.backend import Row, ThreadKey
from agent_stores.message_format import decode_stored
from agent_stores.message_rows import make_rows
from agent_stores.messages import ChatMessage
from agent_stores.plugins.documents import document, document_data
from agent_stores.plugins.langgraph.codec import FRAMEWORK
from agent_stores.plugins.thread_ids import escape
from agent_stores.store import ChatMessageStore

Data = dict[str, Any]

_KINDS = {
    "c": f"{FRAMEWORK}.checkpoint",
    "b": f"{FRAMEWORK}.value",
    "w": f"{FRAMEWORK}.write",
    "m": f"{FRAMEWORK}.message",
}
_PAGE = 96  # rows
_BEFORE = 32  # rows before a checkpoint that may be writes of it: they may be committed first
_GAP = 16  # rows that are read in vain rather than in another round trip


def record_id(kind: str, *names: str) -> str:
    """The id of a row; see the module."""
    return "/".join((kind, *(escape(name, "/") for name in names)))


class Records:
    """The records of one thread of a graph.

    Args:
        store: the conversation, whose log and time-to-live they have.
        thread_id: their thread.
    """

    def __init__(self, store: ChatMessageStore[ChatMessage], thread_id: str) -> None:
        self._log = store.log
        self._ttl = store._settings.ttl
        self._key = ThreadKey(store.tenant, thread_id)

    async def add(self, records: Mapping[str, Data]) -> None:
        """Add records by id, all or none; those that exist stay as they are."""
        if records:
            await self._log.append(self._key, self._rows(records), ttl=self._ttl)

    async def put(self, name: str, data: Data) -> None:
        """Add a record, or replace it."""
        if not await self._log.replace(self._key, *self._rows({name: data})):
            await self.add({name: data})

    async def delete(self, names: Collection[str]) -> None:
        """Delete records."""
        if names:
            await self._log.delete(self._key, list(names))

    async def index(self) -> dict[str, int]:
        """The position of every record, by id; reads no contents."""
        return {row.message_id: row.position for row in await self._log.read(self._key, bodies=False)}

    async def newest(self, prefix: str) -> dict[str, Row]:
        """The newest records, back to one whose id begins with `prefix`, and some before it."""
        found: list[Row] = []
        before: int | None = None
        while True:
            page = await self._log.read(self._key, before=before, limit=_PAGE, newest=True)
            found = page + found
            if len(page) < _PAGE or any(row.message_id.startswith(prefix) for row in found[_BEFORE:]):
                return {row.message_id: row for row in found}
            before = page[0].position

    async def get(self, names: Iterable[str]) -> dict[str, Data]:
        """The records of these ids that exist."""
        if not (wanted := list(names)):
            return {}
        rows = await self._log.backend.find(self._key, wanted)
        return await self.at({name: row.position for name, row in rows.items()})

    async def at(self, positions: Mapping[str, int]) -> dict[str, Data]:
        """Records, by id, at the positions that they had; those that are gone are missing."""
        found: dict[str, Data] = {}
        for first, last in _runs(positions.values()):
            rows = await self._log.read(self._key, after=first - 1, before=last + 1)
            found |= {row.message_id: data_of(row) for row in rows if row.message_id in positions}
        return found

    def _rows(self, records: Mapping[str, Data]) -> list[Row]:
        documents = [document(_KINDS[name[0]], name, data) for name, data in records.items()]
        return make_rows(documents, lambda _: 0, max_bytes=self._log.max_message_bytes)


def data_of(row: Row) -> Data:
    """What a record holds."""
    data: Data = document_data(_KINDS[row.message_id[0]], decode_stored(row.body))
    return data


def _runs(positions: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for position in sorted(positions):
        if runs and position - runs[-1][1] <= _GAP:
            runs[-1] = (runs[-1][0], position)
        else:
            runs.append((position, position))
    return runs
