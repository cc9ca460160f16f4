"""The demonstration, as its users run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent_stores.cli import ExitCode
from agent_stores.cli.demo_step import NAME
from agent_stores.testing.model_server import ModelServer
from agent_stores.testing.scripted_model import RULES, Prompt, Reply

pytestmark = pytest.mark.timeout(120)


def demo(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "AGENT_STORES_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "agent_stores.cli", "demo", *arguments],
        env={**clean, "COLUMNS": "80", "TMPDIR": str(folder), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def command(*arguments: str) -> str:
    """The output of another command."""
    result = subprocess.run(
        [sys.executable, "-m", "agent_stores.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout


def test_the_conversation_goes_on_in_another_process(tmp_path: Path) -> None:
    store = tmp_path / "chat.db"
    result = demo(tmp_path, "--store", str(store))
    assert result.stderr == ""
    assert result.returncode == ExitCode.OK
    assert f"Your name is {NAME}." in result.stdout.split("2. Another process")[1].split("3. ")[0]
    processes = re.findall(r"[Pp]rocess \(?(\d+)", result.stdout)
    assert len(set(processes)) == 3
    assert "max_messages=6 keeps 6, #4 to #9: call and result both stay" in result.stdout
    assert "max_messages=5 keeps 4, #6 to #9: #5 alone would lack its call" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert {file.name.partition("-")[0] for file in tmp_path.iterdir()} == {"chat.db"}
    assert command("threads", "--json", "--store", str(store)) == ""


def test_the_conversation_can_be_kept(tmp_path: Path) -> None:
    result = demo(tmp_path, "--keep")
    assert result.returncode == ExitCode.OK
    hint = re.search(r"agent-stores (show \S+ --store \S+)", result.stdout)
    assert hint
    assert f"my name is {NAME}" in command(*hint[1].split())


def test_a_model_that_does_not_know_the_name_fails_the_demonstration(tmp_path: Path) -> None:
    def forget(prompt: Prompt) -> Reply | None:
        return Reply("I have no idea.") if "my name?" in prompt.question else None

    with ModelServer(rules=[forget, *RULES]) as server:
        result = demo(
            tmp_path,
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY=server.api_key,
            OPENAI_MODEL="test-model",
        )
    assert result.returncode == ExitCode.FAILED
    assert "I have no idea." in result.stdout
    assert "not restored" in result.stdout


def test_a_model_that_fails_is_reported_in_one_line(tmp_path: Path) -> None:
    with ModelServer() as server:
        server.fail_next(400, "no such luck", times=9)
        result = demo(
            tmp_path,
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY=server.api_key,
            OPENAI_MODEL="test-model",
        )
    assert result.returncode == ExitCode.FAILED
    assert "no such luck" in result.stderr
    assert result.stderr.count("\n") == 1
