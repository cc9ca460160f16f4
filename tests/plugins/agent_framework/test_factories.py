"""`RedisHistoryProvider`: only the import changes."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from agent_framework import Message
from redis.credentials import UsernamePasswordCredentialProvider

from agent_stores.agent_framework import RedisHistoryProvider
from tests.plugins.environments import REPOSITORY, environment
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.timeout(900)  # an environment may have to be made first

THEIRS = ("agent-framework-redis==1.0.0b261022",)

PROGRAM = """
import asyncio, json, sys
from agent_framework import Message
from {module} import RedisHistoryProvider

async def main(url):
    history = RedisHistoryProvider(
        "mine", redis_url=url, application_id={app!r}, agent_id="a", max_messages=4
    )
    for n in range(3):
        await history.save_messages("s1", [Message("user", [f"q{{n}}"]), Message("assistant", [f"a{{n}}"])])
    await history.save_messages("s2", [Message("user", ["other"])])
    print(json.dumps([[m.role, m.text] for m in await history.get_messages("s1")]))
    await history.clear("s1")
    print(json.dumps([[m.text for m in await history.get_messages(s)] for s in ("s1", "s2")]))
    await history.aclose()

asyncio.run(main(sys.argv[1]))
"""


def test_it_is_made_and_behaves_as_theirs(valkey_server: RedisServer, tmp_path: Path) -> None:
    python = environment("agent-framework-redis", *THEIRS)

    def said(code: str) -> list[Any]:
        command = [str(python), "-W", "ignore", "-c", code, valkey_server.url]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    show = (
        "import inspect, json; from {module} import RedisHistoryProvider as P\n"
        "print(json.dumps([[p.name, int(p.kind), repr(p.default)] "
        "for p in inspect.signature(P).parameters.values()]))"
    )
    modules = ("agent_framework.redis", "agent_stores.agent_framework")
    theirs, ours = (said(show.format(module=module)) for module in modules)
    assert theirs == ours
    assert len(ours[0]) == len(inspect.signature(RedisHistoryProvider).parameters) == 19
    theirs, ours = (said(PROGRAM.format(module=module, app=tmp_path.name)) for module in modules)
    assert theirs == ours
    assert ours[0] == [["user", "q1"], ["assistant", "a1"], ["user", "q2"], ["assistant", "a2"]]
    assert ours[1] == [[], ["other"]]


@pytest.fixture
async def client(valkey_server: RedisServer) -> AsyncIterator[Any]:
    async with aioredis.Redis.from_url(valkey_server.url, decode_responses=True) as made:
        yield made


@pytest.mark.anyio
async def test_whose_conversations_they_are(client: Any, tmp_path: Path) -> None:
    scopes: list[dict[str, Any]] = [
        {"application_id": "a"},
        {"application_id": "a", "tenant_id": "t"},
        {"application_id": "a", "agent_id": "t"},
        {"application_id": "a/t"},
        {"application_id": "a%2Ft"},
        {"application_id": "a", "source_id": "other"},
    ]
    prefix = tmp_path.name
    made = [RedisHistoryProvider(redis_client=client, key_prefix=prefix, **scope) for scope in scopes]
    for n, provider in enumerate(made):
        await provider.save_messages("s", [Message("user", [str(n)])])
    assert [[one.text for one in await provider.get_messages("s")] for provider in made] == [
        [str(n)] for n in range(len(made))
    ]
    assert [provider.store("s").tenant for provider in made] == [
        "/a//redis_memory",
        "t/a//redis_memory",
        "/a/t/redis_memory",
        "/a%2Ft//redis_memory",
        "/a%252Ft//redis_memory",
        "/a//other",
    ]
    for provider in made:
        await provider.aclose()
    assert await client.ping()


@pytest.mark.anyio
async def test_what_theirs_stored_is_migrated(client: Any, valkey_server: RedisServer) -> None:
    """As the page says."""
    key = "chat_messages|v2|~none|migrated|~none|redis_memory|s1"
    given = [Message("user", ["hi"]), Message("assistant", ["yes"])]
    await client.rpush(key, *(json.dumps(one.to_dict()) for one in given))
    source = f"agent-framework+{valkey_server.url}"
    command = [sys.executable, "-m", "agent_stores.cli", "migrate", "--from", source]
    command += ["--from-option", "application_id=migrated", "--to", valkey_server.url]
    command += ["--tenant", "/migrated//redis_memory"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    history = RedisHistoryProvider(redis_url=valkey_server.url, application_id="migrated")
    assert [one.text for one in await history.get_messages("s1")] == ["hi", "yes"]
    await history.aclose()


@pytest.mark.anyio
async def test_arguments() -> None:
    url = "redis://localhost:1"
    with pytest.warns(DeprecationWarning, match="'legacy' is deprecated"):
        legacy = RedisHistoryProvider(redis_url=url, key_format="legacy")
    assert (legacy.store("s").tenant, legacy.source_id) == (None, "redis_memory")
    credentials = UsernamePasswordCredentialProvider("me", "secret")
    cloud = RedisHistoryProvider(credential_provider=credentials, host="example.org", application_id="a")
    assert cloud.store("s").location == "redis://example.org:6380/0#agent"
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"redis_url": url}, "application_id must be given"),
        ({"redis_url": url, "application_id": ""}, "application_id must be given"),
        ({"redis_url": url, "application_id": "a", "agent_id": ""}, "no id may be empty"),
        ({"redis_url": url, "application_id": "a", "key_format": "legacy"}, "must be None for the legacy"),
        ({"redis_url": url, "application_id": "a", "key_format": "x"}, "key_format must be one of"),
        ({"redis_url": url, "application_id": "a", "max_messages": -1}, "max_messages must be"),
        ({"application_id": "a"}, "redis_url"),
        ({"credential_provider": credentials, "application_id": "a"}, "host"),
        ({"redis_url": url, "redis_client": object(), "application_id": "a"}, "redis_client"),
    ]
    for options, match in wrongs:
        with pytest.raises((TypeError, ValueError), match=match):
            RedisHistoryProvider(**options)
