"""The chat-completions API's rules on a request's `messages`, checked without a network.

The source is OpenAI's API reference, "Create chat completion", body parameter `messages`: one object type
per role, with its required and optional fields, plus the order that the endpoint enforces between tool
calls and their results. This module is deliberately independent of everything else in the library and works
on plain JSON values, so that it can judge what the library sends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

__all__ = ["chat_violations"]

_TEXT = frozenset({"text"})
_PART_TYPES = {
    "system": _TEXT,
    "developer": _TEXT,
    "user": frozenset({"text", "image_url", "input_audio", "file"}),
    "assistant": frozenset({"text", "refusal"}),
    "tool": _TEXT,
}
_COMMON_KEYS = frozenset({"role", "content", "name"})
_KEYS = {
    "system": _COMMON_KEYS,
    "developer": _COMMON_KEYS,
    "user": _COMMON_KEYS,
    "assistant": _COMMON_KEYS | {"tool_calls", "refusal", "audio"},
    "tool": _COMMON_KEYS | {"tool_call_id"},
}
_AUTHOR_NAME = re.compile(r"[^\s<|\\/>]+")
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_AUDIO_FORMATS = ("wav", "mp3")


def chat_violations(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name every rule of the chat-completions API that `messages` breaks.

    The rules are those of OpenAI's API reference (chat completions, `messages`). At least one message is
    required. The roles are system, developer, user, assistant and tool; the deprecated role function is
    rejected. Content is a string or a non-empty list of the parts that the role may send; only an assistant
    message that carries tool calls or an earlier audio answer may leave it out. The tool calls of an
    assistant message are answered by the messages that directly follow it, one result for each call; a tool
    message anywhere else, or for another call, is rejected.

    Args:
        messages: The `messages` value of a request, as decoded from JSON.

    Returns:
        One line per broken rule, beginning with the place, such as `messages[3].tool_calls`. An empty list
        means that the API would accept the conversation.
    """
    items = cast("Sequence[object]", messages)
    if not items:
        return ["messages: at least one message is required"]
    found: list[str] = []
    for index, item in enumerate(items):
        found += _message_violations(item, f"messages[{index}]")
    return found + _order_violations(items)


