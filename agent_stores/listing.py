"""Statistics of a thread without its messages, and pages of threads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
from msgspec.structs import replace

from agent_stores._checks import LARGEST
from agent_stores.backend import (
    Backend,
    ListCursor,
    ListedThread,
    Thread,
    ThreadKey,
    ThreadOrder,
    ThreadQuery,
)
from agent_stores.errors import ArgumentError
from agent_stores.lineage import own_metadata

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_LARGEST_PAGE = 1000  # threads


class ThreadStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a log knows of a thread without reading its messages. All times are in UTC.

    Attributes:
        tenant: its owner, or None.
        thread_id: its id.
        messages: how many messages it has, pinned ones included.
        bytes: the size of their JSON documents.
        tokens: their tokens, as counted when they were written.
        last_position: the position of the newest message that it ever had; 0 if it never had one.
        first_at: when the first message ever added was created.
        last_at: when the last message added was created.
        updated_at: when the thread was last written.
        expires_at: when it expires unless it is renewed; None for never.
        metadata: the application's data.
        revision: how often `metadata` was changed.
    """

    tenant: str | None
    thread_id: str
    messages: int = 0
    bytes: int = 0
    tokens: int = 0
    last_position: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    revision: int = 0


class ThreadPage(msgspec.Struct, frozen=True):
    """A page of a tenant's threads.

    Attributes:
        threads: in the order that was asked for.
        cursor: the argument that asks for the next page; None after the last one.
    """

    threads: list[ThreadStats]
    cursor: str | None = None


def make_stats(key: ThreadKey, thread: Thread) -> ThreadStats:
    """A thread's metadata as callers see it."""
    return ThreadStats(
        tenant=key.tenant,
        thread_id=key.thread_id,
        messages=thread.messages,
        bytes=thread.bytes,
        tokens=thread.tokens,
        last_position=thread.last_position,
        first_at=from_microseconds(thread.first_us),
        last_at=from_microseconds(thread.last_us),
        updated_at=from_microseconds(thread.updated_us),
        expires_at=from_microseconds(thread.expires_us),
        metadata=own_metadata(thread.metadata),
        revision=thread.revision,
    )


def from_microseconds(value: int | None) -> datetime | None:
    """Microseconds since 1970 UTC as a datetime."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def to_microseconds(value: datetime) -> int:
    """A datetime with a time zone as microseconds since 1970 UTC, exactly."""
    return (value - _EPOCH) // _MICROSECOND


def encode_cursor(order: ThreadOrder, last: ListCursor) -> str:
    """The cursor that follows a thread."""
    return json.dumps([order, last.updated_us, last.thread_id])


def decode_cursor(order: ThreadOrder, cursor: str | None) -> ListCursor | None:
    """The thread that a cursor follows.

    Raises:
        ArgumentError: when it is not a cursor of this order.
    """
    if cursor is None:
        return None
    try:
        given, updated_us, thread_id = json.loads(cursor)
    except (ValueError, TypeError, RecursionError):
        given = updated_us = thread_id = None
    if (
        given != order
        or not isinstance(thread_id, str)
        or type(updated_us) is not int
        or not 0 <= updated_us <= LARGEST
    ):
        raise ArgumentError(f"cursor must be one that list_threads(order={order!r}) returned")
    return ListCursor(updated_us, thread_id)


async def list_page(backend: Backend, query: ThreadQuery, now_us: int) -> ThreadPage:
    """A page of threads that are visible at `now_us` (microseconds); see `MessageLog.list_threads`."""
    limit, found = query.limit, list[ListedThread]()
    query = replace(query, limit=limit + 1)
    while len(found) <= limit:
        page = await backend.threads(query)
        found += (item for item in page if item.thread.is_visible(now_us))
        if len(page) < query.limit:
            break
        # There may be many threads that are not visible.
        wanted = max(query.limit, min(2 * query.limit, _LARGEST_PAGE))
        query = replace(query, after=_cursor_of(page[-1]), limit=wanted)
    threads = [make_stats(item.key, item.thread) for item in found[:limit]]
    cursor = encode_cursor(query.order, _cursor_of(found[limit - 1])) if len(found) > limit else None
    return ThreadPage(threads, cursor)


async def iter_threads(
    backend: Backend, tenant: str | None, *, page_size: int
) -> AsyncIterator[ListedThread]:
    """All threads of a tenant by id, those that are not visible included, listed in pages."""
    query = ThreadQuery(tenant, limit=page_size)
    while True:
        page = await backend.threads(query)
        for item in page:
            yield item
        if len(page) < page_size:
            return
        query = replace(query, after=_cursor_of(page[-1]))


def _cursor_of(item: ListedThread) -> ListCursor:
    return ListCursor(item.thread.updated_us, item.key.thread_id)
