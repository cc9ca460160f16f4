"""Sessions of Google ADK in a database: those of `DatabaseSessionService` and `SqliteSessionService`."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any

from agent_stores.errors import NotFoundError
from agent_stores.importers.database_reader import DatabaseReader
from agent_stores.importers.page_size import PageSize
from agent_stores.importers.parsers.decoding import read_data
from agent_stores.importers.parsers.google_adk import (
    adk_event,
    legacy_event,
    metadata_of_state,
    session_metadata,
)
from agent_stores.importers.source import SourceMessage, SourceThread
from agent_stores.plugins.thread_ids import escape

from sqlalchemy import Connection, column, func, inspect, select, table, text, tuple_  # isort: skip

_THREADS = 500  # in one page
_STATES = "#google_adk/"
_KEY = ("app_name", "user_id", "id")


class ADKSessions:
    """Reads the tables of `DatabaseSessionService` and of `SqliteSessionService`, events and states.

    A session is the thread that `AgentStoresSessionService` would have for it, and so are the states of
    applications and users. Both layouts of ADK are read: events as JSON, and the older one with columns and
    pickled actions, for which ADK's own restricted unpickler is used.

    Args:
        url: a file's name or a URL, as `DatabaseChatMessageStore` takes it; an async driver is not needed.

    Raises:
        ArgumentError: when the URL is malformed.
        MissingDependencyError: when no driver for it is installed.
    """

    name = "google-adk"
    unrecognized = 0

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._reader = DatabaseReader(url)
        self._is_legacy: bool | None = None

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._reader.location

    async def count(self) -> int | None:
        """See `Source.count`; states are threads, too."""
        await self._read_tables()

        def read(connection: Connection) -> int:
            names = ("sessions", "app_states", "user_states")
            counts = (select(func.count()).select_from(table(name)) for name in names)
            return sum(int(connection.execute(one).scalar_one()) for one in counts)

        return await self._reader.run(read)

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`.

        Raises:
            NotFoundError: when the database or its tables do not exist.
        """
        await self._read_tables()
        async for row in self._rows("app_states", _KEY[:1]):
            name = f"{_STATES}{escape(row['app_name'])}"
            yield SourceThread(
                thread_id=name, location=name, metadata=partial(metadata_of_state, _object(row))
            )
        async for row in self._rows("user_states", _KEY[:2]):
            name = f"{_STATES}{escape(row['app_name'])}/{escape(row['user_id'])}"
            yield SourceThread(
                thread_id=name, location=name, metadata=partial(metadata_of_state, _object(row))
            )
        async for row in self._rows("sessions", _KEY, "create_time"):
            app, user, session = (str(row[name]) for name in _KEY)
            name = f"{escape(app)}/{escape(user)}/{session}"
            created = _seconds(row["create_time"]) or 0.0
            yield SourceThread(
                thread_id=name,
                location=name,
                metadata=partial(session_metadata, _object(row), created),
                handle=(app, user, session),
            )

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`; the order is that in which ADK reads events."""
        if thread.handle is None:
            return
        await self._read_tables()
        size, after = PageSize(), None
        while True:
            rows = await self._events(thread.handle, after, size.next)
            if not rows:
                return
            found = [self._read(row) for row in rows]
            yield found
            after = rows[-1]
            size.saw(len(found), sum(len(one.raw) for one in found))

    async def aclose(self) -> None:
        """See `Source.aclose`."""
        await self._reader.aclose()

    async def _rows(self, name: str, key: Sequence[str], *more: str) -> AsyncIterator[Mapping[str, Any]]:
        """The rows of a table with a state, by its key."""
        keys: list[Any] = [column(one) for one in key]
        columns = [*keys, column("state"), *(column(one) for one in more)]
        after: tuple[Any, ...] | None = None
        while True:
            query = select(*columns).select_from(table(name)).order_by(*keys).limit(_THREADS)
            if after is not None:
                query = query.where(tuple_(*keys) > tuple_(*after))
            rows = await self._reader.run(partial(_fetch, query))
            for row in rows:
                yield row
            if len(rows) < _THREADS:
                return
            after = tuple(rows[-1][one] for one in key)

    async def _events(self, session: tuple[str, ...], after: Any, count: int) -> list[Mapping[str, Any]]:
        names = ("app_name", "user_id", "session_id")
        moment: Any = column("timestamp")
        name: Any = column("id")
        query = select(text("*")).select_from(table("events")).order_by(moment, name).limit(count)
        for one, value in zip(names, session, strict=True):
            query = query.where(column(one) == value)
        if after is not None:
            query = query.where(tuple_(moment, name) > tuple_(after["timestamp"], after["id"]))
        return await self._reader.run(partial(_fetch, query))

    def _read(self, row: Mapping[str, Any]) -> SourceMessage:
        location = f"event {row['id']}"
        stored = dict(row)
        if not self._is_legacy:
            return _with_raw(
                stored["event_data"], {**stored, "timestamp": _seconds(row["timestamp"])}, location
            )
        stored["timestamp"] = _seconds(row["timestamp"])
        raw = bytes(row["actions"] or b"") + json.dumps(row.get("content"), default=str).encode()
        return read_data(stored, raw, legacy_event, location=location, stable_id=str(row["id"]))

    async def _read_tables(self) -> None:
        """See whether the tables are there, and which layout they have."""
        if self._is_legacy is not None:
            return

        def inspect_tables(connection: Connection) -> set[str] | None:
            found = inspect(connection)
            if not (found.has_table("sessions") and found.has_table("events")):
                return None
            return {one["name"] for one in found.get_columns("events")}

        columns = await self._reader.run(inspect_tables)
        if columns is None or not columns & {"event_data", "actions"}:
            raise NotFoundError(f"{self.location} has no tables 'sessions' and 'events' of Google ADK")
        self._is_legacy = "event_data" not in columns


def _fetch(query: Any, connection: Connection) -> list[Mapping[str, Any]]:
    return [dict(row._mapping) for row in connection.execute(query)]


def _with_raw(data: Any, stored: Mapping[str, Any], location: str) -> SourceMessage:
    """An event that is JSON, as text or decoded by the driver."""
    stable_id = str(stored["id"])
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else json.dumps(data).encode()
    try:
        decoded = json.loads(data) if isinstance(data, str) else data
    except (ValueError, RecursionError):
        return SourceMessage(location, raw, None, "its event_data is not JSON", stable_id)
    parse = partial(adk_event, stored=stored)
    return read_data(decoded, raw, parse, location=location, stable_id=stable_id)


def _object(row: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a row; empty for one that is no JSON object."""
    value = row["state"]
    try:
        found = json.loads(value) if isinstance(value, (str, bytes)) else value
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _seconds(value: Any) -> float | None:
    """A time of a row, which is in UTC, as seconds since 1970."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    return float(value) if isinstance(value, (int, float)) else None
