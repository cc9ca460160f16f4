"""Which messages a model is shown: the last rounds of a conversation, each tool call with a result."""

from __future__ import annotations

from collections.abc import Sequence

from agent_stores.contents import ToolResultContent
from agent_stores.messages import ChatMessage
from agent_stores.retention import NO_RESULT, SYNTHESIZED


def last_rounds(messages: Sequence[ChatMessage], count: int, *, complete: bool) -> list[ChatMessage] | None:
    """The last rounds of a conversation, as Haystack counts them.

    A round ends with an answer of the assistant in text; each system message is a round.

    Args:
        messages: the conversation, or the end of it.
        count: how many rounds.
        complete: whether it is the whole conversation.

    Returns:
        None when more messages are needed to tell where the first of these rounds begins.
    """
    rounds: list[list[ChatMessage]] = []
    current: list[ChatMessage] = []
    certain = complete
    needed = count if complete else None
    for message in messages:
        if message.role in ("system", "developer"):
            rounds.append([message])
            continue
        current.append(message)
        if message.role == "assistant" and message.text and not message.tool_calls:
            rounds.append(current)
            current = []
            if not certain:  # the messages before this one may belong to its round
                certain, needed = True, len(rounds) + count
    if current:
        rounds.append(current)
    if needed is None or (not complete and len(rounds) < needed):
        return None
    return [message for one in rounds[-count:] for message in one]


def with_results(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The conversation with an error result for each call without one, but for those that are being answered.

    These are the calls of the last message that is not one of results.
    """
    answered = {part.call_id for message in messages for part in message.tool_results}
    last = max((index for index, message in enumerate(messages) if not message.tool_results), default=0)
    shown: list[ChatMessage] = []
    for index, message in enumerate(messages):
        shown.append(message)
        for call in message.tool_calls if index < last else ():
            if call.call_id not in answered:
                part = ToolResultContent(
                    call.call_id, NO_RESULT, is_error=True, additional_properties=SYNTHESIZED
                )
                shown.append(ChatMessage("tool", contents=[part], created_at=message.created_at))
    return shown
