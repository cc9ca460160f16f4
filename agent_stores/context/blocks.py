"""Text of uncertain origin as data for a model: between delimiters that nothing in it can close.

Memories, summaries and old messages were written by users and models. They are shown in a message of the
role ``user``, which no provider puts above the developer's instructions, between two tags; a tag inside the
text is escaped, so that what follows it is still inside.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from agent_stores.errors import ArgumentError
from agent_stores.messages import ChatMessage
from agent_stores.tokens import MESSAGE_OVERHEAD, estimate_tokens

_ESCAPES = str.maketrans({"<": "&lt;", ">": "&gt;"})


def one_line(text: str) -> str:
    """A text in one line: white space of every kind becomes one blank, other control characters go."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc").split())


def data_message(tag: str, lines: Iterable[str], *, prompt: str) -> ChatMessage:
    """A message that shows lines of text as data.

    Args:
        tag: names the delimiters, as ``memories`` for ``<memories>`` and ``</memories>``.
        lines: the text; ``<`` and ``>`` in it are escaped, and line breaks become blanks.
        prompt: stands before the delimiters, and says what the text is.

    Raises:
        ArgumentError: when the tag is not a word.
    """
    if not tag.isidentifier():
        raise ArgumentError(f"tag is {tag!r}; accepted is a word of letters, digits and underscores")
    body = "\n".join(one_line(line).translate(_ESCAPES) for line in lines)
    head = f"{prompt}\n" if prompt else ""
    return ChatMessage("user", f"{head}<{tag}>\n{body}\n</{tag}>")


def text_tokens(text: str) -> int:
    """The tokens of a text, estimated offline."""
    return estimate_tokens(ChatMessage("user", text)) - MESSAGE_OVERHEAD


def within_tokens(texts: Sequence[str], max_tokens: int | None) -> list[int]:
    """Which texts fit a budget, best first: one that does not fit is left out, and the next ones are tried.

    Args:
        texts: in the order of their worth.
        max_tokens: how many tokens they may have together, as estimated offline; None for no limit.

    Returns:
        The indexes of those that fit, in order.
    """
    kept = []
    spare = max_tokens
    for index, text in enumerate(texts):
        if spare is not None:
            cost = text_tokens(text)
            if cost > spare:
                continue
            spare -= cost
        kept.append(index)
    return kept
