"""One environment's process: carries out what `run.py` asks for, and times it.

Questions come as lines of JSON on the standard input, answers go out as lines of JSON. Only what stands
between two readings of the clock is measured: the call and, where it is asynchronous, its `await`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent)

from candidates.base import Candidate, Statements, turns  # noqa: E402


class Worker:
    """The candidates of one environment."""

    def __init__(self, module: str) -> None:
        self._classes: dict[str, Callable[[str, int], Candidate]] = importlib.import_module(
            f"candidates.{module}"
        ).CANDIDATES
        self._made: dict[str, Candidate] = {}
        self._open: dict[str, Candidate] = {}
        self._grown: dict[str, int] = {}
        self._turns = turns()
        self.statements = Statements()
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)

    def do_fill(self, name: str, url: str, length: int) -> dict[str, Any]:
        """Make a candidate's thread anew."""
        key = f"{name} {url} {length}"
        if key not in self._made:
            self._made[key] = self._classes[name](url, length)
        self._open[name] = self._made[key]
        started = time.perf_counter()
        self._refill(name)
        return {"seconds": time.perf_counter() - started}

    def do_turns(self, name: str, appends: int, reads: int) -> dict[str, Any]:
        """Add turns, and then read contexts; fills the thread anew when it has grown too much.

        The first of several is not measured: others have run since this process's last turn.
        """
        candidate = self._open[name]
        if self._grown[name] > max(8, candidate.length // 20):
            self._refill(name)
        batch = [candidate.turn(*next(self._turns)) for _ in range(appends + (appends > 1))]
        self._grown[name] += 2 * len(batch)
        added, _ = self._time(candidate, [partial(candidate.add, turn) for turn in batch])
        read, shown = self._time(candidate, [candidate.read] * (reads + (reads > 1)))
        return {"append": added[appends > 1 :], "read": read[reads > 1 :], "shown": len(shown)}

    def do_read_all(self, name: str, count: int) -> dict[str, Any]:
        """Read the whole thread."""
        candidate = self._open[name]
        times, shown = self._time(candidate, [candidate.read_all] * (count + 1))
        return {"read": times[1:], "shown": len(shown)}

    def do_once(self, name: str, what: str) -> dict[str, Any]:
        """One operation, whose statements and messages are counted."""
        candidate = self._open[name]
        turn = candidate.turn(*next(self._turns))
        self.statements.count = self.statements.commits = 0
        self._time(
            candidate, [partial(candidate.add, turn) if what == "append" else getattr(candidate, what)]
        )
        statements, commits = self.statements.count, self.statements.commits
        sizes = [len(part.encode() if isinstance(part, str) else part) for part in candidate.document(turn)]
        return {
            "statements": statements,
            "commits": commits,
            "json": sum(sizes) / len(sizes),
            "synchronous": candidate.synchronous(),
        }

    def _refill(self, name: str) -> None:
        candidate = self._open[name]
        self._loop.run_until_complete(candidate.open(f"thread_{uuid.uuid4().hex}"))
        self._loop.run_until_complete(candidate.fill())
        self._grown[name] = 0

    def _time(self, candidate: Candidate, calls: Sequence[Callable[[], Any]]) -> tuple[list[int], Any]:
        """Nanoseconds of each call, and the last result; each result is freed before the next call."""
        if not candidate.is_sync:
            return self._loop.run_until_complete(_time_async(calls))
        clock, times = time.perf_counter_ns, []
        result: Any = ()
        for call in calls:
            del result
            start = clock()
            result = call()
            times.append(clock() - start)
        return times, result


async def _time_async(calls: Sequence[Callable[[], Any]]) -> tuple[list[int], Any]:
    clock, times = time.perf_counter_ns, []
    result: Any = ()
    for call in calls:
        del result
        start = clock()
        result = await call()
        times.append(clock() - start)
    return times, result


def main() -> None:
    """Serve until the input ends."""
    warnings.simplefilter("ignore")
    # What packages print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, counting = sys.argv[1], "--count" in sys.argv
    worker = Worker(module)
    if counting:
        worker.statements.install()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = getattr(worker, f"do_{question.pop('do')}")(**question)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers, flush=True)
    with contextlib.suppress(BrokenPipeError):
        answers.close()
    os._exit(0)  # connections end with the process; there is nothing to tidy up


if __name__ == "__main__":
    main()
