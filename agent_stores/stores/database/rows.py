"""Rows of the tables, and what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row

from agent_stores import _json
from agent_stores.log import Entry, Record
from agent_stores.stores.planning import Head

IDS_AT_ONCE = 500
"""Ids in one statement; old versions of SQLite allow 999 parameters."""

_names = msgspec.json.Decoder(list[str])
_positions = msgspec.json.Decoder(dict[str, int])
_links = msgspec.json.Decoder(tuple[tuple[str, ...], tuple[str, ...]])


def to_entry(row: Any) -> Entry:
    """A stored message; its columns are the first ones of the row, by place, as names cost ten times that."""
    position, body, pinned, cut = row[:4]
    return Entry(position, body.encode(), pinned == 1, cut == 1)


def to_entries(rows: Iterable[Any]) -> list[Entry]:
    """Stored messages, of rows that have these four columns only."""
    return [Entry(position, body.encode(), pinned == 1, cut == 1) for position, body, pinned, cut in rows]


def to_links(links: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids of the calls that a message opens, and of those that it closes."""
    return _json.decode(links, _links, tuple[tuple[str, ...], tuple[str, ...]]) if links else ((), ())


def record_columns(record: Record) -> dict[str, Any]:
    """A record's own columns."""
    links = (record.calls, record.results)
    return {
        "pinned": int(record.pinned),
        "created_us": record.created_us,
        "tokens": record.tokens,
        "bytes": len(record.body),
        "links": _json.encode(links).decode() if any(links) else None,
        "body": record.body.decode(),
    }


HEAD = Head.__struct_fields__
"""The columns of a head, in the order in which `to_head` takes them."""


def to_head(columns: Sequence[Any]) -> Head:
    """A thread's head; of its `HEAD` columns, by place, as names cost ten times that."""
    position, messages, pinned, size, tokens, first_us, last_us, calls, recent, *time_to_live = columns
    ttl, refresh, is_set, end = time_to_live
    open_calls = {} if calls == "{}" else _json.decode(calls, _positions, dict[str, int])
    return Head(
        position,
        messages,
        pinned,
        size,
        tokens,
        first_us,
        last_us,
        open_calls,
        _names.decode(recent),
        ttl,
        refresh,
        bool(is_set),
        end,
    )


def head_columns(head: Head) -> dict[str, Any]:
    """A head's columns."""
    columns = msgspec.structs.asdict(head)
    columns["open_calls"] = _json.encode(head.open_calls).decode() if head.open_calls else "{}"
    columns["recent"] = msgspec.json.encode(head.recent).decode()
    columns["ttl_set"] = int(head.ttl_set)
    return columns


def count_row(head: Head, row: Row[Any], sign: int) -> None:
    """Count a message in, or out with ``sign=-1``."""
    head.messages += sign
    head.pinned += sign * row.pinned
    head.bytes += sign * row.bytes
    head.tokens += sign * row.tokens


def chunks(items: list[Any]) -> Iterator[list[Any]]:
    """The items, as many at once as a statement takes."""
    return (items[at : at + IDS_AT_ONCE] for at in range(0, len(items), IDS_AT_ONCE))
