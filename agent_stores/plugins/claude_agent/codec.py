"""`TranscriptEntryCodec`: entries of Claude's transcripts, and our messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from agent_stores.contents import AnyContent, ReasoningContent, TextContent, ToolResultContent
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.claude_agent.blocks import blocks_of_result, build_block, in_blocks, read_block
from agent_stores.plugins.json_codec import Data, JsonCodec, LeaveOut, Shape
from agent_stores.plugins.parts import parse_time

FRAMEWORK = "claude_agent"

_NO_PLACE = ("author_name",)


class TranscriptEntryCodec:
    """A `MessageCodec` of transcript entries, which are JSON objects of many types.

    Entries of type ``user`` and ``assistant`` hold a message of the Messages API; every plug-in reads its
    text, media, reasoning, tool calls and results. Entries of other types, such as titles, are kept whole.
    """

    def __init__(self) -> None:
        self.json = JsonCodec(FRAMEWORK, "The Claude Agent SDK", _read, _build, _NO_PLACE)

    def to_chat_message(self, message: Mapping[str, Any]) -> ChatMessage:
        """Our message for an entry; its `message_id` is the entry's ``uuid``.

        Raises:
            ArgumentTypeError: when it is not a JSON object.
            ArgumentError: when it holds a number that JSON cannot.
        """
        uuid = message.get("uuid") if isinstance(message, Mapping) else None
        return self.json.encode(message, message_id=uuid if isinstance(uuid, str) and uuid else None)

    def from_chat_message(self, message: ChatMessage) -> list[Data]:
        """The entry of a message; none for a message that has no form here."""
        found = self.json.decode(message)
        return [] if found is None else [found.data]


def _read(entry: Data) -> Shape:
    kind, message = entry["type"], entry["message"]
    if kind not in ("user", "assistant") or message["role"] != kind:
        raise ValueError("the entry holds no message")
    content = message["content"]
    parts: list[AnyContent]
    if isinstance(content, str):
        parts = [TextContent(content)]
    elif isinstance(content, list):
        parts = [read_block(block, FRAMEWORK) for block in content]
    else:
        raise ValueError("the message has no contents")
    answers = bool(parts) and all(isinstance(part, ToolResultContent) for part in parts)
    ours = ChatMessage(
        "tool" if answers and kind == "user" else cast("Role", kind),
        contents=parts,
        created_at=parse_time(entry.get("timestamp")),
    )
    hints: Data = {}
    if isinstance(content, list):
        if len(parts) == 1 and isinstance(parts[0], TextContent):
            hints["blocks"] = True
        results = [index for index, block in enumerate(content) if blocks_of_result(block)]
        if results:
            hints["results"] = results
    elif kind == "assistant":
        hints["blocks"] = False
    return Shape(ours, hints)


def _build(message: ChatMessage, hints: Mapping[str, Any], leave_out: LeaveOut) -> Data | None:
    if message.role in ("system", "developer"):
        for part in message.contents:
            leave_out(part, "transcripts hold no system prompts; they are options of the SDK")
        return None
    role = "assistant" if message.role == "assistant" else "user"
    parts = message.contents
    single = parts[0] if len(parts) == 1 else None
    if isinstance(single, TextContent) and not hints.get("blocks", role == "assistant"):
        return {"type": role, "message": {"role": role, "content": single.text}}
    blocks: list[Data] = []
    results = hints.get("results") or ()
    for index, part in enumerate(parts):
        if isinstance(part, ReasoningContent) and not hints.get("own"):
            leave_out(part, "the API rejects reasoning that it has not signed")
            continue
        block = build_block(part, FRAMEWORK, role, leave_out)
        if block is not None:
            blocks.append(in_blocks(block) if index in results else block)
    if not blocks and parts:
        return None
    return {"type": role, "message": {"role": role, "content": blocks}}
