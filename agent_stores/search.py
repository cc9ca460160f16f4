"""Full-text search, an optional capability: what a query means on every backend that has it.

The text parts of messages of users and assistants are searched. A message is found from the moment that it is
stored until it is deleted, trimmed or expired, and by its new words once it is replaced.
"""

from __future__ import annotations

import json
import re

SEARCHED_ROLES = ("user", "assistant")
"""The roles whose messages are searched."""

MAX_TERMS = 32
"""How many words of a query are used; the longest ones."""

_WORDS = re.compile(r"[^\W_]+")

# Words so frequent that finding them says nothing; left in a query that has no others.
_FREQUENT = frozenset(
    re.findall(
        r"\w+",
        """
        a about am an and any are as at be been but by can could did do does for from had has have he her
        him his how i if in into is it its let me my no not of on or our please she should so some tell
        than that the their them then there these they this those to us was we were what when where which
        who why will with would you your
        """,
    )
)


def all_words(text: str) -> list[str]:
    """The words of a text, in lower case: letters and digits in a row."""
    return [word.lower() for word in _WORDS.findall(text)]


def search_terms(query: str) -> list[str]:
    """The words of a query, each once, without those that are in every text."""
    words = list(dict.fromkeys(all_words(query)))
    significant = [word for word in words if word not in _FREQUENT and (len(word) > 1 or not word.isascii())]
    return sorted(significant or words, key=len, reverse=True)[:MAX_TERMS]


def index_terms(body: bytes) -> frozenset[str]:
    """The words of a message's JSON document by which it is found; none where it cannot be read."""
    try:
        document = json.loads(body)
        if document["role"] not in SEARCHED_ROLES:
            return frozenset()
        texts = [part["text"] for part in document.get("contents", ()) if part["type"] == "text"]
        return frozenset(word for text in texts for word in all_words(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return frozenset()
