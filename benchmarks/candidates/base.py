"""What a worker asks of a candidate: fill a thread, add a turn to it, read it."""

from __future__ import annotations

import os
import random
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

LAST = 20
"""How many messages the context of a turn has, where a candidate can limit what it reads."""

QUESTION, ANSWER = 200, 800
"""The lengths of a turn's two messages, in characters."""

_WORDS = [
    "agent",
    "keeps",
    "note",
    "of",
    "what",
    "was",
    "said",
    "so",
    "that",
    "it",
    "can",
    "go",
    "on",
    "later",
]


def turns(start: int = 0) -> Iterator[tuple[str, str]]:
    """Questions and answers, all different, of the lengths above."""
    number = start
    while True:
        words = random.Random(number)
        yield _text(words, f"Question {number}:", QUESTION), _text(words, f"Answer {number}:", ANSWER)
        number += 1


def messages(count: int) -> Iterator[tuple[Literal["user", "assistant"], str]]:
    """The roles and texts of a thread of *n* messages."""
    source = turns(1_000_000)
    for number in range(0, count, 2):
        question, answer = next(source)
        yield "user", question
        if number + 1 < count:
            yield "assistant", answer


def _text(words: random.Random, start: str, length: int) -> str:
    parts, size = [start], len(start)
    while size < length:
        word = words.choice(_WORDS)
        parts.append(word)
        size += 1 + len(word)
    return " ".join(parts)[:length]


class Candidate(ABC):
    """One way of keeping a conversation. Each method but `turn` and `fill` is what is measured.

    Attributes:
        is_sync: whether `add`, `read` and `read_all` are plain methods, called without an event loop.
        reads_all: whether `read` returns the whole thread, because the interface has no limit.
    """

    is_sync: ClassVar[bool] = False
    reads_all: ClassVar[bool] = False

    def __init__(self, url: str, length: int) -> None:
        self.url = url
        self.length = length

    @abstractmethod
    async def open(self, thread: str) -> None:
        """Turn to a new thread; connects the first time."""

    @abstractmethod
    async def fill(self) -> None:
        """Put `length` messages into the thread, the fastest way."""

    @abstractmethod
    def turn(self, question: str, answer: str) -> Any:
        """The two messages as the candidate takes them; not measured."""

    @abstractmethod
    def add(self, turn: Any) -> Any:
        """Add the two messages."""

    @abstractmethod
    def read(self) -> Any:
        """Read the newest 20, or all, as the interface has it; a sequence."""

    @abstractmethod
    def read_all(self) -> Any:
        """Read the whole thread; a sequence."""

    @abstractmethod
    def document(self, turn: Any) -> list[str | bytes]:
        """The JSON of a turn's messages alone, as the candidate writes messages; to compare sizes with."""

    def synchronous(self) -> str:
        """For SQLite: the durability of a commit, as its connection says; empty for others."""
        return ""


PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
"""What every SQLite candidate runs with, set by itself, by default, or through its engine."""

SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


class Statements:
    """Counts SQL statements of this process's SQLite connections, but for BEGIN and COMMIT."""

    def __init__(self) -> None:
        self.count = 0
        self.commits = 0

    def install(self) -> None:
        """Trace every connection made from now on."""
        connect = sqlite3.connect

        def traced(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **options)
            connection.set_trace_callback(self._note)
            return connection

        sqlite3.connect = sqlite3.dbapi2.connect = traced  # type: ignore[assignment]

    def _note(self, statement: str) -> None:
        first = statement.lstrip().split(None, 1)[0].rstrip(";").upper()
        if first == "COMMIT":
            self.commits += 1
        elif first not in ("BEGIN", "ROLLBACK", "SAVEPOINT", "RELEASE", "--"):
            self.count += 1


def sqlite_path(url: str, name: str) -> str:
    """The file of a candidate in the folder that a URL names."""
    return os.path.join(url, f"{name}.db")
