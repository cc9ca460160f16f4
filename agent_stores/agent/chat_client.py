"""What an agent needs of a model: the `ChatClient` protocol, and what goes over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from agent_stores.agent.tools import Tool
from agent_stores.contents import (
    AnyContent,
    Content,
    ReasoningContent,
    TextContent,
    UsageContent,
    content_parts,
)
from agent_stores.messages import ChatMessage


@dataclass(frozen=True)
class ChatResponse:
    """A model's whole answer.

    Attributes:
        messages: what it said, mostly one assistant message; tool calls in it are for the caller to make. An
            agent gives the messages ids of its own.
        usage: the tokens that the call cost, where the service says so.
        finish_reason: why the model stopped, in the service's words, such as ``stop`` or ``length``.
        conversation_id: the conversation's id, where the service keeps it; to be given with the next call.
    """

    messages: Sequence[ChatMessage]
    usage: UsageContent | None = field(default=None, kw_only=True)
    finish_reason: str | None = field(default=None, kw_only=True)
    conversation_id: str | None = field(default=None, kw_only=True)

    @property
    def text(self) -> str:
        """The text of all its messages."""
        return "".join(message.text for message in self.messages)


@dataclass(frozen=True, init=False)
class ChatUpdate:
    """A piece of a model's answer, as it is streamed.

    Attributes:
        contents: what is new: a piece of text (which continues the piece before it), or other parts, each of
            them whole. Text may be given as it is: ``ChatUpdate("Hel")``.
        usage: as in `ChatResponse`; mostly with the last piece.
        finish_reason: as in `ChatResponse`.
        conversation_id: as in `ChatResponse`.
    """

    contents: tuple[AnyContent, ...] = ()
    usage: UsageContent | None = None
    finish_reason: str | None = None
    conversation_id: str | None = None

    def __init__(
        self,
        contents: str | Content | Sequence[Content | str] = (),
        *,
        usage: UsageContent | None = None,
        finish_reason: str | None = None,
        conversation_id: str | None = None,
    ) -> None:
        for name, value in (
            ("contents", content_parts(contents, "contents")),
            ("usage", usage),
            ("finish_reason", finish_reason),
            ("conversation_id", conversation_id),
        ):
            object.__setattr__(self, name, value)

    @property
    def text(self) -> str:
        """The new text."""
        return "".join(part.text for part in self.contents if isinstance(part, TextContent))


@runtime_checkable
class ChatClient(Protocol):
    """A model, as an agent calls it. A class that has the methods is one, whatever it derives from.

    Both methods take the same arguments:

    - ``messages``: the conversation, as `retention.repair` leaves it. With a ``conversation_id``, only what
      is new to that conversation: the service knows the rest.
    - ``tools``: the functions that the model may call; the client offers them and never calls them.
    - ``conversation_id``: the conversation to go on with, kept by the service. A client whose service keeps
      none rejects it with an `ArgumentError`.
    - ``options``: settings of this call, in the service's terms, such as ``temperature``. The agent itself
      sets ``tool_choice`` to ``"none"`` where no further tool call is wanted.

    What they raise ends the run; the agent says so with an `AgentRunError`. An `ArgumentError`,
    `ArgumentTypeError` or `MissingDependencyError` is passed on as it is.

    A client that keeps conversations may say so with an attribute ``keeps_conversations = True``: the agent's
    new threads are then left to it, unless the agent has a store factory.
    """

    async def get_response(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Tool[..., Any]] = (),
        conversation_id: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ChatResponse:
        """The model's whole answer."""
        ...

    def get_streaming_response(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Tool[..., Any]] = (),
        conversation_id: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ChatUpdate]:
        """The model's answer in pieces; it raises when the answer breaks off, and never ends early."""
        ...


def join_updates(updates: Iterable[ChatUpdate]) -> ChatResponse:
    """The whole answer that was streamed in pieces: an assistant message, with its text put together."""
    parts: list[AnyContent] = []
    usage: UsageContent | None = None
    finish_reason: str | None = None
    conversation_id: str | None = None
    pieces: list[AnyContent] = []
    for update in updates:
        pieces += update.contents
        usage = update.usage or usage
        finish_reason = update.finish_reason or finish_reason
        conversation_id = update.conversation_id or conversation_id
    for joinable, run in groupby(pieces, _joinable):
        if joinable is TextContent:
            parts.append(TextContent("".join(part.text for part in run if isinstance(part, TextContent))))
        elif joinable is ReasoningContent:
            parts.append(
                ReasoningContent("".join(part.text for part in run if isinstance(part, ReasoningContent)))
            )
        else:
            parts += run
    return ChatResponse(
        (ChatMessage("assistant", contents=parts),),
        usage=usage,
        finish_reason=finish_reason,
        conversation_id=conversation_id,
    )


def add_usage(one: UsageContent | None, other: UsageContent | None) -> UsageContent | None:
    """What two calls cost together; a number that only one of them knows counts as it is."""
    if one is None or other is None:
        return one or other
    return UsageContent(
        _sum(one.input_tokens, other.input_tokens),
        _sum(one.output_tokens, other.output_tokens),
        _sum(one.total_tokens, other.total_tokens),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


def _joinable(part: AnyContent) -> type[Content] | None:
    """The type of a part that is only text, and so continues one of the same type."""
    if isinstance(part, (TextContent, ReasoningContent)) and part == type(part)(part.text):
        return type(part)
    return None
