"""The `Source` protocol: reads the conversations that another library stored.

A source is read-only. It lists threads and reads the messages of a thread in pages, oldest first. A message
that cannot be decoded is returned with the reason, so that none is skipped silently.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from agent_stores.errors import AgentStoresError
from agent_stores.messages import ChatMessage


class SourceError(AgentStoresError):
    """A thread of a source cannot be read to its end; other threads are not affected."""


class UnreadableError(AgentStoresError, ValueError):
    """A stored message cannot be read; the message says why, without repeating it."""


class End(NamedTuple):
    """The end of a thread of the target.

    Attributes:
        position: the position of its last message; 0 when it has none.
        message_id: the id of that message.
    """

    position: int
    message_id: str | None


@dataclass(frozen=True, kw_only=True)
class SourceThread:
    """A thread as a source lists it.

    Attributes:
        thread_id: its id, as the application that wrote it knows it.
        location: its key or name in the source; unique there.
        tenant: whose it is, where the source knows tenants.
        messages: the number of its messages; None where counting would cost a query.
        expires_in: seconds until the source forgets it; None for never.
        note: a remark for the report.
        metadata: makes the metadata that the framework's plug-in expects, such as the state of a session.
        handle: data of the source's own.
    """

    thread_id: str
    location: str
    tenant: str | None = None
    messages: int | None = None
    expires_in: float | None = None
    note: str | None = None
    metadata: Callable[[End], Mapping[str, Any]] | None = field(default=None, repr=False)
    handle: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class SourceMessage:
    """A stored message, as it was read.

    Attributes:
        location: its position in the thread, as shown in reports: ``item 12`` or ``row 7``.
        raw: the stored bytes.
        message: the message; None where it cannot be read.
        problem: why it cannot be read.
        stable_id: an id that the message keeps in the source for ever; None where it has none. An index in a
            list is not stable: lists are trimmed, and their last element can be replaced.
    """

    location: str
    raw: bytes
    message: ChatMessage | None = None
    problem: str | None = None
    stable_id: str | None = None


@runtime_checkable
class Source(Protocol):
    """Threads that another library wrote. The connection is opened by the first read."""

    @property
    def name(self) -> str:
        """The layout's name, such as ``langchain``; ids of messages are derived from it."""
        ...

    @property
    def location(self) -> str:
        """The server and database, without secrets."""
        ...

    @property
    def unrecognized(self) -> int:
        """The number of keys that do not belong to this layout, so far."""
        ...

    async def count(self) -> int | None:
        """The number of threads for a progress bar; None where counting is expensive."""
        ...

    def threads(self) -> AsyncIterator[SourceThread]:
        """The threads, each once, in no certain order.

        Raises:
            StoreError: when the source cannot be reached or rejects the request.
        """
        ...

    def pages(self, thread: SourceThread) -> AsyncIterator[Sequence[SourceMessage]]:
        """The messages of a thread, oldest first, in pages of some megabytes at most.

        Raises:
            SourceError: when the thread changed so that reading on would leave messages out.
            StoreError: when the source cannot be reached or rejects the request.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
