"""The Claude Agent SDK."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from agent_stores import ChatMessageStore
from agent_stores.claude_agent import TranscriptEntryCodec
from agent_stores.log import MessageLog
from tests.plugins.pairs.features import ENCODED, IMAGE, LINK, Aspect, media

_numbers = itertools.count()


def _entry(role: str, *content: Any, **fields: Any) -> Any:
    name = f"u{next(_numbers)}"
    return {"type": role, "uuid": name, "message": {"role": role, "content": list(content)}, **fields}


def _text(text: str) -> Any:
    return {"type": "text", "text": text}


def _media(kind: str, media_type: str, data: str) -> Any:
    return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


def _link(kind: str, name: str) -> Any:
    return {"type": kind, "source": {"type": "url", "url": f"{LINK}.{name}"}}


def _call(call_id: str, name: str = "look", arguments: Any = None) -> Any:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments or {}}


def _result(call_id: str, content: Any, **fields: Any) -> Any:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def _thinking(text: str, signature: str) -> Any:
    return {"type": "thinking", "thinking": text, "signature": signature}


_RED = _entry("user", _result("a", "red"))


class ClaudeAgent:
    """The entries of `AgentStoresSessionStore`, on a thread that all frameworks share."""

    label = "Claude Agent SDK"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [_entry("user", _text("Hello.")), _entry("assistant", _text("Hi."))],
        "image": [_entry("user", _text("See."), _media("image", "image/png", IMAGE))],
        "image_link": [_entry("user", _text("See."), _link("image", "png"))],
        "file": [_entry("user", _media("document", "application/pdf", ENCODED))],
        "file_link": [_entry("user", _link("document", "pdf"))],
        "file_name": [_entry("user", {**_media("document", "application/pdf", ENCODED), "title": "b.pdf"})],
        "sealed": [_entry("assistant", _thinking("Hm.", "c2ln"), _thinking("So.", "c2ln2"))],
        "calls": [
            _entry("assistant", _call("a"), _call("b", "see")),
            _entry("user", _result("a", "red"), _result("b", "red")),
        ],
        "arguments_object": [_entry("assistant", _call("a", arguments={"at": 1})), _RED],
        "results": [
            _entry("assistant", _call("a"), _call("b")),
            _entry("user", _result("a", "red"), _result("b", "blue")),
        ],
        "result_image": [
            _entry("assistant", _call("a")),
            _entry("user", _result("a", [_text("red"), _media("image", "image/png", IMAGE)])),
        ],
        "failed": [_entry("assistant", _call("a")), _entry("user", _result("a", "no", is_error=True))],
        "own_part": [_entry("assistant", _text("Hi."), {"type": "server_tool_use", "id": "x", "own": 1})],
        "message_id": [_entry("user", _text("Hello."), uuid="m1")],
        "own_fields": [_entry("assistant", _text("Hi."), own=1)],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        codec = TranscriptEntryCodec()
        store = ChatMessageStore(log, thread_id="s")
        await store.add_messages([codec.to_chat_message(entry) for entry in messages])

    async def read(self, log: MessageLog) -> list[Any]:
        codec = TranscriptEntryCodec()
        stored = [one.message async for one in ChatMessageStore(log, thread_id="s").iter_messages()]
        return [entry for message in stored for entry in codec.from_chat_message(message)]

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As the SDK, which appends entries again after a failure: by their ids they are known."""
        await self.write(log, [entry for entry in messages if "uuid" in entry])

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        said: list[Aspect] = []
        for entry in messages:
            said += [("id", entry["uuid"])] if "uuid" in entry else []
            said += [("own",)] if "own" in entry else []
            content = entry["message"]["content"]
            blocks = [_text(content)] if isinstance(content, str) else content
            said += [aspect for block in blocks for aspect in _say(entry["type"], block)]
        return said

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [dict(entry) for entry in messages]


def _say(role: str, block: Any) -> list[Aspect]:
    kind = block["type"]
    if kind == "text":
        return [(role, "text", block["text"])]
    if kind == "thinking":
        told = block["thinking"]
        return [
            ("reasoning", told),
            *([("sealed", told, block["signature"])] if block["signature"] else []),
        ]
    if kind == "tool_use":
        return [("call", block["id"], block["name"]), ("an object", block["input"])]
    if kind == "tool_result":
        content = block["content"]
        first, *more = [_text(content)] if isinstance(content, str) else content
        said: list[Aspect] = [("result", block["tool_use_id"], first.get("text"))]
        said += [aspect for inner in more for aspect in _say("result", inner)]
        return said + ([("failed", block["tool_use_id"])] if block.get("is_error") else [])
    source, shown = block["source"], "file" if kind == "document" else kind
    name: list[Aspect] = [("filename", block["title"])] if "title" in block else []
    if source["type"] == "url":
        return [media(role, shown, url=source["url"]), *name]
    return [(role, shown, base64.b64decode(source["data"])), *name]
