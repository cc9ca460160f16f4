"""What is kept of a thread, and what a model is shown of it: pure functions, the same for every store.

- A limit is ``None`` for all, 0 for none, and *n* for the newest *n*, in order.
- A *group* is a tool call with its results. Each message has a bit that says whether it begins a group
  (`find_boundaries`); a trim or window cuts only there (`agent_stores.thread_updates.trim_index`).
- Pinned system messages are always kept, and come first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from agent_stores._checks import check_limit, check_seconds
from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    ReasoningContent,
    ToolCallContent,
    ToolResultContent,
    UsageContent,
)
from agent_stores.errors import ArgumentError, UnansweredToolCallError
from agent_stores.messages import ChatMessage
from agent_stores.thread_updates import trim_index

DanglingCalls = Literal["synthesize", "drop", "raise", "keep"]
"""What a view does with tool calls without a result: give them an error result, leave them out, or raise.

``"keep"`` shows all messages as they are stored, in their order, for a reader that pairs calls and results
itself.
"""

NO_RESULT = "No result was recorded for this tool call: the run ended before the tool returned."
"""The text of a synthesized result."""

_MARK = "agent_stores"
SYNTHESIZED: Mapping[str, Any] = {_MARK: {"synthesized": True}}
"""The additional properties of a synthesized result; a real one that comes later goes before it."""

_PAIRED = frozenset({ToolCallContent, ToolResultContent})
_LINKED = _PAIRED | {ApprovalRequestContent, ApprovalResponseContent}
_CALLS = frozenset({ToolCallContent, ApprovalRequestContent})
_REASONING = frozenset({ReasoningContent})
_CALLS_ONLY = _CALLS | _REASONING | {UsageContent}
_APPROVAL = "approval:"


StartOn = Literal["user"]
"""The role of the message that a window begins with, after pinned messages."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What part of a thread `list_messages` returns; all limits that are set apply.

    Attributes:
        last: at most the newest *n* messages; pinned ones do not count.
        max_tokens: at most *n* tokens, pinned messages included; the newest group is kept whole.
        max_age: only messages created in the last *n* seconds (or a timedelta).
        start_on: ``"user"`` drops the messages before the first user message, unless there is none. Some
            providers reject a conversation that begins with an assistant message or a tool call.
    """

    last: int | None = None
    max_tokens: int | None = None
    max_age: float | timedelta | None = None
    start_on: StartOn | None = None

    def __post_init__(self) -> None:
        check_limit("last", self.last)
        check_limit("max_tokens", self.max_tokens)
        check_seconds("max_age", self.max_age, zero=True)
        if self.start_on not in (None, "user"):
            raise ArgumentError(f"start_on must be 'user' or None, got {self.start_on!r}")

    def override(
        self, *, last: int | None, max_tokens: int | None, max_age: float | timedelta | None
    ) -> Window:
        """This window with the limits that are not None in place of its own."""
        return Window(
            last=self.last if last is None else last,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            max_age=self.max_age if max_age is None else max_age,
            start_on=self.start_on,
        )


def message_links(message: ChatMessage) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids of the tool calls that a message makes, and of those that it answers.

    An approval request and its response are linked likewise.
    """
    if _LINKED.isdisjoint(map(type, message.contents)):
        return (), ()
    calls: list[str] = []
    results: list[str] = []
    for part in message.contents:
        if isinstance(part, ToolCallContent):
            calls.append(part.call_id)
        elif isinstance(part, ToolResultContent):
            results.append(part.call_id)
        elif isinstance(part, ApprovalRequestContent):
            calls.append(_APPROVAL + part.request_id)
        elif isinstance(part, ApprovalResponseContent):
            results.append(_APPROVAL + part.request_id)
    return tuple(calls), tuple(results)


