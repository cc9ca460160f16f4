"""Full-text search, an optional capability: what a query means on every backend that has it.

The text parts of messages of users and assistants are searched. A message is found from the moment that it is
stored until it is deleted, trimmed or expired, and by its new words once it is replaced.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

from agent_stores.backend import Row
from agent_stores.capabilities import SearchHit

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


def rank_rows(rows: Iterable[tuple[str, Row]], query: str) -> list[SearchHit]:
    """The rows that have words of a query, best first: for backends without an index of their own.

    A word counts more the fewer rows have it, and a row the less the longer it is.

    Args:
        rows: thread ids and rows.
        query: any text.
    """
    documents = [(thread_id, row, words) for thread_id, row in rows if (words := index_terms(row.body))]
    weights = {
        term: math.log1p(len(documents) / max(1, sum(term in words for *_, words in documents)))
        for term in search_terms(query)
    }
    hits = [
        SearchHit(thread_id, row, score / math.log(math.e + len(words)))
        for thread_id, row, words in documents
        if (score := sum(weight for term, weight in weights.items() if term in words))
    ]
    return sorted(hits, key=lambda hit: (hit.score, hit.row.created_us, hit.row.position), reverse=True)