def _object(value: object) -> Mapping[str, Any] | None:
    """Return `value` if it is a JSON object."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def _array(value: object) -> Sequence[Any] | None:
    """Return `value` if it is a JSON array."""
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else None


def _filled(value: object) -> bool:
    """Tell whether `value` is a string with something in it."""
    return isinstance(value, str) and value != ""


def _message_violations(item: object, where: str) -> list[str]:
    """Check one message by itself: its role, its keys and their values."""
    message = _object(item)
    if message is None:
        return [f"{where}: a message must be an object"]
    role = message.get("role")
    if not isinstance(role, str) or role not in _KEYS:
        return [f"{where}.role: must be one of {', '.join(_KEYS)}, not {role!r}"]
    found = [
        f"{where}.{key}: not a field of a message with the role {role}"
        for key in message
        if key not in _KEYS[role]
    ]
    if "name" in message:
        name = message["name"]
        if not isinstance(name, str) or not _AUTHOR_NAME.fullmatch(name):
            found.append(f"{where}.name: must be a string without white space or any of < | \\ / >")
    found += _content_violations(message, role, where)
    if role == "assistant":
        found += _assistant_violations(message, where)
    if role == "tool" and not _filled(message.get("tool_call_id")):
        found.append(f"{where}.tool_call_id: a tool message must name the call that it answers")
    return found


def _content_violations(message: Mapping[str, Any], role: str, where: str) -> list[str]:
    """Check `content`: a string, or a non-empty list of parts that the role may send."""
    content = message.get("content")
    if content is None:
        if role == "assistant" and (message.get("tool_calls") or message.get("audio")):
            return []
        exception = " unless it has tool_calls" if role == "assistant" else ""
        return [f"{where}.content: required in a message with the role {role}{exception}"]
    if isinstance(content, str):
        return []
    parts = _array(content)
    if parts is None:
        return [f"{where}.content: must be a string or a list of content parts"]
    if not parts:
        return [f"{where}.content: a list of content parts must not be empty"]
    found: list[str] = []
    for index, part in enumerate(parts):
        found += _part_violations(part, role, f"{where}.content[{index}]")
    return found


def _part_violations(item: object, role: str, where: str) -> list[str]:
    """Check one content part: its type, and the payload that the type requires."""
    part = _object(item)
    if part is None:
        return [f"{where}: a content part must be an object"]
    kind = part.get("type")
    allowed = _PART_TYPES[role]
    if not isinstance(kind, str) or kind not in allowed:
        return [f"{where}.type: the role {role} may send {', '.join(sorted(allowed))}, not {kind!r}"]
    payload = part.get(kind)
    if kind in ("text", "refusal"):
        return [] if isinstance(payload, str) else [f"{where}.{kind}: must be a string"]
    fields = _object(payload)
    if fields is None:
        return [f"{where}.{kind}: must be an object"]
    if kind == "image_url" and not _filled(fields.get("url")):
        return [f"{where}.image_url.url: must be a non-empty string"]
    if kind == "input_audio":
        found = (
            [] if _filled(fields.get("data")) else [f"{where}.input_audio.data: must be a non-empty string"]
        )
        if fields.get("format") not in _AUDIO_FORMATS:
            found.append(f"{where}.input_audio.format: must be one of {', '.join(_AUDIO_FORMATS)}")
        return found
    if kind == "file" and not (_filled(fields.get("file_data")) or _filled(fields.get("file_id"))):
        return [f"{where}.file: must have file_data or file_id"]
    return []


def _assistant_violations(message: Mapping[str, Any], where: str) -> list[str]:
    """Check what only an assistant message has: tool calls, a refusal, an earlier audio answer."""
    found: list[str] = []
    refusal = message.get("refusal")
    if refusal is not None and not isinstance(refusal, str):
        found.append(f"{where}.refusal: must be a string or null")
    audio = message.get("audio")
    if audio is not None and not _filled((_object(audio) or {}).get("id")):
        found.append(f"{where}.audio: must be null or an object with an id")
    if "tool_calls" not in message:
        return found
    calls = _array(message["tool_calls"])
    if not calls:
        return [*found, f"{where}.tool_calls: must be a non-empty list when present"]
    seen: set[str] = set()
    for index, call in enumerate(calls):
        found += _call_violations(call, f"{where}.tool_calls[{index}]", seen)
    return found


def _call_violations(item: object, where: str, seen: set[str]) -> list[str]:
    """Check one tool call, and add its id to those `seen` in the same message."""
    call = _object(item)
    if call is None:
        return [f"{where}: a tool call must be an object"]
    found: list[str] = []
    call_id = call.get("id")
    if not isinstance(call_id, str) or not call_id:
        found.append(f"{where}.id: must be a non-empty string")
    elif call_id in seen:
        found.append(f"{where}.id: {call_id!r} is used by another call of the same message")
    else:
        seen.add(call_id)
    if call.get("type") != "function":
        found.append(f"{where}.type: must be 'function'")
    function = _object(call.get("function"))
    if function is None:
        return [*found, f"{where}.function: must be an object"]
    name = function.get("name")
    if not isinstance(name, str) or not _FUNCTION_NAME.fullmatch(name):
        found.append(f"{where}.function.name: must be 1 to 64 of the characters a-z A-Z 0-9 _ -")
    if not isinstance(function.get("arguments"), str):
        found.append(f"{where}.function.arguments: must be a string")
    return found


def _order_violations(items: Sequence[object]) -> list[str]:
    """Check that tool calls are followed at once by their results, and that results stand nowhere else.

    The reference states it for the tool role (a response to a call of the assistant) and the endpoint
    rejects both a call without its result and a result without its call.
    """
    found: list[str] = []
    asked_at = -1  # the assistant message whose results may stand here
    asked: set[str] = set()
    answered: set[str] = set()

    def close() -> None:
        found.extend(
            f"messages[{asked_at}].tool_calls: the call {call_id!r} must be answered by a tool message "
            "before any other message"
            for call_id in sorted(asked - answered)
        )

    for index, item in enumerate(items):
        message = _object(item) or {}
        if message.get("role") != "tool":
            close()
            asked_at, asked = index, _call_ids(message)
            answered.clear()
            continue
        call_id = message.get("tool_call_id")
        where = f"messages[{index}].tool_call_id"
        if not isinstance(call_id, str):
            continue  # already reported by itself
        if not asked:
            found.append(f"{where}: a tool message must directly follow an assistant message with tool_calls")
        elif call_id not in asked:
            found.append(f"{where}: {call_id!r} is not a call of messages[{asked_at}]")
        elif call_id in answered:
            found.append(f"{where}: {call_id!r} is answered twice")
        answered.add(call_id)
    close()
    return found


def _call_ids(message: Mapping[str, Any]) -> set[str]:
    """Collect the ids of the calls that an assistant message makes."""
    if message.get("role") != "assistant":
        return set()
    calls = [_object(call) or {} for call in _array(message.get("tool_calls")) or ()]
    return {call_id for call in calls if isinstance(call_id := call.get("id"), str) and call_id}
