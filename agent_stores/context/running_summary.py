"""A thread's running summary, kept in the thread's metadata under the key `KEY`.

It names the last message that it covers by position and by id, as positions change when a thread is exported
or restored to another store. It also has that message's time, which decides when the message is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agent_stores.backend import Row
from agent_stores.context.threads import thread_key
from agent_stores.errors import ConflictError
from agent_stores.listing import ThreadStats, to_microseconds
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore, StoredMessage

KEY = "agent_stores.summary"
"""The key of the summary in a thread's metadata."""

_MAX_BYTES = 24_576  # of the text: metadata has room for 64 KiB of JSON
_ATTEMPTS = 5  # of saving, while others change other keys of the metadata


class Summary(NamedTuple):
    """A running summary.

    Attributes:
        text: empty when nothing is summarised.
        through_position: the position of the last message that it covers; 0 for none.
        stored: what the metadata held when it was loaded.
    """

    text: str = ""
    through_position: int = 0
    stored: Any = None


async def load_summary(store: ChatMessageStore, stats: ThreadStats) -> Summary:
    """The summary of a thread, as far as it covers messages of this thread.

    A summary is ignored when it covers more than the thread: in a fork from an earlier position, and after
    all messages that existed when it was made were cleared or replaced.

    Args:
        store: the thread's store.
        stats: the thread's metadata.
    """
    stored = stats.metadata.get(KEY)
    nothing = Summary(stored=stored)
    if not isinstance(stored, Mapping):
        return nothing
    key, log = thread_key(store), store.log
    text, through_id = str(stored.get("text", "")), str(stored.get("through_id", ""))
    through, at_us = _integer(stored, "through_position"), _integer(stored, "through_us")
    oldest = await _first_row(store, after=0)
    if oldest is None or oldest.position > _integer(stored, "last_position"):
        return nothing  # the messages were cleared or replaced
    row = await log.get(key, through_id) if through_id else None
    if row is not None:
        return Summary(text, row.position, stored)
    if oldest.created_us > at_us:
        return Summary(text, 0, stored)  # all that it covers was trimmed
    if through > stats.last_position:
        return nothing  # a fork from an earlier position
    before = await log.read(key, before=through + 1, limit=1, newest=True, bodies=False)
    following = await _first_row(store, after=through)
    older = all(row.created_us <= at_us for row in before if not row.pinned)
    if older and (following is None or following.created_us >= at_us):
        return Summary(text, through, stored)  # only the message `through_id` was deleted
    return nothing  # a fork from an earlier position that has grown since


async def save_summary(
    store: ChatMessageStore, summary: Summary, text: str, last: StoredMessage[ChatMessage]
) -> bool:
    """Replace a summary, unless another process replaced it meanwhile; returns whether it was replaced.

    Args:
        store: the thread's store.
        summary: the summary that was loaded.
        text: the new text.
        last: the last message that it covers.
    """
    created = last.message.created_at
    for _ in range(_ATTEMPTS):
        stats = await store.stats()
        if stats.metadata.get(KEY) != summary.stored:
            return False
        value = {
            "text": text.encode()[:_MAX_BYTES].decode(errors="ignore"),
            "through_position": last.position,
            "through_id": last.message.message_id,
            "through_us": 0 if created is None else to_microseconds(created),
            "last_position": stats.last_position,
        }
        try:
            await store.update_metadata({KEY: value}, expected_revision=stats.revision)
        except ConflictError:
            continue
        return True
    return False


async def _first_row(store: ChatMessageStore, after: int) -> Row | None:
    """The oldest row after a position that is not pinned, without its body."""
    while True:
        rows = await store.log.read(thread_key(store), after=after, limit=16, bodies=False)
        first = next((row for row in rows if not row.pinned), None)
        if first is not None or len(rows) < 16:
            return first
        after = rows[-1].position


def _integer(stored: Mapping[str, Any], name: str) -> int:
    value = stored.get(name)
    return value if isinstance(value, int) else 0
