"""Messages as rows, and rows as messages."""

from __future__ import annotations

import logging
import os
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime, timezone

from msgspec.structs import replace

from agent_stores._checks import check_count
from agent_stores.backend import Row
from agent_stores.errors import (
    CorruptMessageError,
    MessageFormatError,
    MessageTooLargeError,
    UnsupportedVersionError,
)
from agent_stores.listing import to_microseconds
from agent_stores.message_format import decode_messages, decode_stored, encode_message
from agent_stores.messages import ChatMessage
from agent_stores.retention import find_boundaries
from agent_stores.store_options import OnCorrupt
from agent_stores.thread_updates import trim_index
from agent_stores.tokens import TokenCounter

logger = logging.getLogger("agent_stores")


def make_rows(
    messages: Sequence[ChatMessage],
    count_tokens: TokenCounter,
    *,
    ids: Sequence[str] | None = None,
    replace_ids: bool = False,
    max_bytes: int | None = None,
) -> list[Row]:
    """The rows of messages; a message without an id or a time of creation gets one.

    Args:
        messages: the messages of one call; boundaries follow from all of them.
        count_tokens: counts the tokens of a message.
        ids: ids for the messages that have none; random ones by default.
        replace_ids: whether all messages get those ids, whatever their own.
        max_bytes: the largest message, in bytes of its JSON.

    Raises:
        MessageTooLargeError: when a message is larger.
    """
    now = datetime.now(timezone.utc)
    now_us = to_microseconds(now)
    boundaries = find_boundaries(messages)
    new_ids = ids or _new_ids(now_us, len(messages))
    rows = []
    for index, message in enumerate(messages):
        message_id, created_at = message.message_id, message.created_at
        if message_id is None or created_at is None or replace_ids:
            if message_id is None or replace_ids:
                message_id = new_ids[index]
            created_at = created_at or now
            # The message was checked when it was made: this copies it without checking it again.
            message = replace(message, message_id=message_id, created_at=created_at)
        body = encode_message(message)
        size = len(body)
        if max_bytes is not None and size > max_bytes:
            raise MessageTooLargeError.of(f"message {message_id!r}", size, max_bytes)
        rows.append(
            Row(
                message_id,
                body,
                0,
                boundaries[index],
                message.pinned,
                size,
                check_count("what count_tokens returns", count_tokens(message)),
                now_us if created_at is now else to_microseconds(created_at),
            )
        )
    return rows


def _new_ids(now_us: int, count: int) -> list[str]:
    """Random ids. They begin with the time, so that databases put the ids of a turn next to each other."""
    time, noise = (now_us // 1000).to_bytes(6, "big"), os.urandom(10 * count)
    return [urlsafe_b64encode(time + noise[10 * n : 10 * n + 10])[:22].decode("ascii") for n in range(count)]


def decode_rows(
    rows: Sequence[Row], *, thread_id: str, on_corrupt: OnCorrupt
) -> list[tuple[Row, ChatMessage]]:
    """The messages of rows, each with its row.

    Raises:
        CorruptMessageError: for a message that cannot be read, unless those are skipped.
    """
    try:
        return list(zip(rows, decode_messages([row.body for row in rows]), strict=True))
    except (MessageFormatError, UnsupportedVersionError):
        pass
    decoded = []
    for row in rows:
        try:
            decoded.append((row, decode_stored(row.body)))
        except (MessageFormatError, UnsupportedVersionError) as error:
            text = f"message at position {row.position} of thread {thread_id!r} cannot be read"
            if on_corrupt == "raise":
                raise CorruptMessageError(
                    f"{text}: {error}", thread_id=thread_id, position=row.position
                ) from error
            logger.warning("%s and is skipped: %s", text, error)
    return decoded


def keep_newest(rows: Sequence[Row], max_messages: int | None) -> list[Row]:
    """The rows that a thread with a limit keeps of these."""
    unpinned = [row for row in rows if not row.pinned]
    if max_messages is None or len(unpinned) <= max_messages:
        return list(rows)
    index = trim_index([row.boundary for row in unpinned], len(unpinned) - max_messages)
    dropped = set(map(id, unpinned[:index]))
    return [row for row in rows if id(row) not in dropped]
