"""What the framework stores besides messages: a JSON document in a row of a thread of its own."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from agent_stores.contents import OpaqueContent
from agent_stores.errors import MessageFormatError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.parts import FRAMEWORK

_TEXT = "json"


def pack(kind: str, name: str, data: Any, created_at: datetime | None = None) -> ChatMessage:
    """The row of a document.

    The document is kept as text: it may be nested deeper than messages may, and hold numbers that are not
    finite.

    Args:
        kind: what the document is.
        name: the row's id.
        data: what `json` can write.
        created_at: when the document was made; by default, when it is stored.
    """
    part = OpaqueContent({"type": f"{FRAMEWORK}.{kind}", _TEXT: json.dumps(data, separators=(",", ":"))})
    return ChatMessage("assistant", contents=[part], message_id=name, created_at=created_at)


def unpack(kind: str, message: ChatMessage) -> Any:
    """The document of a row.

    Raises:
        MessageFormatError: when the row holds none of this kind.
    """
    part = message.contents[0] if len(message.contents) == 1 else None
    if isinstance(part, OpaqueContent) and part.type == f"{FRAMEWORK}.{kind}":
        try:
            return json.loads(part.data[_TEXT])
        except (KeyError, TypeError, ValueError):
            pass
    raise MessageFormatError(f"the row {message.message_id!r} must hold a {kind} of {FRAMEWORK}")
