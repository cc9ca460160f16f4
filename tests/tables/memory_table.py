"""A table in memory, as the table protocol describes it, and faults at any of its calls."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from agent_stores.backends.tables.table import (
    NEW,
    ConditionFailed,
    Item,
    ItemKey,
    Operation,
    Table,
    TableLimits,
    following,
)
from agent_stores.errors import OutcomeUnknownError, StoreUnavailableError

Fault = Literal["before", "after", "time out", "conflict"]

LIMITS = TableLimits(
    operations=100, transaction_bytes=1_300_000, item_bytes=300_000, body_bytes=16 * 1024 * 1024
)


class MemoryTable(Table):
    """A table of this process.

    Args:
        limits: what it can store.
        page: the largest number of items of a page.

    Attributes:
        calls: how often it was asked, by method.
        fault: decides on a fault of the call with a number and a name.
        between: awaited before each call, for writes at that moment.
        late: transactions that were cut off, and may arrive later.
        quiet: whether calls are neither counted nor fail.
    """

    location = "memory-table"

    def __init__(self, limits: TableLimits = LIMITS, *, page: int = 1000) -> None:
        self.limits = limits
        self.page = page
        self.partitions: dict[str, dict[str, Item]] = {}
        self.calls: list[str] = []
        self.fault: Callable[[int, str], Fault | None] = lambda number, name: None
        self.between: Callable[[int, str], Awaitable[None]] | None = None
        self._versions = itertools.count(1)
        self.late: list[Sequence[Operation]] = []
        self.quiet = False

    async def get(self, keys: Sequence[ItemKey], *, bodies: bool = True) -> dict[ItemKey, Item]:
        await self._begin("get")
        found = {}
        for partition, sort in keys:
            item = self.partitions.get(partition, {}).get(sort)
            if item is not None:
                found[partition, sort] = item if bodies else item._replace(body="")
        return found

    async def query(
        self, partition: str, first: str, end: str, *, limit: int | None = None, bodies: bool = True
    ) -> list[Item]:
        found: list[Item] = []
        is_last = False
        while not is_last and (limit is None or len(found) < limit):
            await self._begin("query")
            items = self.partitions.get(partition, {})
            sorts = sorted(sort for sort in items if first <= sort < end)
            size = self.page if limit is None else min(limit - len(found), self.page)
            found += [items[sort] if bodies else items[sort]._replace(body="") for sort in sorts[:size]]
            is_last = len(sorts) <= size
            first = following(found[-1].sort) if found else end
        return found

    async def transact(self, operations: Sequence[Operation]) -> str:
        fault = await self._begin("transact")
        if fault == "time out":  # carried out later, when other calls came in between
            self.late.append(operations)
            raise OutcomeUnknownError("timed out")
        if fault == "conflict" and operations[0].condition is not None:
            raise ConditionFailed(0)
        version = self._apply(operations)
        if fault == "after":
            raise OutcomeUnknownError("the answer is lost")
        return version

    async def aclose(self) -> None:
        """Nothing to close."""

    def arrive(self) -> None:
        """Let transactions that were late take effect."""
        late, self.late = self.late, []
        for operations in late:
            with contextlib.suppress(ConditionFailed):
                self._apply(operations)

    def count(self, name: str | None = None) -> int:
        """How many calls there were, since the last time that this was asked."""
        calls, self.calls = self.calls, []
        return sum(name in (None, call) for call in calls)

    def items(self, prefix: str = "") -> list[Item]:
        """All items of partitions that begin so."""
        return [
            item
            for partition, items in sorted(self.partitions.items())
            if partition.startswith(prefix)
            for _, item in sorted(items.items())
        ]

    async def _begin(self, name: str) -> Fault | None:
        if self.quiet:
            return None
        number = len(self.calls)
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.between is not None:
            await self.between(number, name)
        fault = self.fault(number, name)
        if fault == "before" or (fault is not None and name != "transact"):
            raise StoreUnavailableError("no answer; nothing was written")
        return fault

    def _apply(self, operations: Sequence[Operation]) -> str:
        assert 0 < len(operations) <= self.limits.operations
        assert len({operation.item.partition for operation in operations}) == 1
        assert len({operation.item.key for operation in operations}) == len(operations)
        assert sum(len(one.item.body.encode()) for one in operations) <= self.limits.transaction_bytes
        items = self.partitions.get(operations[0].item.partition, {})
        for index, (item, condition, is_delete) in enumerate(operations):
            stored = items.get(item.sort)
            if not is_delete:
                assert len(item.meta) <= 30_000
                assert len(item.body.encode()) <= self.limits.item_bytes
                for text in item.key:
                    assert text.isascii() and text.isprintable() and len(text) <= 512  # noqa: PT018
                    assert not set(text) & set("/\\#?")
            if condition is not None and condition != (NEW if stored is None else stored.version):
                raise ConditionFailed(index)
        version = f"v{next(self._versions)}"
        for item, _, is_delete in operations:
            if is_delete:
                items.pop(item.sort, None)
            else:
                self.partitions.setdefault(item.partition, {})[item.sort] = item._replace(version=version)
        return version
