"""Untrusted text as data for a model, between delimiters that the text cannot close.

Memories, summaries and old messages were written by users and models. They are shown in a message of the
role ``user``, which no provider ranks above the developer's instructions, between two tags. Tags in the text
are escaped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from agent_stores.errors import ArgumentError
from agent_stores.messages import ChatMessage
from agent_stores.tokens import MESSAGE_OVERHEAD, estimate_tokens

_ESCAPES = str.maketrans({"<": "&lt;", ">": "&gt;"})


def one_line(text: str) -> str:
    """A text in one line: runs of white space become one space; other control characters are removed."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc").split())


def delimited_message(tag: str, lines: Iterable[str], *, prompt: str) -> ChatMessage:
    """A message that shows lines of text as data.

    Args:
        tag: names the delimiters, as ``memories`` for ``<memories>`` and ``</memories>``.
        lines: the text; ``<`` and ``>`` in it are escaped, and line breaks become spaces.
        prompt: comes before the delimiters, and says what the text is.

    Raises:
        ArgumentError: when the tag is not an identifier.
    """
    if not tag.isidentifier():
        raise ArgumentError(f"tag must be letters, digits and underscores, got {tag!r}")
    body = "\n".join(one_line(line).translate(_ESCAPES) for line in lines)
    head = f"{prompt}\n" if prompt else ""
    return ChatMessage("user", f"{head}<{tag}>\n{body}\n</{tag}>")


def text_tokens(text: str) -> int:
    """The tokens of a text, estimated offline."""
    return estimate_tokens(ChatMessage("user", text)) - MESSAGE_OVERHEAD


def fit_budget(texts: Sequence[str], max_tokens: int | None) -> list[int]:
    """The indexes of the texts that fit a budget, in order; a text that does not fit is skipped.

    Args:
        texts: the most valuable first.
        max_tokens: the largest sum of their tokens, as estimated offline; None for no limit.
    """
    kept = []
    left = max_tokens
    for index, text in enumerate(texts):
        if left is not None:
            cost = text_tokens(text)
            if cost > left:
                continue
            left -= cost
        kept.append(index)
    return kept
