"""What a migration did: counted as it goes, and the same for a person and for a script."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = "agent_stores.migration"
VERSION = 1

_PROBLEMS = 1000  # are listed; all are counted
_OF_A_THREAD = 20


@dataclass(frozen=True)
class Problem:
    """Something that was left out, or that a person should know of.

    Attributes:
        thread_id: the thread's id in the source.
        reason: why; never holds words of the conversation.
        location: the message, as the source counts; None for the whole thread.
    """

    thread_id: str
    reason: str
    location: str | None = None


@dataclass
class MigrationReport:
    """What a migration did so far.

    Attributes:
        source: the format and location of the source, without secrets.
        target: the location of the target, without secrets.
        dry_run: whether nothing was written.
        threads: threads that were read.
        messages: messages that were read in them.
        added: those of them that were added, or would be.
        present: those of them that were in the target before.
        skipped: stored messages that could not be read or not be taken over; the problems say why.
        bytes: the size of what was read, as stored in the source.
        threads_skipped: threads that were not taken over, or not to their end; the problems say why.
        unrecognized: keys of the source that do not belong to its format.
        problem_count: how many problems there are.
        problems: the first of them.
        complete: whether the source was read to its end, or to the limit that was asked for.
        error: what ended the migration before.
    """

    source: str
    target: str
    dry_run: bool = False
    threads: int = 0
    messages: int = 0
    added: int = 0
    present: int = 0
    skipped: int = 0
    bytes: int = 0
    threads_skipped: int = 0
    unrecognized: int = 0
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    complete: bool = False
    error: str | None = None
    _listed: tuple[str, int] = ("", 0)

    def problem(self, thread_id: str, reason: str, location: str | None = None) -> None:
        """Note a problem. The problems of one thread are noted one after another."""
        self.problem_count += 1
        of_thread = self._listed[1] if self._listed[0] == thread_id else 0
        self._listed = (thread_id, of_thread + 1)
        if len(self.problems) < _PROBLEMS and of_thread < _OF_A_THREAD:
            self.problems.append(Problem(thread_id, reason, location))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        data = {name: value for name, value in asdict(self).items() if not name.startswith("_")}
        return {"type": FORMAT, "version": VERSION, **data}
