"""What an agent's run brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_stores.contents import AnyContent, TextContent, UsageContent
from agent_stores.messages import ChatMessage, Role


@dataclass(frozen=True, kw_only=True)
class AgentResponse:
    """A whole run.

    Attributes:
        messages: what the run added to the thread behind its input: the model's messages, and the results of
            the tools that it called, in order.
        usage: the tokens that all calls of the model cost together, where the service says so.
        finish_reason: why the model stopped, in the service's words, such as ``stop`` or ``length``.
    """

    messages: Sequence[ChatMessage]
    usage: UsageContent | None = None
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """The answer: the text of the model's last message.

        What it said before it called tools is in the messages before.
        """
        said = [message.text for message in self.messages if message.role == "assistant"]
        return said[-1] if said else ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class AgentUpdate:
    """A piece of a run, as it is streamed.

    Attributes:
        contents: what is new: a piece of text, whole tool calls, or the results of tools.
        role: who says it: ``assistant``, or ``tool`` for results.
        response: the whole run; set on the last update only, when the turn is stored.
    """

    contents: tuple[AnyContent, ...] = ()
    role: Role = "assistant"
    response: AgentResponse | None = None

    @property
    def text(self) -> str:
        """The new text of the model; empty for other pieces."""
        return "".join(part.text for part in self.contents if isinstance(part, TextContent))
