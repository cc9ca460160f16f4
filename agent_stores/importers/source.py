"""`Source`: where conversations are that another library wrote, and what is read there.

A source only reads. It gives the threads that it finds and, for one of them, the stored messages in pages,
oldest first; a message that cannot be read is given with the reason, so that nothing is left out unseen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from agent_stores.errors import AgentStoresError
from agent_stores.messages import ChatMessage


class SourceError(AgentStoresError):
    """A thread of a source cannot be read to its end; the other threads are not concerned."""


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
        place: where it is in the source, such as a key; unique there.
        tenant: whose it is, where the source knows tenants.
        messages: how many messages it holds, where that costs nothing to know.
        expires_in: seconds until the source forgets it; None for never.
        note: what is to be said of it in a report.
        metadata: makes the metadata that the framework's plug-in expects, such as the state of a session.
        handle: the source's own.
    """

    thread_id: str
    place: str
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
        place: where it is in its thread, for a person: ``item 12`` or ``row 7``.
        raw: what is stored.
        message: the message; None where it cannot be read.
        problem: why it cannot be read.
        row: what names it in the source for ever, where something does. A place in a list does not: lists
            are trimmed, and their last element is taken off and another one put there.
    """

    place: str
    raw: bytes
    message: ChatMessage | None = None
    problem: str | None = None
    row: str | None = None


@runtime_checkable
class Source(Protocol):
    """Threads that another library wrote. Nothing connects before the first one is asked for."""

    @property
    def name(self) -> str:
        """The layout's name, such as ``langchain``; ids of messages are derived from it."""
        ...

    @property
    def location(self) -> str:
        """Where the threads are; never holds a secret."""
        ...

    @property
    def ignored(self) -> int:
        """How many things that are no threads of this layout were passed over so far."""
        ...

    async def count(self) -> int | None:
        """How many threads there are, where that is cheap to know; for a progress bar."""
        ...

    def threads(self) -> AsyncIterator[SourceThread]:
        """The threads, each once, in no certain order.

        Raises:
            StoreError: when the source cannot be reached or refuses.
        """
        ...

    def pages(self, thread: SourceThread) -> AsyncIterator[Sequence[SourceMessage]]:
        """The messages of a thread, oldest first, in pages of some megabytes at most.

        Raises:
            SourceError: when the thread changed so that reading on would leave messages out.
            StoreError: when the source cannot be reached or refuses.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
