"""What the codecs of several frameworks do with parts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from agent_stores.contents import AnyContent, OpaqueContent, TextContent, ToolCallContent, ToolResultContent
from agent_stores.messages import ChatMessage


def opaque_part(framework: str, kind: Any, part: Any) -> OpaqueContent:
    """A part of a framework's message that has no neutral form, kept as it is."""
    name = kind if isinstance(kind, str) and kind else "part"
    return OpaqueContent({"type": f"{framework}.{name}", "part": part})


def own_part(framework: str, part: AnyContent) -> Any:
    """What `opaque_part` was given; None for other parts, and those of other frameworks."""
    if isinstance(part, OpaqueContent) and part.type.startswith(f"{framework}."):
        return part.data.get("part")
    return None


def object_arguments(call: ToolCallContent) -> dict[str, Any]:
    """The arguments of a call, for a framework that takes objects only; malformed text is a member."""
    try:
        return call.parse_arguments()
    except ValueError:
        return {"arguments": call.arguments}


def results_apart(message: ChatMessage) -> list[list[int]]:
    """The indexes of the parts that share a message where each tool result has a message of its own."""
    runs: list[list[int]] = []
    alone = True
    for index, part in enumerate(message.contents):
        is_result = isinstance(part, ToolResultContent)
        if alone or is_result:
            runs.append([])
        runs[-1].append(index)
        alone = is_result
    return runs or [[]]


def result_parts(result: ToolResultContent, shapes: Sequence[str] = ()) -> list[AnyContent]:
    """The parts that a tool result is shown as: its text, where it has one, and the others.

    Args:
        result: the result.
        shapes: those of the framework's own parts, in order, of which ``text`` and ``str`` are texts; the
            first one has the whole text.
    """
    text = TextContent("" if result.result is None else result.result_text())
    is_text = [shape in ("text", "str") for shape in shapes]
    if shapes and is_text.count(False) == len(result.contents):
        texts, others = iter([text]), iter(result.contents)
        return [next(texts if one else others, TextContent("")) for one in is_text]
    return [text, *result.contents] if text.text or not result.contents else list(result.contents)


def result_of(call_id: str, parts: Sequence[AnyContent], **more: Any) -> ToolResultContent:
    """The tool result that `result_parts` gives the parts of: the texts are one, and the others follow."""
    texts = [part.text for part in parts if isinstance(part, TextContent)]
    others = tuple(part for part in parts if not isinstance(part, TextContent))
    return ToolResultContent(call_id, "".join(texts), contents=others, **more)


def parse_time(value: Any) -> datetime | None:
    """The time of an ISO 8601 text with a time zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
