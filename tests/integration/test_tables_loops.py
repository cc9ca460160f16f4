"""The tables stores where event loops end without a word, and after a fork: nothing stays open or is said."""

from __future__ import annotations

import subprocess
import sys
import uuid
from typing import Any

import pytest

LEAVING = """
import asyncio, atexit, gc, os, sys

last_loop = asyncio.new_event_loop()
atexit.register(last_loop.close)  # after what the library does at exit

from agent_stores import AzureTableChatMessageStore, ChatMessage, DynamoDBChatMessageStore

kind, where, table = sys.argv[1:]
if kind == "azure":
    store = AzureTableChatMessageStore(where, table_name=table, thread_id="t")
else:
    store = DynamoDBChatMessageStore(table, region_name="eu-central-1", endpoint_url=where, thread_id="t")

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


@pytest.mark.parametrize("kind", ["azure", "dynamodb"])
def test_nothing_is_left_behind_or_said(kind: str, request: pytest.FixtureRequest) -> None:
    server: Any = request.getfixturevalue("azurite_server" if kind == "azure" else "dynamodb_server")
    where = server.connection_string if kind == "azure" else server.endpoint
    mode = ["-X", "dev"] if kind == "azure" else []  # in which aiohttp rejects moto's two "Server" headers
    command = [sys.executable, *mode, "-W", "error", "-c", LEAVING, kind, where]
    result = subprocess.run(
        [*command, f"leaving{uuid.uuid4().hex[:12]}"], capture_output=True, text=True, timeout=60
    )
    assert result.stdout.split() == ["True", "0", *"123456"], result.stderr
    # Of a busy machine, asyncio says in this mode that a step took long.
    said = [line for line in result.stderr.splitlines() if not line.startswith("Executing <")]
    assert said == []
