"""What a session of Strands has apart from messages: metadata of threads, or rows if it is large."""

from __future__ import annotations

from typing import Any

from agent_stores.errors import ArgumentError, NotFoundError
from agent_stores.plugins.documents import document, document_data
from agent_stores.plugins.json_codec import Data
from agent_stores.plugins.store_resolver import StoreResolver
from agent_stores.plugins.strands.blocks import FRAMEWORK
from agent_stores.plugins.thread_ids import escape

_KIND = f"{FRAMEWORK}.state"
_IN_ROW = {"$row": True}


def thread_of_agent(session_id: str, agent_id: str) -> str:
    """The id of the thread of an agent's conversation; that of the default agent is the session's own."""
    return escape(session_id, "#") if agent_id == "default" else f"{escape(session_id, '#')}#{agent_id}"


class SessionState:
    """JSON objects by name, of the threads of sessions.

    A value is in the metadata of the thread that it belongs to, or, if it is too large for that, in a row of
    the thread ``{session_id}#/state``.

    Args:
        opened: the stores.
    """

    def __init__(self, opened: StoreResolver[Any]) -> None:
        self._opened = opened

    async def read(self, session_id: str, thread_id: str, name: str) -> Data | None:
        """A value; None when there is none."""
        value = (await self._opened.store(thread_id).metadata()).get(f"{FRAMEWORK}.{name}")
        if value == _IN_ROW:
            row = await self._rows(session_id).get(_row_id(thread_id, name))
            value = None if row is None else document_data(_KIND, row)
        return value if isinstance(value, dict) else None

    async def write(self, session_id: str, thread_id: str, name: str, value: Data) -> None:
        """Set a value, in one step."""
        store = self._opened.store(thread_id)
        try:
            await store.update_metadata({f"{FRAMEWORK}.{name}": value})
        except ArgumentError:
            await self._write_row(session_id, _row_id(thread_id, name), value)
            await store.update_metadata({f"{FRAMEWORK}.{name}": _IN_ROW})

    async def _write_row(self, session_id: str, row_id: str, value: Data) -> None:
        rows = self._rows(session_id)
        row = document(_KIND, row_id, value)
        try:
            await rows.replace(row_id, row)
        except NotFoundError:
            await rows.add_messages([row])

    def _rows(self, session_id: str) -> Any:
        return self._opened.neutral(f"{escape(session_id, '#')}#/state")


def _row_id(thread_id: str, name: str) -> str:
    return f"{name}:{thread_id}"
