"""What is special about the sample of a backend, `samples/folder_backend.py`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from agent_stores.backend import Backend
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from samples import folder_backend
from samples.folder_backend import FolderBackend
from tests.conformance.opening import open_folder

ROOT = Path(__file__).parents[2]


@pytest.mark.anyio
async def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """Whenever a writer is killed, the thread has whole turns, and others go on."""
    store = ChatMessageStore(open_folder(str(tmp_path)), thread_id="thread", max_messages=9)
    code = "from tests.conformance.test_folder_backend import write; import sys; write(sys.argv[1])"
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
        store = ChatMessageStore(open_folder(folder), thread_id="thread", max_messages=9)
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
