"""Images, recordings and files, between the URLs of frameworks and our parts."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agent_stores.contents import DataContent, UriContent

mimetypes.init()  # reads the system's files now, rather than on an event loop


def data_url(part: DataContent) -> str:
    """The part as a ``data:`` URL."""
    return f"data:{part.media_type};base64,{encode_base64(part.data)}"


def media_url(part: DataContent | UriContent) -> str:
    """The part's address, or its bytes as one."""
    return part.uri if isinstance(part, UriContent) else data_url(part)


def part_of_url(
    url: str, *, kind: str, media_type: str | None = None, filename: str | None = None
) -> DataContent | UriContent:
    """The part of a URL: its bytes where it is a ``data:`` URL in Base64.

    Args:
        url: where it is, or what it is.
        kind: what it is, where nothing says its type: ``image``, ``audio``, ``video`` or ``file``.
        media_type: its type, where the framework says it.
        filename: its name.
    """
    head, comma, body = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        data = decode_base64(body)
        named = head[len("data:") : -len(";base64")]
        if data is not None and named:
            return DataContent(data, media_type=named, filename=filename)
    if media_type is None:
        media_type = mimetypes.guess_type(urlsplit(url).path)[0] if comma == "" or ":" in head else None
    if media_type is None and kind != "file":
        media_type = f"{kind}/*"
    return UriContent(url, media_type=media_type, filename=filename)


def decode_base64(text: str, *, urlsafe: bool = False) -> bytes | None:
    """The bytes of canonical Base64 text; None for any other text, which would not come back as it was.

    Args:
        text: the text.
        urlsafe: whether it has ``-`` and ``_``, as pydantic writes it.
    """
    try:
        data = base64.b64decode(text, altchars=b"-_" if urlsafe else None, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if encode_base64(data, urlsafe=urlsafe) == text else None


def encode_base64(data: bytes, *, urlsafe: bool = False) -> str:
    """Bytes as Base64 text."""
    return base64.b64encode(data, b"-_" if urlsafe else None).decode()


def input_audio(part: DataContent) -> dict[str, Any]:
    """A recording as OpenAI's APIs take it."""
    audio = {"data": encode_base64(part.data), "format": part.media_type.partition("/")[2]}
    return {"type": "input_audio", "input_audio": audio}


def part_of_audio(audio: Mapping[str, Any]) -> DataContent | None:
    """The part of what `input_audio` returned; None where its data is not canonical Base64."""
    data = decode_base64(audio["data"])
    return None if data is None else DataContent(data, media_type=f"audio/{audio['format']}")


def known_type(part: DataContent | UriContent) -> str | None:
    """The media type of a part; None where only its kind is known, as ``image/*``."""
    return None if part.media_type is None or part.media_type.endswith("/*") else part.media_type
