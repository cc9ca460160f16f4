"""Conversations of Pydantic AI harness in SQLite: saved ones, and those of step persistence."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from agent_stores.errors import ArgumentError, NotFoundError
from agent_stores.importers.database_reader import DatabaseReader
from agent_stores.importers.parsers.decoding import read_data
from agent_stores.importers.parsers.pydantic_ai import identity, model_message, record_metadata, restore_media
from agent_stores.importers.source import SourceError, SourceMessage, SourceThread, UnreadableError

from sqlalchemy import Connection, column, inspect, select, table, text  # isort: skip

_MESSAGES = 100  # in one page
_STEPS = text(
    "SELECT conversation_id, max(seq), max(timestamp) FROM snapshots "
    "WHERE conversation_id IS NOT NULL AND state = 'complete' AND parent_run_id IS NULL "
    "GROUP BY conversation_id ORDER BY conversation_id"
)
_REFERENCED = text(
    "SELECT m.message FROM snapshot_message_refs r JOIN snapshot_messages m ON m.sha256 = r.sha256 "
    "WHERE r.snapshot_seq = :seq ORDER BY r.position"
)


class _Location(NamedTuple):
    table: str
    key: Any


class PydanticAIHarness:
    """Reads the file of `SqliteConversationStore` and `SqliteStepStore` of ``pydantic_ai_harness``.

    Of a conversation that was saved, the saved history counts; of one that only step persistence has, that
    of its newest snapshot that can be continued, runs of delegates aside. Media and long texts, which the
    harness keeps apart in the same file, are put back.

    Args:
        url: the file's name or URL.

    Raises:
        ArgumentError: when the URL is malformed, or not of SQLite.
    """

    name = "pydantic-ai"
    unrecognized = 0

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._reader = DatabaseReader(url)
        if self._reader.dialect != "sqlite":
            raise ArgumentError(f"the source must be an SQLite file, got a URL of {self._reader.dialect}")

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._reader.location

    async def count(self) -> int | None:
        """See `Source.count`."""
        return len(await self._reader.run(_list))

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`.

        Raises:
            NotFoundError: when there is no such file, or none of the harness' tables in it.
        """
        for name, (location, updated) in (await self._reader.run(_list)).items():
            yield SourceThread(
                thread_id=name, location=name, metadata=partial(record_metadata, updated), handle=location
            )

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`; a history is read at once, as the harness does."""
        history = await self._reader.run(partial(_history, thread.handle))
        for start in range(0, len(history), _MESSAGES):
            page = history[start : start + _MESSAGES]
            restored = await self._reader.run(partial(_restored, page))
            yield [
                read_data(data, identity(data), _parse, location=f"message {number}")
                for number, data in enumerate(restored, start + 1)
            ]

    async def aclose(self) -> None:
        """See `Source.aclose`."""
        await self._reader.aclose()


def _list(connection: Connection) -> dict[str, tuple[_Location, str]]:
    """Where the conversations are, and when they were changed, by their ids."""
    names = set(inspect(connection).get_table_names())
    if not names & {"conversations", "snapshots"}:
        raise NotFoundError("the file has no tables 'conversations' or 'snapshots' of Pydantic AI harness")
    found: dict[str, tuple[_Location, str]] = {}
    if "snapshots" in names:
        for name, seq, updated in connection.execute(_STEPS):
            found[name] = _Location("snapshots", seq), updated
    if "conversations" in names:
        wanted: Any = select(column("id"), column("updated_at")).select_from(table("conversations"))
        rows: Any = connection.execute(wanted.order_by(column("id")))
        for row in rows:
            found[row[0]] = _Location("conversations", row[0]), row[1]
    return found


def _history(location: _Location, connection: Connection) -> list[Any]:
    """The messages of a conversation as JSON, without what is kept apart."""
    key: Any = column("id" if location.table == "conversations" else "seq")
    wanted: Any = select(column("messages")).select_from(table(location.table)).where(key == location.key)
    stored = connection.execute(wanted).scalar()
    if stored is None:  # deleted meanwhile
        return []
    try:
        messages = json.loads(stored)
        if isinstance(messages, dict):  # each message is a row of its own
            found = connection.execute(_REFERENCED, {"seq": location.key}).scalars()
            count = messages.get("stored_messages")
            messages = [json.loads(one) for one in found]
            if len(messages) != count:
                raise SourceError(f"the snapshot has {len(messages)} of its {count} messages")
    except (ValueError, RecursionError):
        raise SourceError("its messages are not JSON") from None
    if not isinstance(messages, list):
        raise SourceError("its messages are not a list")
    return messages


def _restored(messages: Sequence[Any], connection: Connection) -> list[Any]:
    """Messages with what is kept apart; in its place the error, for one that has lost a part."""

    def blob(digest: str) -> bytes:
        wanted: Any = select(column("bytes")).select_from(table("media")).where(column("sha256") == digest)
        data = connection.execute(wanted).scalar()
        if data is None:
            raise UnreadableError("a part of it that is kept apart is not in the file")
        return bytes(data)

    has_media = inspect(connection).has_table("media")
    return [_one(message, blob) if has_media else message for message in messages]


def _one(message: Any, blob: Callable[[str], bytes]) -> Any:
    try:
        return restore_media(message, blob)
    except UnreadableError as error:
        return error


def _parse(data: Any) -> Any:
    if isinstance(data, UnreadableError):
        raise data
    return model_message(data)
