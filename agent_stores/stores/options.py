"""The options that every store takes, and the checks of what callers give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, Literal, get_args

from typing_extensions import TypedDict, TypeVar

from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.log import TtlRefresh
from agent_stores.messages import ChatMessage
from agent_stores.protocols import MessageCodec
from agent_stores.retention import DanglingCalls, Window
from agent_stores.tokens import TokenCounter

M = TypeVar("M", default=ChatMessage)

OnCorrupt = Literal["raise", "skip"]
"""What a read does with a stored message that it cannot read."""


class StoreOptions(TypedDict, Generic[M], total=False):
    """The options that every store takes; see `ChatMessageStore`."""

    thread_id: str | None
    tenant: str | None
    max_messages: int | None
    ttl: float | timedelta | None
    ttl_refresh: TtlRefresh
    messages: Sequence[M] | None
    codec: MessageCodec[M] | None
    window: Window | None
    dangling_calls: DanglingCalls
    on_corrupt: OnCorrupt
    count_tokens: TokenCounter | None


def identifier(name: str, value: Any) -> str:
    """Any non-empty text."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{name} is of type {type(value).__name__}; accepted is non-empty text")
    if not value:
        raise ArgumentError(f"{name} is empty; accepted is any non-empty text")
    return value


def choice(name: str, value: Any, choices: Any) -> Any:
    """One of the values of a `Literal` type."""
    accepted = get_args(choices)
    if value not in accepted:
        raise ArgumentError(f"{name} is {value!r}; accepted are {', '.join(map(repr, accepted))}")
    return value


def sequence(name: str, value: Any) -> list[Any]:
    """A sequence that is not text, as a list."""
    if type(value) is list:
        return list(value)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise ArgumentTypeError(
            f"{name} is of type {type(value).__name__}; accepted is a sequence, as a list"
        )
    return list(value)
