"""Messages on their way into a log, and out of it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from datetime import datetime, timezone

from msgspec.structs import replace as structs_replace

from agent_stores.errors import CorruptMessageError, MessageFormatError, UnsupportedVersionError
from agent_stores.log import Entry, Record
from agent_stores.message_format import decode_message, decode_messages, encode_message
from agent_stores.messages import ChatMessage
from agent_stores.retention import message_links
from agent_stores.stores.options import OnCorrupt
from agent_stores.stores.planning import to_microseconds
from agent_stores.tokens import TokenCounter

logger = logging.getLogger("agent_stores")


def make_records(
    messages: Sequence[ChatMessage],
    count_tokens: TokenCounter,
    *,
    ids: Sequence[str] | None = None,
    replacing: bool = False,
) -> list[Record]:
    """The records of messages; a message without an id or a time gets one.

    Args:
        messages: what is to be stored.
        count_tokens: counts the tokens of a message.
        ids: ids for the messages that have none; random ones by default.
        replacing: give those ids to all messages, whatever their own.
    """
    now = datetime.now(timezone.utc)
    now_us = to_microseconds(now)
    records = []
    for index, message in enumerate(messages):
        message_id = message.message_id
        if replacing or message_id is None:
            message_id = ids[index] if ids else _new_id(now)
        created_at = message.created_at or now
        if message.message_id is not message_id or message.created_at is not created_at:
            # The message was checked when it was made: this copies it without checking it again.
            message = structs_replace(message, message_id=message_id, created_at=created_at)
        calls, results = message_links(message)
        records.append(
            Record(
                message_id=message_id,
                body=encode_message(message),
                created_us=now_us if created_at is now else to_microseconds(created_at),
                tokens=count_tokens(message),
                pinned=message.pinned,
                calls=calls,
                results=results,
            )
        )
    return records


def _new_id(now: datetime) -> str:
    """A random id. It begins with the time, so that databases put the ids of a turn next to each other."""
    return f"{int(now.timestamp() * 1000):012x}{os.urandom(10).hex()}"


def read_entries(
    entries: Sequence[Entry], *, thread_id: str, on_corrupt: OnCorrupt
) -> list[tuple[Entry, ChatMessage]]:
    """The messages of entries, each with its entry.

    Raises:
        CorruptMessageError: for one that cannot be read, unless such are to be skipped.
    """
    try:
        return list(zip(entries, decode_messages([entry.body for entry in entries]), strict=True))
    except (MessageFormatError, UnsupportedVersionError):
        return _read_one_by_one(entries, thread_id, on_corrupt)


def _read_one_by_one(
    entries: Sequence[Entry], thread_id: str, on_corrupt: OnCorrupt
) -> list[tuple[Entry, ChatMessage]]:
    read = []
    for entry in entries:
        try:
            read.append((entry, decode_message(entry.body)))
        except (MessageFormatError, UnsupportedVersionError) as error:
            text = f"the message at position {entry.position} of the thread {thread_id!r} cannot be read"
            if on_corrupt == "raise":
                raise CorruptMessageError(
                    f"{text}: {error}", thread_id=thread_id, position=entry.position
                ) from error
            logger.warning("%s and is left out: %s", text, error)
    return read


def batch_id(records: Sequence[Record]) -> str:
    """Names a call by the ids of its messages, so that its retry is known."""
    digest = hashlib.blake2b(digest_size=9)
    for record in records:
        name = record.message_id.encode(errors="surrogatepass")
        digest.update(len(name).to_bytes(8, "big") + name)
    return digest.hexdigest()
