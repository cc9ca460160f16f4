"""Threads as a framework is shown them that takes several messages for some of ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore


class PartOf(Protocol):
    """A framework's message."""

    @property
    def parts(self) -> tuple[int, ...]:
        """The indexes of the parts of ours that it shows."""
        raise NotImplementedError


S = TypeVar("S", bound=PartOf)
Show = Callable[[ChatMessage], Sequence[S]]
"""Gives the framework's messages for one of ours."""


async def newest(
    store: ChatMessageStore[ChatMessage], show: Show[S], count: int
) -> list[tuple[ChatMessage, S]]:
    """The newest `count` messages of the framework, each with ours, of which some are shown as none."""
    wanted = count
    while wanted > 0:
        stored = await store.latest(wanted)
        found = [(one.message, shown) for one in stored for shown in show(one.message)]
        if len(found) >= count or len(stored) < wanted:
            return found[-count:]
        wanted = 2 * wanted + 8
    return []


def without(message: ChatMessage, parts: Collection[int], show: Show[Any]) -> ChatMessage | None:
    """A message without some of its parts; None where the framework is shown nothing of the others."""
    others = [part for index, part in enumerate(message.contents) if index not in parts]
    rest = message.replace(contents=others)
    return rest if others and show(rest) else None


async def take_out(
    store: ChatMessageStore[ChatMessage], message: ChatMessage, parts: Collection[int], show: Show[Any]
) -> bool:
    """Take what one message of the framework shows out of ours; False when another client did."""
    rest = without(message, parts, show)
    if rest is None:
        return await store.delete(message.message_id or "") > 0
    await store.replace(message.message_id or "", rest)
    return True
