"""The conformance suite on the sample of a backend, `samples/folder_backend.py`."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import pytest

from agent_stores.backend import Backend, ThreadKey
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Clock, Target
from samples import folder_backend
from samples.folder_backend import FolderBackend

ROOT = Path(__file__).parents[2]


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """The backend, in a folder of each test's own."""
    folder, clock = str(tmp_path), Clock()
    return Target(
        "folder",
        open_log=lambda: MessageLog(FolderBackend(folder), clock=clock),
        open_in_process=partial(_open_log, folder),
        corrupt=lambda key, position: asyncio.to_thread(_corrupt, tmp_path, key, position),
        advance=clock.advance,
    )


def _open_log(folder: str) -> MessageLog:
    return MessageLog(FolderBackend(folder))


def _corrupt(folder: Path, key: ThreadKey, position: int) -> None:
    (state,) = [file for file in folder.glob("*/*/*.state") if json.loads(file.read_text())[0] == [*key]]
    body = next(name for row, name in json.loads(state.read_text())[2] if row["position"] == position)
    (state.parent / body).write_text('{"role": ')


@pytest.mark.anyio
async def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """Whenever a writer is killed, the thread has whole turns, and others go on."""
    store = ChatMessageStore(_open_log(str(tmp_path)), thread_id="thread", max_messages=9)
    code = "from tests.conformance.test_conformance_folder import write; import sys; write(sys.argv[1])"
    for turn in range(4):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        await process.stdout.readline()  # it has begun
        await asyncio.sleep(0.05 + 0.013 * turn)
        process.kill()
        await process.communicate()
        texts = [item.message.text async for item in store.iter_messages()]
        assert texts[-3:-1] == [texts[-1]] * 2
        await store.add_messages([ChatMessage("user", f"turn {turn}") for _ in range(3)])
        assert (await store.list_messages())[-1].text == f"turn {turn}"
        assert (await store.stats()).messages == len(await store.list_messages()) <= 9


def write(folder: str) -> None:
    """Write turns of three messages until the process is killed."""

    async def forever() -> None:
        store = ChatMessageStore(_open_log(folder), thread_id="thread", max_messages=9)
        for turn in range(100_000):
            await store.add_messages([ChatMessage("user", f"of the writer {turn}") for _ in range(3)])
            print(turn, flush=True)

    asyncio.run(forever())


def test_it_is_a_backend_and_no_more(tmp_path: Path) -> None:
    backend = FolderBackend(str(tmp_path))
    assert isinstance(backend, Backend)
    public = {name for name in dir(backend) if not name.startswith("_")}
    assert public == {"location", "limits", "load", "rows", "find", "commit", "threads", "aclose"}
    assert len(Path(folder_backend.__file__).read_text().splitlines()) <= 200
