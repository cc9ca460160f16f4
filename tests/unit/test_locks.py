"""Children of a process whose other threads hold locks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FORKS = """
import os, signal, threading
from agent_stores import ChatMessage
from agent_stores._recent import RecentDict
from agent_stores.memory import InMemoryChatMessageStore
from agent_stores.sync import SyncChatMessageStore

recent = RecentDict(100)
store = SyncChatMessageStore(InMemoryChatMessageStore())
store.add_messages([ChatMessage("user", "hello")])

def use(work):
    while True:
        work()

works = [lambda: recent.__setitem__(os.urandom(2), 1), store.count]
for work in works:
    threading.Thread(target=use, args=[work], daemon=True).start()
for n in range(60):
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # ends the child
        for work in works:
            work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, n
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_no_child_waits_for_a_thread_of_its_parent() -> None:
    result = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
