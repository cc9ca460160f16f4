"""One answer of a model, kept in several messages, as one message."""

from __future__ import annotations

from collections.abc import Sequence

from agent_stores.contents import TextContent
from agent_stores.messages import ChatMessage
from agent_stores.plugins.framework_data import framework_data

_ITEMS = "openai_agents"  # keeps each item of an answer in a message of its own


def joined(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The messages, with the items of one answer in one message: reasoning, text and tool calls.

    Other frameworks' models take parallel calls in one message, and none with reasoning alone. The message
    has the id of the first item. What another framework wrote is left as it is.
    """
    found: list[ChatMessage] = []
    for message in messages:
        before = found[-1] if found else None
        if before is not None and _belongs(before, message):
            properties = {_ITEMS: {"joined": True}}
            contents = (*before.contents, *message.contents)
            found[-1] = before.replace(contents=contents, additional_properties=properties)
        else:
            found.append(message)
    return found


def _belongs(before: ChatMessage, message: ChatMessage) -> bool:
    """Whether a message goes on with the answer that the one before it holds."""
    if not before.role == message.role == "assistant":
        return False
    if not framework_data(before, _ITEMS) or not framework_data(message, _ITEMS):
        return False
    return not (_has_text(before) and _has_text(message))


def _has_text(message: ChatMessage) -> bool:
    return any(isinstance(part, TextContent) for part in message.contents)
