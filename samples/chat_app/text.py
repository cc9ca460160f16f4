"""What users and models wrote, as Markdown that shows it and does nothing else."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&=])")
_IMAGE = re.compile(r"(?<!!)!+(?=\[[^\[\]\n]*\]\()")
_PERHAPS_AN_IMAGE = re.compile(r"!(?=\[)")  # also `vec![1]`
_CODE = (
    r"^[ \t>]*(`{3,}|~{3,})[^\n]*\n(?s:.*?)(?:^[ \t>]*\1[`~]*[ \t]*$|\Z)"  # fenced, maybe to be ended yet
    r"|(?<!`)(`+)(?!`)[^\n]+?(?<!`)\2(?!`)"
)
_CODE_OR_DOLLAR = re.compile(rf"{_CODE}|(?<!\\)(\\*)\$", re.MULTILINE)
_LINES = re.compile(r"\r\n?|\n")


def plain(text: str) -> str:
    """A text as it was typed: no character of it means anything, and its lines stay."""
    lines = (_SPECIAL.sub(r"\\\1", line) for line in _LINES.split(text))
    return "  \n".join(line.expandtabs(4).replace("    ", "\u2003\u2003") for line in lines)


def answered(text: str) -> str:
    """A model's Markdown, without pictures: one would be fetched from wherever the text says.

    A picture's address can carry what another user said; so it becomes a link, which is not followed
    without a click. No ``!`` stays next to a ``[``, not even where it looks like code, as what is code is
    Markdown's to say; ``vec! [1]`` is still Rust. A ``$`` is a dollar, as prices
    are more frequent than formulas.
    """
    safe = _PERHAPS_AN_IMAGE.sub("! ", _IMAGE.sub("", text))
    return _CODE_OR_DOLLAR.sub(_dollar, safe)


def _dollar(match: re.Match[str]) -> str:
    """A dollar that means nothing; code, and one that has its backslash already, stay as they are."""
    if match[3] is None or len(match[3]) % 2:
        return match[0]
    return rf"{match[3]}\$"


def snippet(text: str, words: str, length: int = 160) -> str:
    """The part of a text around the first of some words, in one line."""
    line = " ".join(text.split())
    places = [line.lower().find(word) for word in re.findall(r"\w+", words.lower())]
    start = max(0, min([place for place in places if place >= 0], default=0) - length // 3)
    part = line[start : start + length]
    return f"{'…' if start else ''}{part}{'…' if start + length < len(line) else ''}"
