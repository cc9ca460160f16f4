"""The suites that run on a framework's own class and on ours; their counts are in the output of the tests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

PROPERTY = "judge"
"""Tests record a line of the output under this name."""

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed")


class Suite(NamedTuple):
    """One of these suites.

    Attributes:
        label: the framework, and its own classes.
        fixture: makes what is tested, by a parameter.
        theirs: the parameters that make the framework's own.
    """

    label: str
    fixture: str
    theirs: frozenset[str]


def _suite(label: str, fixture: str, *theirs: str) -> Suite:
    return Suite(label, fixture, frozenset(theirs))


SUITES = {
    "agent_framework/test_checkpoints.py": _suite(
        "Agent Framework, its checkpoint storages", "storage", "memory", "file"
    ),
    "agent_framework/test_replays.py": _suite("Agent Framework, its history provider", "provider", "theirs"),
    "agent_framework/test_sessions.py": _suite(
        "Agent Framework, its session stores", "store", "memory", "file", "msgpack"
    ),
    "ag2/test_storage.py": _suite("AG2, MemoryStorage", "open_storage", "ag2"),
    "chatkit/test_store.py": _suite("ChatKit, a store as its examples have it", "open_store", "reference"),
    "google_adk/test_service.py": _suite(
        "Google ADK, its session services", "service", "InMemorySessionService", "DatabaseSessionService"
    ),
    "haystack/test_message_store.py": _suite("Haystack, InMemoryChatMessageStore", "open_store", "haystack"),
    "openai_agents/test_originals.py": _suite("OpenAI Agents SDK, its sessions", "whose", "the SDK's"),
    "pydantic_ai/test_store.py": _suite(
        "Pydantic AI, InMemoryConversationStore", "store", "InMemoryConversationStore"
    ),
    "strands/test_session_manager.py": _suite("Strands, FileSessionManager", "managers", "file"),
}


def mark(items: Iterable[Any]) -> None:
    """Write on each test of a suite which one it is of, and whose class it tests."""
    for item in items:
        suite = SUITES.get("/".join(item.path.parts[-2:]))
        made = getattr(item, "callspec", None)
        if suite is not None and made is not None and suite.fixture in made.params:
            whose = "its own" if made.params[suite.fixture] in suite.theirs else "ours"
            item.user_properties.append((PROPERTY, (suite.label, whose)))


def lines(stats: Mapping[str, list[Any]]) -> list[str]:
    """What the frameworks' suites say, from pytest's reports by their outcome."""
    said = set()
    counts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    reasons: dict[str, set[str]] = defaultdict(set)
    for outcome in OUTCOMES:
        for report in stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name != PROPERTY:
                    continue
                if isinstance(value, str):
                    said.add(value)
                    continue
                label, whose = value
                counts[label][outcome, whose] += 1
                if outcome in ("skipped", "xfailed"):
                    reasons[label].add(_reason(report))
    for label, counted in counts.items():
        found = [(one, whose) for one in OUTCOMES for whose in ("ours", "its own") if (one, whose) in counted]
        total = ", ".join(f"{counted[one]} {one[0]} on {one[1]}" for one in found)
        skipped = "; ".join(sorted(reasons[label])) or "0 skipped"
        said.add(f"{label}: {total}; {skipped}")
    return sorted(said)


def _reason(report: Any) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return str(getattr(report, "wasxfail", report.longrepr))
