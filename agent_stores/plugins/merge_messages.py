"""What a model is shown of a history that several frameworks may have written."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agent_stores.contents import TextContent, ToolCallContent, ToolResultContent
from agent_stores.messages import ChatMessage
from agent_stores.plugins.framework_data import framework_data
from agent_stores.retention import DanglingCalls, repair

_ITEMS = "openai_agents"  # keeps each item of an answer in a message of its own
_COMING = "\0result"  # no store holds a message of this id


def model_view(
    history: Sequence[ChatMessage], dangling_calls: DanglingCalls, answered: Collection[str] | None = None
) -> list[ChatMessage]:
    """A history as providers take it, before the messages that a run adds.

    An answer that another framework keeps in several messages is one message, and a call that the run's
    messages answer is not one without a result.

    Args:
        history: as it is stored.
        dangling_calls: what to do with calls that have no result.
        answered: the ids of the calls that the run's messages answer; where they are not known, the calls
            that nothing but results follows are left alone.
    """
    if answered is None:
        return repair(joined(history), dangling_calls, keep_open=True)
    waiting: set[str] = set()
    for message in history:
        for part in message.contents:
            if isinstance(part, ToolCallContent):
                waiting.add(part.call_id)
            elif isinstance(part, ToolResultContent):
                waiting.discard(part.call_id)
    coming = [
        ChatMessage("tool", contents=[ToolResultContent(call_id)], message_id=_COMING)
        for call_id in dict.fromkeys(answered)
        if call_id in waiting
    ]
    view = repair([*joined(history), *coming], dangling_calls)
    return [message for message in view if message.message_id != _COMING]


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