def find_boundaries(messages: Sequence[ChatMessage]) -> list[bool]:
    """For each message of a batch whether a trim or a window may cut directly before it.

    A cut is not allowed before

    - a message that answers a call of another message;
    - a message between a call and its answer in the same batch;
    - a message of calls only that directly follows another such message;
    - a message that directly follows one of reasoning only.

    The last two keep a turn whole that a framework stores as items.
    """
    boundaries = [True] * len(messages)
    callers: dict[str, int] = {}  # the index of the message that makes a call, by the call's id
    previous: frozenset[type] = frozenset()
    for index, message in enumerate(messages):
        kinds = frozenset(map(type, message.contents))
        if previous and (previous <= _REASONING or (_is_calls_only(previous) and _is_calls_only(kinds))):
            boundaries[index] = False
        previous = kinds
        if _LINKED.isdisjoint(kinds):
            continue
        calls, results = message_links(message)
        answered = [call for call in results if call not in calls]
        if answered:
            start = min((callers.pop(call) for call in answered if call in callers), default=index - 1)
            boundaries[max(0, start + 1) : index + 1] = [False] * (index - max(0, start + 1) + 1)
        callers.update(dict.fromkeys(set(calls).difference(results), index))
    return boundaries


def _is_calls_only(kinds: frozenset[type]) -> bool:
    """Whether a message has calls or approval requests, and otherwise only reasoning and usage."""
    return not kinds.isdisjoint(_CALLS) and kinds <= _CALLS_ONLY


def window_start(
    boundaries: Sequence[bool],
    *,
    last: int | None = None,
    tokens: Sequence[int] | None = None,
    max_tokens: int | None = None,
    created: Sequence[datetime | None] | None = None,
    oldest: datetime | None = None,
) -> int:
    """The index of the first message that a window shows, of those that are not pinned.

    Args:
        boundaries: for each message whether a window may begin with it.
        last: how many messages at most.
        tokens: the tokens of each message; needed with `max_tokens`.
        max_tokens: how many tokens at most.
        created: when each message was made; needed with `oldest`.
        oldest: messages made before are not shown, nor those before them.
    """
    count = len(boundaries)
    start = 0 if last is None else max(0, count - last)
    if max_tokens is not None and tokens is not None:
        spare = max_tokens
        index = count
        while index > start and tokens[index - 1] <= spare:
            index -= 1
            spare -= tokens[index]
        # The newest message is shown even where it alone is over the limit, unless nothing is wanted.
        start = max(start, min(index, count - 1) if max_tokens else count)
    if oldest is not None and created is not None:
        for index in range(count - 1, start - 1, -1):
            made = created[index]
            if made is not None and made < oldest:
                start = index + 1
                break
    return trim_index(boundaries, start)


def repair(
    messages: Sequence[ChatMessage], dangling_calls: DanglingCalls, *, keep_open: bool = False
) -> list[ChatMessage]:
    """A conversation as model providers accept it: each tool call directly followed by its results.

    Stored messages are not changed: this makes a view of them. Results move up to directly behind their
    call; a result without a call, or a second one for the same call, is left out; a call without a result is
    treated as `dangling_calls` says. A call whose approval is pending is left alone.

    The rule is that of the chat-completions API: an assistant message with tool calls is followed by one tool
    message for each call, before anything else.

    Args:
        messages: the conversation.
        dangling_calls: what to do with calls that have no result.
        keep_open: do not repair calls after which there are only results: a framework's loop is about to
            answer them.

    Raises:
        UnansweredToolCallError: under ``"raise"``, for calls without results and results without calls.
    """
    if dangling_calls == "keep":
        return list(messages)
    for message in messages:
        for part in message.contents:
            if type(part) in _PAIRED:
                return _Repair(messages, keep_open).view(dangling_calls)
    return list(messages)


def is_synthesized(part: AnyContent) -> bool:
    """Whether a tool result was made up by `repair`."""
    return isinstance(part, ToolResultContent) and _MARK in part.additional_properties


