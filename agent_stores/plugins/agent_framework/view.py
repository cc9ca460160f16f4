"""What a model is shown of a stored history, when a run is about to add to it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agent_stores.contents import ToolCallContent, ToolResultContent
from agent_stores.messages import ChatMessage
from agent_stores.plugins.merge_messages import joined
from agent_stores.retention import DanglingCalls, repair

_RESULT = "\0result"  # no store holds a message of this id


def model_view(
    history: Sequence[ChatMessage], dangling_calls: DanglingCalls, answered: Collection[str] | None = None
) -> list[ChatMessage]:
    """A history as providers accept it, before the run's own messages.

    An answer that another framework keeps in several messages is one message, and a call that the run's
    messages answer is not one without a result.

    Args:
        history: as it is stored.
        dangling_calls: what to do with calls that have no result.
        answered: the ids of the calls that the run's messages answer; where they are not known, the calls
            that nothing but results follows are left alone.
    """
    if dangling_calls == "keep":
        return list(history)
    history = joined(history)
    calls = {part.call_id for message in history for part in message.tool_calls}
    if not calls:
        return list(history)  # there is nothing to pair, nor anything that could be missing
    if answered is None:
        return repair(history, dangling_calls, keep_open=True)
    known = {part.call_id for message in history for part in message.tool_results}
    coming = [
        ChatMessage("tool", contents=[ToolResultContent(call_id)], message_id=_RESULT)
        for call_id in dict.fromkeys(answered)
        if call_id in calls and (call_id not in known or _waits_again(history, call_id))
    ]
    view = repair([*history, *coming], dangling_calls)
    return [message for message in view if message.message_id != _RESULT]


def _waits_again(history: Sequence[ChatMessage], call_id: str) -> bool:
    """Whether the newest call of an id has no result: some models use an id again."""
    for message in reversed(history):
        for part in reversed(message.contents):
            if isinstance(part, ToolResultContent) and part.call_id == call_id:
                return False
            if isinstance(part, ToolCallContent) and part.call_id == call_id:
                return True
    return False
