"""How the test model answers programs rather than people: mem0's extraction, and our running summaries.

Such requests are told by their form, which no conversation has; `ModelServer` tries these rules first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from agent_stores.testing.scripted_model import Prompt, Reply, Rule, names_stated

__all__ = ["INTERNAL_PROMPT_RULES", "extract_memories", "roll_summary"]

_SECTION = re.compile(r"^## (?P<title>[A-Z][\w ]*)\n(?P<body>.*?)(?=^#{1,2} |\Z)", re.MULTILINE | re.DOTALL)
_FIRST_PERSON = re.compile(r"\b(?:i|i'm|i\u2019m|my|me|we|our)\b", re.IGNORECASE)
_HEAD_WORDS = 12


def extract_memories(prompt: Prompt) -> Reply | None:
    """Asked by mem0 what to remember: the user's name, and each thing that users say about themselves.

    The answer is mem0's JSON. What is among the existing memories already is left out; questions are, too.
    """
    sections = {match["title"]: match["body"].strip() for match in _SECTION.finditer(prompt.question)}
    if not {"Existing Memories", "New Messages", "Observation Date"} <= set(sections):
        return None
    try:
        known = {memory["text"] for memory in json.loads(sections["Existing Memories"])}
    except (ValueError, TypeError, KeyError):
        known = set()
    facts = list(dict.fromkeys(fact for fact in _facts(sections["New Messages"]) if fact not in known))
    memories: list[dict[str, Any]] = [
        {"id": str(index), "text": fact, "attributed_to": "user"} for index, fact in enumerate(facts)
    ]
    return Reply(json.dumps({"memory": memories}, ensure_ascii=False))


def _facts(messages: str) -> Iterator[str]:
    """What the user's lines of a transcript say about the user."""
    for line in messages.splitlines():
        role, _, said = line.partition(": ")
        if role != "user":
            continue
        for sentence in re.findall(r"[^.!?]+[.!?]*", said):
            sentence = sentence.strip()
            if sentence.endswith("?") or not _FIRST_PERSON.search(sentence):
                continue
            names = names_stated(sentence)
            yield f"User's name is {names[-1]}." if names else f"User said: {sentence}"


def roll_summary(prompt: Prompt) -> Reply | None:
    """Asked to bring a summary up to date: the summary so far, and the first words of what users said."""
    conversation = re.search(r"<conversation>\n(.*?)\n</conversation>", prompt.question, re.DOTALL)
    if conversation is None:
        return None
    before = re.search(r"<summary>\n(.*?)\n</summary>", prompt.question, re.DOTALL)
    heads = [line for line in before[1].splitlines() if line.strip()] if before else []
    for line in conversation[1].splitlines():
        role, _, said = line.partition(": ")
        if role == "user":
            heads.append(" ".join(said.split()[:_HEAD_WORDS]))
    return Reply("\n".join(heads))


INTERNAL_PROMPT_RULES: Final[tuple[Rule, ...]] = (extract_memories, roll_summary)
"""The rules for programs, in the order in which they are tried."""
