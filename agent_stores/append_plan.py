"""What a write changes, worked out before it is committed: new rows, positions, rows to trim, batches."""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection, Iterator, Sequence

from msgspec.structs import replace

from agent_stores.backend import Limits, Row, Thread
from agent_stores.thread_updates import trim_index, with_rows


def new_rows(rows: Sequence[Row], known: Collection[str]) -> list[Row]:
    """The rows of an append whose ids are not known yet, each id once."""
    seen = set(known)
    added = []
    for row in rows:
        if row.message_id not in seen:
            seen.add(row.message_id)
            added.append(row)
    return added


async def add_rows(
    thread: Thread,
    rows: Sequence[Row],
    max_messages: int | None = None,
    pages: AsyncIterable[Sequence[Row]] | None = None,
) -> tuple[Thread, list[Row], list[Row]]:
    """Add rows at the end of a thread, and trim it.

    Args:
        thread: the thread's metadata.
        rows: in order, not empty; they get the positions after the thread's last one.
        max_messages: the largest number of rows that are not pinned; None for no limit.
        pages: the thread's rows, oldest first, if it has any; read only as far as a trim needs them.

    Returns:
        The thread, which counts all that; the rows to put; and the rows of the thread to delete.
    """
    first = thread.last_position + 1
    put = [replace(row, position=first + index) for index, row in enumerate(rows)]
    newest, oldest = [row for row in put if not row.pinned], list[Row]()
    excess = 0 if max_messages is None else thread.unpinned + len(newest) - max_messages
    if excess > 0:
        if pages is not None:
            async for page in pages:
                oldest += (row for row in page if not row.pinned)
                if any(row.boundary for row in oldest[excess:]):
                    break
        index = trim_index([row.boundary for row in (*oldest, *newest)], excess)
        dropped = {row.position for row in newest[: max(0, index - len(oldest))]}
        put, oldest = [row for row in put if row.position not in dropped], oldest[:index]
    thread = replace(
        thread,
        last_position=thread.last_position + len(rows),
        first_us=rows[0].created_us if thread.first_us is None else thread.first_us,
        last_us=rows[-1].created_us,
    )
    return with_rows(with_rows(thread, put), oldest, -1), put, oldest


def in_batches(rows: Sequence[Row], limits: Limits, *, reserve: int = 0) -> Iterator[list[Row]]:
    """Split rows into batches that fit into one commit each, in order.

    Args:
        rows: what to put or delete; the size of a row is that of its body.
        limits: the server's limits.
        reserve: how many rows of each commit are needed otherwise.
    """
    most = None if limits.commit_rows is None else max(1, limits.commit_rows - reserve)
    batch: list[Row] = []
    size = 0
    for row in rows:
        grown = size + len(row.body)
        over = limits.commit_bytes is not None and grown > limits.commit_bytes
        if batch and (over or len(batch) == most):
            yield batch
            batch, grown = [], len(row.body)
        batch.append(row)
        size = grown
    if batch:
        yield batch
