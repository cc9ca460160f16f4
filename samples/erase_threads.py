"""Everything of one user erased, the forks of threads included, with a signed receipt.

Run it with ``python samples/erase_threads.py``; it needs ``agent-stores[database]``.
"""

import asyncio
import tempfile
from pathlib import Path

from agent_stores import ChatMessage, ChatMessageStore, erase, open_log
from agent_stores.states import verify_state


async def main(folder: Path) -> None:
    log = open_log(folder / "chat.db")
    for user in ("alice", "bob"):
        store = ChatMessageStore(log, thread_id=f"thread of {user}", metadata={"user": user})
        await store.add_messages([ChatMessage("user", f"I am {user}.")])
        branch = await store.fork(f"branch of {user}")
        await branch.update_metadata({"user": None})  # a fork is found whatever its metadata says

    receipt = await erase(log, metadata={"user": "alice"}, key="the auditor's secret")
    print("removed:", receipt["removed"]["threads"], "threads,", receipt["removed"]["forks"], "a fork")
    print("complete:", verify_state(receipt, "the auditor's secret")["complete"])
    print("kept:", [thread.thread_id for thread in (await log.list_threads(None)).threads])
    await log.aclose()
    print("in the file:", b"I am alice" in (folder / "chat.db").read_bytes())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
