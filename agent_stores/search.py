"""Full-text search, which logs may offer: `SearchableLog`, and what all of them understand by a query.

What can be found are the text parts of messages of users and assistants. A message is found from the moment
that it is stored until it is deleted, trimmed or expired, and by its new words once it is replaced.
"""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable

import msgspec

from agent_stores.log import Entry

SEARCHED_ROLES = ("user", "assistant")
"""Whose messages can be found."""

MOST_TERMS = 32
"""How many words of a query are looked for; the longest ones."""

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


class Found(msgspec.Struct, frozen=True):
    """A message that a search found.

    Attributes:
        thread_id: the thread that it is in.
        entry: the message.
        score: how well it fits, compared with others of the same search; higher is better.
    """

    thread_id: str
    entry: Entry
    score: float


@runtime_checkable
class SearchableLog(Protocol):
    """A `MessageLog` that finds messages by their words."""

    async def search(
        self,
        tenant: str | None,
        query: str,
        *,
        limit: int = 10,
        thread_id: str | None = None,
        before: tuple[str, int] | None = None,
    ) -> list[Found]:
        """The messages of one tenant that have words of a query, best first.

        The query is a text, not a language: its words are `search_terms`, and a message that has any of them
        is found. The first search may build an index, which can take a while.

        Args:
            tenant: whose messages; None for those of no tenant.
            query: any text.
            limit: how many messages at most.
            thread_id: only messages of this thread.
            before: a thread and a position; of that thread, only messages below the position are found.

        Raises:
            StoreRefusedError: when the server offers no search.
        """
        ...


def all_words(text: str) -> list[str]:
    """The words of a text, in lower case: letters and digits in a row."""
    return [word.lower() for word in _WORDS.findall(text)]


def search_terms(query: str) -> list[str]:
    """The words of a query, each once, without those that are in every text."""
    words = list(dict.fromkeys(all_words(query)))
    telling = [word for word in words if word not in _FREQUENT and (len(word) > 1 or not word.isascii())]
    return sorted(telling or words, key=len, reverse=True)[:MOST_TERMS]
