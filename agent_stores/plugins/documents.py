"""What plug-ins store besides messages: JSON documents, each in a row of a thread that is no conversation."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from agent_stores.contents import OpaqueContent
from agent_stores.errors import MessageFormatError
from agent_stores.messages import ChatMessage

_TEXT = "json"


def document(kind: str, name: str, data: Any, created_at: datetime | None = None) -> ChatMessage:
    """The row of a document.

    The document is kept as text: it may be nested deeper than messages may, and hold numbers that are not
    finite.

    Args:
        kind: the framework and what the document is, such as ``"google_adk.state"``.
        name: the row's id.
        data: what `json` can write.
        created_at: when the document was made; by default, when it is stored.
    """
    part = OpaqueContent({"type": kind, _TEXT: json.dumps(data, separators=(",", ":"))})
    return ChatMessage("assistant", contents=[part], message_id=name, created_at=created_at)


def document_data(kind: str, row: ChatMessage) -> Any:
    """What a document holds.

    Raises:
        MessageFormatError: when the row holds none of this kind.
    """
    part = row.contents[0] if len(row.contents) == 1 else None
    if isinstance(part, OpaqueContent) and part.type == kind:
        try:
            return json.loads(part.data[_TEXT])
        except (KeyError, TypeError, ValueError):
            pass
    raise MessageFormatError(f"the row {row.message_id!r} must hold a document of type {kind!r}")
