"""Single content parts as the Chat Completions API writes them; pure functions."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import re
from typing import Any
from urllib.parse import urlsplit

from agent_stores.contents import DataContent, ToolCallContent, ToolResultContent, UriContent

mimetypes.init()  # reads the system's files now, rather than on an event loop

_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
_LONGEST_ID = 40  # the API rejects longer ids of tool calls
_LONGEST_NAME = 64


def encodable(text: str) -> str:
    """Text that can be sent as UTF-8: half an emoji, as a cut stream leaves it, becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def text_part(text: str) -> dict[str, Any]:
    """A part of text."""
    return {"type": "text", "text": encodable(text)}


def media_part(part: DataContent | UriContent) -> dict[str, Any]:
    """An image, a recording or a file.

    Images go by their address or as a data URL, recordings in WAV and MP3 as audio, and other data as a file.
    A part without an API type, such as the URL of a document, is sent as text.
    """
    if isinstance(part, UriContent):
        return _by_address(part)
    if not part.data:
        return text_part(f"[{part.filename or part.media_type}: empty]")
    encoded = base64.b64encode(part.data).decode()
    return _by_data(part.media_type, encoded, part.filename)


def call_part(call: ToolCallContent, call_id: str) -> dict[str, Any]:
    """A tool call; arguments in text are sent as they are, even where they are not JSON."""
    arguments = call.arguments
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {
        "name": _function_name(call.name),
        "arguments": encodable(arguments) if arguments.strip() else "{}",
    }
    return {"id": call_id, "type": "function", "function": function}


def call_id_for(call_id: str, used: set[str]) -> str:
    """The id of a call as it is sent: encodable, not too long, and another than those used; adds it there."""
    name = encodable(call_id)
    if len(name) > _LONGEST_ID:
        name = "call_" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    unique, number = name, 1
    while unique in used:
        number += 1
        suffix = f"_{number}"
        unique = name[: _LONGEST_ID - len(suffix)] + suffix
    used.add(unique)
    return unique


def result_text(result: ToolResultContent, texts: list[str]) -> str:
    """A tool's result as text, with the texts among its parts."""
    own = [] if result.result is None and result.contents else [result.result_text()]
    return encodable("\n".join([*own, *texts]))


def author_name(name: str | None) -> str | None:
    """The name of an author as the API accepts it, or None."""
    return re.sub(r"[\s<|\\/>]+", "_", encodable(name or ""))[:_LONGEST_NAME] or None


def _function_name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_LONGEST_NAME]


def _by_data(media_type: str, encoded: str, filename: str | None) -> dict[str, Any]:
    kind = media_type.partition(";")[0].strip().lower()
    url = encodable(f"data:{media_type};base64,{encoded}")
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if kind in _AUDIO_FORMATS:
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": _AUDIO_FORMATS[kind]}}
    name = filename or f"file{mimetypes.guess_extension(kind) or ''}"
    return {"type": "file", "file": {"filename": encodable(name), "file_data": url}}


def _by_address(part: UriContent) -> dict[str, Any]:
    match = re.fullmatch(r"data:([^,]*);base64,(.+)", part.uri, re.DOTALL)
    if match:
        return _by_data(part.media_type or match[1] or "text/plain", match[2], part.filename)
    if _media_type(part).startswith("image/"):
        return {"type": "image_url", "image_url": {"url": encodable(part.uri)}}
    return text_part(f"[{part.filename or part.media_type or 'file'}: {part.uri}]")


def _media_type(part: UriContent) -> str:
    if part.media_type:
        return part.media_type.lower()
    try:
        path = urlsplit(part.uri).path
    except ValueError:
        return ""
    return mimetypes.guess_type(part.filename or path)[0] or ""
