"""The plug-in in the oldest 1.x and in the betas, each in an environment of its own, and between them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.environments import REPOSITORY, environment, run_tests
from tests.servers.redis import RedisServer

HERE = Path(__file__).parent
OLDEST = ("agent-framework-core==1.0.0", "agent-framework-openai==1.0.0")
BETAS = {"oldest": "1.0.0b260123", "newest": "1.0.0b260210"}

pytestmark = pytest.mark.timeout(900)  # an environment may have to be made first


def beta(age: str) -> Path:
    packages = (f"agent-framework-{name}=={BETAS[age]}" for name in ("core", "redis"))
    return environment(f"agent-framework-{age}-beta", *packages)


def oldest() -> Path:
    return environment("agent-framework-oldest", *OLDEST)


def test_the_oldest_of_1(valkey_server: RedisServer) -> None:
    names = ("test_messages.py", "test_history.py", "test_context.py", "test_checkpoints.py")
    files = [str(HERE / name) for name in names]
    said = run_tests(oldest(), *files, AGENT_STORES_TEST_REDIS=valkey_server.url)
    assert not re.search(r"[1-9]\d* skipped", said)


@pytest.mark.parametrize("age", BETAS)
def test_a_beta(age: str, valkey_server: RedisServer) -> None:
    said = run_tests(
        beta(age),
        str(HERE / "test_messages.py"),
        str(HERE.parent / "agent_framework_beta"),
        AGENT_STORES_TEST_REDIS=valkey_server.url,
        AGENT_STORES_TEST_BETA="1",
    )
    assert not re.search(r"[1-9]\d* skipped", said)


def test_the_extra_of_the_betas_installs_the_newest_of_them() -> None:
    (wanted,) = re.findall(
        r'^agent-framework-beta = \["([^"]*)"\]$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE
    )
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed"]
    done = subprocess.run(
        [*command, "--quiet", "--disable-pip-version-check", "--report", "-", wanted],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["install"]
    assert found["metadata"]["version"] == BETAS["newest"]


@pytest.mark.parametrize("age", BETAS)
def test_the_sample_of_the_betas(age: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(beta(age)), "-W", "error", str(REPOSITORY / "samples" / "agent_framework_beta_thread.py")],
        env={name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == ["agent: Your name is Alice.", "4 messages in the thread"]


def test_homes_without_their_version() -> None:
    def importing(python: Path | str, module: str) -> str:
        code = f"import {module}"
        return subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=REPOSITORY).stderr

    betas = "agent_stores.agent_framework_beta"
    assert "pip install 'agent-stores[agent-framework-beta]'" in importing(sys.executable, betas)
    assert "pip install 'agent-stores[agent-framework]'" in importing(
        beta("newest"), "agent_stores.agent_framework"
    )
    assert importing(sys.executable, "agent_stores.agent_framework") == ""
    assert importing(beta("newest"), betas) == ""


def exchange(python: Path | str, action: str, url: str) -> tuple[dict[str, dict[str, Any]], str]:
    """What a version says of the messages, by their id, and what it logs."""
    command = [str(python), "-W", "ignore", str(HERE / "exchange.py"), action, url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return {message["message_id"]: message for message in json.loads(done.stdout)}, done.stderr


SHARED = (
    "type",
    "text",
    "protected_data",
    "uri",
    "media_type",
    "call_id",
    "name",
    "arguments",
    "id",
    "approved",
)


def meaning(message: dict[str, Any]) -> dict[str, Any]:
    """What a message says in any of the versions."""

    def of_content(content: dict[str, Any]) -> dict[str, Any]:
        said = {name: content[name] for name in SHARED if content.get(name) is not None}
        if content["type"] == "function_result":
            said["result"] = content.get("result") or ""
            if not isinstance(said["result"], str):
                said["result"] = json.dumps(said["result"], ensure_ascii=False)
            said["failed"] = content.get("exception") is not None
        if isinstance(content.get("function_call"), dict):
            said["function_call"] = of_content(content["function_call"])
        return said

    role = message["role"]
    return {
        "role": role["value"] if isinstance(role, dict) else role,
        "author_name": message.get("author_name"),
        "additional_properties": message["additional_properties"],
        "contents": [of_content(content) for content in message["contents"]],
    }


def this() -> Path:
    return Path(sys.executable)


PAIRS: dict[str, tuple[Callable[[], Path], Callable[[], Path]]] = {
    "to the oldest 1.x": (this, oldest),
    "to the newest beta": (this, partial(beta, "newest")),
    "from the newest beta": (partial(beta, "newest"), this),
    "from the oldest beta": (partial(beta, "oldest"), this),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_conversation_changes_versions(pair: str, tmp_path: Path) -> None:
    """What one version wrote, the other reads, and the first reads it again exactly."""
    writer, reader = (make() for make in PAIRS[pair])
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    written, _ = exchange(writer, "write", url)
    read, said = exchange(reader, "read", url)
    assert exchange(writer, "read", url)[0] == written
    assert list(read) == list(written)
    unknown = 0
    for message_id, message in written.items():
        if len(read[message_id]["contents"]) < len(message["contents"]):
            unknown += 1
            kind = message["contents"][0]["type"]
            assert f"a part of type 'agent_framework.{kind}'" in said
        else:
            assert meaning(read[message_id]) == meaning(message)
    if pair.startswith("from"):
        assert (unknown, said) == (0, "")
    else:
        assert unknown > 0
