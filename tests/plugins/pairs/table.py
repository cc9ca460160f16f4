"""What every reader shows of what every writer wrote: found out by doing it, and as a table."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from agent_stores import ChatMessageStore
from agent_stores.memory import InMemoryMessageLog
from agent_stores.messages import ChatMessage
from tests.plugins.pairs.ag2 import AG2
from tests.plugins.pairs.agent_framework import AgentFramework
from tests.plugins.pairs.chatkit import ChatKit
from tests.plugins.pairs.claude_agent import ClaudeAgent
from tests.plugins.pairs.features import FEATURES, Aspect, Feature, Framework
from tests.plugins.pairs.google_adk import GoogleADK
from tests.plugins.pairs.haystack import Haystack
from tests.plugins.pairs.langchain import LangChain
from tests.plugins.pairs.langgraph import LangGraph
from tests.plugins.pairs.llama_index import LlamaIndex
from tests.plugins.pairs.neutral import Neutral
from tests.plugins.pairs.openai_agents import OpenAIAgents
from tests.plugins.pairs.pydantic_ai import PydanticAI
from tests.plugins.pairs.strands import Strands

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"
COMMAND = "python -m tests.plugins.pairs --write"
BEGIN = f"<!-- begin: made by {COMMAND} -->\n"
END = "<!-- end -->\n"

FRAMEWORKS: dict[str, Framework] = {
    "openai_agents": OpenAIAgents(),
    "langchain": LangChain(),
    "llama_index": LlamaIndex(),
    "agent_framework": AgentFramework(),
    "langgraph": LangGraph(),
    "pydantic_ai": PydanticAI(),
    "google_adk": GoogleADK(),
    "claude_agent": ClaudeAgent(),
    "strands": Strands(),
    "ag2": AG2(),
    "haystack": Haystack(),
    "chatkit": ChatKit(),
    "neutral": Neutral(),
}

KEPT = "kept"
LEFT_OUT = "left out"
BESIDE = "not shown"


class Found(NamedTuple):
    """What became of a feature between a writer and a reader.

    Attributes:
        state: `KEPT`, `LEFT_OUT`, `BESIDE` or ``as ...``.
        lines: the warnings in the log while it was read.
        read: what the reader was shown, as data.
        stored: what was in the store before it was read, and after the reader wrote back.
        own: what the writer is shown then, and what it wrote, as data.
    """

    state: str
    lines: list[str]
    read: list[Any]
    stored: tuple[list[ChatMessage], list[ChatMessage]]
    own: tuple[list[Any], list[Any]]


async def run(writer: str, reader: str, feature: str) -> Found:
    """Write a feature's messages with one plug-in, read them with another, and write back what was read."""
    ours, theirs = FRAMEWORKS[writer], FRAMEWORKS[reader]
    wrote = ours.messages[feature]
    log = InMemoryMessageLog()
    with _warnings() as logged:
        await ours.write(log, deepcopy(wrote))  # some plug-ins set the ids of what they are given
        before = await _stored(log)
        logged.clear()
        found = await theirs.read(log)
        lines, read = list(logged), theirs.dump(found)
        await theirs.again(log, found)
        after = await _stored(log)
        own = await ours.read(log)
    await log.aclose()
    if writer == reader:
        state = KEPT if read == ours.dump(wrote) else f"not what was written: {read}"
    else:
        state = _state(FEATURES[feature], theirs.say(found))
    return Found(state, lines, read, (before, after), (ours.dump(own), ours.dump(wrote)))


async def table() -> str:
    """The table, as it stands in the page."""
    rows = [
        ["", "written by", *(theirs.label for theirs in FRAMEWORKS.values())],
        ["---"] * (len(FRAMEWORKS) + 2),
    ]
    for name, feature in FEATURES.items():
        writers = [writer for writer, ours in FRAMEWORKS.items() if name in ours.messages]
        by = "all" if len(writers) == len(FRAMEWORKS) else ", ".join(map(_label, writers))
        cells = []
        for reader in FRAMEWORKS:
            states = {
                writer: (await run(writer, reader, name)).state for writer in writers if writer != reader
            }
            cells.append(_cell(states))
        rows.append([feature.label, by, *cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page_with(made: str) -> str:
    """The page, with this table in it."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def _label(framework: str) -> str:
    return FRAMEWORKS[framework].label


def _cell(states: dict[str, str]) -> str:
    """The state that most writers' messages have, then what is otherwise, and whose."""
    if not states:
        return ""
    by_state: dict[str, list[str]] = {}
    for writer, state in states.items():
        by_state.setdefault(state, []).append(_label(writer))
    (most, _), *others = sorted(by_state.items(), key=lambda item: -len(item[1]))
    return "; ".join([most, *(f"from {', '.join(writers)} {state}" for state, writers in others)])


def _state(feature: Feature, shown: list[Aspect]) -> str:
    if [aspect for aspect in shown if aspect in feature.said] == list(feature.said):
        return KEPT
    for aspect in shown:
        kind = _kind(aspect)
        if kind in feature.instead and aspect not in feature.said:
            return f"as {_described(kind, aspect, feature)}"
    return BESIDE if feature.beside else LEFT_OUT


def _kind(aspect: Aspect) -> str:
    """The kind of an aspect; behind the role where there is one."""
    return str(aspect[1] if len(aspect) > 2 and aspect[1] == "text" else aspect[0])


def _described(kind: str, aspect: Aspect, feature: Feature) -> str:
    if kind == "text" and any(aspect[1:] == said[1:] for said in feature.said):
        return f"`{aspect[0]}`"
    if kind == "result":
        return "text"
    return "another id" if kind == "id" else kind


async def _stored(log: InMemoryMessageLog) -> list[ChatMessage]:
    return [item.message async for item in ChatMessageStore(log, thread_id="s").iter_messages()]


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """The library's warnings in the log."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("agent_stores")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
