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
from typing import Any

from agent_stores import Attachments, KeyRing, MessageLog, open_log, rekey
from agent_stores.attachments.files import Files
from agent_stores.backends.sql.backend import SQLBackend
from agent_stores.encryption import Keys

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
OLD_RING = KeyRing({"old": OLD}, "old")
BOTH = KeyRing({"old": OLD, "new": NEW}, "new")
STRICT = KeyRing({"new": NEW}, "new", allow_plaintext=False)
STEPS = ("_write", "doom", "remove")
"""Methods of `Files` whose beginnings and ends are steps."""

passed = killed_at = 0


def opened(folder: Path, keys: Keys | None) -> MessageLog:
    """The threads and attachments in a folder."""
    attachments = Attachments(folder / "files", over=100)
    return open_log(folder / "chat.db", encryption=keys, attachments=attachments)


def point() -> None:
    """A moment at which the process may be killed."""
    global passed
    passed += 1
    if passed == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)


def watch(name: str) -> None:
    """Make the beginning and the end of a method's calls such moments."""
    method = getattr(Files, name)

    def wrapper(*args: Any) -> Any:
        point()
        result = method(*args)
        point()
        return result

    setattr(Files, name, wrapper)


async def run(folder: Path) -> None:
    """Encrypt everything in a folder again."""
    commit = SQLBackend.commit

    async def committing(*args: Any, **kwargs: Any) -> Any:
        point()
        version = await commit(*args, **kwargs)
        point()
        return version

    SQLBackend.commit = committing  # type: ignore[method-assign]
    for name in STEPS:
        watch(name)
    log = opened(folder, BOTH)
    for tenant in ("acme", None):
        await rekey(log.backend, tenant)
    await log.aclose()


def main(folder: Path) -> int:
    """Run until a run is not killed; returns how many were."""
    global killed_at
    for killed_at in itertools.count(1):
        copy = folder / f"{killed_at}"
        shutil.copytree(folder / "whole", copy)
        child = os.fork()
        if not child:
            asyncio.run(run(copy))
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return killed_at - 1
        assert status == -signal.SIGKILL, status
    raise AssertionError


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
