"""Two processes on one session: one wins, the other gets the framework's own conflict, nothing is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_ai.conversation import Conversation

from agent_stores import ChatMessageStore, open_log
from agent_stores.google_adk import AgentStoresSessionService
from agent_stores.pydantic_ai import AgentStoresConversationStore
from tests.plugins.environments import REPOSITORY

COUNT = 12
THREADS = {"google_adk": "app/u/s", "pydantic_ai": "c"}


@pytest.fixture(params=["redis", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server with a database of this test's own."""
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres_server").create_database(f"race_{uuid.uuid4().hex}")
        return
    server = request.getfixturevalue("redis62_server")
    client = server.client()
    client.select(7)
    client.flushdb()
    yield server.url.removesuffix("/0") + "/7"
    client.flushdb()
    client.close()


async def begin(framework: str, url: str) -> None:
    if framework == "google_adk":
        async with AgentStoresSessionService(url) as service:
            await service.create_session(app_name="app", user_id="u", session_id="s")
    else:
        async with AgentStoresConversationStore(url) as store:
            await store.save(Conversation(conversation_id="c", messages=[]))


async def stored(framework: str, url: str) -> list[str]:
    log = open_log(url)
    messages = await ChatMessageStore(log, thread_id=THREADS[framework]).list_messages()
    await log.aclose()
    return [message.text for message in messages]


@pytest.mark.parametrize("framework", THREADS)
def test_two_processes(framework: str, url: str) -> None:
    asyncio.run(begin(framework, url))
    processes = [start(framework, url, name) for name in "ab"]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        said.append(output.split())
    own = [[line for line in lines if line != "conflict"] for lines in said]
    # Both loaded the same session before either wrote: one of the first two messages met a conflict.
    assert sum(lines[0] == "conflict" for lines in said) >= 1
    assert own == [[f"{name}{number}" for number in range(COUNT)] for name in "ab"]
    found = asyncio.run(stored(framework, url))
    assert sorted(found) == sorted([*own[0], *own[1]])
    assert [[text for text in found if text[0] == name] for name in "ab"] == own


def start(framework: str, url: str, name: str) -> Any:
    command = [sys.executable, "-m", "tests.plugins.race", framework, url, name, str(COUNT)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
