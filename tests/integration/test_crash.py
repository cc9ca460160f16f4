"""A process that is killed in the middle of a write: nothing acknowledged is lost, nothing is half there."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_stores import DatabaseChatMessageStore

KILLS = 50

# Starting Python and importing takes most of a process's time: a server does it once, and forks the writers.
FORK_SERVER = """
import asyncio, os, sys
from agent_stores import ChatMessage, DatabaseChatMessageStore
from agent_stores.backends.sql import backend, engines

async def main(path, run):
    store = DatabaseChatMessageStore(path, thread_id="t", max_messages=201)
    turn = 0
    while True:
        messages = [ChatMessage("user", "x" * 2000, message_id=f"{run}.{turn}.{n}") for n in range(3)]
        await store.add_messages(messages)
        sys.stdout.write(f"{run}.{turn}\\n")
        sys.stdout.flush()
        turn += 1

for run in sys.stdin:
    pid = os.fork()
    if pid == 0:
        print(os.getpid(), flush=True)
        asyncio.run(main(sys.argv[1], run.strip()))
    os.waitpid(pid, 0)
    print("killed", flush=True)
"""


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", FORK_SERVER, str(tmp_path / "chat.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(10) == 0


@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_kill_in_the_middle_of_a_write(tmp_path: Path, writers: subprocess.Popen[str]) -> None:
    path = tmp_path / "chat.db"
    chance = random.Random(7)
    writes = 0
    for run in range(KILLS):
        acknowledged = await asyncio.to_thread(_write_and_kill, writers, run, chance.uniform(0, 0.03))
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


def _write_and_kill(server: subprocess.Popen[str], run: int, pause: float) -> list[str]:
    """Let a process write, kill it `pause` seconds after its first reply; returns its replies."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{run}\n")
    server.stdin.flush()
    writer = int(server.stdout.readline())
    first = server.stdout.readline()
    assert first == f"{run}.0\n"
    time.sleep(pause)
    os.kill(writer, signal.SIGKILL)
    return [first, *iter(server.stdout.readline, "killed\n")]
