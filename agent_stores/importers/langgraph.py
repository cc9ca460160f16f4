"""Checkpoints of LangGraph in a database: the messages of the newest one of each thread."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from agent_stores.errors import ArgumentError, NotFoundError
from agent_stores.importers.database_reader import DatabaseReader
from agent_stores.importers.parsers.decoding import read_data
from agent_stores.importers.parsers.langgraph import channel_values, graph_message, load_value
from agent_stores.importers.source import SourceError, SourceMessage, SourceThread, UnreadableError

from sqlalchemy import Connection, column, func, inspect, select, table  # isort: skip

_THREADS = 500  # in one page
_MESSAGES = 100  # in one page


class LangGraphCheckpoints:
    """Reads the tables of `SqliteSaver`, `PostgresSaver`, and their asynchronous siblings.

    A conversation is the list of messages in one channel of the outermost graph, as the newest checkpoint
    has it. Earlier checkpoints, other channels and pending writes are not taken over.

    Args:
        url: a file's name or a URL, as `DatabaseChatMessageStore` takes it; an async driver is not needed.
        messages_channel: the channel.

    Raises:
        ArgumentError: when the URL is malformed, or of MariaDB.
        MissingDependencyError: when no driver for it is installed.
    """

    name = "langgraph"
    unrecognized = 0

    def __init__(self, url: str | os.PathLike[str], *, messages_channel: str = "messages") -> None:
        if not messages_channel:
            raise ArgumentError("messages_channel must be a channel's name, got an empty one")
        self._reader = DatabaseReader(url)
        self._channel = messages_channel
        self._is_checked = False

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._reader.location

    async def count(self) -> int | None:
        """See `Source.count`."""
        await self._check()
        wanted = select(func.count(column("thread_id").distinct())).select_from(table("checkpoints"))
        wanted = wanted.where(column("checkpoint_ns") == "")
        return await self._reader.run(lambda connection: int(connection.execute(wanted).scalar_one()))

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`.

        Raises:
            NotFoundError: when there is no such table or file.
        """
        await self._check()
        thread: Any = column("thread_id")
        after: str | None = None
        while True:
            wanted = select(thread).distinct().select_from(table("checkpoints")).order_by(thread)
            wanted = wanted.where(column("checkpoint_ns") == "").limit(_THREADS)
            query = wanted if after is None else wanted.where(thread > after)

            def read(connection: Connection) -> list[str]:
                return list(connection.execute(query).scalars())  # noqa: B023 - run before the next is made

            names = await self._reader.run(read)
            for name in names:
                if name:
                    yield SourceThread(thread_id=name, location=name)
            if len(names) < _THREADS:
                return
            after = names[-1]

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`; a checkpoint is read at once, as LangGraph does."""
        await self._check()
        is_sqlite = self._reader.dialect == "sqlite"
        read = self._sqlite_value if is_sqlite else self._postgresql_value
        try:
            value = await self._reader.run(lambda connection: read(connection, thread.thread_id))
        except UnreadableError as error:
            raise SourceError(str(error)) from None
        if value is None:
            return
        if not isinstance(value, list):
            raise SourceError(f"the channel {self._channel!r} holds no list of messages")
        for start in range(0, len(value), _MESSAGES):
            page = list(enumerate(value[start : start + _MESSAGES], start + 1))
            yield [
                read_data(
                    message,
                    repr(message).encode(errors="surrogatepass"),
                    graph_message,
                    location=f"message {number}",
                )
                for number, message in page
            ]

    async def aclose(self) -> None:
        """See `Source.aclose`."""
        await self._reader.aclose()

    def _sqlite_value(self, connection: Connection, thread_id: str) -> Any:
        row = self._newest(connection, thread_id, "type")
        return None if row is None else self._value(load_value(row[1], row[0]), None)

    def _postgresql_value(self, connection: Connection, thread_id: str) -> Any:
        row = self._newest(connection, thread_id)
        if row is None:
            return None
        checkpoint = json.loads(row[0]) if isinstance(row[0], str) else row[0]
        version = checkpoint.get("channel_versions", {}).get(self._channel)
        wanted: Any = select(column("type"), column("blob")).select_from(table("checkpoint_blobs"))
        conditions = {
            "thread_id": thread_id,
            "checkpoint_ns": "",
            "channel": self._channel,
            "version": str(version),
        }
        for name, value in conditions.items():
            wanted = wanted.where(column(name) == value)
        return self._value(checkpoint, connection.execute(wanted).first())

    def _newest(self, connection: Connection, thread_id: str, *more: str) -> Any:
        name: Any = column("checkpoint_id")
        wanted: Any = select(column("checkpoint"), *(column(one) for one in more)).select_from(
            table("checkpoints")
        )
        wanted = wanted.where(column("thread_id") == thread_id, column("checkpoint_ns") == "")
        return connection.execute(wanted.order_by(name.desc()).limit(1)).first()

    def _value(self, checkpoint: Any, blob: Any) -> Any:
        """The value of the channel; None when it has none."""
        values = channel_values(checkpoint)
        if self._channel in values and not (blob is not None and values[self._channel] is True):
            return values[self._channel]
        if blob is not None and values.get(self._channel) is not True:
            return None if blob[0] == "empty" else load_value(blob[0], blob[1])
        if self._channel in checkpoint.get("channel_versions", {}):
            raise UnreadableError(
                f"the channel {self._channel!r} stores differences (DeltaChannel), which are not read"
            )
        return None

    async def _check(self) -> None:
        """See whether the table is there."""
        if self._is_checked:
            return
        if self._reader.dialect == "mariadb":
            raise ArgumentError("the source's URL must be of SQLite or PostgreSQL, got one of MariaDB")

        def look(connection: Connection) -> bool:
            found = inspect(connection)
            if not found.has_table("checkpoints"):
                return False
            return "checkpoint_id" in {one["name"] for one in found.get_columns("checkpoints")}

        if not await self._reader.run(look):
            raise NotFoundError(f"{self.location} has no table 'checkpoints' of LangGraph")
        self._is_checked = True
