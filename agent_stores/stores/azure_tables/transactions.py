"""Entity-group transactions: up to 100 operations on rows of one partition, and 4 MiB as they are sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from agent_stores.stores.azure_tables.sdk import MatchConditions, UpdateMode

MAX_OPERATIONS = 100
MAX_BYTES = 4 * 1024 * 1024

_FRAME = 2048  # bytes around the operations of a transaction
_AROUND = 900  # bytes around an operation's JSON: headers, boundaries, the table's URL
_SMALL = 4096


class Operation(NamedTuple):
    """What is done to one row.

    Attributes:
        kind: make a row that must be new, write it whatever is there, write over it, or delete it.
        entity: the row; for deleting, its keys.
        version: the version that it must have, for the last two.
    """

    kind: Literal["create", "upsert", "update", "delete"]
    entity: Mapping[str, Any]
    version: str | None = None

    def request(self) -> tuple[str, Mapping[str, Any], dict[str, Any]]:
        """As the service's client takes it; rows are replaced as a whole."""
        options: dict[str, Any] = {}
        if self.kind in ("upsert", "update"):
            options["mode"] = UpdateMode.REPLACE
        if self.version is not None:
            options.update(etag=self.version, match_condition=MatchConditions.IfNotModified)
        return self.kind, self.entity, options

    def size(self) -> int:
        """How many bytes it takes at most, as it is sent."""
        row_keys = 3 * (len(self.entity["PartitionKey"]) + len(self.entity["RowKey"]))  # quoted in the URL
        if self.kind == "delete":
            return _AROUND + row_keys
        return _AROUND + row_keys + sum(sent_bytes(name, value) for name, value in self.entity.items())


def sent_bytes(name: str, value: Any) -> int:
    """How many bytes a property takes at most, as it is sent."""
    if not isinstance(value, str):
        return len(name) + 40
    return 2 * len(name) + 40 + (6 * len(value) if len(value) < _SMALL else len(json.dumps(value)))


def delete(partition: str, row_keys: Iterable[str]) -> list[Operation]:
    """The operations that delete rows."""
    return [Operation("delete", {"PartitionKey": partition, "RowKey": row}) for row in row_keys]


def pack(operations: Sequence[Operation], first: Operation) -> list[list[Operation]]:
    """The operations in as many transactions as they need, each of which begins with another operation.

    Args:
        operations: in order.
        first: what each transaction begins with, for its size; it is not in the result.
    """
    packed: list[list[Operation]] = [[]]
    room = start = MAX_BYTES - _FRAME - first.size()
    for operation in operations:
        size = operation.size()
        if packed[-1] and (len(packed[-1]) == MAX_OPERATIONS - 1 or size > room):
            packed.append([])
            room = start
        packed[-1].append(operation)
        room -= size
    return packed
