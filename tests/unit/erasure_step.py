"""An erasure in a process of its own that is killed at a step.

Run as ``python erasure_step.py FILE STEP CHOICE``; writes how many steps there were, unless it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from agent_stores import Attachments, erase, open_log
from agent_stores.attachments.files import Files
from agent_stores.backends.sql.backend import SQLBackend
from agent_stores.backends.sql.database import Database
from tests.kill_points import KillPoints

SCRUB = ("VACUUM", "PRAGMA", "INSERT INTO agent_stores_search ")


class Notes:
    """A provider that remembers in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def erase(self, thread_ids: Sequence[str], *, dry_run: bool = False) -> int:
        return await asyncio.to_thread(self._erase, thread_ids, dry_run)

    def _erase(self, thread_ids: Sequence[str], dry_run: bool) -> int:
        notes: dict[str, str] = json.loads(self.path.read_bytes())
        found = [name for name in notes if name in thread_ids]
        if not dry_run:
            self.path.write_text(json.dumps({n: text for n, text in notes.items() if n not in thread_ids}))
        return len(found)


async def main() -> None:
    points = KillPoints(int(sys.argv[2]))
    points.watch(SQLBackend, "commit")
    points.watch(Notes, "erase")
    points.watch(Database, "run", is_step=lambda self, work: not callable(work) and work[0].startswith(SCRUB))
    path, choice = Path(sys.argv[1]), json.loads(sys.argv[3])
    for name in ("doom", "remove"):
        points.watch(Files, name)
    log = open_log(path, attachments=Attachments(path.parent / "files", over=100))
    await erase(log, tenant="acme", providers=[Notes(path.parent / "notes.json")], **choice)
    await log.aclose()
    print(points.passed)


if __name__ == "__main__":
    asyncio.run(main())
