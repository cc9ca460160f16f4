"""What a saver keeps of a thread beyond its messages: checkpoints, values of channels, and pending writes.

They are rows of a thread of their own, the *records*. A row's id names what it is, with ``/`` and ``%`` of
the parts escaped:

- ``c/{namespace}/{checkpoint id}``: a checkpoint.
- ``b/{namespace}/{channel}/{version}``: a value that is too large to be part of the checkpoint.
- ``w/{namespace}/{checkpoint id}/{task id}/{index}``: a pending write.
- ``m/{list}/{position}``: a message that is no longer in its list, for checkpoints that refer to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from agent_stores.backend import Row, ThreadKey, TimeToLive
from agent_stores.contents import OpaqueContent
from agent_stores.errors import MessageTooLargeError
from agent_stores.listing import to_microseconds
from agent_stores.log import MessageLog
from agent_stores.message_format import decode_stored, encode_message
from agent_stores.messages import ChatMessage
from agent_stores.plugins.langgraph.codec import FRAMEWORK
from agent_stores.plugins.thread_ids import escape

Data = dict[str, Any]

_PAGE = 96  # rows
_BEFORE = 32  # rows before a checkpoint that may be writes of it: they may be committed first
_GAP = 16  # rows that are read in vain rather than in another round trip


def record_id(kind: str, *names: str) -> str:
    """The id of a row; see the module."""
    return "/".join((kind, *(escape(name, "/") for name in names)))


class Records:
    """The records of one thread of a graph.

    Args:
        log: where they are.
        key: their thread.
        ttl: its time-to-live.
    """

    def __init__(self, log: MessageLog, key: ThreadKey, ttl: TimeToLive | None) -> None:
        self._log = log
        self._ttl = ttl
        self.key = key

    async def add(self, records: Mapping[str, Data]) -> None:
        """Add records by id, all or none; those that exist stay as they are."""
        if records:
            rows = [self._row(name, data) for name, data in records.items()]
            await self._log.append(self.key, rows, ttl=self._ttl)

    async def put(self, name: str, data: Data) -> None:
        """Add a record, or replace it."""
        if not await self._log.replace(self.key, self._row(name, data)):
            await self.add({name: data})

    async def delete(self, names: Collection[str]) -> None:
        """Delete records."""
        if names:
            await self._log.delete(self.key, list(names))

    async def index(self) -> dict[str, int]:
        """The position of every record, by id; reads no contents."""
        return {row.message_id: row.position for row in await self._log.read(self.key, bodies=False)}

    async def newest(self, prefix: str) -> dict[str, Row]:
        """The newest records, back to one whose id begins with `prefix`, and some before it."""
        found: list[Row] = []
        before: int | None = None
        while True:
            page = await self._log.read(self.key, before=before, limit=_PAGE, newest=True)
            found = page + found
            before_it = max(
                (n for n, row in enumerate(found) if row.message_id.startswith(prefix)), default=0
            )
            if len(page) < _PAGE or before_it >= _BEFORE:
                return {row.message_id: row for row in found}
            before = page[0].position

    async def get(self, names: Iterable[str]) -> dict[str, Data]:
        """The records of these ids that exist."""
        wanted = list(names)
        if not wanted:
            return {}
        rows = await self._log.backend.find(self.key, wanted)
        return await self.at([row.position for row in rows.values()], set(wanted))

    async def at(self, positions: Collection[int], names: Collection[str]) -> dict[str, Data]:
        """The records at these positions, if they have one of these ids."""
        found: dict[str, Data] = {}
        for first, last in _runs(sorted(positions)):
            rows = await self._log.read(self.key, after=first - 1, before=last + 1)
            found |= {row.message_id: data_of(row) for row in rows if row.message_id in names}
        return found

    def _row(self, name: str, data: Data) -> Row:
        now = datetime.now(timezone.utc)
        kind = {"c": "checkpoint", "b": "value", "w": "write", "m": "message"}[name[0]]
        content = OpaqueContent({"type": f"{FRAMEWORK}.{kind}", **data})
        body = encode_message(ChatMessage("system", contents=[content], message_id=name, created_at=now))
        limit = self._log.max_message_bytes
        if limit is not None and len(body) > limit:
            raise MessageTooLargeError.of(f"{kind} {name!r}", len(body), limit)
        return Row(name, body, bytes=len(body), created_us=to_microseconds(now))


def data_of(row: Row) -> Data:
    """What a record holds."""
    (content,) = decode_stored(row.body).contents
    return dict(content.data) if isinstance(content, OpaqueContent) else {}


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and position - runs[-1][1] <= _GAP:
            runs[-1] = (runs[-1][0], position)
        else:
            runs.append((position, position))
    return runs
