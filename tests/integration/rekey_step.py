"""Runs of `rekey`, each in a process of its own that is killed at another step.

Run as ``python rekey_step.py FOLDER``: copies its folder ``whole`` for each step; writes how many there are.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

from agent_stores import Attachments, KeyRing, MessageLog, open_log, rekey
from agent_stores.attachments.files import Files
from agent_stores.backends.sql.backend import SQLBackend
from agent_stores.encryption import Keys
from tests.kill_points import KillPoints

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
OLD_RING = KeyRing({"old": OLD}, "old")
BOTH = KeyRing({"old": OLD, "new": NEW}, "new")
STRICT = KeyRing({"new": NEW}, "new", allow_plaintext=False)
STEPS = ("_write", "doom", "remove")
"""Methods of `Files` whose beginnings and ends are steps."""


def opened(folder: Path, keys: Keys | None) -> MessageLog:
    """The threads and attachments in a folder."""
    attachments = Attachments(folder / "files", over=100)
    return open_log(folder / "chat.db", encryption=keys, attachments=attachments)


async def run(folder: Path, killed_at: int) -> None:
    """Encrypt everything in a folder again."""
    points = KillPoints(killed_at)
    points.watch(SQLBackend, "commit")
    for name in STEPS:
        points.watch(Files, name)
    log = opened(folder, BOTH)
    for tenant in ("acme", None):
        await rekey(log.backend, tenant)
    await log.aclose()


def main(folder: Path) -> int:
    """Run until a run is not killed; returns how many were."""
    for killed_at in itertools.count(1):
        copy = folder / f"{killed_at}"
        shutil.copytree(folder / "whole", copy)
        child = os.fork()
        if not child:
            asyncio.run(run(copy, killed_at))
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return killed_at - 1
        assert status == -signal.SIGKILL, status
    raise AssertionError


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
