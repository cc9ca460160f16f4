"""Sessions of the OpenAI Agents SDK in a database: SQLite's, advanced or not, and SQLAlchemy's."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timezone
from typing import Any

from agent_stores.errors import ArgumentError, NotFoundError
from agent_stores.importers.database_reader import DatabaseReader
from agent_stores.importers.page_size import PageSize
from agent_stores.importers.parsers.decoding import read_json
from agent_stores.importers.parsers.openai_agents import responses_item
from agent_stores.importers.source import SourceMessage, SourceThread

from sqlalchemy import (  # isort: skip - after what says which extra is missing
    ColumnElement,
    Connection,
    and_,
    column,
    func,
    inspect,
    join,
    or_,
    select,
    table,
)

_THREADS = 500  # in one page
_STRUCTURE = "message_structure"  # of AdvancedSQLiteSession, whose items belong to branches


class OpenAIAgentsTables:
    """Reads the tables of `SQLiteSession`, `AdvancedSQLiteSession` and `SQLAlchemySession`.

    Args:
        url: a file's name or a URL, as `DatabaseChatMessageStore` takes it; an async driver is not needed.
        messages_table: what the SDK was given as such.
        branch: of an `AdvancedSQLiteSession` the branch that is read.

    Raises:
        ArgumentError: when the URL is malformed.
        MissingDependencyError: when no driver for it is installed.
    """

    name = "openai-agents"
    unrecognized = 0

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        messages_table: str = "agent_messages",
        branch: str = "main",
    ) -> None:
        if not messages_table:
            raise ArgumentError("messages_table must be a table's name, got an empty one")
        self._reader = DatabaseReader(url)
        self._name = messages_table
        self._messages: Any = table(
            messages_table,
            column("id"),
            column("session_id"),
            column("message_data"),
            column("created_at"),
        )
        self._branch = branch
        self._has_branches: bool | None = None

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._reader.location

    async def count(self) -> int | None:
        """See `Source.count`."""
        await self._read_tables()
        wanted = select(func.count(self._messages.c.session_id.distinct()))
        return await self._reader.run(lambda connection: int(connection.execute(wanted).scalar_one()))

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`.

        Raises:
            NotFoundError: when there is no such table or file.
        """
        await self._read_tables()
        session, after = self._messages.c.session_id, None
        while True:
            wanted = select(session, func.count()).group_by(session).order_by(session).limit(_THREADS)
            if after is not None:
                wanted = wanted.where(session > after)
            query = wanted

            def read(connection: Connection) -> list[Any]:
                return list(connection.execute(query))  # noqa: B023 - run before the next is made

            rows = await self._reader.run(read)
            for name, count in rows:
                if name:
                    yield SourceThread(thread_id=str(name), location=str(name), messages=count)
            if len(rows) < _THREADS:
                return
            after = rows[-1][0]

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`."""
        await self._read_tables()
        size, after = PageSize(), None
        while True:
            rows = await self._page(thread.thread_id, after, size.next)
            if not rows:
                return
            found = [_read(row) for row in rows]
            yield found
            after = rows[-1]
            size.saw(len(found), sum(len(one.raw) for one in found))

    async def aclose(self) -> None:
        """See `Source.aclose`."""
        await self._reader.aclose()

    async def _page(self, session_id: str, after: Any, count: int) -> list[Any]:
        messages = self._messages.c
        start: Any = self._messages
        order: tuple[Any, ...] = (messages.id,)
        conditions: list[ColumnElement[bool]] = [messages.session_id == session_id]
        if self._has_branches:
            structures: Any = table(
                _STRUCTURE, column("message_id"), column("branch_id"), column("sequence_number")
            )
            structure = structures.c
            start = join(start, structures, structure.message_id == messages.id)
            conditions.append(structure.branch_id == self._branch)
            order = (structure.sequence_number,)
        elif self._reader.dialect != "sqlite":
            order = (messages.created_at, messages.id)  # as SQLAlchemySession has it
        wanted = select(messages.id, messages.message_data, messages.created_at, *order[:1]).select_from(
            start
        )
        if after is not None and len(order) == 1:
            conditions.append(order[0] > after[3])
        elif after is not None:
            later = messages.created_at > after[2]
            same = and_(messages.created_at == after[2], messages.id > after[0])
            conditions.append(or_(later, same))
        query = wanted.where(*conditions).order_by(*order).limit(count)
        return await self._reader.run(lambda connection: list(connection.execute(query)))

    async def _read_tables(self) -> None:
        """See whether the table is there, and whether items belong to branches."""
        if self._has_branches is not None:
            return

        def inspect_tables(connection: Connection) -> tuple[bool, bool]:
            found = inspect(connection)
            return found.has_table(self._name), found.has_table(_STRUCTURE)

        is_there, has_branches = await self._reader.run(inspect_tables)
        if not is_there:
            raise NotFoundError(f"{self.location} has no table {self._name!r}")
        self._has_branches = has_branches


def _read(row: Any) -> SourceMessage:
    number, data, created_at = row[0], row[1], _time(row[2])
    raw = data if isinstance(data, bytes) else str(data).encode(errors="surrogatepass")
    found = read_json(raw, responses_item, location=f"row {number}", stable_id=str(number))
    if found.message is None or created_at is None or found.message.created_at is not None:
        return found
    dated = found.message.replace(created_at=created_at)
    return SourceMessage(found.location, found.raw, dated, None, found.stable_id)


def _time(value: Any) -> datetime | None:
    """The time that a row was written; the SDK lets the database say it, without a time zone."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
