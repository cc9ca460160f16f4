"""A program that uses a store where event loops end without a word, after a fork, and at exit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

_PROGRAM = """
import asyncio, atexit, gc, os, sys

last_loop = asyncio.new_event_loop()
atexit.register(last_loop.close)  # after what the library does at exit

from agent_stores import ChatMessage
MAKE
async def add(text):
    await store.add_messages([ChatMessage("user", text)])

def connections():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    with open("/proc/net/tcp") as file:
        inodes = {line.split()[9] for line in list(file)[1:]}
    return sum(link.startswith("socket:[") and link[8:-1] in inodes for link in links)

asyncio.run(add("1"))
asyncio.run(add("2"))
gc.collect()
loop = asyncio.new_event_loop()  # closed without ending its generators
loop.run_until_complete(add("3"))
loop.close()
before = connections()
asyncio.run(add("4"))
after = connections()
if os.fork() == 0:
    asyncio.run(add("5"))
    sys.stdout.flush()
    os._exit(0)
os.wait()

async def read():
    return [message.text for message in await store.list_messages()]

last_loop.run_until_complete(add("6"))
print(before <= 1, after, *asyncio.run(read()))
"""


def leave(make: str, *arguments: str, options: Sequence[str] = ("-X", "dev")) -> list[str]:
    """Run the program, and check that it says nothing on standard error.

    Args:
        make: Python that makes ``store``, on a thread without messages.
        arguments: what that finds in ``sys.argv``.
        options: those of Python.

    Returns:
        Whether there was at most one connection after a loop was closed without ending its generators; how
        many there were after the next loop; and the texts of the six messages that were added.
    """
    command = [sys.executable, *options, "-W", "error", "-c", _PROGRAM.replace("MAKE", make), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    # Of a busy machine, asyncio says in this mode that a step took long.
    said = [line for line in result.stderr.splitlines() if not line.startswith("Executing <")]
    assert said == []
    return result.stdout.split()
