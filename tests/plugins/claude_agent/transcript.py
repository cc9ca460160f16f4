"""Entries of a transcript as Claude Code 2 writes them, and unusual ones."""

from __future__ import annotations

import base64
from typing import Any

from tests.plugins.conftest import PNG

Entry = dict[str, Any]

IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()},
}


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def entry(number: int, kind: str, content: Any, **more: Any) -> Entry:
    """An entry with a message."""
    message: Entry = {"role": kind, "content": content}
    if kind == "assistant":
        message |= {
            "id": f"msg_{number}",
            "type": "message",
            "model": "claude-sonnet-4-5",
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 4, "output_tokens": 2, "service_tier": "standard"},
        }
    return {
        "parentUuid": uuid(number - 1) if number > 1 else None,
        "isSidechain": False,
        "userType": "external",
        "cwd": "/home/alice/project",
        "sessionId": "5f5b5c0e-6d4f-4d1c-9a51-6f4b7b1f6a10",
        "version": "2.1.0",
        "gitBranch": "main",
        "type": kind,
        "message": message,
        "uuid": uuid(number),
        "timestamp": f"2026-11-28T10:00:{number:02d}.123Z",
        **more,
    }


def tool_use(call_id: str, **arguments: Any) -> Entry:
    return {"type": "tool_use", "id": call_id, "name": "Read", "input": arguments}


def tool_result(call_id: str, content: Any, **more: Any) -> Entry:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


CONVERSATION: list[Entry] = [
    {"type": "queue-operation", "operation": "enqueue", "timestamp": "2026-11-28T10:00:00.000Z"},
    entry(1, "user", "What is in the file?"),
    entry(2, "assistant", [{"type": "thinking", "thinking": "I read it.", "signature": "c2ln"}]),
    entry(3, "assistant", [{"type": "text", "text": "I read it."}]),
    entry(4, "assistant", [tool_use("t1", path="a.txt")], requestId="req_1"),
    entry(5, "user", [tool_result("t1", "hello")], toolUseResult={"file": {"content": "hello"}}),
    entry(6, "assistant", [tool_use("t2", path="b"), tool_use("t3", path="c")]),
    entry(
        7,
        "user",
        [
            tool_result("t2", [{"type": "text", "text": "b"}, IMAGE]),
            tool_result("t3", [{"type": "text", "text": "no such file"}], is_error=True),
        ],
        sourceToolAssistantUUID=uuid(6),
    ),
    entry(8, "assistant", [{"type": "text", "text": "It says hello."}]),
    {"type": "custom-title", "customTitle": "A file", "sessionId": "5f5b5c0e"},
    entry(9, "user", [{"type": "text", "text": "And this?"}, IMAGE]),
]

UNUSUAL: list[Entry] = [
    {"type": "x"},
    {"type": "user", "message": {"role": "user", "content": "bare"}},
    {"type": "user", "message": {"role": "user", "content": []}},
    {"type": "user", "message": {"role": "user", "content": ""}},
    {"type": "user", "message": {"role": "user", "content": None}},
    {"type": "user", "message": {"role": "user", "content": 1.0}, "uuid": ""},
    {"type": "user", "message": {"role": "assistant", "content": "other role"}},
    {"type": "assistant", "message": {"role": "assistant", "content": "text, no list"}},
    {"type": "assistant", "message": "text"},
    {"type": "user", "message": {"role": "user", "content": ["text", 1, None, {"type": "text"}]}},
    {
        "type": "user",
        "message": {"role": "user", "content": [{"type": "text", "text": "t", "new": [1, 1.0]}]},
    },
    {"type": "user", "message": {"role": "user", "content": [tool_result("t", None)]}},
    {
        "type": "user",
        "message": {"role": "user", "content": [tool_result("t", [{"type": "text", "text": "a"}] * 2)]},
    },
    {"type": "user", "message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}},
    {
        "type": "user",
        "message": {"role": "user", "content": [tool_result("t", "x"), {"type": "text", "text": "and"}]},
    },
    {
        "type": "assistant",
        "message": {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "e"}]},
    },
    {
        "type": "assistant",
        "message": {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}]},
    },
    {
        "type": "assistant",
        "message": {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}]},
    },
    {"type": "assistant", "message": {"role": "assistant", "content": [tool_use("", a=1)]}},
    {"type": "user", "message": {"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}},
    {
        "type": "user",
        "message": {
            "role": "user",
            "content": [{"type": "document", "source": {"type": "url", "url": "https://e.org/a.pdf"}}],
        },
    },
    {"type": "user", "message": {"role": "user", "content": "half an emoji: \ud83d"}, "n": 2**70},
    {"type": "summary", "summary": "…", "leafUuid": uuid(3)},
    {"type": "file-history-snapshot", "snapshot": {"trackedFileBackups": {}}, "isSnapshotUpdate": False},
    {"type": "user", "timestamp": "yesterday", "message": {"role": "user", "content": "odd time"}},
]
