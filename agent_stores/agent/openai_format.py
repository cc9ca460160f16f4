"""Conversations as the Chat Completions API takes them, and its answers as our messages; pure functions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_stores._json import json_value
from agent_stores.agent.openai_parts import (
    author_name,
    call_id_for,
    call_part,
    media_part,
    result_text,
    text_part,
)
from agent_stores.agent.tools import Tool
from agent_stores.contents import (
    AnyContent,
    DataContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    UsageContent,
)
from agent_stores.messages import ChatMessage

_Slot = tuple[int, int]
"""The position of a part: the index of its message, and its own."""

_Calls = list[tuple[ToolCallContent, ToolResultContent]]


def to_openai_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """A conversation as the ``messages`` of a request.

    - The calls of a message come in an assistant message, and directly behind it their results, each in a
      tool message of its own. A message that holds more than that is split, in the order of its parts.
    - Calls without a result, such as those whose approval is pending, and results without a call are left
      out: the API would reject them. `retention.repair` gives calls that were cut off a result first.
    - Reasoning, usage, errors, approvals and parts of unknown types are not sent, and neither is a message
      that holds nothing else.
    - The API takes images, audio and files from users only: those of others go in a user message behind.
      Text in a tool message that belongs to no result is sent likewise.
    - Names of authors and functions, and ids of calls, are changed where the API would not accept them.

    Args:
        messages: the conversation, as `retention.repair` or a store's `list_messages` returns it.
    """
    results = _pair(messages)
    wire: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        for segment in _segments(message, index, results):
            wire += segment.encode()
    return wire


def to_openai_tools(tools: Iterable[Tool[..., Any]]) -> list[dict[str, Any]]:
    """Tools as the ``tools`` of a request."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "parameters": dict(tool.parameters),
            },
        }
        for tool in tools
    ]


def from_openai_message(message: Mapping[str, Any]) -> ChatMessage:
    """The assistant message of a response, as JSON-ready data.

    A refusal becomes text. A call without an id, or with a repeated one, gets a new id. What cannot be in our
    message, such as annotations, is kept in ``additional_properties["openai"]``.
    """
    rest = {name: value for name, value in message.items() if value not in (None, "", [], {})}
    rest.pop("role", None)
    parts: list[AnyContent] = []
    for name in ("reasoning_content", "reasoning"):
        if isinstance(rest.get(name), str):
            parts.append(ReasoningContent(rest.pop(name)))
            break
    content = rest.pop("content", None)
    for text in [content] if isinstance(content, str) else [part.get("text") for part in content or ()]:
        if text:
            parts.append(TextContent(text))
    if refusal := rest.pop("refusal", None):
        parts.append(TextContent(refusal))
    used: set[str] = set()
    for call in rest.pop("tool_calls", ()):
        parts.append(_read_call(call, used))
    kept = {"openai": json_value(rest, "message")} if rest else {}
    return ChatMessage("assistant", contents=parts, additional_properties=kept)


def from_openai_usage(usage: Mapping[str, Any] | None) -> UsageContent | None:
    """The tokens that a response says that it cost."""
    if not usage:
        return None
    counts = (usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    return UsageContent(*(count if isinstance(count, int) and count >= 0 else None for count in counts))


def _read_call(call: Mapping[str, Any], used: set[str]) -> AnyContent:
    function = call.get("function")
    if not isinstance(function, Mapping):
        return OpaqueContent({**call, "type": f"openai.{call.get('type') or 'call'}"})
    call_id = call.get("id")
    if not call_id or call_id in used:
        call_id = f"call_{uuid.uuid4().hex}"
    used.add(call_id)
    return ToolCallContent(call_id, function.get("name") or "unnamed", function.get("arguments") or "")


def _pair(messages: Sequence[ChatMessage]) -> dict[_Slot, ToolResultContent]:
    """The results by the positions of their calls; paired as `retention.repair` does."""
    waiting: dict[str, list[_Slot]] = {}
    results: dict[_Slot, ToolResultContent] = {}
    for index, message in enumerate(messages):
        for at, part in enumerate(message.contents):
            if isinstance(part, ToolCallContent):
                waiting.setdefault(part.call_id, []).append((index, at))
            elif isinstance(part, ToolResultContent) and waiting.get(part.call_id):
                slots = waiting[part.call_id]
                newest = slots[-1][0]
                call = next(slot for slot in slots if slot[0] == newest)
                slots.remove(call)
                results[call] = part
    return results


@dataclass
class _Segment:
    """Parts of a message up to a result among them: content, then calls with their results."""

    role: str
    name: str | None
    content: list[dict[str, Any]] = field(default_factory=list)
    media: list[dict[str, Any]] = field(default_factory=list)
    calls: _Calls = field(default_factory=list)

    def add(self, part: AnyContent) -> None:
        if isinstance(part, TextContent):
            if part.text or self.role != "assistant":  # an answer may be empty, a question is not left out
                self.content.append(text_part(part.text))
        elif isinstance(part, (DataContent, UriContent)):
            self._add_media(media_part(part), "")

    def encode(self) -> Iterator[dict[str, Any]]:
        calls = self._encode_calls()
        if self.content and not (calls and self.role == "assistant"):
            yield self._message("user" if self.role == "tool" else self.role, self.content)
        if calls:
            content = _content(self.content) if self.content and self.role == "assistant" else None
            name = self.name if self.role == "assistant" else None
            yield {
                "role": "assistant",
                "content": content,
                **({"name": name} if name else {}),
                "tool_calls": [call for call, _ in calls],
            }
            yield from (result for _, result in calls)
        if self.media:
            yield {"role": "user", "content": self.media}

    def _encode_calls(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        used: set[str] = set()
        pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for call, result in self.calls:
            call_id = call_id_for(call.call_id, used)
            texts: list[str] = []
            shown = len(self.media)
            for part in result.contents:
                if isinstance(part, TextContent):
                    texts.append(part.text)
                elif isinstance(part, (DataContent, UriContent)):
                    self._add_media(media_part(part), f"From the tool {call.name}:", always=True)
            content = result_text(result, texts) or ("See below." if len(self.media) > shown else "")
            pairs.append(
                (call_part(call, call_id), {"role": "tool", "tool_call_id": call_id, "content": content})
            )
        return pairs

    def _add_media(self, part: dict[str, Any], label: str, *, always: bool = False) -> None:
        if not always and (self.role == "user" or part["type"] == "text"):
            self.content.append(part)
            return
        if label:
            self.media.append(text_part(label))
        self.media.append(part)

    def _message(self, role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        name = {"name": self.name} if self.name and self.role != "tool" else {}
        return {"role": role, "content": _content(content), **name}


def _segments(
    message: ChatMessage, index: int, results: Mapping[_Slot, ToolResultContent]
) -> Iterator[_Segment]:
    name = author_name(message.author_name)
    segment = _Segment(message.role, name)
    complete = False  # a result stands behind the calls: what follows it was said later
    for at, part in enumerate(message.contents):
        if isinstance(part, ToolResultContent):
            complete = bool(segment.calls)
            continue
        if complete:
            yield segment
            segment, complete = _Segment(message.role, name), False
        if isinstance(part, ToolCallContent):
            if (index, at) in results:
                segment.calls.append((part, results[index, at]))
        else:
            segment.add(part)
    yield segment


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """One text as a plain string, which every server understands; else the list of parts."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        text: str = parts[0]["text"]
        return text
    return parts