class _Repair:
    """One pass that pairs calls with results, and one that puts the view together."""

    def __init__(self, messages: Sequence[ChatMessage], keep_open: bool) -> None:
        self.messages = messages
        self.waiting: dict[str, list[tuple[int, int]]] = {}
        self.answers: dict[int, dict[int, list[int]]] = {}  # call's message: result's message: part indexes
        self.orphans: list[str] = []
        self.pending = _pending_calls(messages) | (_open_calls(messages) if keep_open else set())
        for index, message in enumerate(messages):
            self._pair(index, message)

    def _pair(self, index: int, message: ChatMessage) -> None:
        for at, part in enumerate(message.contents):
            if isinstance(part, ToolCallContent):
                self.waiting.setdefault(part.call_id, []).append((index, at))
            elif isinstance(part, ToolResultContent):
                calls = self.waiting.get(part.call_id)
                if not calls or (is_synthesized(part) and self._is_answered_later(index, part.call_id)):
                    self.orphans.append(part.call_id)
                    continue
                # The newest message that makes the call, and in it the first such call.
                newest = calls[-1][0]
                slot = next(slot for slot in calls if slot[0] == newest)
                calls.remove(slot)
                self.answers.setdefault(newest, {}).setdefault(index, []).append(at)

    def _is_answered_later(self, index: int, call_id: str) -> bool:
        for message in self.messages[index + 1 :]:
            for part in message.contents:
                if isinstance(part, ToolCallContent) and part.call_id == call_id:
                    return False
                if isinstance(part, ToolResultContent) and part.call_id == call_id:
                    return not is_synthesized(part)
        return False

    def view(self, dangling_calls: DanglingCalls) -> list[ChatMessage]:
        missing: dict[int, dict[int, str]] = {}  # message: part index: call id
        for call_id, slots in self.waiting.items():
            # An id may be used again: it is the newest call of it that waits for approval.
            for index, at in slots[:-1] if call_id in self.pending else slots:
                missing.setdefault(index, {})[at] = call_id
        if dangling_calls == "raise" and (missing or self.orphans):
            ids = (*(call for calls in missing.values() for call in calls.values()), *self.orphans)
            raise UnansweredToolCallError(
                f"tool calls and results do not pair up: {', '.join(map(repr, ids))}", call_ids=ids
            )
        result: list[ChatMessage] = []
        moved: set[int] = set()  # messages that stand behind their call already
        for index, message in enumerate(self.messages):
            if index in moved:
                continue
            answers = self.answers.get(index, {})
            unanswered = missing.get(index, {})
            dropped = unanswered if dangling_calls == "drop" else {}
            inner = set(answers.get(index, ()))  # results inside the message that makes the call
            keep = [
                part
                for at, part in enumerate(message.contents)
                if at not in dropped and (not isinstance(part, ToolResultContent) or at in inner)
            ]
            if len(keep) == len(message.contents):
                result.append(message)
            elif _says_something(keep):
                result.append(message.replace(contents=keep))
            for source, parts in answers.items():
                if source != index:
                    result.append(self._result_message(source, parts))
                    if len(parts) == len(self.messages[source].contents):
                        moved.add(source)
            if dangling_calls == "synthesize":
                result.extend(_no_result(message, unanswered[at]) for at in sorted(unanswered))
        return result

    def _result_message(self, index: int, parts: list[int]) -> ChatMessage:
        message = self.messages[index]
        if len(parts) == len(message.contents):
            return message
        return ChatMessage(
            "tool",
            contents=[message.contents[at] for at in parts],
            author_name=message.author_name,
            created_at=message.created_at,
            message_id=None if message.message_id is None else f"{message.message_id}#{parts[0]}",
        )


def _pending_calls(messages: Sequence[ChatMessage]) -> set[str]:
    """The ids of the calls whose approval was asked for and not given or rejected yet."""
    asked: dict[str, str] = {}
    for message in messages:
        for part in message.contents:
            if isinstance(part, ApprovalRequestContent):
                asked[part.request_id] = part.tool_call.call_id
            elif isinstance(part, ApprovalResponseContent):
                asked.pop(part.request_id, None)
    return set(asked.values())


def _open_calls(messages: Sequence[ChatMessage]) -> set[str]:
    """The ids of the calls of the last message that is not one of results."""
    for message in reversed(messages):
        if not message.contents or not all(isinstance(part, ToolResultContent) for part in message.contents):
            return {part.call_id for part in message.contents if isinstance(part, ToolCallContent)}
    return set()


def _says_something(parts: Sequence[AnyContent]) -> bool:
    """Whether the parts contain more than reasoning and usage."""
    return any(not isinstance(part, (ReasoningContent, UsageContent)) for part in parts)


def _no_result(message: ChatMessage, call_id: str) -> ChatMessage:
    part = ToolResultContent(call_id, NO_RESULT, is_error=True, additional_properties=SYNTHESIZED)
    return ChatMessage("tool", contents=[part], created_at=message.created_at)
