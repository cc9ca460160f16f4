"""The options that every store takes, and checks of arguments."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, cast, get_args

from typing_extensions import TypedDict, TypeVar

from agent_stores._checks import check_limit
from agent_stores.backend import TtlRefresh
from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.messages import ChatMessage
from agent_stores.protocols import MessageCodec
from agent_stores.retention import DanglingCalls, Window
from agent_stores.tokens import TokenCounter

if TYPE_CHECKING:
    from agent_stores.attachments import Attachments
    from agent_stores.encryption import Keys

M = TypeVar("M", default=ChatMessage)

_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

OnCorrupt = Literal["raise", "skip"]
"""What a read does with a stored message that cannot be decoded."""


class StoreOptions(TypedDict, Generic[M], total=False):
    """The options that every store takes; see `ChatMessageStore`."""

    thread_id: str | None
    tenant: str | None
    max_messages: int | None
    ttl: float | timedelta | None
    ttl_refresh: TtlRefresh
    messages: Sequence[M] | None
    metadata: Mapping[str, Any] | None
    codec: MessageCodec[M] | None
    window: Window | None
    dangling_calls: DanglingCalls
    on_corrupt: OnCorrupt
    count_tokens: TokenCounter | None
    encryption: Keys | None
    attachments: Attachments | None


def log_options(options: Any) -> dict[str, Any]:
    """Take the options out of a store's that its own log is made with."""
    return {name: options.pop(name) for name in ("encryption", "attachments") if name in options}


def identifier(name: str, value: Any) -> str:
    """Any non-empty text."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{name} must be a non-empty str, got {type(value).__name__}")
    if not value:
        raise ArgumentError(f"{name} must be a non-empty str, got an empty one")
    if _SURROGATE_PAIR.search(value):  # as JSON, and so in a state, they are the character that they make
        raise ArgumentError(f"{name} must have one character instead of two surrogates, got {value[:100]!a}")
    return str.__str__(value)  # encoders take no subclass


def choice(name: str, value: Any, choices: Any) -> Any:
    """One of the values of a `Literal` type."""
    accepted = get_args(choices)
    if value not in accepted:
        raise ArgumentError(
            f"{name} must be one of {', '.join(map(repr, accepted))}, got {reprlib.repr(value)}"
        )
    return value


def sequence(name: str, value: Any) -> list[Any]:
    """A sequence that is not text, as a list."""
    if type(value) is list:
        return list(value)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise ArgumentTypeError(f"{name} must be a sequence, such as a list, got {type(value).__name__}")
    return list(value)


def positive(name: str, value: Any) -> int:
    """A number from 1 up."""
    if check_limit(name, value) in (None, 0):
        raise ArgumentError(f"{name} must be a positive int, got {value!r}")
    return cast("int", value)
