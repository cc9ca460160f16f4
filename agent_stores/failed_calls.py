"""Calls whose outcome is unknown, so that the same call, made again, is known as their retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from agent_stores.errors import StoreUnavailableError

MAX_FAILED_CALLS = 1024
"""How many calls with an unknown outcome a store remembers."""


class FailedCall(NamedTuple):
    """A call to `ChatMessageStore.add_messages` that may or may not have been stored.

    Attributes:
        messages: the caller's message objects; kept, so that their identities stay theirs.
        message_ids: the ids that the messages were given.
        request_id: the call's request id.
    """

    messages: list[Any]
    message_ids: list[str]
    request_id: str


class FailedCalls:
    """The calls of a store whose outcome is unknown, found by the identity of their message objects."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, ...], FailedCall] = {}

    def find(self, messages: Sequence[Any]) -> FailedCall | None:
        """The failed call with the same message objects.

        Raises:
            StoreUnavailableError: when it is a new call, and too many calls are remembered.
        """
        if not self._calls:
            return None
        call = self._calls.get(_identity(messages))
        if call is None and len(self._calls) >= MAX_FAILED_CALLS:
            raise StoreUnavailableError(
                f"{len(self._calls)} calls to add_messages have an unknown outcome: repeat them with the "
                "same messages, or make a new store; nothing was written"
            )
        return call

    def remember(self, call: FailedCall) -> None:
        """Remember a call with an unknown outcome."""
        self._calls[_identity(call.messages)] = call

    def forget(self, call: FailedCall) -> None:
        """Forget a call that was stored: the same objects in another call are new messages."""
        self._calls.pop(_identity(call.messages), None)


def _identity(messages: Sequence[Any]) -> tuple[int, ...]:
    return tuple(map(id, messages))
