"""Records, entries and heads as they are stored; docs/redis.md describes them, and ``lua/`` reads them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from agent_stores.errors import StoreError, UnsupportedVersionError
from agent_stores.log import Entry, Record, Slice, ThreadKey, ThreadStats, TimeToLive
from agent_stores.stores.planning import from_microseconds
from agent_stores.stores.redis.keys import encode, name

LAYOUT = 1
"""The version of the layout. A thread with a newer one is refused."""

_CUTS = frozenset(b"13")  # flags: 1 where a cut may fall before the entry, plus 2 for a pinned one
_PINNED = frozenset(b"23")
_BATCH = re.compile("[0-9a-f]{18}")
_REFRESH = {"write": "w", "read": "r", "never": "n"}


def encode_record(record: Record) -> bytes:
    """A record as an entry, whose links to others are still to be filled in."""
    links = f"{_links(record.calls)},{_links(record.results)}" if record.calls or record.results else ","
    flags = 3 if record.pinned else 1
    line = f"{flags},,{links},{record.created_us},{record.tokens},{name(record.message_id)}\n"
    return line.encode() + record.body


def batch_name(batch_id: str) -> str:
    """A batch's name of 18 characters."""
    if _BATCH.fullmatch(batch_id):
        return batch_id
    return hashlib.blake2b(encode(batch_id), digest_size=9).hexdigest()


def encode_ttl(ttl: TimeToLive | None) -> tuple[str | int, str]:
    """A time-to-live in milliseconds, and how it is renewed; empty where there is none."""
    if ttl is None:
        return "", ""
    return "" if ttl.seconds is None else max(1, round(ttl.seconds * 1000)), _REFRESH[ttl.refresh]


def read_entry(position: int, entry: bytes) -> Entry:
    """An entry, without its line."""
    flags = entry[0]
    return Entry(position, entry[entry.index(b"\n") + 1 :], flags in _PINNED, flags in _CUTS)


def read_entries(entries: Sequence[bytes], position: int, skip: int, pins: Sequence[bytes]) -> list[Entry]:
    """The entries of a read, in order; empty ones stand where something was taken out.

    Args:
        entries: those of the list.
        position: the position of the first.
        skip: how many to leave out in front.
        pins: positions and entries of the pinned ones, in turn.
    """
    cuts = _CUTS
    found = [
        Entry(place, entry[entry.index(b"\n") + 1 :], False, entry[0] in cuts)
        for place, entry in enumerate(entries[skip:] if skip else entries, position + skip)
        if entry
    ]
    if pins:
        found += [read_entry(int(pins[n]), pins[n + 1]) for n in range(0, len(pins), 2)]
        found.sort(key=_position)
    return found


def read_end(entries: Sequence[bytes], last: int | None) -> Slice | None:
    """The slice that the end of a list shows by itself, if its last entry says that it can.

    Args:
        entries: the list's end, one entry more than `last`, or all of it.
        last: how many are wanted; None for all.

    Returns:
        Nothing when more is to be asked for: the thread is not plain, is not there, or its newest group is
        longer than what was read.
    """
    if not entries:
        return None
    newest = entries[-1]
    place = newest[1 : newest.index(b",")]
    if not place:
        return None
    has_older = last is not None and len(entries) > last
    found = read_entries(entries, int(place) + 1 - len(entries), 1 if has_older else 0, ())
    if has_older and found and not found[0].cut:
        start = next((n for n, entry in enumerate(found) if entry.cut), None)
        if start is None:
            return None
        found = found[start:]
    return Slice(found, has_older)


def read_stats(key: ThreadKey, reply: Any) -> ThreadStats | None:
    """The statistics of a head, its remaining milliseconds, and the server's time."""
    if reply is None:
        return None
    head = head_fields(reply[0])
    left, seconds, microseconds = (int(value) for value in reply[1:])
    return ThreadStats(
        tenant=key.tenant,
        thread_id=key.thread_id,
        messages=int(head[4]),
        bytes=int(head[6]),
        tokens=int(head[7]),
        last_position=int(head[1]),
        first_at=from_microseconds(int(head[8]) if head[8] else None),
        last_at=from_microseconds(int(head[9]) if head[9] else None),
        expires_at=None
        if left < 0
        else from_microseconds((seconds * 1000 + microseconds // 1000 + left) * 1000),
    )


def head_fields(line: bytes) -> list[str]:
    """The fields of a head, in the order that ``lua/head.lua`` gives them."""
    fields = line.decode().split(",")
    if fields[0] != str(LAYOUT):
        raise UnsupportedVersionError(
            f"a thread has version {fields[0]} of the layout: a newer version of agent-stores wrote it"
        )
    if len(fields) != 14:
        raise StoreError("a thread is damaged: its head is malformed")
    return fields


def restore_arguments(reply: Any, at: int | None) -> list[Any]:
    """What `RESTORE` takes, after the thread's id, from what `DUMP` replied."""
    line, left, open_calls, position, entries, pins = reply
    head = head_fields(line)
    last = int(head[1]) if at is None else min(at, int(head[1]))
    placed = [(position + n, entry) for n, entry in enumerate(entries) if entry]
    placed += [(int(pins[n]), pins[n + 1]) for n in range(0, len(pins), 2)]
    placed.sort(key=_first)
    recut = int(at is not None)
    return [last, head[8], head[9], *head[10:13], left, open_calls, recut, *chain.from_iterable(placed)]


def _links(ids: Sequence[str]) -> str:
    return "&".join(f"{name(one) or '~'}=" for one in ids)


def _position(entry: Entry) -> int:
    return entry.position


def _first(pair: tuple[int, bytes]) -> int:
    return pair[0]
