"""What the application keeps with each conversation: its title and its settings.

They are in the thread's metadata. So they are stored, copied, exported, expired and deleted with the
conversation itself, a list of conversations has them, and every window reads the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_LONGEST_TITLE = 60

ABOUT_KEY = "chat_app"
"""The key of a conversation's title and settings in its metadata."""

STYLES: Mapping[str, str] = {
    "Helpful": "You are a helpful assistant.",
    "Brief": "You are a helpful assistant. Answer in at most two sentences.",
    "Teacher": "You are a patient teacher. Explain step by step, and end with one question to check.",
    "Critic": "You are a careful reviewer. Name what is wrong or missing first, then what is good.",
}
"""System instructions to choose from, by their names."""

OWN_STYLE = "Own words"
DEFAULT_STYLE = "Helpful"


@dataclass(frozen=True)
class About:
    """A conversation's title and settings.

    Attributes:
        title: empty until the first message gives one.
        style: a name in `STYLES`, or `OWN_STYLE`.
        own: the instructions of `OWN_STYLE`.
        history: how many messages of the conversation the model is shown; None for all.
        ttl: seconds that the conversation lives after the last write; None for ever.
    """

    title: str = ""
    style: str = DEFAULT_STYLE
    own: str = ""
    history: int | None = None
    ttl: int | None = None

    @property
    def instructions(self) -> str | None:
        """What the model is told first."""
        return (self.own.strip() or None) if self.style == OWN_STYLE else STYLES[self.style]

    @property
    def shown_title(self) -> str:
        """The title, or what stands for one."""
        return self.title or "New conversation"

    def to_metadata(self) -> dict[str, Any]:
        """Changes of a thread's metadata that keep this."""
        return {ABOUT_KEY: asdict(self)}


def read_about(metadata: Mapping[str, Any]) -> About:
    """The title and settings in a thread's metadata; those of a new conversation if there are none."""
    data = metadata.get(ABOUT_KEY)
    return about_from(data if isinstance(data, Mapping) else {})


def about_from(data: Mapping[str, Any]) -> About:
    """Settings from stored data; missing or invalid values are those of a new conversation.

    The data may come from an imported file, so nothing in it is taken as it is.
    """
    return About(**{field.name: data[field.name] for field in fields(About) if _is_valid(field.name, data)})


def title_of(text: str) -> str:
    """A title for a conversation that begins with a text: its first words."""
    words = " ".join(text.split())
    if len(words) <= _LONGEST_TITLE:
        return words
    return words[:_LONGEST_TITLE].rsplit(" ", 1)[0].rstrip(",;:.") + "…"


def _is_valid(name: str, data: Mapping[str, Any]) -> bool:
    if name not in data:
        return False
    value = data[name]
    if name == "style":
        return isinstance(value, str) and (value == OWN_STYLE or value in STYLES)
    if name in ("title", "own"):
        return isinstance(value, str) and len(value) <= 10_000
    return value is None or (type(value) is int and 0 < value < 10**9)
