"""The settings of a store, checked once, and the conversion between its messages and rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, cast

from typing_extensions import TypeVar

from agent_stores import _checks as check
from agent_stores._checks import check_limit, check_seconds
from agent_stores.backend import Row, Thread, TimeToLive, TtlRefresh
from agent_stores.errors import ArgumentTypeError
from agent_stores.message_rows import decode_rows, make_rows
from agent_stores.messages import ChatMessage
from agent_stores.operations import NewThread
from agent_stores.protocols import MessageCodec
from agent_stores.retention import DanglingCalls, Window
from agent_stores.store_options import OnCorrupt, choice, sequence
from agent_stores.thread_updates import with_metadata
from agent_stores.tokens import TokenCounter, estimate_tokens

M = TypeVar("M", default=ChatMessage)
N = TypeVar("N", default=ChatMessage)


class StoreSettings(Generic[M]):
    """The settings of one store; see `ChatMessageStore` for their meaning.

    Raises:
        ArgumentError, ArgumentTypeError: for a value that a setting cannot have.
    """

    def __init__(
        self,
        *,
        max_messages: int | None,
        ttl: float | timedelta | None,
        ttl_refresh: TtlRefresh,
        messages: Sequence[M] | None,
        metadata: Mapping[str, Any] | None,
        codec: MessageCodec[M] | None,
        window: Window | None,
        dangling_calls: DanglingCalls,
        on_corrupt: OnCorrupt,
        count_tokens: TokenCounter | None,
    ) -> None:
        self.max_messages = check_limit("max_messages", max_messages)
        self.ttl_refresh: TtlRefresh = choice("ttl_refresh", ttl_refresh, TtlRefresh)
        seconds = check_seconds("ttl", ttl, zero=False)
        self.ttl = None if seconds is None else TimeToLive(seconds, ttl_refresh)
        self.codec = check_codec(codec)
        if window is not None and not isinstance(window, Window):
            raise ArgumentTypeError(f"window must be a Window or None, got {type(window).__name__}")
        self.window = window or Window()
        self.dangling_calls: DanglingCalls = choice("dangling_calls", dangling_calls, DanglingCalls)
        self.on_corrupt: OnCorrupt = choice("on_corrupt", on_corrupt, OnCorrupt)
        if count_tokens is not None and not callable(count_tokens):
            raise ArgumentTypeError(
                f"count_tokens must be a callable or None, got {type(count_tokens).__name__}"
            )
        self.count_tokens = count_tokens or estimate_tokens
        self.initial_messages = [] if messages is None else self.to_messages(sequence("messages", messages))
        initial_metadata = {} if metadata is None else check.json_object(metadata, "metadata")
        self.initial_metadata = with_metadata(Thread(), initial_metadata).metadata

    def with_codec(
        self, codec: MessageCodec[N] | None, dangling_calls: DanglingCalls | None
    ) -> StoreSettings[N]:
        """The same settings for the messages of another framework."""
        other = cast("StoreSettings[N]", copy.copy(self))
        other.codec = check_codec(codec)
        if dangling_calls is not None:
            other.dangling_calls = choice("dangling_calls", dangling_calls, DanglingCalls)
        return other

    def to_messages(self, messages: Sequence[M]) -> list[ChatMessage]:
        """Our messages for the caller's.

        Raises:
            ArgumentTypeError: when one is not a message.
        """
        codec = self.codec
        if codec is not None:
            return [codec.to_chat_message(message) for message in messages]
        for index, message in enumerate(messages):
            if not isinstance(message, ChatMessage):
                raise ArgumentTypeError(
                    f"messages[{index}] must be a ChatMessage, got {type(message).__name__}"
                )
        return list(cast("Sequence[ChatMessage]", messages))

    def from_message(self, message: ChatMessage) -> M:
        """The caller's message for ours."""
        return cast("M", message) if self.codec is None else self.codec.from_chat_message(message)

    def to_rows(
        self,
        messages: Sequence[M],
        max_bytes: int | None,
        ids: Sequence[str] | None = None,
        *,
        replace_ids: bool = False,
    ) -> list[Row]:
        """Rows for the caller's messages; see `make_rows`."""
        return make_rows(
            self.to_messages(messages),
            self.count_tokens,
            ids=ids,
            replace_ids=replace_ids,
            max_bytes=max_bytes,
        )

    def make_new_thread(self, max_bytes: int | None) -> NewThread | None:
        """What a thread begins with; None for nothing. `max_bytes`: the largest message, if there is one."""
        if not self.initial_messages and not self.initial_metadata:
            return None
        rows = make_rows(self.initial_messages, self.count_tokens, max_bytes=max_bytes)
        return NewThread(rows, self.initial_metadata)

    def from_rows(self, rows: Sequence[Row], thread_id: str) -> list[tuple[Row, M]]:
        """The caller's messages for rows, each with its row; see `decode_rows`."""
        decoded = decode_rows(rows, thread_id=thread_id, on_corrupt=self.on_corrupt)
        return [(row, self.from_message(message)) for row, message in decoded]


def check_codec(codec: Any) -> Any:
    """Check that a codec is one.

    Raises:
        ArgumentTypeError: when it is not.
    """
    if codec is not None and not isinstance(codec, MessageCodec):
        raise ArgumentTypeError(f"codec must be a MessageCodec or None, got {type(codec).__name__}")
    return codec
