"""What an append changes, worked out before it is committed: new rows, positions, and rows to trim."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from msgspec.structs import replace

from agent_stores.backend import Row, Thread
from agent_stores.thread_updates import trim_index


def new_rows(rows: Sequence[Row], known: Collection[str]) -> list[Row]:
    """The rows of an append whose ids are not known yet, each id once."""
    seen = set(known)
    added = []
    for row in rows:
        if row.message_id not in seen:
            seen.add(row.message_id)
            added.append(row)
    return added


def assign_positions(thread: Thread, rows: Sequence[Row]) -> tuple[Thread, list[Row]]:
    """Give rows the positions after a thread's last one.

    Returns:
        The thread, which does not count the rows yet, and the rows.
    """
    first = thread.last_position + 1
    placed = [replace(row, position=first + index) for index, row in enumerate(rows)]
    thread = replace(
        thread,
        last_position=thread.last_position + len(rows),
        first_us=rows[0].created_us if thread.first_us is None else thread.first_us,
        last_us=rows[-1].created_us,
    )
    return thread, placed


async def split_trimmed(
    unpinned: int, added: Sequence[Row], max_messages: int | None, pages: AsyncIterator[Sequence[Row]]
) -> tuple[list[Row], list[Row]]:
    """Which rows a trim keeps and removes.

    Args:
        unpinned: how many rows of the thread are not pinned, without `added`.
        added: rows that are about to be added.
        max_messages: the largest number of rows that are not pinned; None for no limit.
        pages: the thread's rows, oldest first; read only as far as needed.

    Returns:
        The rows of `added` to put, and the rows of the thread to delete.
    """
    newest = [row for row in added if not row.pinned]
    excess = 0 if max_messages is None else unpinned + len(newest) - max_messages
    if excess <= 0:
        return list(added), []
    oldest: list[Row] = []
    async for page in pages:
        oldest += (row for row in page if not row.pinned)
        if any(row.boundary for row in oldest[excess:]):
            break
    index = trim_index([row.boundary for row in (*oldest, *newest)], excess)
    dropped = {row.position for row in newest[: max(0, index - len(oldest))]}
    return [row for row in added if row.position not in dropped], oldest[:index]
