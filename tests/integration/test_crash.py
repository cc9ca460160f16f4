"""A process that is killed in the middle of a write: nothing acknowledged is lost, nothing is half there."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent_stores import DatabaseChatMessageStore

KILLS = 50

WRITER = """
import asyncio, sys
from agent_stores import ChatMessage, DatabaseChatMessageStore

async def main(path, run):
    store = DatabaseChatMessageStore(path, thread_id="t", max_messages=201)
    turn = 0
    while True:
        messages = [ChatMessage("user", "x" * 2000, message_id=f"{run}.{turn}.{n}") for n in range(3)]
        await store.add_messages(messages)
        sys.stdout.write(f"{run}.{turn}\\n")
        sys.stdout.flush()
        turn += 1

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_kill_in_the_middle_of_a_write(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    chance = random.Random(7)
    writes = 0
    for run in range(KILLS):
        acknowledged = await asyncio.to_thread(_write_and_kill, path, run, chance.uniform(0, 0.03))
        writes += len(acknowledged)
        async with DatabaseChatMessageStore(path, thread_id="t") as store:
            ids = [message.message_id or "" for message in await store.list_messages()]
        turns = [turn.rpartition(".")[0] for turn in ids[::3]]
        assert ids == [f"{turn}.{n}" for turn in turns for n in range(3)], "a turn is half there, or twice"
        last = acknowledged[-1].strip()
        # The turn after the last acknowledged one may be there too: only its reply was lost.
        newer = f"{run}.{len(acknowledged)}"
        assert turns[-1] in (last, newer), "an acknowledged turn is lost"
        if turns[-1] == newer:
            assert turns[-2] == last
        assert len(ids) <= 201
    assert writes > KILLS


def _write_and_kill(path: Path, run: int, pause: float) -> list[str]:
    """Let a process write, kill it so many seconds after its first reply; returns its replies."""
    command = [sys.executable, "-c", WRITER, str(path), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == f"{run}.0\n"
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        return [first, *process.stdout.readlines()]
