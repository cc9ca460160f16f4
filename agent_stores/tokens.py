"""Counting the tokens of a message: an estimate that needs nothing, and tiktoken where it is installed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_stores.contents import (
    AnyContent,
    DataContent,
    ErrorContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.errors import ArgumentError, MissingDependencyError
from agent_stores.messages import ChatMessage

if TYPE_CHECKING:
    import tiktoken

logger = logging.getLogger("agent_stores")

TokenCounter = Callable[[ChatMessage], int]
"""Counts the tokens that a message costs when it is sent to a model."""

MESSAGE_OVERHEAD = 4
"""Tokens that a message costs beside its text: its role and delimiters."""

MEDIA_TOKENS = 765
"""Tokens counted for an image, a file or a recording, whatever its size.

It is what OpenAI's guide to images counts for one of 1024 by 1024 pixels in high detail.
"""


def estimate_tokens(message: ChatMessage) -> int:
    """Estimate a message's tokens offline, as one for four bytes of text in UTF-8.

    For English prose the estimate is usually within a fifth of a tokenizer's count, for other scripts and for
    code it is coarser.
    """
    tokens = MESSAGE_OVERHEAD
    for text in map(_part_text, message.contents):
        tokens += MEDIA_TOKENS if text is None else -(-_utf8_length(text) // 4)
    return tokens


def tiktoken_counter(encoding: str | tiktoken.Encoding = "o200k_base") -> TokenCounter:
    """A counter that uses tiktoken; the encoding's table is fetched by tiktoken when it is first needed.

    Where the table is not cached and cannot be fetched, the counter is `estimate_tokens`, and a warning in
    the log says so.

    Args:
        encoding: the name of an encoding, or an encoding.

    Raises:
        MissingDependencyError: when tiktoken is not installed.
        ArgumentError: when tiktoken does not know the encoding.
    """
    try:
        import tiktoken
    except ImportError:
        raise MissingDependencyError.of("tiktoken", extra="tiktoken", purpose="counting tokens") from None
    if isinstance(encoding, str):
        if encoding not in tiktoken.list_encoding_names():
            raise ArgumentError(f"encoding must be a name that tiktoken knows, got {encoding!r}")
        try:
            table = tiktoken.get_encoding(encoding)
        except Exception as error:  # tiktoken raises whatever its HTTP library does
            logger.warning(
                "tiktoken cannot load the table of %s (%s): tokens are estimated",
                encoding,
                type(error).__name__,
            )
            return estimate_tokens
    else:
        table = encoding

    def count(message: ChatMessage) -> int:
        return MESSAGE_OVERHEAD + sum(
            MEDIA_TOKENS if text is None else len(table.encode(text, disallowed_special=()))
            for text in map(_part_text, message.contents)
        )

    return count


def _part_text(part: AnyContent) -> str | None:
    """The text that a part is sent as, or None for media; parts that are not sent have no text."""
    if isinstance(part, (TextContent, ReasoningContent)):
        return part.text
    if isinstance(part, ToolCallContent):
        arguments = part.arguments
        return part.name + (arguments if isinstance(arguments, str) else json.dumps(arguments))
    if isinstance(part, ToolResultContent):
        return part.result_text()
    if isinstance(part, ErrorContent):
        return part.message
    return None if isinstance(part, (DataContent, UriContent)) else ""


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
