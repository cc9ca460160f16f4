"""The table protocol: four methods that a service implements, and the items that they exchange.

A table has items, named by a partition and a sort key. The items of a partition are sorted by code point, and
a transaction changes some of them under conditions, all or none. `agent_stores.backends.tables.backend` is
built on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

ItemKey: TypeAlias = tuple[str, str]
"""A partition and a sort key: printable ASCII, at most 512 characters each, without ``/ \\ # ?``."""

NEW: Final = ""
"""The condition of an operation whose item must not exist."""


class Item(NamedTuple):
    """A row of a table.

    Attributes:
        partition: its partition.
        sort: its sort key.
        meta: a short text of ASCII, always read; at most 30,000 characters.
        body: a text of at most `TableLimits.item_bytes` bytes in UTF-8; empty if it was not asked for.
        expires_at: when the service may remove the item by itself, in seconds since 1970; None for never.
        version: what the service compares; it changes with every write, and is set by the service.
    """

    partition: str
    sort: str
    meta: str = ""
    body: str = ""
    expires_at: int | None = None
    version: str = ""

    @property
    def key(self) -> ItemKey:
        """The item's name."""
        return self.partition, self.sort


class Operation(NamedTuple):
    """A change of one item: to put it as a whole, or to delete it.

    The condition is `NEW`, or the version that the item must have; None for no condition, so that an item to
    delete may be missing.
    """

    item: Item
    condition: str | None = None
    is_delete: bool = False


def delete(partition: str, sort: str, condition: str | None = None) -> Operation:
    """The operation that removes an item."""
    return Operation(Item(partition, sort), condition, is_delete=True)


class TableLimits(NamedTuple):
    """What a service can store, in bytes of UTF-8.

    Attributes:
        operations: the largest number of operations of a transaction.
        transaction_bytes: the largest sum of the bodies of a transaction.
        item_bytes: the largest body of an item.
        body_bytes: the largest body of a message, which may take several items.
    """

    operations: int
    transaction_bytes: int
    item_bytes: int
    body_bytes: int


class ConditionFailed(Exception):
    """The condition of an operation, named by its index, does not hold; nothing was written."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class Table(Protocol):
    """A table of a service; its methods may be called from any event loop.

    They try again by themselves what is certain to have had no effect. They raise `StoreError`, and its
    subclass `OutcomeUnknownError` for a transaction whose answer was lost.

    Attributes:
        location: where the table is, without secrets.
        limits: what the service can store.
    """

    location: str
    limits: TableLimits

    async def get(self, keys: Sequence[ItemKey], *, bodies: bool = True) -> dict[ItemKey, Item]:
        """The items of these names that exist, as last written; each as of a moment of its own."""
        ...

    async def query(
        self, partition: str, first: str, end: str, *, limit: int | None = None, bodies: bool = True
    ) -> list[Item]:
        """Items of a partition from sort key `first` on, and before `end`; the first `limit`, or all.

        They are as last written, each as of a moment of its own.
        """
        ...

    async def transact(self, operations: Sequence[Operation]) -> str:
        """Carry out operations on different items of one partition, all or none.

        Returns the version of the first item.

        Raises:
            ConditionFailed: when the condition of one does not hold.
        """
        ...

    async def aclose(self) -> None:
        """Close what the table opened."""


def following(sort: str) -> str:
    """The first sort key after another one."""
    return f"{sort}\x20"
